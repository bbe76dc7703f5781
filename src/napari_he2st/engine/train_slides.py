"""Training on slides with one label each: a table in, a bundle out, scored on patients left out."""

from __future__ import annotations

import csv
import inspect
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from napari_he2st.core import keys
from napari_he2st.core.errors import ModelError, TruthError
from napari_he2st.core.noise import Noise
from napari_he2st.core.progress import Control
from napari_he2st.data.slides import Slide
from napari_he2st.data.slides.stain import normalised
from napari_he2st.engine.device import choose_device
from napari_he2st.engine.slide_level import MAP, bag_spec, resolve_bag
from napari_he2st.engine.trained import About
from napari_he2st.zoo.base import Expression, Predictor
from napari_he2st.zoo.bundle import Bundle
from napari_he2st.zoo.catalogue import cards, system
from napari_he2st.zoo.manifest import Manifest
from napari_he2st.zoo.recipe import Recipe

_MAX_ROWS = 1_000_000
_UNKNOWN = ("", "na", "nan", "none")


@dataclass(frozen=True)
class SlideTable:
    """Slides with what is known of each.

    Attributes
    ----------
    slides, patients
        Paths of the slides, and whose they are, one per row.
    columns
        Name → values as text, one per row.
    """

    slides: tuple[Path, ...]
    patients: tuple[str, ...]
    columns: Mapping[str, tuple[str, ...]]


def read_table(path: str | Path) -> SlideTable:
    """Read a CSV with the columns ``slide``, ``patient`` (optional: each slide its own) and labels.

    Relative paths count from the table's folder.

    Raises
    ------
    TruthError
        The file is no such table, or a slide does not exist.
    """
    path = Path(path)
    try:
        with path.open(newline="", encoding="utf-8-sig") as file:
            rows = [row for row, _ in zip(csv.DictReader(file), range(_MAX_ROWS), strict=False)]
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise TruthError(f"The table cannot be read ({error})", where=path, todo="Save it as CSV in UTF-8") from error
    if not rows or "slide" not in rows[0]:
        raise TruthError("The table has no column slide", where=path, todo="Its first line names the columns")
    slides = tuple(path.parent / str(row["slide"]) for row in rows)
    missing = [str(slide) for slide in slides if not slide.exists()]
    if missing:
        raise TruthError(f"{len(missing)} slides are not there, first {missing[0]}", where=path)
    patients = tuple(str(row.get("patient") or slide.stem) for row, slide in zip(rows, slides, strict=True))
    labels = {
        name: tuple(str(row.get(name) or "").strip() for row in rows)
        for name in rows[0]
        if name not in (None, "slide", "patient")
    }
    return SlideTable(slides, patients, labels)


def train_slides(
    name: str,
    table: SlideTable,
    labels: Sequence[str],
    *,
    folds: int = 5,
    arguments: Mapping[str, Any] | None = None,
    recipe: Mapping[str, Any] | None = None,
    mpp: float | None = None,
    seed: int = 0,
    device: str = "auto",
    about: About = About(),  # noqa: B008 - frozen
    stain: str | None = None,
    control: Control | None = None,
) -> Bundle:
    """Train a slide-level system, with scores on patients it had not seen.

    Parameters
    ----------
    name
        A system whose task is ``slide_level``.
    table
        Slides, patients and labels.
    labels
        Columns to learn: one with classes; several with 0, 1 or nothing, for systems that take many labels; or
        one per gene with numbers, for those that predict expression.
    folds
        Groups of patients that are left out in turn and scored; 0 for none.
    arguments, recipe
        Constructor arguments, and fields of the recipe, that depart from the published ones.
    mpp
        Pixel size of slides that do not state theirs.
    seed, device, about, stain, control
        As for :func:`~napari_he2st.engine.train.train`.

    Raises
    ------
    TruthError
        A label is not in the table, a class is missing, or there are fewer patients than folds.
    ModelError
        The system does not see a slide as a bag of tiles.
    """
    control = control or Control()
    where = choose_device(device)
    cls = system(name)
    if not issubclass(cls, Predictor) or "slide_level" not in cards()[name].tasks:
        raise ModelError("This system does not predict slides as a whole", where=name, todo="See he2st models")
    goal = _Goal.of(cls, table, labels)
    cohort = _Cohort(cls, {**goal.arguments(cls), **(arguments or {})}, goal, dict(recipe or {}), seed, where, control)
    cohort.read(table, mpp, stain)
    groups = _groups(table.patients, folds, seed)
    scored = np.full((len(table.slides), len(goal.names)), np.nan)
    for held in groups:
        model, _ = cohort.fit(np.flatnonzero(~held))
        for row in np.flatnonzero(held):
            scored[row] = cohort.predict(model, int(row))
    model, history = cohort.fit(np.arange(len(table.slides)))
    return _bundle(name, model, cohort, table, goal, scored if len(groups) else None, history, about, stain)


