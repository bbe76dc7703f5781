"""Train a system on measured sections and say honestly how well it predicts unseen ones."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from napari_he2st._version import __version__
from napari_he2st.core.errors import GeneError, ModelError, TruthError
from napari_he2st.core.progress import Control
from napari_he2st.engine.checkpoints import Checkpoints
from napari_he2st.engine.device import choose_device
from napari_he2st.engine.features import NOTHING_GIVEN, Given
from napari_he2st.engine.folds import Kind, leave_one_out, make_folds, pitfalls
from napari_he2st.engine.panel import choose_panel
from napari_he2st.engine.reference import describe_reference
from napari_he2st.engine.train_fit import Departures, Fit, Watch
from napari_he2st.engine.trained import About, expression_of, tile_px_of, trained_bundle
from napari_he2st.engine.training_data import TrainingSection, resolve
from napari_he2st.engine.trust import trained_on
from napari_he2st.zoo import inputs as kinds
from napari_he2st.zoo.base import Predictor
from napari_he2st.zoo.bundle import Bundle
from napari_he2st.zoo.catalogue import system

if TYPE_CHECKING:
    from napari_he2st.data.truth import Section


def train(
    name: str,
    sections: Sequence[Section],
    *,
    holdout: Sequence[Section] = (),
    validate: Sequence[Section] = (),
    patience: int = 10,
    folds: Sequence[Kind] = (),
    arguments: Mapping[str, Any] | None = None,
    panel: str | Sequence[str] | None = None,
    recipe: Mapping[str, Any] | None = None,
    epochs: int | None = None,
    seed: int = 0,
    device: str = "auto",
    about: About = About(),  # noqa: B008 - frozen
    given: Given = NOTHING_GIVEN,
    stain: str | None = None,
    departures: Departures = Departures(),  # noqa: B008 - frozen
    checkpoints: str | Path | None = None,
    watch: Watch | None = None,
    control: Control | None = None,
) -> Bundle:
    """Train a system and return its bundle, with scores on sections it had not seen.

    Parameters
    ----------
    name
        A system of the zoo.
    sections
        Training sections, each with image and counts.
    holdout
        Sections that only score the result.
    validate
        Sections that choose the best epoch: neither fitted nor scored. Without any, the last epoch counts.
    patience
        Epochs without a better one on them after which training stops.
    folds
        ``"section"``, ``"patient"``, ``"block"`` and/or ``"spot"``: also train with each section, patient, quarter of
        a section or quarter of its spots left out, and score it.
    arguments
        Constructor arguments; what the data decide is filled in.
    panel
        See :func:`~napari_he2st.engine.panel.choose_panel`; by default the system's own rule.
    recipe
        Fields of :class:`~napari_he2st.zoo.base.Recipe` that depart from the published ones.
    epochs, seed, device
        How to train.
    about
        What the bundle says of itself.
    given
        What some systems need beside the sections: single cells, or nuclei where there is a single section.
    stain
        Normalise the stain of every slide: ``"macenko"`` or ``"reinhard"``. The bundle does so with the slides on
        which it predicts.
    departures
        Where it departs from the system's own way beside arguments and recipe.
    checkpoints
        Folder that keeps the state of the run; one that was killed goes on from there, to the same result. Remove it
        once the bundle is written.
    watch
        Told of every epoch's record.
    control
        Progress, pause, early end and cancel, from another thread.

    Raises
    ------
    TruthError
        No section, a section without image or counts, a patient split of a single patient.
    GeneError
        The sections share no gene, or those of the panel are not measured or do not vary.
    ModelError
        The system cannot be built with these arguments, does not predict expression, or the checkpoints are of
        another run.
    OutputError
        A checkpoint cannot be written; the last one is still there.
    """
    if not sections:
        raise TruthError("There is no section to train on", todo="Name at least one with --data")
    control = control or Control()
    where = choose_device(device)
    torch.manual_seed(seed)
    cls = system(name)
    if not issubclass(cls, Predictor):
        raise ModelError("This system is no predictor", where=name, todo="Choose one that he2st models lists as such")
    names = [section.name for section in (*sections, *holdout, *validate)]
    if len(set(names)) < len(names):
        raise TruthError("A section is named twice", where=", ".join(names), todo="Name every section once")
    if given.nuclei is not None and len(names) > 1:
        raise TruthError("Nuclei belong to one slide", todo="Train on a single section")
    with ExitStack() as stack:

        def open_all(some: Sequence[Section]) -> list[TrainingSection]:
            found = [TrainingSection.open(section, given, stain) for section in some]
            for section in found:
                stack.callback(section.slide.original.close)
            return found

        opened, scored, validated = open_all(sections), open_all(holdout), open_all(validate)
        start = departures.start
        rule = panel if panel is not None else expression_of(cls).panel or "hvg:1000"
        genes = _genes(start, opened, rule)
        fixed = dict(arguments or {}) if start is None else _fixed_by(start, cls, name, arguments or {})
        mpp = opened[0].slide.mpp if start is None else start.manifest.mpp
        changes = {**(recipe or {}), **({} if epochs is None else {"epochs": epochs})}
        fit = Fit(
            cls, fixed, genes, mpp, changes, seed, where, control, validated, patience, _sizes_of(given), departures
        )
        fit.watch = watch
        splits: list[tuple[str, str, list[TrainingSection], list[TrainingSection]]] = []
        for kind in folds:
            if kind in ("section", "patient"):
                splits += [(kind, *split) for split in leave_one_out(opened, kind)]
            else:
                parts = make_folds(sections, kind)
                splits += [(kind, fold.name, open_all(fold.train), open_all(fold.test)) for fold in parts]
                control.note(pitfalls(parts, kind)[0])
        if checkpoints is not None:
            roles = {"train": opened, "holdout": scored, "validate": validated}
            fit.checkpoints = Checkpoints(checkpoints, _settings(fit, name, roles, folds=list(folds), stain=stain))
        blank = fit.new_model()
        apart = [s for _, _, train_on, test_on in splits for s in (*train_on, *test_on)]
        every = {s.name: s for s in (*opened, *scored, *validated, *apart)}
        resolved = {label: resolve(blank, s, fit.mpp, where, control) for label, s in every.items()}
        found = [
            fit.score(kind, fit.members(train_on, resolved, f"without {left_out}"), train_on, test_on, resolved)
            for kind, left_out, train_on, test_on in splits
        ]
        members = fit.members(opened, resolved)
        for member in members:
            describe_reference(member, opened, tile_px_of(member) * fit.mpp)
        members[0].extras |= trained_on(members[0], opened, fit.mpp, where)
        if scored:
            found.append(fit.score("holdout", members, opened, scored, resolved))
        return trained_bundle(
            name,
            members,
            opened,
            found,
            about,
            arguments=fit.all_arguments(),
            mpp=fit.mpp,
            history=fit.history,
            stain=stain,
        )


def _sizes_of(given: Given) -> dict[str, int]:
    """Constructor arguments that the user's single cells decide."""
    if given.cells is None or kinds.CellReference.label not in given.cells.obs:
        return {}
    return {"n_reference": given.cells.n_obs, "n_types": given.cells.obs[kinds.CellReference.label].nunique()}


