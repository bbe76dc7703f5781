"""Opening a saved session."""

from __future__ import annotations

import json
import zipfile
from collections.abc import Mapping
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from napari_he2st.core.errors import He2stError, SessionError
from napari_he2st.core.progress import Control, Progress
from napari_he2st.core.schema import facts_of
from napari_he2st.core.types import Domains, Nuclei, Region, Transform
from napari_he2st.data.slides.fingerprint import fingerprint_of
from napari_he2st.engine.saved_session import SavedResult, SavedSession, SavedSlide
from napari_he2st.engine.session_items import Derived, Made

if TYPE_CHECKING:
    from anndata import AnnData

    from napari_he2st.data.slides import Slide
    from napari_he2st.data.slides.tissue import TissueMask
    from napari_he2st.engine.session import Session

_MOST_BYTES = 4 << 30  # of one file's arrays


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
    domains, derived
        Of results, by their names.
    """

    saved: SavedSession
    slides: dict[str, tuple[Slide, TissueMask | None, Nuclei | None]]
    regions: dict[str, list[Region]]
    results: dict[str, tuple[AnnData, Path | None, list[str]]]
    domains: dict[str, Domains]
    derived: dict[str, dict[str, Derived]]


def open_session(
    saved: SavedSession, places: Mapping[str, Path] | None = None, *, control: Progress | None = None
) -> OpenedSession:
    """Open everything that a saved session names.

    Parameters
    ----------
    saved
        From :func:`read_session`.
    places
        Where the user says that slides are now, by their names; of those that are missing and not here, nothing
        is opened.
    control
        Told of every slide and result, and of what could not be opened.

    Raises
    ------
    SessionError
        A file in ``places`` is another slide.
    """
    control = control or Control()
    slides: dict[str, tuple[Slide, TissueMask | None, Nuclei | None]] = {}
    regions: dict[str, list[Region]] = {}
    opened: dict[str, tuple[AnnData, Path | None, list[str]]] = {}
    domains: dict[str, Domains] = {}
    derived: dict[str, dict[str, Derived]] = {}
    control.start(len(saved.slides) + len(saved.results), "Opening the session")
    with ExitStack() as closing:  # should it be stopped, or be another slide
        for slide in saved.slides:
            place = (places or {}).get(slide.name) or saved.place_of(slide)
            if place is None:
                control.note(f"{slide.name} was not found and is left out, with its results")
            else:
                slides[slide.name] = _open_slide(saved, slide, place)
                closing.callback(slides[slide.name][0].close)
                regions[slide.name] = _regions(saved, slide)
            control.advance()
        for result in saved.results:
            if result.slide in slides:
                fingerprint = slides[result.slide][0].fingerprint
                try:
                    found = _open_result(saved, result, fingerprint)
                    groups = _read_domains(saved.inside(result.domains), found[0].n_obs) if result.domains else None
                    maps = _read_derived(saved.inside(result.derived), found[0].n_obs) if result.derived else {}
                except (He2stError, OSError, KeyError, ValueError) as error:  # the last three: a damaged file
                    control.note(f"{result.name} cannot be read and is left out. {error}")
                else:
                    opened[result.name], derived[result.name] = found, maps
                    if groups is not None:
                        domains[result.name] = groups
            control.advance()
        closing.pop_all()
    return OpenedSession(saved, slides, regions, opened, domains, derived)


def _open_slide(
    saved: SavedSession, known: SavedSlide, place: Path | str
) -> tuple[Slide, TissueMask | None, Nuclei | None]:
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
        arrays = _arrays(saved.inside(known.nuclei))
        nuclei = Nuclei.of(arrays["labels"], float(arrays["mpp"]))
    return slide, mask, nuclei


def _regions(saved: SavedSession, known: SavedSlide) -> list[Region]:
    from napari_he2st.data.geojson import read_regions

    return read_regions(saved.inside(known.regions)) if known.regions else []


def _open_result(saved: SavedSession, known: SavedResult, fingerprint: str) -> tuple[AnnData, Path | None, list[str]]:
    import anndata as ad

    if not known.file:
        return _read_again(known), None, list(known.warnings)
    file = saved.inside(known.file) if not known.fingerprint else Path(known.file)
    if not file.exists():
        todo = "Put it back, or open the slide without the session"
        raise SessionError(f"The file of {known.name} is gone", where=file, todo=todo)
    warnings = list(known.warnings)
    if known.fingerprint and fingerprint_of(file) != known.fingerprint:
        warnings.append(f"{file.name} was changed after the session was saved")
    adata = ad.read_h5ad(file)
    if facts_of(adata).get("slide_fingerprint", fingerprint) != fingerprint:
        warnings.append("It was predicted from another version of this slide")
    return adata, file, [*dict.fromkeys(warnings)]


def _read_again(known: SavedResult) -> AnnData:
    """A measured section from where it was read, moved as it was."""
    from napari_he2st.data.truth import read_truth
    from napari_he2st.data.truth.fit import move

    told = dict((known.made or {}).get("told", {}))
    adata = read_truth(told.pop("path"), told.pop("name"), **told)
    way = np.eye(3) if known.way is None else np.asarray(known.way, dtype=np.float64)
    if not np.array_equal(way, np.eye(3)):
        move(adata, Transform(way), "as in the saved session")
    return adata


def _arrays(file: Path) -> dict[str, NDArray]:
    """The arrays of an npz file, which is refused where it says that they would not fit the memory."""
    try:
        with zipfile.ZipFile(file) as archive:
            size = sum(entry.file_size for entry in archive.infolist())
    except zipfile.BadZipFile as error:
        raise SessionError(f"The file is damaged ({error})", where=file, todo="Make it anew") from error
    if size > _MOST_BYTES:
        raise SessionError(f"It would take {size / 2**30:,.0f} GiB of memory", where=file, todo="Make it anew")
    with np.load(file, allow_pickle=False) as arrays:
        return dict(arrays)


def _read_domains(file: Path, n_spots: int) -> Domains:
    arrays = _arrays(file)
    facts = json.loads(str(arrays["facts"]))
    names, colours = (None if facts[key] is None else tuple(facts[key]) for key in ("names", "colours"))
    labels = arrays["labels"].astype(np.intp)
    if labels.shape != (n_spots,):
        raise SessionError(f"There are {labels.shape} labels for {n_spots} spots", where=file, todo="Run them again")
    return Domains(labels, facts["params"], arrays.get("embedding"), names, colours)


def _read_derived(file: Path, n_spots: int) -> dict[str, Derived]:
    arrays = _arrays(file)
    facts = json.loads(str(arrays["facts"]))
    values = arrays["values"].astype(np.float32)
    if values.shape != (len(facts), n_spots):
        raise SessionError(f"There are {values.shape} values for {n_spots} spots", where=file, todo="Make them again")
    return {label: Derived(row, unit, made_of) for (label, unit, made_of), row in zip(facts, values, strict=True)}


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
    results: dict[str, str] = {}
    known = {result.name: result for result in opened.saved.results}
    for name, (adata, file, warnings) in opened.results.items():
        how = known[name].made
        made = None if how is None else Made(**how)
        result = session.add_adata(adata, names[known[name].slide], name=name, warnings=tuple(warnings), made=made)
        result.file = file
        results[name] = result.name
        if name in opened.domains:
            session.set_domains(result.name, opened.domains[name])
        for label, derived in opened.derived.get(name, {}).items():
            session.add_derived(result.name, label, derived)
    for moving, fixed, matrix in opened.saved.registered:
        if moving in names and fixed in names:
            session.register_slide(names[moving], names[fixed], Transform(np.asarray(matrix, dtype=np.float64)))
    current = opened.saved.current
    chosen = {"slide": names.get(current["slide"] or ""), "result": results.get(current["result"] or "")}
    session.select(**{key: value for key, value in chosen.items() if value is not None}, gene=current["gene"])
    for slide in opened.saved.slides:
        if slide.name in names and slide.landmarks:
            marks = {side: np.asarray(xy, dtype=np.float64).reshape(-1, 2) for side, xy in slide.landmarks.items()}
            session.restore_landmarks(names[slide.name], marks)
