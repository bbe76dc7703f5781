"""One fit after the other: members of an ensemble, splits, and what each scores on sections it had not seen."""

from __future__ import annotations

import copy
import inspect
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from napari_he2st.analysis.metrics import METRICS
from napari_he2st.analysis.paired import permuted_pcc
from napari_he2st.core.errors import GeneError, ModelError
from napari_he2st.core.progress import Control
from napari_he2st.engine.checkpoints import Checkpoints, FitKeeper, learned, restore
from napari_he2st.engine.intervals import bootstrap_pcc, calibration
from napari_he2st.engine.panel import expression_variance, further_genes
from napari_he2st.engine.scoring import sample_resolved
from napari_he2st.engine.trained import HVG_SCORED, Split, expression_of, mean_known
from napari_he2st.engine.training_batches import TrainingBatches, measured
from napari_he2st.engine.training_data import Resolved, TrainingSection, expression_target
from napari_he2st.zoo import inputs as kinds
from napari_he2st.zoo.base import Expression, Predictor
from napari_he2st.zoo.bundle import Bundle
from napari_he2st.zoo.scale import scale_of
from napari_he2st.zoo.weights import shapes_of

Watch = Callable[[str, Mapping[str, Any]], None]
"""Told after every epoch: which fit, and its record."""

_CHANCE = 0.05


@dataclass(frozen=True)
class Departures:
    """Where a training departs from the system's own way, beside its arguments and recipe.

    Attributes
    ----------
    start
        A bundle of the same system whose weights, genes and expression scale are gone on from.
    frozen
        Only the layers that are as wide as there are genes learn: the encoder stays that of ``start``.
    scale, smooth
        Expression that is learned, and nearest spots it is averaged over, in place of the system's own.
    augment
        Names of :data:`~napari_he2st.engine.training_batches.AUGMENTATIONS`.
    """

    start: Bundle | None = None
    frozen: bool = False
    scale: str | None = None
    smooth: int | None = None
    augment: tuple[str, ...] = ()


