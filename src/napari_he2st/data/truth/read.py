"""Reading measured expression from wherever it lies."""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from napari_he2st.core.errors import TruthError, UnknownNameError
from napari_he2st.core.registry import Entry, unknown_name
from napari_he2st.data.truth.section import TRUTH_READERS, Detection, Section, Source

if TYPE_CHECKING:
    from anndata import AnnData


_MOST_CHILDREN = 100  # folders that are looked into below one that holds nothing itself


def parse_section(text: str) -> tuple[Path, str | None]:
    """Path and section name of ``PATH`` or ``PATH:NAME``; a path that exists as it stands has no name.

    A Windows drive letter is not mistaken for a path, and a name holds no slash.
    """
    head, colon, name = text.rpartition(":")
    has_name = bool(colon and head and name) and not re.search(r"[/\\]", name) and not re.fullmatch(r"[A-Za-z]", head)
    if not has_name or Path(text).exists():
        return Path(text), None
    return Path(head), name


def detect(path: str | Path) -> Detection:
    """Say which layout of measured expression a folder or file has, and which sections it holds.

    Raises
    ------
    TruthError
        The path does not exist, or no reader knows it; the message lists what each layout looks for.
    """
    path = Path(path)
    if not path.exists():
        raise TruthError("There is no such folder or file", where=path, todo="Check the path")
    detection, partial = _first(path)
    if detection is not None:
        return detection
    below = _below(path)
    if below is not None:
        return below
    if partial:
        parts = [f"{d.layout} (found {', '.join(d.found)}; missing {', '.join(d.missing)})" for d in partial]
        message = f"Measured expression is incomplete: {'; '.join(parts)}"
        raise TruthError(message, where=path, todo="Add the missing files")
    layouts = "; ".join(f"{entry.name}: {entry.facts['looks_for']}" for entry in _in_order())
    raise TruthError("No measured expression was found", where=path, todo=f"Give one of these layouts: {layouts}")


def _in_order() -> list[Entry]:
    return sorted(TRUTH_READERS, key=lambda entry: entry.facts["order"])


def _first(path: Path) -> tuple[Detection | None, list[Detection]]:
    """What the first reader finds that finds all it needs, and what others found in part."""
    partial: list[Detection] = []
    for entry in _in_order():
        detection: Detection | None = entry.facts["detect"](path)
        if detection is not None and detection.sections:
            return detection, partial
        if detection is not None:
            partial.append(detection)
    return None, partial


def _below(path: Path) -> Detection | None:
    """What lies one folder further in, where the path itself holds nothing that can be read.

    Raises
    ------
    TruthError
        Several folders hold something: the user has to name one.
    """
    if not path.is_dir():
        return None
    children = [child for child in sorted(path.iterdir()) if not child.name.startswith(".")][:_MOST_CHILDREN]
    found = [detection for child in children if (detection := _first(child)[0]) is not None]
    if len(found) > 1:
        names = ", ".join(f"{detection.root.name} ({detection.layout})" for detection in found[:8])
        todo = f"Name one, as in {found[0].root}"
        raise TruthError(f"Measured expression lies in {len(found)} places: {names}", where=path, todo=todo)
    return found[0] if found else None


def read_section(
    path: str | Path,
    name: str | None = None,
    *,
    mpp: float | None = None,
    layout: str | None = None,
    image: str | Path | None = None,
    image_scale: float | None = None,
    stand_in: bool = False,
    genes: Iterable[str] | None = None,
) -> Section:
    """Read one measured section.

    Parameters
    ----------
    path
        Folder or file; its layout is detected.
    name
        Name of the section, needed where there are several.
    mpp
        Micrometres per pixel of the image; by default from the files (spot pitch, scale factors).
    layout
        Name of the reader, to have no other tried.
    image
        Image that the section lies on, in place of the one of the layout.
    image_scale
        Pixels of ``image`` per pixel of the layout's own positions, where the files do not tell it.
    stand_in
        Whether one of the vendor's small pictures may take the place of an image that is not there: good to
        look at, too coarse to predict from.
    genes
        Symbols or identifiers of the only genes to read, where the layout can leave the others on disk.

    Raises
    ------
    TruthError
        Something is missing, damaged or does not fit together.
    GeneError
        Genes cannot be told apart.
    """
    if layout is None:
        detection: Detection | None = detect(path)
    else:
        detection = TRUTH_READERS[layout].facts["detect"](Path(path))
    if detection is None or not detection.sections:
        looks_for = TRUTH_READERS[layout].facts["looks_for"] if layout else ""
        raise TruthError(f"The layout is not {layout}", where=path, todo=f"Give {looks_for}")
    chosen = _choose(detection, name)
    wanted = None if genes is None else frozenset(genes)
    source = Source(mpp, None if image is None else Path(image), image_scale, stand_in, wanted)
    if source.image is not None and not source.image.is_file():
        raise TruthError("There is no such image", where=source.image, todo="Check the path")
    for what, value in (("Pixel size (mpp)", mpp), ("Image scale", image_scale)):
        if value is not None and not 0 < value < float("inf"):
            raise TruthError(f"{what} has to be above zero, not {value}", where=path)
    section: Section = TRUTH_READERS[detection.layout].function(detection, chosen, source)
    return replace(section, root=Path(path))


def read_truth(path: str | Path, name: str | None = None, **options: Any) -> AnnData:
    """Expression of one measured section; see :func:`read_section` for the options."""
    return read_section(path, name, **options).adata


def _choose(detection: Detection, name: str | None) -> str:
    sections = detection.sections
    if name is None:
        if detection.default is not None:
            return detection.default
        if len(sections) == 1:
            return sections[0]
        message = f"There are {len(sections)} sections: {', '.join(sections)}"
        raise TruthError(message, where=detection.root, todo=f"Name one, as in {detection.root}:{sections[0]}")
    if name not in sections:
        error: UnknownNameError = unknown_name("section", name, sections)
        raise TruthError(error.what, where=detection.root, todo=error.todo)
    return name
