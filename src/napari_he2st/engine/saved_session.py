"""What a session's folder holds, and reading what it says.

::

    NAME.he2st-session/
        session.json       what was open, and what was chosen
        results/*.h5ad     results that are not in a file of their own
        domains/*.npz      labels, names and colours
        derived/*.npz      scores of signatures and other computed maps
        nuclei/*.npz       label images
        regions/*.geojson

Opening has three parts, so that a window stays alive and can ask: :func:`read_session` here (a small file),
then :func:`~napari_he2st.engine.open_session.open_session` (everything heavy, off the GUI thread) and
:func:`~napari_he2st.engine.open_session.restore`.
"""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from napari_he2st.core.errors import SessionError

SUFFIX = ".he2st-session"
"""How the folder's name ends."""
FILE, FORMAT = "session.json", 1
PARTS = ("results", "domains", "derived", "nuclei", "regions")
"""Folders in the folder."""

_LARGEST = 64 << 20  # bytes of session.json


@dataclass(frozen=True)
class SavedSlide:
    """A slide of a saved session.

    Attributes
    ----------
    name
        What it is called.
    path
        Where its file was, or its address.
    beside
        Where that is from the session's folder, for those that move together; empty where there is no way.
    fingerprint
        By which it is recognised elsewhere.
    mpp
        Micrometres per level-0 pixel, as it was used.
    icc
        Whether colours were converted by the file's profile.
    tissue
        What :func:`~napari_he2st.data.slides.tissue.tissue_mask` was told, or None where tissue was not looked for.
    landmarks
        Those that were set, level-0 pixels (x, y), by side.
    regions, nuclei
        Files in the session's folder, or empty.
    """

    name: str
    path: str
    beside: str
    fingerprint: str
    mpp: float
    icc: bool = True
    tissue: dict[str, Any] | None = None
    landmarks: dict[str, list[list[float]]] = field(default_factory=dict)
    regions: str = ""
    nuclei: str = ""


@dataclass(frozen=True)
class SavedResult:
    """A result of a saved session.

    Attributes
    ----------
    name, slide
        What it is called, and the slide it lies on.
    file
        Its h5ad file, in the session's folder or elsewhere; empty where it is made again.
    fingerprint
        Of a file elsewhere, by which a change is noticed; empty of one in the folder.
    warnings
        What the user has to know when reading it.
    domains
        File in the session's folder, or empty.
    made
        ``function`` and ``told`` of :class:`~napari_he2st.engine.session_items.Made`, or None.
    way
        How the spots of one that is made again were moved, shape (3, 3), or None.
    derived
        File of the maps that were computed from its genes, in the session's folder, or empty.
    """

    name: str
    slide: str
    file: str
    fingerprint: str = ""
    warnings: list[str] = field(default_factory=list)
    domains: str = ""
    made: dict[str, Any] | None = None
    way: list[list[float]] | None = None
    derived: str = ""


@dataclass(frozen=True)
class SavedSession:
    """What a session's folder says.

    Attributes
    ----------
    folder
        The folder.
    slides, results
        What was open.
    current
        ``slide``, ``result`` and ``gene`` that were chosen.
    look
        What the window keeps there: layers, camera, docks.
    left_out
        Names of results that were open and could not be saved.
    registered
        Slides that were brought into register: which one, onto which, and the matrix, shape (3, 3).
    """

    folder: Path
    slides: list[SavedSlide]
    results: list[SavedResult]
    current: dict[str, str | None]
    look: dict[str, Any]
    left_out: list[str]
    registered: list[tuple[str, str, list[list[float]]]]

    def place_of(self, slide: SavedSlide) -> Path | str | None:
        """Where the slide's file is now: its old place, or the same way from the folder; None if it is in neither."""
        from napari_he2st.data.slides.opening import is_address

        if is_address(slide.path):
            return slide.path
        places = [Path(slide.path)] + ([self.folder / slide.beside] if slide.beside else [])
        return next((place for place in places if place.exists()), None)

    def inside(self, way: str) -> Path:
        """A file of the session's folder; no way leads out of it."""
        file = (self.folder / way).resolve()
        if not file.is_relative_to(self.folder.resolve()):
            raise SessionError("The session names a file outside of its folder", where=way, todo="Do not open it")
        return file

    @property
    def missing(self) -> list[SavedSlide]:
        """Slides whose files are not found."""
        return [slide for slide in self.slides if self.place_of(slide) is None]


def named(folder: str | Path) -> Path:
    """The folder's name with the ending of sessions."""
    folder = Path(folder)
    return folder if folder.name.endswith(SUFFIX) else folder.with_name(folder.name + SUFFIX)


def read_session(folder: str | Path) -> SavedSession:
    """What a session's folder says, without opening anything.

    Raises
    ------
    SessionError
        It is no session's folder, damaged, or of a later version.
    """
    folder = Path(folder)
    file = folder / FILE
    todo = f"Choose a folder that ends with {SUFFIX}"
    try:
        if file.stat().st_size > _LARGEST:
            raise SessionError("The session's file is too large to be one", where=file, todo=todo)
        text = json.loads(file.read_text(encoding="utf-8"))
        if text["he2st_session"] != FORMAT:
            message = f"This session was saved by another version (format {text['he2st_session']}, not {FORMAT})"
            raise SessionError(message, where=folder, todo="Update napari-he2st")
        current = {key: text["current"].get(key) for key in ("slide", "result", "gene")}
        slides = [SavedSlide(**slide) for slide in text["slides"]]
        results = [SavedResult(**result) for result in text["results"]]
        look, left_out = dict(text["look"]), [str(name) for name in text["left_out"]]
        registered = [(str(moving), str(fixed), matrix) for moving, fixed, matrix in text["registered"]]
    except FileNotFoundError:
        raise SessionError("There is no session in this folder", where=folder, todo=todo) from None
    except OSError as error:
        raise SessionError(f"The session cannot be read ({error.strerror})", where=file, todo=todo) from error
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise SessionError(
            f"The session's file is damaged ({error})", where=file, todo="Open the slides anew"
        ) from error
    return SavedSession(folder, slides, results, current, look, left_out, registered)
