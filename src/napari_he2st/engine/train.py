"""Train a system on measured sections and say honestly how well it predicts unseen ones."""

from __future__ import annotations

import copy
import inspect
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from napari_he2st.analysis.metrics import METRICS
from napari_he2st.core.errors import ModelError, TruthError
from napari_he2st.core.progress import Control
from napari_he2st.engine.device import choose_device
from napari_he2st.engine.features import NOTHING_GIVEN, Given
from napari_he2st.engine.folds import leave_one_out
from napari_he2st.engine.panel import choose_panel, expression_variance, further_genes
from napari_he2st.engine.reference import describe_reference
from napari_he2st.engine.scoring import predict_resolved
from napari_he2st.engine.trained import HVG_SCORED, About, Split, expression_of, mean_known, tile_px_of, trained_bundle
from napari_he2st.engine.training_batches import TrainingBatches, measured
from napari_he2st.engine.training_data import (
    Resolved,
    TrainingSection,
    expression_target,
    resolve,
)
from napari_he2st.engine.trust import trained_on
from napari_he2st.zoo import inputs as kinds
from napari_he2st.zoo.base import Expression, Predictor
from napari_he2st.zoo.bundle import Bundle
from napari_he2st.zoo.catalogue import system
from napari_he2st.zoo.scale import scale_of

if TYPE_CHECKING:
    from napari_he2st.data.truth import Section


