"""A session in a folder: slides by path and fingerprint, results by file, and all that a person made by hand.

::

    NAME.he2st-session/
        session.json       what was open, and what was chosen
        results/*.h5ad     results that are not in a file of their own
        domains/*.npz      labels, names and colours
        nuclei/*.npz       label images
        regions/*.geojson

New files are written beside the old ones, then ``session.json`` is replaced, then files that it does not
name are removed: whenever this ends, the folder holds one whole session.

Opening has three parts, so that a window stays alive and can ask: :func:`read_session` (a small file),
:func:`open_session` (everything heavy, off the GUI thread), and :func:`restore`.
"""

from __future__ import annotations

import json
import os
import secrets
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from napari_he2st.core.atomic import atomic_write
from napari_he2st.core.errors import OutputError, SessionError
from napari_he2st.core.progress import Control, Progress
from napari_he2st.core.schema import facts_of
from napari_he2st.core.types import Domains, Nuclei, Region

if TYPE_CHECKING:
    from anndata import AnnData

    from napari_he2st.data.slides import Slide
    from napari_he2st.data.slides.tissue import TissueMask
    from napari_he2st.engine.session import Session

SUFFIX = ".he2st-session"
"""How the folder's name ends."""

_FILE, _FORMAT = "session.json", 1
_LARGEST = 64 << 20  # bytes of session.json
_PARTS = ("results", "domains", "nuclei", "regions")
_TISSUE = ("threshold", "min_area_um2", "close_um", "drop_pen", "drop_blur")


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
        Its h5ad file, in the session's folder or elsewhere.
    fingerprint
        Of a file elsewhere, by which a change is noticed; empty of one in the folder.
    warnings
        What the user has to know when reading it.
    domains
        File in the session's folder, or empty.
    """

    name: str
    slide: str
    file: str
    fingerprint: str = ""
    warnings: list[str] = field(default_factory=list)
    domains: str = ""


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
    """

    folder: Path
    slides: list[SavedSlide]
    results: list[SavedResult]
    current: dict[str, str | None]
    look: dict[str, Any]

    def place_of(self, slide: SavedSlide) -> Path | str | None:
        """Where the slide's file is now: its old place, or the same way from the folder; None if it is in neither."""
        from napari_he2st.data.slides.opening import is_address

        if is_address(slide.path):
            return slide.path
        places = [Path(slide.path)] + ([self.folder / slide.beside] if slide.beside else [])
        return next((place for place in places if place.exists()), None)

    @property
    def missing(self) -> list[SavedSlide]:
        """Slides whose files are not found."""
        return [slide for slide in self.slides if self.place_of(slide) is None]


@dataclass(frozen=True)
class OpenedSession:
    """The parts of a saved session, read and ready to be shown.

    Attributes
    ----------
    saved
        What it was read from.
    slides
        Slide, tissue and nuclei by name.
    results
        Expression by name, with the file it lies in and what has to be said of it.
    """

    saved: SavedSession
    slides: dict[str, tuple[Slide, TissueMask | None, Nuclei | None]]
    regions: dict[str, list[Region]]
    results: dict[str, tuple[AnnData, Path, list[str]]]
    domains: dict[str, Domains]


# --- saving


