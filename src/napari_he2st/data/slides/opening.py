"""Finding the reader of a file, and what can be said without reading its pixels."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from napari_he2st.core.errors import SlideError
from napari_he2st.data.slides.pixel_size import choose_mpp, contradiction
from napari_he2st.data.slides.source import SLIDE_READERS, DamagedSlideError, Source


def probe(path: str | Path) -> dict[str, Any]:
    """What is known of a slide, without needing its pixel size.

    Returns
    -------
        JSON-able: ``name``, ``format``, ``size`` [width, height], ``levels``, ``tile`` [width, height],
        ``compression``, ``mpp`` (None where not stated), ``mpp_source``, ``mpp_notes`` (statements that
        contradict it or were ignored), ``objective_power``, ``bytes``, and facts of the format. Nothing of
        the patient, no path and no description.

    Raises
    ------
    SlideError
        See :meth:`Slide.open`.
    """
    path = Path(path)
    source = open_source(path)
    try:
        chosen, _ = choose_mpp(source.facts.pixel_sizes)
        if chosen is None:
            return describe(path, source, None, None)
        return describe(path, source, chosen.mpp, f"metadata: {chosen.source}")
    finally:
        source.close()


def open_source(path: Path) -> Source:
    """Ask all readers in turn.

    Raises
    ------
    SlideError
        None can open the file (the message says what each found), or it is damaged.
    """
    if not path.exists():
        raise SlideError("There is no such file", where=path, todo="Check the path")
    if path.is_dir():
        raise SlideError("This is a folder, not a slide", where=path, todo="Name the slide's file")
    try:
        with path.open("rb") as file:
            empty = not file.read(1)
    except OSError as error:
        raise SlideError(f"The file cannot be read ({error.strerror})", where=path, todo="Check permissions") from error
    if empty:
        raise SlideError("The file is empty", where=path, todo="Copy or download it again")
    tried = []
    for reader in sorted(SLIDE_READERS, key=lambda entry: entry.facts.get("order", 50)):
        try:
            source: Source = reader.function(path)
        except DamagedSlideError:
            raise
        except SlideError as error:
            tried.append(f"{reader.name}: {error}")
        else:
            return source
    message = f"No reader can open this file ({'; '.join(tried)})"
    raise SlideError(message, where=path, todo="Check that it is a slide and was copied completely")


def slide_name(path: Path) -> str:
    """File name without its suffix (or ``.ome.tif``)."""
    return path.stem.removesuffix(".ome")


def describe(path: Path, source: Source, mpp: float | None, mpp_source: str | None) -> dict[str, Any]:
    """The facts that :func:`probe` lists, for a pixel size from the file or from a caller (``"given"``)."""
    facts, first = source.facts, source.levels[0]
    chosen, notes = choose_mpp(facts.pixel_sizes)
    if mpp is not None and mpp_source == "given" and chosen is not None:
        note = contradiction(mpp, "The given pixel size", chosen)
        notes = [*([note] if note else []), *notes]
    return {
        "name": slide_name(path),
        "format": facts.format,
        "size": [first.width, first.height],
        "levels": [{"width": v.width, "height": v.height, "downsample": v.downsample} for v in source.levels],
        "tile": [first.tile_width, first.tile_height],
        "compression": facts.compression,
        "mpp": mpp,
        "mpp_source": mpp_source,
        "mpp_notes": notes,
        "objective_power": facts.objective_power,
        "bytes": path.stat().st_size,
        **facts.more,
    }
