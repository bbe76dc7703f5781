"""The contract of a system: what it needs, what it learns, what it returns.

A system is a :class:`Predictor`, a :class:`DomainMethod` or an :class:`Aligner`. It declares its named
``inputs`` (see :mod:`napari_he2st.zoo.inputs`), which the engine supplies. A predictor also declares its
``unit`` (what a batch is made of); the engine calls its ``prepare`` and then ``loss`` or ``predict``. Specs are
frozen values, class attributes or set in ``__init__``; fitted numbers live in the state dict or in ``extras``.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar, Literal, Protocol

from torch import Tensor, nn

from napari_he2st.core.errors import ModelError
from napari_he2st.core.noise import Noise
from napari_he2st.core.progress import Progress
from napari_he2st.core.types import Domains, Transform
from napari_he2st.zoo.blocks.losses import nan_mse
from napari_he2st.zoo.recipe import Recipe, descend, make_optimizer, make_schedule

if TYPE_CHECKING:
    from anndata import AnnData

Per = Literal["unit", "slide", "spot", "cell", "pixel"]


@dataclass(frozen=True, kw_only=True)
class Input:
    """Something the engine supplies: one row per unit, or for the whole slide (``per="slide"``)."""

    per: Per = "unit"


@dataclass(frozen=True)
class Spots:
    """Unit: a batch of spots, each predicted by itself."""


@dataclass(frozen=True)
class Slide:
    """Unit: all spots of a slide, or of an overlapping window where there are too many."""


@dataclass(frozen=True)
class Pixels:
    """Unit: cells of a dense lattice of ``pitch_um``, each predicted by itself.

    Their rows come from ``prepare``, which sees one ``RegionImage`` at a time and returns tensors whose first
    axis are its cells, row by row; they are prepared once, so that training goes over them many times.
    ``loss`` gets the cells of a batch of spots.
    """

    pitch_um: float


@dataclass(frozen=True)
class Regions:
    """Unit: image regions of ``px`` pixels at ``mpp``, holding ``bins`` × ``bins`` output cells.

    ``predict`` returns (n, bins², genes), the cells of a region row by row; or, where the output is
    ``per="cell"``, one row for each nucleus of the batch. Neighbouring regions share ``overlap`` pixels, a
    whole and even number of cells; what is kept is each region's core.
    """

    px: int
    mpp: float
    overlap: int = 0
    bins: int = 1

    @property
    def pitch_um(self) -> float:
        """Distance of the output cells."""
        return self.px * self.mpp / self.bins


Unit = Spots | Slide | Pixels | Regions


@dataclass(frozen=True)
class Expression:
    """Target: gene expression in training units.

    Attributes
    ----------
    scale
        Name of a :class:`~napari_he2st.zoo.scale.Scale`.
    per
        What a row belongs to. ``"spot"``: where the batch holds cells of a lattice or nuclei instead,
        ``targets["owner"]`` says which of the target's rows each of them lies in, −1 in none. ``"pixel"``: what
        each cell of a lattice lies in is its own target.
    smooth
        Number of nearest neighbours (the spot itself included) that a training target is averaged
        over, or None.
    panel
        Rule by which genes are chosen when the user names none: ``"hvg:1000"``, ``"mean:250"`` …
    """

    scale: str = "log1p_cp10k"
    per: Per = "spot"
    smooth: int | None = None
    panel: str | None = None


@dataclass(frozen=True)
class Label:
    """Target: a class or a number."""

    per: Per = "slide"


@dataclass(frozen=True)
class Output:
    """What ``predict`` returns: of which kind, in which scale (default: the target's).

    Attributes
    ----------
    of
        ``"expression"``, or what else it is.
    per
        What a row belongs to: ``"spot"``, ``"cell"``, ``"pixel"`` or ``"slide"``. A system with a slide output
        sees all of a slide at once and returns a single row.
    scale, pitch_um
        Where they are not the target's and the unit's.
    pool
        What the value of a spot is of those of its cells: their mean, or their sum where they share its counts.
    """

    of: str = "expression"
    per: Per = "spot"
    scale: str | None = None
    pitch_um: float | None = None
    pool: Literal["mean", "sum"] = "mean"


class Batches(Protocol):
    """What ``fit`` and ``finish`` iterate: one iteration is one epoch, prepared and on the device.

    Each item is ``(targets, prepared)``. ``targets["slide"]`` holds, int64 of shape (n,), which training
    section each row belongs to, so that a fit can weigh or cross-validate by section; ``targets["row"]``, its
    row there.
    """

    n_slides: int

    def __iter__(self) -> Iterator[tuple[dict[str, Tensor], dict[str, Any]]]: ...

    def __len__(self) -> int: ...


class System:
    """What predictors, domain methods and aligners share."""

    unit: Unit = Spots()
    inputs: Mapping[str, Input] = {}
    max_spots: int = 4096


class Fitted(System):
    """A system that is fitted to the very sections it is asked about: nothing is trained beforehand.

    ``__init__`` takes the options as keyword arguments with defaults: they become form fields and
    ``--option k=v``. All inputs are of a whole section (:class:`Slide`).

    Attributes
    ----------
    optional
        Names of the inputs it can do without; they are then None.
    progress
        Where long work reports itself and is asked to stop; set by the engine.
    """

    unit: Unit = Slide()
    optional: ClassVar[frozenset[str]] = frozenset()
    progress: Progress | None = None

    def steps(self, total: int, what: str = "Fitting") -> Iterator[int]:
        """Count to ``total``, reporting each step; work that is cancelled ends here."""
        if self.progress is not None:
            self.progress.start(total, what)
        for step in range(total):
            yield step
            if self.progress is not None:
                self.progress.advance()

    def minimise(
        self,
        parameters: nn.Module,
        loss: Callable[[int], Tensor],
        recipe: Recipe,
        *,
        patience: int = 50,
        whole_from: int = 0,
    ) -> dict[str, float]:
        """Train a network by the whole of its data in each step.

        Parameters
        ----------
        parameters
            The network.
        loss
            Objective of an epoch, by its number.
        recipe
            Optimiser and number of epochs.
        patience
            End early once so many epochs have not lowered the loss by 0.1 % of what it has fallen by so far.
        whole_from
            Epoch from which the objective has all its terms; progress counts from there.

        Returns
        -------
        dict
            For :attr:`~napari_he2st.core.types.Domains.params`: ``epochs``, ``seconds_per_epoch``, ``loss``.
        """
        optimizer = make_optimizer(parameters, recipe)
        schedule = make_schedule(optimizer, recipe)
        began, highest, best, since, done, value = time.perf_counter(), -math.inf, math.inf, 0, 0, math.nan
        parameters.train()
        for epoch in self.steps(recipe.epochs, "Training"):
            objective = loss(epoch)
            descend(optimizer, objective, recipe)
            schedule.step()
            value, done = float(objective.detach()), epoch + 1
            if not math.isfinite(value):
                raise ModelError(f"The loss is {value} after {done} epochs", todo="Lower the learning rate")
            if epoch == whole_from:
                highest, best, since = value, math.inf, 0
            since = 0 if best == math.inf or value < best - 1e-3 * (highest - best) else since + 1
            highest, best = max(highest, value), min(best, value)
            if since >= patience:
                break
        parameters.eval()
        return {
            "epochs": done,
            "seconds_per_epoch": round((time.perf_counter() - began) / max(done, 1), 4),
            "loss": value,
        }


class DomainMethod(Fitted):
    """Groups the spots of a section into tissue domains.

    Attributes
    ----------
    several
        Whether it also groups several sections at once: ``obs["section"]`` then tells them apart, and they lie so far
        from one another that no spot has a neighbour in another section.
    """

    several: ClassVar[bool] = False

    def segment(self, adata: AnnData, *, n_domains: int | None, seed: int, **inputs: Any) -> Domains:
        """Group the spots.

        Parameters
        ----------
        adata
            Raw counts in ``X`` (of a prediction: its linear units), complete and float32; positions in
            ``obsm["spatial"]``, micrometres.
        n_domains
            How many; None lets the method decide, if it can.
        seed
            Start of the random numbers.
        inputs
            What ``inputs`` names, as tensors of all spots.

        Raises
        ------
        He2stError
            The method has to be told the number of domains.
        """
        raise NotImplementedError


class Aligner(Fitted):
    """Brings sections into register."""

    def align(self, sections: Sequence[AnnData], **inputs: Any) -> list[Transform]:
        """Transform of each section into the first section's frame, in micrometres; the first is the identity.

        Parameters
        ----------
        sections
            At least two, as in :meth:`DomainMethod.segment`, over the same genes.
        inputs
            What ``inputs`` names, one value per section.

        Returns
        -------
        list of Transform
            ``info`` holds what the method knows: ``objective``, ``coupling`` (to the section before),
            ``moved`` (positions after a map that is not affine, shape (spots, 2)).
        """
        raise NotImplementedError


class Predictor(System, nn.Module):
    """A system that maps an H&E image to expression, labels or a dense map.

    Subclasses define ``forward``, the published network with the published state-dict keys, called
    exactly as in its parity case. ``__init__`` takes its configuration as keyword arguments; those the
    data decide (``n_genes``, ``n_classes``, ``n_features``, ``n_reference``) are filled in by name when
    the engine trains it.

    Attributes
    ----------
    targets, outputs
        Name → spec.
    recipe
        Published training defaults.
    fitted
        ``"cohort"``, or ``"slide"`` for systems trained on the slide they predict.
    members, combine
        Size of the ensemble that training builds, and how it is combined: ``"mean"`` or ``"median"``.
    draws
        Random draws that a prediction averages unless told otherwise; 0 where ``predict`` draws nothing at random.
        Otherwise it is always given ``noise``.
    beside
        Entries of ``extras`` that a published checkpoint lacks and prediction needs: name → what it is.
    faithful
        True is the parity behaviour where the original is broken for users.
    genes
        Panel in the order of the output; set by the engine.
    extras
        Fitted values that are not in the state dict; saved in the bundle.
    """

    targets: Mapping[str, Expression | Label] = {"expression": Expression()}
    outputs: Mapping[str, Output] = {"expression": Output()}
    recipe: Recipe = Recipe()
    fitted: str = "cohort"
    members: ClassVar[int] = 1
    combine: ClassVar[str] = "mean"
    draws: ClassVar[int] = 0
    beside: ClassVar[Mapping[str, str]] = {}
    faithful: bool = False

    def __init__(self) -> None:
        nn.Module.__init__(self)
        self.genes: list[str] = []
        self.extras: dict[str, Any] = {}

    def prepare(self, **inputs: Any) -> dict[str, Any]:
        """Turn engine tensors into named model tensors; the default passes them on."""
        return inputs

    def loss(self, targets: Mapping[str, Tensor], **prepared: Any) -> Tensor:
        """Objective over measured entries; NaN targets are skipped."""
        predicted = self.predict(**prepared)
        return nan_mse(predicted, targets["expression"])

    def predict(self, *, noise: Noise | None = None, **prepared: Any) -> Any:
        """One draw: a tensor, or {output: tensor}."""
        return self(**prepared)

    def fit(self, batches: Batches, recipe: Recipe) -> Iterator[dict[str, float]]:
        """Train; yield one record per epoch. The default is one optimiser over ``loss``."""
        optimizer = make_optimizer(self, recipe)
        schedule = make_schedule(optimizer, recipe)
        for epoch in range(recipe.epochs):
            self.train()
            total, n = 0.0, 0
            for targets, prepared in batches:
                loss = self.loss(targets, **prepared)
                descend(optimizer, loss, recipe)
                total, n = total + float(loss.detach()), n + 1
            schedule.step()
            yield {"epoch": epoch, "loss": total / max(n, 1)}

    def finish(self, batches: Batches) -> None:
        """Put what is fitted after training (a reference bank, a calibration) into ``extras``."""