def save_session(
    session: Session,
    folder: str | Path,
    *,
    look: Mapping[str, Any] | None = None,
    force: bool = False,
    quick: bool = False,
    progress: Progress | None = None,
) -> list[str]:
    """Write a session to a folder.

    Parameters
    ----------
    session
        What is saved; it is not changed, but remembers where its results lie now.
    folder
        Its name gets the ending ``.he2st-session`` if it has none.
    look
        What the window wants to find again, as JSON.
    force
        Save again into a folder that holds a session.
    quick
        Take no time: leave out results that are in no file, nuclei, and embeddings of domains.
    progress
        Told of every result.

    Returns
    -------
        Names of results that were left out: those still running, and if ``quick`` those in no file.

    Raises
    ------
    OutputError
        The folder holds something else, or a session and ``force`` is not given, or it cannot be written.
    """
    progress = progress or Control()
    folder = named(folder)
    _check_folder(folder, force)
    kept: set[str] = set()
    left_out = []
    slides = [_save_slide(session, name, folder, kept, quick) for name in session.slides]
    results = []
    progress.start(len(session.results), "Saving results")
    for result in session.results.values():
        progress.advance(0)
        if result.adata is None or (result.file is None and quick):
            left_out.append(result.name)
            continue
        if result.file is None or not result.file.exists():
            result.file = _new(folder, "results", ".h5ad")
            with atomic_write(result.file) as aside:
                _write_h5ad(result.adata, aside)
        inside = result.file.parent == folder / "results"
        place = _within(result.file, folder, kept) if inside else str(result.file.resolve())
        domains = session.domains.get(result.name)
        results.append(
            SavedResult(
                result.name,
                result.slide,
                place,
                "" if inside else _fingerprint(result.file),
                list(result.warnings),
                "" if domains is None else _within(_save_domains(domains, folder, quick), folder, kept),
            )
        )
        progress.advance()
    text = {
        "he2st_session": _FORMAT,
        "date": datetime.now(UTC).isoformat(timespec="seconds"),
        "slides": [asdict(slide) for slide in slides],
        "results": [asdict(result) for result in results],
        "current": {"slide": session.slide, "result": session.result, "gene": session.gene},
        "look": dict(look or {}),
    }
    with atomic_write(folder / _FILE, force=True) as aside:
        aside.write_text(json.dumps(text, indent=1), encoding="utf-8")
    for part in _PARTS:
        for file in (folder / part).glob("*"):
            if file.is_file() and f"{part}/{file.name}" not in kept:
                file.unlink()
    return left_out


def named(folder: str | Path) -> Path:
    """The folder's name with the ending of sessions."""
    folder = Path(folder)
    return folder if folder.name.endswith(SUFFIX) else folder.with_name(folder.name + SUFFIX)


def _check_folder(folder: Path, force: bool) -> None:
    if not folder.parent.is_dir():
        raise OutputError("The folder of the output does not exist", where=folder.parent, todo="Create it first")
    if folder.exists() and not folder.is_dir():
        raise OutputError("This is a file, not the folder of a session", where=folder, todo="Choose another name")
    if (folder / _FILE).exists() and not force:
        raise OutputError("There is a session of that name", where=folder, todo="Choose another name or replace it")
    if folder.exists() and not (folder / _FILE).exists() and any(folder.iterdir()):
        raise OutputError("This folder holds something else", where=folder, todo="Choose another name")
    try:
        for part in _PARTS:
            (folder / part).mkdir(parents=True, exist_ok=True)
    except OSError as error:
        message = f"The folder cannot be made ({error.strerror})"
        raise OutputError(message, where=folder, todo="Check free disk space and permissions") from error


def _save_slide(session: Session, name: str, folder: Path, kept: set[str], quick: bool) -> SavedSlide:
    from napari_he2st.data.geojson import write_regions

    item = session.slides[name]
    slide = item.slide
    local = isinstance(slide.path, Path)
    regions = nuclei = ""
    if session.regions.get(name):
        file = _new(folder, "regions", ".geojson")
        write_regions(file, session.regions[name])
        regions = _within(file, folder, kept)
    if item.nuclei is not None and not quick:
        file = _new(folder, "nuclei", ".npz")
        with atomic_write(file) as aside:
            np.savez_compressed(aside, labels=item.nuclei.labels, mpp=item.nuclei.mpp)
        nuclei = _within(file, folder, kept)
    params = None if item.mask is None else {k: item.mask.params[k] for k in _TISSUE if k in item.mask.params}
    return SavedSlide(
        name,
        str(Path(slide.path).resolve()) if local else str(slide.path),
        _way(folder, Path(slide.path)) if local else "",
        slide.fingerprint,
        slide.mpp,
        icc=slide.colours != "as stored",
        tissue=params,
        landmarks={side: np.asarray(xy).tolist() for side, xy in session.landmarks.get(name, {}).items()},
        regions=regions,
        nuclei=nuclei,
    )


def _way(folder: Path, path: Path) -> str:
    """The way from a folder to a file; empty where there is none, such as to another drive."""
    try:
        return Path(os.path.relpath(path.resolve(), folder.resolve())).as_posix()
    except ValueError:
        return ""