@dataclass(frozen=True)
class _Goal:
    """What is learned: names of the results, and a target for each slide (NaN: unknown)."""

    names: tuple[str, ...]
    kind: str  # "class", "labels" or "expression"
    values: NDArray[np.float64]

    @classmethod
    def of(cls, model: type[Predictor], table: SlideTable, labels: Sequence[str]) -> _Goal:
        missing = [label for label in labels if label not in table.columns]
        if missing or not labels:
            known = ", ".join(table.columns)
            raise TruthError(f"The table has no column {', '.join(missing) or 'to learn'}", todo=f"It has {known}")
        if isinstance(model.targets.get("expression"), Expression):
            return cls(tuple(labels), "expression", np.stack([_numbers(table, label) for label in labels], axis=1))
        if "labels" in inspect.signature(model.__init__).parameters:
            values = np.stack([_numbers(table, label) for label in labels], axis=1)
            if not np.isin(values[np.isfinite(values)], (0, 1)).all():
                raise TruthError("Labels have to be 0, 1 or empty", where=", ".join(labels))
            return cls(tuple(labels), "labels", values)
        if len(labels) > 1:
            raise ModelError(f"{model.__name__} learns one label", todo="Name one column, or take another system")
        column = table.columns[labels[0]]
        classes = sorted({text for text in column if text.lower() not in _UNKNOWN})
        if len(classes) < 2:
            raise TruthError(f"All slides are of one class ({', '.join(classes) or 'none'})", where=labels[0])
        numbers = {text: float(number) for number, text in enumerate(classes)}
        return cls(tuple(classes), "class", np.array([[numbers.get(text, np.nan)] for text in column]))

    def arguments(self, model: type[Predictor]) -> dict[str, Any]:
        """What the data decide of a system's constructor."""
        decided = {"n_classes": len(self.names), "n_genes": len(self.names), "labels": self.names}
        parameters = inspect.signature(model.__init__).parameters
        found = {name: value for name, value in decided.items() if name in parameters}
        if self.kind == "class" and "n_classes" not in found and len(self.names) > 2:
            raise TruthError(f"{model.__name__} tells two classes, not {len(self.names)}")
        return found


@dataclass
class _Cohort:
    """Bags of all slides, and models that are fitted to some of them."""

    cls: type[Predictor]
    arguments: dict[str, Any]
    goal: _Goal
    recipe: dict[str, Any]
    seed: int
    device: torch.device
    control: Control
    mpp: float = 0.5

    def read(self, table: SlideTable, mpp: float | None, stain: str | None) -> None:
        """Encode the tiles of every slide."""
        model = self._new_model()
        self.bags: list[tuple[Tensor, Tensor]] = []
        self.fingerprints: list[str] = []
        stated = bag_spec(model).mpp
        self.control.start(len(table.slides), "Reading slides")
        for path in table.slides:
            with Slide.open(path, mpp=mpp) as scan:
                slide = normalised(scan, stain)
                self.mpp = float(stated) if isinstance(stated, int | float) else slide.mpp
                features, centres = resolve_bag(model, slide, self.mpp, self.device)
                self.bags.append((features.cpu(), centres.cpu()))
                self.fingerprints.append(slide.fingerprint)
            self.control.advance()

    def _new_model(self) -> Predictor:
        parameters = inspect.signature(self.cls.__init__).parameters
        unknown = [key for key in self.arguments if key not in parameters]
        if unknown:
            message = f"{self.cls.__name__} has no argument {', '.join(unknown)}"
            raise ModelError(message, todo=f"It takes {', '.join(name for name in parameters if name != 'self')}")
        torch.manual_seed(self.seed)
        return self.cls(**self.arguments)

    def fit(self, rows: NDArray[np.intp]) -> tuple[Predictor, list[dict[str, float]]]:
        """Train on some slides."""
        known = [int(row) for row in rows if np.isfinite(self.goal.values[row]).any()]
        if self.goal.kind == "class" and len({float(self.goal.values[row, 0]) for row in known}) < 2:
            raise TruthError("A fold leaves slides of one class to learn from", todo="Use fewer folds or add slides")
        model = self._new_model().to(self.device)
        model.genes = list(self.goal.names)
        recipe: Recipe = replace(model.recipe, **self.recipe)
        self.control.start(recipe.epochs, f"Fitting {self.cls.__name__}")
        history = []
        batches = _Bags(self, model, known)
        for record in model.fit(batches, recipe):
            history.append(record)
            self.control.advance()
        model.finish(batches)
        return model.eval(), history

    def predict(self, model: Predictor, row: int) -> NDArray[np.float64]:
        """The result for one slide."""
        bag = tuple(part.to(self.device) for part in self.bags[row])
        noise = {"noise": Noise(self.seed, 0, np.zeros(1, dtype=np.intp))} if model.draws else {}
        with torch.inference_mode():
            found = model.predict(**noise, **model.prepare(bag=bag))
        return next(value for name, value in found.items() if name != MAP)[0].double().cpu().numpy()