def _genes(start: Bundle | None, sections: Sequence[TrainingSection], rule: str | Sequence[str]) -> list[str]:
    """The panel; that of the bundle that training goes on from, as far as anything of it is measured.

    Raises
    ------
    GeneError
        No gene of that bundle is measured.
    """
    if start is None:
        return list(choose_panel([s.adata for s in sections], rule).symbols)
    measured = set().union(*(s.adata.var_names for s in sections))
    if not measured.intersection(start.genes):
        message = f"None of the {len(start.genes)} genes of the bundle is measured in these sections"
        raise GeneError(message, where=start.id, todo="Train from the start, or check that genes are named alike")
    return list(start.genes)


def _fixed_by(start: Bundle, cls: type[Predictor], name: str, arguments: Mapping[str, Any]) -> dict[str, Any]:
    """The arguments of a bundle that training goes on from; raises ModelError where it is of another system."""
    if start.manifest.system != name:
        message = f"The bundle is of {start.manifest.system} and cannot be gone on from with {name}"
        raise ModelError(message, where=start.id, todo="Choose its own system")
    if "scale" not in start.members[0].extras:
        raise ModelError("The bundle does not say in which scale it learned", where=start.id, todo="Train anew")
    if arguments:
        raise ModelError("A bundle that is gone on from has its arguments already", where=", ".join(arguments))
    return dict(start.manifest.arguments)


def _settings(fit: Fit, name: str, opened: Mapping[str, Sequence[TrainingSection]], **more: Any) -> dict[str, Any]:
    """All that decides what a run finds, for its checkpoints."""
    start = fit.departures.start
    return {
        "system": name,
        "arguments": fit.all_arguments(),
        "recipe": fit.recipe,
        "genes": fit.genes,
        "seed": fit.seed,
        "patience": fit.patience,
        "mpp": fit.mpp,
        "departures": {**vars(fit.departures), "start": None if start is None else start.sha256},
        "sections": {role: {s.name: s.digest() for s in found} for role, found in opened.items()},
        "device": fit.device.type,
        "versions": [__version__, torch.__version__],
        **more,
    }