def train(
    name: str,
    sections: Sequence[Section],
    *,
    holdout: Sequence[Section] = (),
    validate: Sequence[Section] = (),
    patience: int = 10,
    folds: Sequence[str] = (),
    arguments: Mapping[str, Any] | None = None,
    panel: str | Sequence[str] | None = None,
    recipe: Mapping[str, Any] | None = None,
    epochs: int | None = None,
    seed: int = 0,
    device: str = "auto",
    about: About = About(),  # noqa: B008 - frozen
    given: Given = NOTHING_GIVEN,
    stain: str | None = None,
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
        ``"section"`` and/or ``"patient"``: also train with each section (patient) left out, and score it.
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
    control
        Progress and cancel, from another thread.

    Raises
    ------
    TruthError
        No section, a section without image or counts, a patient split of a single patient.
    ModelError
        The system cannot be built with these arguments, or does not predict expression.
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
        rule = panel if panel is not None else expression_of(cls).panel or "hvg:1000"
        genes = list(choose_panel([s.adata for s in opened], rule).symbols)
        departures = {**(recipe or {}), **({} if epochs is None else {"epochs": epochs})}
        mpp = opened[0].slide.mpp
        sizes = _sizes_of(given)
        fit = _Fit(cls, dict(arguments or {}), genes, mpp, departures, seed, where, control, validated, patience, sizes)
        blank = fit.new_model()
        every = [*opened, *scored, *validated]
        resolved = {s.name: resolve(blank, s, fit.mpp, where, control) for s in every}
        splits = [
            fit.score(kind, fit.members(train_on, resolved), train_on, test_on, resolved)
            for kind in folds
            for _, train_on, test_on in leave_one_out(opened, kind)
        ]
        members = fit.members(opened, resolved)
        for member in members:
            describe_reference(member, opened, tile_px_of(member) * fit.mpp)
        members[0].extras |= trained_on(members[0], opened, fit.mpp, where)
        if scored:
            splits.append(fit.score("holdout", members, opened, scored, resolved))
        return trained_bundle(
            name,
            members,
            opened,
            splits,
            about,
            arguments=fit.all_arguments(),
            mpp=fit.mpp,
            history=fit.history,
            stain=stain,
        )


def _targets(
    section: TrainingSection, genes: list[str], further: list[str], model: Predictor, fitted: dict[str, Any]
) -> dict[str, Tensor]:
    """What a section has of the model's targets: expression, counts of spots and niches, ``further`` genes.

    What was measured is an input of some models too, and stands beside.
    """
    specs = {name: model.targets[name] for name in ("expression", "counts", "niche") if name in model.targets}
    found = {
        name: expression_target(section, genes, spec, fitted if name == "expression" else {})
        for name, spec in specs.items()
        if isinstance(spec, Expression)
    }
    auxiliary = model.targets.get("auxiliary")
    if isinstance(auxiliary, Expression):
        found["auxiliary"] = expression_target(section, further, auxiliary, {})
    own = expression_of(model)
    for name, given in model.inputs.items():
        if isinstance(given, kinds.Expression):
            plain = Expression(given.scale or own.scale)
            found[measured(name)] = expression_target(section, genes, plain, fitted if plain.scale == own.scale else {})
    return found


def _sizes_of(given: Given) -> dict[str, int]:
    """Constructor arguments that the user's single cells decide."""
    if given.cells is None or kinds.CellReference.label not in given.cells.obs:
        return {}
    return {"n_reference": given.cells.n_obs, "n_types": given.cells.obs[kinds.CellReference.label].nunique()}


@dataclass
class _Fit:
    """Everything that stays the same over the fits of one training run; ``history`` is the last fit's."""

    cls: type[Predictor]
    arguments: dict[str, Any]
    genes: list[str]
    mpp: float
    recipe: dict[str, Any]
    seed: int
    device: torch.device
    control: Control
    validate: list[TrainingSection]
    patience: int
    sizes: dict[str, int] = field(default_factory=dict)
    history: list[dict[str, Any]] = field(default_factory=list)

    def new_model(self) -> Predictor:
        """A fresh model."""
        model = self.cls(**self.all_arguments())
        model.genes = list(self.genes)
        return model.to(self.device)

    def all_arguments(self) -> dict[str, Any]:
        """Constructor arguments, defaults and those that the data decide included: what a bundle remembers."""
        parameters = {k: v for k, v in inspect.signature(self.cls.__init__).parameters.items() if k != "self"}
        unknown = [key for key in self.arguments if key not in parameters]
        if unknown:
            message = f"{self.cls.__name__} has no argument {', '.join(unknown)}"
            raise ModelError(message, todo=f"It takes {', '.join(parameters)}")
        from_data = {"n_genes": len(self.genes), **self.sizes}
        defaults = {name: p.default for name, p in parameters.items() if p.default is not p.empty}
        return {**defaults, **{k: v for k, v in from_data.items() if k in parameters}, **self.arguments}

    def members(self, sections: list[TrainingSection], resolved: Mapping[str, Resolved]) -> list[Predictor]:
        """Fit every member of the ensemble on some sections."""
        return [self._fit_one(sections, resolved, member) for member in range(self.cls.members)]

    def _fit_one(self, sections: list[TrainingSection], resolved: Mapping[str, Resolved], member: int) -> Predictor:
        torch.manual_seed(self.seed + member)
        model = self.new_model()
        target = expression_of(model)
        counts, total = (np.concatenate(part) for part in zip(*(s.counts(self.genes) for s in sections), strict=True))
        n_measured = len(set().union(*(s.adata.var_names for s in sections)))
        fitted = scale_of(target.scale).fit(counts, total, n_measured)
        model.extras["scale"] = fitted
        further = further_genes([s.adata for s in sections], self.genes, getattr(model, "n_aux", 0))
        targets = [_targets(s, self.genes, further, model, fitted) for s in sections]
        recipe = replace(model.recipe, **self.recipe)
        if "batch_size" in self.recipe:
            recipe = replace(recipe, batch_of=None)
        batches = TrainingBatches(
            model,
            [resolved[s.name] for s in sections],
            targets,
            recipe,
            self.seed + member,
            self.device,
        )
        self.control.start(recipe.epochs, f"Fitting {self.cls.__name__}")
        self.history, best = [], None
        for record in model.fit(batches, recipe):
            if self.validate and "loss" in record:  # not while it only prepares itself
                if any(isinstance(spec, kinds.Reference) for spec in model.inputs.values()):
                    model.finish(batches)  # it predicts from its bank
                record = {**record, "val_pcc": self._validation_pcc(model, resolved)}
                if best is None or record["val_pcc"] > best[0]:
                    best = record["val_pcc"], len(self.history), copy.deepcopy(model.state_dict())
            self.history.append(record)
            self.control.advance()
            if best is not None and len(self.history) - best[1] > self.patience:
                break
        if best is not None:
            model.load_state_dict(best[2])
        model.finish(batches)
        return model.eval()

    def _validation_pcc(self, model: Predictor, resolved: Mapping[str, Resolved]) -> float:
        """Mean Pearson correlation over genes and validation sections of a model that is being trained."""
        model.eval()
        scores = np.concatenate([self._pcc([model], section, resolved) for section in self.validate])
        return float(np.nan_to_num(scores).mean())

    def predict(self, members: list[Predictor], resolved: Resolved, n_spots: int) -> NDArray[np.float32]:
        """Prediction for all spots of a section whose inputs are resolved: (n, genes), NaN where unreadable."""
        return predict_resolved(members, resolved, n_spots, self.device)

    def _pcc(
        self, members: list[Predictor], section: TrainingSection, resolved: Mapping[str, Resolved]
    ) -> NDArray[np.float64]:
        """Pearson correlation per gene over the spots of a section, against its unsmoothed expression."""
        plain = replace(expression_of(members[0]), smooth=None)
        truth = expression_target(section, self.genes, plain, members[0].extras["scale"]).numpy()
        predicted = self.predict(members, resolved[section.name], len(truth))
        ok = np.isfinite(predicted).all(axis=1)
        scores: NDArray[np.float64] = METRICS["pcc"].function(predicted[ok], truth[ok])
        return scores

    def score(
        self,
        kind: str,
        members: list[Predictor],
        train_on: list[TrainingSection],
        test_on: list[TrainingSection],
        resolved: Mapping[str, Resolved],
    ) -> Split:
        """Score members that were fitted on some sections on others."""
        per_gene = mean_known([self._pcc(members, section, resolved) for section in test_on])
        variance = expression_variance([s.adata for s in train_on], self.genes)
        headline = per_gene[np.argsort(-variance, kind="stable")[:HVG_SCORED]]
        known = headline[np.isfinite(headline)]
        return Split(
            kind,
            tuple(s.name for s in train_on),
            tuple(s.name for s in test_on),
            per_gene,
            float(known.mean()) if len(known) else np.nan,
            float(np.median(known)) if len(known) else np.nan,
        )
