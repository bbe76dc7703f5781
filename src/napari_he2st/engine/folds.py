"""Which sections a benchmark learns and which it scores, and what makes such a split less honest than it looks."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Literal, Protocol, TypeVar

import numpy as np
from numpy.typing import NDArray

from napari_he2st.core.errors import TruthError
from napari_he2st.core.schema import grid_of

if TYPE_CHECKING:
    from napari_he2st.data.truth import Section

Kind = Literal["patient", "section", "block", "spot"]
MARGIN_PITCHES = 2.0
"""Training spots this near to a scored one, in distances of spots, are left out of block folds."""


class Named(Protocol):
    """What is known of whatever is split."""

    @property
    def name(self) -> str:
        """What tells it from the others."""

    @property
    def patient(self) -> str | None:
        """Whose it is, if that is known."""


S = TypeVar("S", bound=Named)


@dataclass(frozen=True, eq=False)
class Fold:
    """One split: ``name`` says what is left out of ``train`` and scored, which is ``test``."""

    name: str
    train: tuple[Section, ...]
    test: tuple[Section, ...]


def make_folds(sections: Sequence[Section], kind: Kind = "patient") -> list[Fold]:
    """Leave every patient, section or block out in turn.

    A section of unknown patient counts as a patient of its own. Blocks are the four quarters of one section,
    equal in spots; training spots near the scored block are left out.

    Raises
    ------
    TruthError
        A section is named twice, there is a single patient or section, or a section is too small for blocks.
    """
    names = [section.name for section in sections]
    if len(set(names)) < len(names):
        raise TruthError("A section is named twice", where=", ".join(names), todo="Name every section once")
    if kind == "block":
        return [fold for section in sections for fold in _blocks(section)]
    if kind == "spot":
        return _random(sections)
    other = "Add sections, or use --folds section for sections of one patient, or --folds block for a single one"
    splits = leave_one_out(sections, kind, otherwise=other)
    return [Fold(name, tuple(train), tuple(test)) for name, train, test in splits]


def leave_one_out(
    sections: Sequence[S], kind: str, *, otherwise: str = "Add sections, or leave this split out"
) -> list[tuple[str, list[S], list[S]]]:
    """Every patient or section by its name: the sections of the others, and its own.

    A section of unknown patient counts as a patient of its own.

    Parameters
    ----------
    sections, kind
        What is split: by ``"patient"``, or by ``"section"``.
    otherwise
        What to do where that is impossible.

    Raises
    ------
    TruthError
        There are fewer than two.
    """
    group_of = {s.name: s.name if kind == "section" else s.patient or s.name for s in sections}
    groups = list(dict.fromkeys(group_of.values()))
    if len(groups) < 2:
        there = f"; there is only {groups[0]}" if groups else ""
        message = f"Leaving one {kind} out needs at least two{there}"
        raise TruthError(message, todo=otherwise)
    return [
        (group, [s for s in sections if group_of[s.name] != group], [s for s in sections if group_of[s.name] == group])
        for group in groups
    ]


def pitfalls(folds: Sequence[Fold], kind: Kind) -> list[str]:
    """Warnings, in words: what the scores over these folds do not show."""
    found = []
    patients = {s.patient for fold in folds for s in (*fold.train, *fold.test)}
    serial = [f for f in folds if {s.patient for s in f.train} & {s.patient for s in f.test} - {None}]
    if kind == "block":
        found.append("Training and scored spots are of one section: scores say nothing about other slides.")
    elif kind == "spot":
        found.append(
            "Scored spots were drawn at random, so that each lies between spots that were trained on and looks like "
            "them: these scores are far higher than on another slide (--folds patient, or --folds block for one slide)."
        )
    elif serial:
        found.append(
            f"Sections of one patient are on both sides of {len(serial)} of {len(folds)} folds: serial sections look "
            "alike, so these scores are higher than on a new patient (--folds patient)."
        )
    if None in patients and kind == "patient":
        found.append("The patient of some sections is unknown: each counts as a patient of its own.")
    for fold in folds:
        known = set().union(*map(_spots, fold.train))
        shared = sum(len(known & _spots(section)) for section in fold.test)
        if shared:
            found.append(f"{shared} spots of fold {fold.name} are among its training spots too: leave one copy out.")
    return found


def _spots(section: Section) -> set[tuple[float, float, bytes]]:
    """Position and expression of every spot: who has the same ones shows the same spot."""
    from scipy.sparse import csr_array

    counts = csr_array(section.adata.X)
    rows = np.split(counts.data, counts.indptr[1:-1])
    return {(x, y, row.tobytes()) for (x, y), row in zip(section.adata.obsm["spatial"].tolist(), rows, strict=True)}


def _blocks(section: Section) -> list[Fold]:
    from scipy.spatial import cKDTree

    grid = grid_of(section.adata)
    reach_px = MARGIN_PITCHES * grid.pitch_um / grid.mpp
    folds = []
    for number, test in enumerate(_quarters(grid.xy)):
        distance = cKDTree(grid.xy[test]).query(grid.xy)[0] if len(test) else np.zeros(len(grid))
        train = np.flatnonzero(distance > reach_px * (1 + 1e-6))
        if not len(train) or len(test) < 2:
            raise TruthError("The section is too small for blocks", where=section.name, todo="Use --folds section")
        name = f"{section.name} block {number + 1}"
        folds.append(Fold(name, (_part(section, train, "rest"),), (_part(section, test, f"block {number + 1}"),)))
    return folds


def _random(sections: Sequence[Section]) -> list[Fold]:
    if any(section.adata.n_obs < 8 for section in sections):
        raise TruthError("A section has too few spots to leave some out", todo="Use --folds section")
    parts = [np.array_split(np.random.default_rng(0).permutation(s.adata.n_obs), 4) for s in sections]
    folds = []
    for number in range(4):
        tests = [np.sort(part[number]) for part in parts]
        rests = [np.setdiff1d(np.arange(s.adata.n_obs), test) for s, test in zip(sections, tests, strict=True)]
        name = f"spots {number + 1}"
        train, test = (
            tuple(_part(s, rows, f"{what} {name}") for s, rows in zip(sections, found, strict=True))
            for what, found in (("without", rests), ("only", tests))
        )
        folds.append(Fold(name, train, test))
    return folds


def _quarters(xy: NDArray[np.float64]) -> list[NDArray[np.intp]]:
    """Rows of four blocks with about as many spots: halves along the longer side, each cut across."""
    longer = int(np.ptp(xy[:, 1]) > np.ptp(xy[:, 0]))
    order = np.argsort(xy[:, longer], kind="stable")
    halves = np.array_split(order, 2)
    return [
        np.sort(part) for h in halves for part in np.array_split(h[np.argsort(xy[h, 1 - longer], kind="stable")], 2)
    ]


def _part(section: Section, rows: NDArray[np.intp], name: str) -> Section:
    return replace(section, name=f"{section.name} {name}", adata=section.adata[rows].copy())
