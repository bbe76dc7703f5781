"""Finding the reader of a file, and what can be said without reading its pixels."""

from __future__ import annotations

import errno
from pathlib import Path
from typing import Any

from napari_he2st.core.errors import SlideError
from napari_he2st.data.slides.colour import profile_name
from napari_he2st.data.slides.fingerprint import fingerprint_of
from napari_he2st.data.slides.pixel_size import check_mpp, choose_mpp, contradiction
from napari_he2st.data.slides.remembered import remembered_mpp
from napari_he2st.data.slides.source import SLIDE_READERS, DamagedSlideError, OtherFormatError, Source


def probe(path: str | Path) -> dict[str, Any]:
    """What is known of a slide, without needing its pixel size.

    Returns
    -------
        JSON-able: ``name``, ``format``, ``size`` [width, height], ``levels``, ``tile`` [width, height],
        ``compression``, ``mpp`` (None where not stated), ``mpp_source``, ``mpp_notes`` (statements that
        contradict it or were ignored), ``objective_power``, ``icc`` (description of the colour profile, or
        None), ``associated`` (names of the other pictures in the file), ``bytes`` (None of a folder or an
        address), and facts of the format. Nothing of the patient, no path and no description.

    Raises
    ------
    SlideError
        See :meth:`Slide.open`.
    """
    path = located(path)
    source = open_source(path)
    try:
        return describe(path, source, *pixel_size_of(path, source))
    finally:
        source.close()


def pixel_size_of(path: Path | str, source: Source, given: float | None = None) -> tuple[float | None, str | None]:
    """Micrometres per level-0 pixel and where they come from; None where nothing usable is stated.

    What a caller gives comes first, then what the user has stated before, then the file's own statement.

    Raises
    ------
    SlideError
        ``given`` is not above zero.
    """
    if given is not None:
        return check_mpp(given), "given"
    stated = remembered_mpp(fingerprint_of(path, source.facts.identity))
    if stated is not None:
        return stated.mpp, f"stated on {stated.date}: {stated.source}"
    chosen, _ = choose_mpp(source.facts.pixel_sizes)
    return (None, None) if chosen is None else (chosen.mpp, f"metadata: {chosen.source}")


def located(path: str | Path) -> Path | str:
    """A local path, or the address of a remote slide as text."""
    text = str(path)
    if is_address(text):
        return text
    return Path(text.removeprefix("file://")) if text.startswith("file://") else Path(path)


def is_address(text: str) -> bool:
    """Whether a text is the address of something remote, such as ``s3://bucket/slide.zarr``."""
    scheme, separator, rest = text.partition("://")
    return bool(separator and rest) and scheme.isalnum() and scheme != "file"


def is_slide_folder(path: Path) -> bool:
    """Whether a folder is a slide of a format that lies in folders, such as OME-Zarr."""
    return path.is_dir() and any(reader.facts["folders"](path) for reader in SLIDE_READERS if "folders" in reader.facts)


def open_source(path: Path | str) -> Source:
    """Ask all readers in turn.

    Raises
    ------
    SlideError
        None can open the file (the message says what each found), or it is damaged.
    """
    readers = sorted(SLIDE_READERS, key=lambda entry: entry.facts.get("order", 50))
    if isinstance(path, str):
        readers = [reader for reader in readers if reader.facts.get("urls")]
    elif _is_folder(path):
        readers = [reader for reader in readers if "folders" in reader.facts and reader.facts["folders"](path)]
        if not readers:
            raise SlideError("This is a folder, not a slide", where=path, todo="Name the slide's file")
    else:
        _check_file(path)
    tried = []
    for reader in readers:
        try:
            source: Source = reader.function(path)
        except DamagedSlideError:
            raise
        except OtherFormatError:
            continue
        except SlideError as error:
            tried.append(f"{reader.name}: {error}")
        else:
            return source
    message = f"No reader can open this file ({'; '.join(tried)})"
    raise SlideError(message, where=path, todo="Check that it is a slide and was copied completely")


def _is_folder(path: Path) -> bool:
    """Whether a path that exists is a folder that can be listed."""
    try:
        path.stat()
        folder = path.is_dir()
        if folder:
            next(path.iterdir(), None)
    except FileNotFoundError:
        raise SlideError("There is no such file", where=path, todo="Check the path") from None
    except OSError as error:
        if error.errno == errno.ELOOP:
            raise SlideError("The link leads in a circle", where=path, todo="Name the file itself") from None
        message = f"The path cannot be read ({error.strerror})"
        raise SlideError(message, where=path, todo="Check the path and its permissions") from error
    return folder


def _check_file(path: Path) -> None:
    if not path.is_file():
        raise SlideError("This is neither a file nor a folder", where=path, todo="Name the slide's file")
    try:
        with path.open("rb") as file:
            empty = not file.read(1)
    except OSError as error:
        raise SlideError(f"The file cannot be read ({error.strerror})", where=path, todo="Check permissions") from error
    if empty:
        raise SlideError("The file is empty", where=path, todo="Copy or download it again")


def slide_name(path: Path | str) -> str:
    """File name without its suffix (or ``.ome.tif``, ``.ome.zarr``)."""
    name = path.rstrip("/").rpartition("/")[2].partition("?")[0] if isinstance(path, str) else path.name
    return Path(name).stem.removesuffix(".ome")


def describe(path: Path | str, source: Source, mpp: float | None, mpp_source: str | None) -> dict[str, Any]:
    """The facts that :func:`probe` lists, for a pixel size from the file or from a caller."""
    facts, first = source.facts, source.levels[0]
    chosen, notes = choose_mpp(facts.pixel_sizes)
    if mpp is not None and mpp_source is not None and not mpp_source.startswith("metadata") and chosen is not None:
        what = "The given pixel size" if mpp_source == "given" else f"The pixel size {mpp_source}"
        note = contradiction(mpp, what, chosen)
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
        "icc": None if facts.icc is None else profile_name(facts.icc),
        "associated": list(facts.associated),
        "bytes": path.stat().st_size if isinstance(path, Path) and path.is_file() else None,
        **facts.more,
    }