class _Bags:
    """One slide per batch, in another order in each epoch."""

    def __init__(self, cohort: _Cohort, model: Predictor, rows: list[int]) -> None:
        self._cohort, self._model, self._rows, self._epoch = cohort, model, rows, 0
        self.n_slides = len(rows)

    def __len__(self) -> int:
        return len(self._rows)

    def __iter__(self) -> Iterator[tuple[dict[str, Tensor], dict[str, Any]]]:
        cohort = self._cohort
        order = np.random.default_rng((cohort.seed, self._epoch)).permutation(len(self._rows))
        self._epoch += 1
        for place in order.tolist():
            row = self._rows[place]
            bag = tuple(part.to(cohort.device) for part in cohort.bags[row])
            value = torch.from_numpy(cohort.goal.values[row]).float().to(cohort.device)
            expression = cohort.goal.kind == "expression"
            targets = {"expression": value[None]} if expression else {"label": value.nan_to_num(-1)}
            yield {**targets, "slide": torch.tensor([place])}, self._model.prepare(bag=bag)


def _numbers(table: SlideTable, label: str) -> NDArray[np.float64]:
    values = []
    for number, text in enumerate(table.columns[label]):
        try:
            values.append(np.nan if text.lower() in _UNKNOWN else float(text))
        except ValueError as error:
            raise TruthError(f"Row {number + 2} of column {label} is no number: {text!r}") from error
    return np.array(values)


def _groups(patients: Sequence[str], folds: int, seed: int) -> list[NDArray[np.bool_]]:
    """Which slides each fold leaves out; a patient's slides stay together."""
    if folds == 0:
        return []
    names = np.unique(patients)
    if len(names) < folds or folds < 2:
        raise TruthError(f"{len(names)} patients cannot be split into {folds} folds", todo="Use fewer, at least two")
    fold_of = dict(zip(np.random.default_rng(seed).permutation(names).tolist(), range(len(names)), strict=True))
    fold = np.array([fold_of[patient] % folds for patient in patients])
    return [fold == number for number in range(folds)]


def _scores(goal: _Goal, predicted: NDArray[np.float64]) -> dict[str, tuple[float | None, ...]]:
    """One figure for each result: AUC of a class or label, Pearson correlation of a gene; None where it has none."""
    from sklearn.metrics import roc_auc_score

    found: list[float | None] = []
    for column in range(len(goal.names)):
        truth = goal.values[:, 0] == column if goal.kind == "class" else goal.values[:, column]
        known = np.isfinite(goal.values[:, 0 if goal.kind == "class" else column]) & np.isfinite(predicted[:, column])
        y, p = np.asarray(truth, dtype=float)[known], predicted[known, column]
        if len(np.unique(y)) < 2 or len(np.unique(p)) < 2:
            found.append(None)
        elif goal.kind == "expression":
            found.append(float(np.corrcoef(y, p)[0, 1]))
        else:
            found.append(float(roc_auc_score(y, p)))
    return {"pcc" if goal.kind == "expression" else "auc": tuple(found)}


def _bundle(
    name: str,
    model: Predictor,
    cohort: _Cohort,
    table: SlideTable,
    goal: _Goal,
    scored: NDArray[np.float64] | None,
    history: list[dict[str, float]],
    about: About,
    stain: str | None,
) -> Bundle:
    spec = bag_spec(model)
    parameters = {k: v for k, v in inspect.signature(cohort.cls.__init__).parameters.items() if k != "self"}
    defaults = {key: p.default for key, p in parameters.items() if p.default is not p.empty}
    target = model.targets.get("expression")
    manifest = Manifest(
        name=about.name or f"{name}-slides",
        title=about.title or f"{cards()[name].title}, trained on {len(table.slides)} slides",
        system=name,
        arguments={**defaults, **cohort.arguments},
        genes=goal.names,
        scale=target.scale if isinstance(target, Expression) else "probability",
        tile_px=spec.px,
        mpp=cohort.mpp,
        pitch_um=spec.px * cohort.mpp,
        stain="" if stain is None else stain.removeprefix(keys.AS_STORED),
        encoder=(spec.encoder,),
        organs=about.organs,
        species=about.species,
        licence=about.licence,
        notes=about.notes,
        training=tuple(
            {"section": slide.stem, "patient": patient, "fingerprint": fingerprint, "spots": len(bag[0])}
            for slide, patient, fingerprint, bag in zip(
                table.slides, table.patients, cohort.fingerprints, cohort.bags, strict=True
            )
        ),
        scores={} if scored is None else _scores(goal, scored),
        history=tuple(history),
    )
    return Bundle([model.cpu().eval()], manifest)