def _save_domains(domains: Domains, folder: Path, quick: bool) -> Path:
    file = _new(folder, "domains", ".npz")
    facts = {"params": domains.params, "names": domains.names, "colours": domains.colours}
    arrays: dict[str, NDArray] = {"labels": domains.labels.astype(np.int32), "facts": np.array(json.dumps(facts, default=_plain))}
    if domains.embedding is not None and not quick:
        arrays["embedding"] = domains.embedding
    with atomic_write(file) as aside:
        np.savez(aside, allow_pickle=False, **arrays)
    return file


def _plain(value: Any) -> Any:
    """Numbers and arrays of numpy as JSON has them."""
    return value.tolist() if hasattr(value, "tolist") else str(value)


def _new(folder: Path, part: str, suffix: str) -> Path:
    return folder / part / f"{secrets.token_hex(8)}{suffix}"


def _write_h5ad(adata: AnnData, path: Path) -> None:
    from napari_he2st.data.export.h5ad import sharing

    sharing(adata).write_h5ad(path)


def _within(file: Path, folder: Path, kept: set[str]) -> str:
    """The way of a file in the folder, which is kept."""
    way = file.relative_to(folder).as_posix()
    kept.add(way)
    return way


def _fingerprint(file: Path) -> str:
    from napari_he2st.data.slides.fingerprint import fingerprint_of

    return fingerprint_of(file)


# --- opening


def read_session(folder: str | Path) -> SavedSession:
    """What a session's folder says, without opening anything.

    Raises
    ------
    SessionError
        It is no session's folder, damaged, or of a later version.
    """
    folder = Path(folder)
    file = folder / _FILE
    todo = f"Choose a folder that ends with {SUFFIX}"
    try:
        if file.stat().st_size > _LARGEST:
            raise SessionError("The session's file is too large to be one", where=file, todo=todo)
        text = json.loads(file.read_text(encoding="utf-8"))
        if text["he2st_session"] != _FORMAT:
            message = f"This session was saved by another version (format {text['he2st_session']}, not {_FORMAT})"
            raise SessionError(message, where=folder, todo="Update napari-he2st")
        current = {key: text["current"].get(key) for key in ("slide", "result", "gene")}
        slides = [SavedSlide(**slide) for slide in text["slides"]]
        results = [SavedResult(**result) for result in text["results"]]
        look = dict(text["look"])
    except FileNotFoundError:
        raise SessionError("There is no session in this folder", where=folder, todo=todo) from None
    except OSError as error:
        raise SessionError(f"The session cannot be read ({error.strerror})", where=file, todo=todo) from error
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise SessionError(f"The session's file is damaged ({error})", where=file, todo="Open the slides anew") from error
    return SavedSession(folder, slides, results, current, look)


def open_session(
    saved: SavedSession, places: Mapping[str, Path] | None = None, *, progress: Progress | None = None
) -> OpenedSession:
    """Open everything that a saved session names.

    Parameters
    ----------
    saved
        From :func:`read_session`.
    places
        Where the user says that slides are now, by their names; of those that are missing and not here, nothing
        is opened.
    progress
        Told of every slide and result, and of what could not be opened.

    Raises
    ------
    SessionError
        A file in ``places`` is another slide.
    """
    progress = progress or Control()
    slides: dict[str, tuple[Slide, TissueMask | None, Nuclei | None]] = {}
    regions: dict[str, list[Region]] = {}
    opened: dict[str, tuple[AnnData, Path, list[str]]] = {}
    domains: dict[str, Domains] = {}
    progress.start(len(saved.slides) + len(saved.results), "Opening the session")
    try:
        for slide in saved.slides:
            place = (places or {}).get(slide.name) or saved.place_of(slide)
            if place is None:
                progress.note(f"{slide.name} was not found and is left out, with its results")
            else:
                slides[slide.name] = _open_slide(saved, slide, place)
                regions[slide.name] = _regions(saved, slide)
            progress.advance()
        for result in saved.results:
            if result.slide in slides:
                fingerprint = slides[result.slide][0].fingerprint
                opened[result.name] = _open_result(saved, result, fingerprint)
                if result.domains:
                    domains[result.name] = _read_domains(_inside(saved, result.domains))
            progress.advance()
    except BaseException:
        for slide_, *_ in slides.values():
            slide_.close()
        raise
    return OpenedSession(saved, slides, regions, opened, domains)