@dataclass
class Fit:
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
    departures: Departures = field(default_factory=Departures)
    checkpoints: Checkpoints | None = None
    watch: Watch | None = None
    history: list[dict[str, Any]] = field(default_factory=list)
    longest: int | None = None

    def new_model(self) -> Predictor:
        """A fresh model."""
        model = self.cls(**self.all_arguments())
        model.genes = list(self.genes)
        own, wanted = model.targets.get("expression"), self.departures
        if isinstance(own, Expression) and (wanted.scale or wanted.smooth):
            scale, smooth = wanted.scale or own.scale, wanted.smooth or own.smooth
            model.targets = {**model.targets, "expression": replace(own, scale=scale, smooth=smooth)}
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

    def members(
        self, sections: list[TrainingSection], resolved: Mapping[str, Resolved], name: str = "all"
    ) -> list[Predictor]:
        """Fit every member of the ensemble on some sections; ``name`` tells the fit from the run's others."""
        return [self._fit_one(sections, resolved, member, name) for member in range(self.cls.members)]

    def _fit_one(
        self, sections: list[TrainingSection], resolved: Mapping[str, Resolved], member: int, name: str
    ) -> Predictor:
        torch.manual_seed(self.seed + member)
        model = self.new_model()
        label = name if self.cls.members == 1 else f"{name}, member {member + 1}"
        file = None if self.checkpoints is None else self.checkpoints.fit(label)
        saved = None if file is None else file.load()
        if saved is not None and saved["done"]:
            restore(model, saved)
            self._tell(label, saved["history"])
            self.longest = saved["longest"]
            return model.eval()
        batches = self._batches(model, sections, resolved, member)
        start, frozen = self._start(model, member)
        keeper = model.keeper = FitKeeper(model, batches, saved, start, frozen)
        best = None if saved is None or saved["best"] is None else tuple(saved["best"])
        self._tell(label, [] if saved is None else saved["history"])
        self.control.start(self._recipe(model).epochs, f"Fitting {self.cls.__name__} ({label})")
        if self.history:
            self.control.advance(len(self.history))
        for record in model.fit(batches, self._recipe(model)):
            if saved is not None and keeper.loop is None:
                continue  # what comes before the loop was recorded already
            self._check_loop(keeper)
            if self.validate and "loss" in record:  # not while it only prepares itself
                if any(isinstance(spec, kinds.Reference) for spec in model.inputs.values()):
                    model.finish(batches)  # it predicts from its bank
                record = {**record, "val_pcc": self._validation_pcc(model, resolved)}
                if best is None or record["val_pcc"] > best[0]:
                    best = record["val_pcc"], len(self.history), copy.deepcopy(model.state_dict())
            self._tell(label, [record], further=True)
            if self._enough(best):
                break
            state = None if file is None else keeper.state()
            if file is not None and state is not None:
                file.save({"done": False, "history": self.history, "best": best, **state})
            self.control.advance()
        if best is not None:
            model.load_state_dict(best[2])
        model.finish(batches)
        model.keeper = None
        if file is not None:
            file.save({"done": True, "history": self.history, "longest": self.longest, **learned(model)}, always=True)
        return model.eval()

    def _tell(self, label: str, records: list[dict[str, Any]], *, further: bool = False) -> None:
        """Add records to the curve, which is a new one unless they come ``further``."""
        self.history = [*(self.history if further else []), *records]
        if self.watch is not None:
            for record in records:
                self.watch(label, record)

    def _enough(self, best: tuple[Any, ...] | None) -> bool:
        """Whether a fit ends here: no better on validation, asked to, or as long as one that was asked to."""
        if self.control.finishing and self.longest is None:
            self.longest = len(self.history)
        stale = best is not None and len(self.history) - best[1] > self.patience
        return stale or (self.longest is not None and len(self.history) >= self.longest)

    def _recipe(self, model: Predictor) -> Any:
        recipe = replace(model.recipe, **self.recipe)
        return replace(recipe, batch_of=None) if "batch_size" in self.recipe else recipe

    def _batches(
        self, model: Predictor, sections: list[TrainingSection], resolved: Mapping[str, Resolved], member: int
    ) -> TrainingBatches:
        """Batches with their targets; the scale is fitted to these sections, or is that of the start."""
        counts, total = (np.concatenate(part) for part in zip(*(s.counts(self.genes) for s in sections), strict=True))
        varies = np.nanvar(counts, axis=0) > 0
        if not varies.any():
            raise GeneError("No gene varies over the training spots", todo="Choose another panel")
        if not varies.all():
            flat = [gene for gene, ok in zip(self.genes, varies, strict=True) if not ok]
            self.control.note(f"{len(flat)} genes do not vary over the training spots: {', '.join(flat[:5])}")
        start = self.departures.start
        if start is None:
            n_measured = len(set().union(*(s.adata.var_names for s in sections)))
            model.extras["scale"] = scale_of(expression_of(model).scale).fit(counts, total, n_measured)
        else:
            model.extras["scale"] = copy.deepcopy(start.members[0].extras["scale"])
        further = further_genes([s.adata for s in sections], self.genes, getattr(model, "n_aux", 0))
        targets = [section_targets(s, self.genes, further, model, model.extras["scale"]) for s in sections]
        return TrainingBatches(
            model,
            [resolved[s.name] for s in sections],
            targets,
            self._recipe(model),
            self.seed + member,
            self.device,
            self.departures.augment,
        )

    def _start(self, model: Predictor, member: int) -> tuple[dict[str, Tensor] | None, list[torch.nn.Module]]:
        """Weights to begin with, and the layers that keep them."""
        start = self.departures.start
        if start is None:
            return None, []
        frozen = []
        if self.departures.frozen:
            heads = gene_layers(self.cls, self.all_arguments())
            for name, layer in model.named_modules():
                own = dict(layer.named_parameters(recurse=False))
                if own and name not in heads:
                    frozen.append(layer)
                    for parameter in own.values():
                        parameter.requires_grad_(False)
        return start.members[member].state_dict(), frozen

    def _check_loop(self, keeper: FitKeeper) -> None:
        """Refuse what only the common loop can do for a system that has its own."""
        if keeper.loop is None and (self.departures.start is not None or self.recipe.get("accumulate", 1) > 1):
            message = f"{self.cls.__name__} trains in a way of its own: it cannot go on from a bundle or accumulate"
            raise ModelError(message, todo="Train it from its published start, batch by batch")

    def _validation_pcc(self, model: Predictor, resolved: Mapping[str, Resolved]) -> float:
        """Mean Pearson correlation over genes and validation sections of a model that is being trained."""
        model.eval()
        scores = np.concatenate([pcc_of(*self._pair([model], s, resolved)[:2]) for s in self.validate])
        return float(np.nan_to_num(scores).mean())

    def _pair(
        self, members: list[Predictor], section: TrainingSection, resolved: Mapping[str, Resolved]
    ) -> tuple[NDArray[np.float32], NDArray[np.float32], NDArray[np.float32] | None]:
        """Prediction of a section, its unsmoothed expression, and the prediction's spread where there is one."""
        plain = replace(expression_of(members[0]), smooth=None)
        truth = expression_target(section, self.genes, plain, members[0].extras["scale"]).numpy()
        predicted, std = sample_resolved(members, resolved[section.name], len(truth), self.device)
        return predicted, truth, std

    def score(
        self,
        kind: str,
        members: list[Predictor],
        train_on: list[TrainingSection],
        test_on: list[TrainingSection],
        resolved: Mapping[str, Resolved],
    ) -> Split:
        """Score members that were fitted on some sections on others."""
        variance = expression_variance([s.adata for s in train_on], self.genes)
        most = np.argsort(-variance, kind="stable")[:HVG_SCORED]
        scores, draws, trust = [], [], []
        for section in test_on:
            predicted, truth, std = self._pair(members, section, resolved)
            ok = np.isfinite(predicted).all(axis=1)
            scores.append(pcc_of(predicted, truth))
            draws.append(
                bootstrap_pcc(
                    predicted[ok], truth[ok], section.grid.xy[ok] * (section.grid.mpp / section.grid.pitch_um)
                )
            )
            if std is not None:
                trust.append(calibration(predicted[ok], truth[ok], std[ok]))
            varies = np.isfinite(scores[-1]).any()  # the training mean does not, and claims nothing
            if varies and permuted_pcc(predicted[ok][:, most], truth[ok][:, most], 199)[1] > _CHANCE:
                self.control.note(
                    f"On {section.name} the prediction is no better than chance: its counts may belong to other spots, "
                    "or its image may be turned. he2st info shows how they fit."
                )
        per_gene = mean_known(scores)
        headline = per_gene[most]
        known = headline[np.isfinite(headline)]
        return Split(
            kind,
            tuple(s.name for s in train_on),
            tuple(s.name for s in test_on),
            per_gene,
            float(known.mean()) if len(known) else np.nan,
            float(np.median(known)) if len(known) else np.nan,
            mean_known(draws),
            {name: float(np.mean([found[name] for found in trust])) for name in trust[0]} if trust else {},
        )


def pcc_of(predicted: NDArray[np.float32], truth: NDArray[np.float32]) -> NDArray[np.float64]:
    """Pearson correlation per gene over the spots that have a prediction."""
    ok = np.isfinite(predicted).all(axis=1)
    scores: NDArray[np.float64] = METRICS["pcc"].function(predicted[ok], truth[ok])
    return scores


def gene_layers(cls: type[Predictor], arguments: Mapping[str, Any]) -> set[str]:
    """Names of the layers of which a parameter is as long as there are genes.

    Raises
    ------
    ModelError
        There is none.
    """
    with torch.device("meta"):
        here, there = (shapes_of(cls(**{**arguments, "n_genes": arguments["n_genes"] + more})) for more in (0, 1))
    found = {name.rpartition(".")[0] for name, shape in here.items() if there.get(name) != shape}
    if not found:
        raise ModelError(f"{cls.__name__} has no layer of its own for genes", todo="Train without freezing")
    return found


def section_targets(
    section: TrainingSection, genes: list[str], further: Sequence[str], model: Predictor, fitted: dict[str, Any]
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
