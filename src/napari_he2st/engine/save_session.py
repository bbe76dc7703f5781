"""Saving a session.

New files are written beside the old ones, then ``session.json`` is replaced, then files that it does not
name are removed: whenever this ends, the folder holds one whole session.
"""

from __future__ import annotations

import json
import os
import secrets
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from napari_he2st.core.atomic import atomic_write
from napari_he2st.core.errors import OutputError
from napari_he2st.core.progress import Control, Progress
from napari_he2st.core.types import Domains, Grid
from napari_he2st.data.slides.fingerprint import fingerprint_of
from napari_he2st.engine.saved_session import FILE, FORMAT, PARTS, SavedResult, SavedSlide, named

if TYPE_CHECKING:
    from anndata import AnnData

    from napari_he2st.engine.session import Session
    from napari_he2st.engine.session_items import Result


@dataclass(frozen=True)
class Saved:
    """What was saved.

    Attributes
    ----------
    left_out
        Names of results that were left out: those still running, and of a quick save those in no file.
    files
        By the names of the others, the file that holds each, and the spots that it had then.
    """

    left_out: list[str]
    files: dict[str, tuple[Path, Grid]]

    def note(self, session: Session) -> None:
        """Let a session remember where its results lie, so that the next save is short.

        Called by whoever may change the session, which a thread that saves may not. What was moved meanwhile is in
        no file any more.
        """
        for name, (file, grid) in self.files.items():
            result = session.results.get(name)
            if result is not None and result.grid is grid:
                result.file = file


def save_session(
    session: Session,
    folder: str | Path,
    *,
    look: Mapping[str, Any] | None = None,
    force: bool = False,
    quick: bool = False,
    control: Progress | None = None,
) -> Saved:
    """Write a session to a folder.

    Parameters
    ----------
    session
        What is saved; it is not changed, see :meth:`Saved.note`.
    folder
        Its name gets the ending ``.he2st-session`` if it has none.
    look
        What the window wants to find again, as JSON.
    force
        Save again into a folder that holds a session.
    quick
        Take no time: leave out nuclei, embeddings of domains, and results that are neither in a file nor measured
        ones, which will be read again.
    control
        Told of every result.

    Raises
    ------
    OutputError
        The folder holds something else, or a session and ``force`` is not given, or it cannot be written.
    """
    control = control or Control()
    folder = named(folder)
    _check_folder(folder, force)
    kept: set[str] = set()
    left_out, files = [], {}
    slides = [_save_slide(session, name, folder, kept, quick) for name in list(session.slides)]
    results = []
    control.start(len(session.results), "Saving results")
    for result in list(session.results.values()):
        control.advance(0)
        grid = result.grid
        saved = _save_result(session, result, folder, kept, quick)
        if saved is None:
            left_out.append(result.name)
        else:
            results.append(saved)
            if saved.file:
                files[result.name] = folder / saved.file, grid
        control.advance()
    text = {
        "he2st_session": FORMAT,
        "date": datetime.now(UTC).isoformat(timespec="seconds"),
        "slides": [asdict(slide) for slide in slides],
        "results": [asdict(result) for result in results],
        "current": {"slide": session.slide, "result": session.result, "gene": session.gene},
        "look": dict(look or {}),
        "left_out": left_out,
        "registered": [
            (moving, fixed, np.asarray(transform.matrix).tolist())
            for (moving, fixed), transform in session.registrations.items()
        ],
    }
    with atomic_write(folder / FILE, force=True) as aside:
        aside.write_text(json.dumps(text, indent=1, default=_plain), encoding="utf-8")
    for part in PARTS:
        for file in (folder / part).glob("*"):
            if file.is_file() and f"{part}/{file.name}" not in kept:
                file.unlink()
    return Saved(left_out, files)


def _save_result(session: Session, result: Result, folder: Path, kept: set[str], quick: bool) -> SavedResult | None:
    """Save a result; None if there is nothing that could be saved."""
    if result.adata is None:
        return None
    made = None if result.made is None else {"function": result.made.function, "told": dict(result.made.told)}
    way = session.way_of(result.name)
    file = result.file
    again = quick and file is None and made is not None and made["function"] == "read_truth" and way is not None
    if file is None and quick and not again:
        return None
    place = fingerprint = ""
    if not again:
        if file is None or not file.exists():
            file = _new(folder, "results", ".h5ad")
            with atomic_write(file) as aside:
                _write_h5ad(result.adata, aside)
        inside = file.parent == folder / "results"
        place = _within(file, folder, kept) if inside else str(file.resolve())
        fingerprint = "" if inside else fingerprint_of(file)
    domains = session.domains.get(result.name)
    return SavedResult(
        result.name,
        result.slide,
        place,
        fingerprint,
        list(result.warnings),
        "" if domains is None else _within(_save_domains(domains, folder, quick), folder, kept),
        made,
        way.tolist() if again and way is not None else None,
        "" if not result.derived else _within(_save_derived(result, folder), folder, kept),
    )


def _check_folder(folder: Path, force: bool) -> None:
    if not folder.parent.is_dir():
        raise OutputError("The folder of the output does not exist", where=folder.parent, todo="Create it first")
    if folder.exists() and not folder.is_dir():
        raise OutputError("This is a file, not the folder of a session", where=folder, todo="Choose another name")
    if (folder / FILE).exists() and not force:
        raise OutputError("There is a session of that name", where=folder, todo="Choose another name or replace it")
    if folder.exists() and not (folder / FILE).exists() and any(folder.iterdir()):
        raise OutputError("This folder holds something else", where=folder, todo="Choose another name")
    try:
        for part in PARTS:
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
    return SavedSlide(
        name,
        str(Path(slide.path).resolve()) if local else str(slide.path),
        _way(folder, Path(slide.path)) if local else "",
        slide.fingerprint,
        slide.mpp,
        icc=slide.profiled is not False,
        tissue=None if item.mask is None else item.mask.options,
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
    arrays: dict[str, NDArray] = {
        "labels": domains.labels.astype(np.int32),
        "facts": np.array(json.dumps(facts, default=_plain)),
    }
    if domains.embedding is not None and not quick:
        arrays["embedding"] = domains.embedding
    with atomic_write(file) as aside:
        np.savez(aside, allow_pickle=False, **arrays)
    return file


def _save_derived(result: Result, folder: Path) -> Path:
    file = _new(folder, "derived", ".npz")
    facts = [(label, derived.unit, derived.made_of) for label, derived in result.derived.items()]
    values = np.stack([derived.values for derived in result.derived.values()])
    with atomic_write(file) as aside:
        np.savez(aside, allow_pickle=False, values=values, facts=np.array(json.dumps(facts)))
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