def _open_slide(saved: SavedSession, known: SavedSlide, place: Path | str) -> tuple[Slide, TissueMask | None, Nuclei | None]:
    from napari_he2st.data.slides import Slide
    from napari_he2st.data.slides.tissue import tissue_mask

    slide = Slide.open(place, mpp=known.mpp, icc=known.icc, name=known.name)
    if slide.fingerprint != known.fingerprint:
        slide.close()
        todo = f"Choose the file that {known.name} was opened from"
        raise SessionError(f"This is not the slide {known.name} of the session", where=str(place), todo=todo)
    _ = slide.drawn()[-1][...]  # not in the GUI thread
    mask = None if known.tissue is None else tissue_mask(slide, **known.tissue)
    nuclei = None
    if known.nuclei:
        with np.load(_inside(saved, known.nuclei), allow_pickle=False) as arrays:
            nuclei = Nuclei.of(arrays["labels"], float(arrays["mpp"]))
    return slide, mask, nuclei


def _regions(saved: SavedSession, known: SavedSlide) -> list[Region]:
    from napari_he2st.data.geojson import read_regions

    return read_regions(_inside(saved, known.regions)) if known.regions else []


def _open_result(saved: SavedSession, known: SavedResult, fingerprint: str) -> tuple[AnnData, Path, list[str]]:
    import anndata as ad

    file = _inside(saved, known.file) if not known.fingerprint else Path(known.file)
    if not file.exists():
        todo = "Put it back, or open the slide without the session"
        raise SessionError(f"The file of {known.name} is gone", where=file, todo=todo)
    warnings = list(known.warnings)
    if known.fingerprint and _fingerprint(file) != known.fingerprint:
        warnings.append(f"{file.name} was changed after the session was saved")
    adata = ad.read_h5ad(file)
    if facts_of(adata).get("slide_fingerprint", fingerprint) != fingerprint:
        warnings.append("It was predicted from another version of this slide")
    return adata, file, [*dict.fromkeys(warnings)]


def _read_domains(file: Path) -> Domains:
    with np.load(file, allow_pickle=False) as arrays:
        facts = json.loads(str(arrays["facts"]))
        embedding = arrays["embedding"] if "embedding" in arrays else None
        names, colours = (None if facts[key] is None else tuple(facts[key]) for key in ("names", "colours"))
        return Domains(arrays["labels"].astype(np.intp), facts["params"], embedding, names, colours)


def _inside(saved: SavedSession, way: str) -> Path:
    """A file of the session's folder; no way leads out of it."""
    file = (saved.folder / way).resolve()
    if not file.is_relative_to(saved.folder.resolve()):
        raise SessionError("The session names a file outside of its folder", where=way, todo="Do not open it")
    return file


def restore(session: Session, opened: OpenedSession) -> None:
    """Put what was opened into a session, beside what it holds already."""
    names: dict[str, str] = {}
    for slide in opened.saved.slides:
        if slide.name not in opened.slides:
            continue
        found, mask, nuclei = opened.slides[slide.name]
        item = session.add_slide(found)
        names[slide.name] = item.name
        if mask is not None:
            session.set_mask(item.name, mask)
        if nuclei is not None:
            session.set_nuclei(item.name, nuclei)
        if opened.regions[slide.name]:
            session.set_regions(item.name, opened.regions[slide.name])
        if slide.landmarks:
            marks = {side: np.asarray(xy, dtype=np.float64).reshape(-1, 2) for side, xy in slide.landmarks.items()}
            session.set_landmarks(item.name, marks)
    results: dict[str, str] = {}
    for name, (adata, file, warnings) in opened.results.items():
        slide_name = next(r.slide for r in opened.saved.results if r.name == name)
        result = session.add_adata(adata, names[slide_name], name=name, warnings=tuple(warnings))
        result.file = file
        results[name] = result.name
        if name in opened.domains:
            session.set_domains(result.name, opened.domains[name])
    current = opened.saved.current
    chosen = {"slide": names.get(current["slide"] or ""), "result": results.get(current["result"] or "")}
    session.select(**{key: value for key, value in chosen.items() if value is not None}, gene=current["gene"])
