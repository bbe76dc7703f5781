"""Train and score any set of systems on the same spots, panel and folds; resume where one stopped."""

from __future__ import annotations

import hashlib
import inspect
import json
import re
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from napari_he2st._version import __version__
from napari_he2st.core.atomic import atomic_write
from napari_he2st.core.errors import He2stError, ModelError, OutputError, TruthError
from napari_he2st.core.progress import Control
from napari_he2st.engine.benchmark_scores import score_section
from napari_he2st.engine.folds import Fold, Kind, make_folds, pitfalls
from napari_he2st.engine.panel import choose_panel
from napari_he2st.engine.train import train
from napari_he2st.engine.trained import encoders_of
from napari_he2st.engine.training_data import TrainingSection
from napari_he2st.zoo.catalogue import card_of, system, variant_arguments

if TYPE_CHECKING:
    import pandas as pd

    from napari_he2st.data.truth import Section

BASELINES = ("mean", "ridge:colour", "ridge")
"""Always taken part: the training mean, and ridge on colour and texture alone and with the starter's encoder."""

COLUMNS = ["system", "fold", "section", "gene", "metric", "value", "unit"]
"""Of the scores; ``gene`` is empty where a row is of a whole section, ``section`` too where it is of a whole fit."""

_REFUSED = {
    "slide_level": "It predicts whole slides, not spots",
    "domains": "It groups spots and predicts no expression",
    "alignment": "It registers sections and predicts no expression",
    "imputation": "It needs expression measured on the section that is scored",
    "cells": "It predicts single cells and needs segmented nuclei",
}


@dataclass(frozen=True)
class Contestant:
    """A system that takes part, under ``label`` in all tables; its settings depart from the published ones."""

    label: str
    system: str
    arguments: Mapping[str, Any] = field(default_factory=dict)
    recipe: Mapping[str, Any] = field(default_factory=dict)

    @classmethod
    def parse(cls, text: str, settings: Mapping[str, Any] | None = None) -> Contestant:
        """The system of ``SLUG`` or ``SLUG:VARIANT``.

        Parameters
        ----------
        text
            Its label.
        settings
            ``variant``, ``arguments`` and ``recipe``, each optional, as in ``benchmarks/learning.toml``.

        Raises
        ------
        UnknownNameError
            There is no such system or variant.
        ModelError
            It cannot be scored here, or a setting is unknown.
        """
        slug, _, variant = text.partition(":")
        card, settings = card_of(slug), settings or {}
        if card.status == "unavailable":
            raise ModelError(f"{card.title} cannot be used: {card.reason}", where=text)
        if card.fitted == "slide":
            message = "This system is fitted to the slide it predicts and has nothing to say of sections left out"
            raise ModelError(message, where=text, todo="Leave it out")
        if card.tasks[0] in _REFUSED:
            raise ModelError(
                f"This system cannot take part. {_REFUSED[card.tasks[0]]}", where=text, todo="Leave it out"
            )
        unknown = sorted(set(settings) - {"variant", "arguments", "recipe"})
        if unknown:
            message = f"A benchmark has no setting {', '.join(unknown)}"
            raise ModelError(message, where=text, todo="Use variant, arguments and recipe")
        variants = variant_arguments(slug, variant or settings.get("variant"))
        return cls(text, card.slug, {**variants, **settings.get("arguments", {})}, settings.get("recipe", {}))


@dataclass(frozen=True, eq=False)
class Benchmark:
    """What a benchmark found.

    Attributes
    ----------
    scores
        One row per number, see :data:`COLUMNS`.
    systems, folds
        Who took part, in order, and what was left out in turn.
    kind, panel
        Of the folds; rule or list of the genes.
    warnings
        What one has to know when reading the scores.
    missing
        System and fold of fits that the budget left out.
    failed
        System, fold and reason of fits that could not be made.
    """

    scores: pd.DataFrame
    systems: list[str]
    folds: list[str]
    kind: Kind
    panel: str | Sequence[str]
    warnings: list[str]
    missing: list[tuple[str, str]]
    failed: list[tuple[str, str, str]]


def benchmark(
    systems: Sequence[Contestant],
    sections: Sequence[Section],
    folder: str | Path,
    *,
    kind: Kind = "patient",
    panel: str | Sequence[str] = "hvg:250",
    budget_minutes: float | None = None,
    seed: int = 0,
    device: str = "auto",
    jobs: int = 1,
    control: Control | None = None,
) -> Benchmark:
    """Train every system without every fold and score it there; the baselines take part in any case.

    The panel is chosen among the training sections of each fold. Every fit is written into ``folder`` when it is
    done, and one that lies there with the same settings and data is not made again.

    Parameters
    ----------
    systems, sections
        Who takes part, on what.
    folder
        Where results go; it is made if need be.
    kind
        What is left out in turn.
    panel
        See :func:`~napari_he2st.engine.panel.choose_panel`.
    budget_minutes
        No fit is begun once they are spent; None is no limit.
    seed, device, control
        How to train.
    jobs
        Fits that run side by side, each in a process of its own; progress then counts fits.

    Raises
    ------
    TruthError
        There is no section, one without image or counts, or too few for these folds.
    ModelError
        A label stands for two systems.
    GeneError
        The sections share no gene, or the panel is not among them.
    OutputError
        The folder cannot be written.
    """
    import pandas as pd

    control = control or Control()
    if not sections:
        raise TruthError("There is no section to learn", todo="Name at least two with --data")
    contestants = _with_baselines(systems)
    folds = make_folds(sections, kind)
    choose_panel([section.adata for section in sections], "all")
    data = {section.name: _digest(section) for section in sections}
    fits = Path(folder) / "fits"
    try:
        fits.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise OutputError(f"The folder cannot be made ({error.strerror})", where=fits) from error
    deadline = None if budget_minutes is None else time.monotonic() + 60 * budget_minutes
    todo = []
    for fold in folds:  # all systems of a fold together, so that what a budget leaves can be compared
        for contestant in contestants:
            how = [contestant.system, contestant.arguments, contestant.recipe]
            settings = [__version__, *how, panel, seed, kind, fold.name, data]
            key = hashlib.sha256(json.dumps(settings, sort_keys=True, default=list).encode()).hexdigest()[:16]
            path = fits / f"{_file_name(contestant.label)}.{_file_name(fold.name)}.{key}.parquet"
            todo.append(_Fit(contestant, fold, panel, seed, device, path, deadline))
    left = [fit for fit in todo if not fit.path.exists()]
    said = dict(zip((fit.path for fit in left), _make(left, jobs, control), strict=True))
    missing = [(fit.contestant.label, fit.fold.name) for fit in left if said[fit.path] is _BUDGET_SPENT]
    failed = [
        (fit.contestant.label, fit.fold.name, str(text)) for fit in left if (text := said[fit.path]) not in ("", None)
    ]
    parts = [pd.read_parquet(fit.path) for fit in todo if fit.path.exists()]
    scores = pd.concat(parts, ignore_index=True) if parts else pd.DataFrame(columns=COLUMNS)
    labels, names = [c.label for c in contestants], [fold.name for fold in folds]
    warnings = [*pitfalls(folds, kind), *_doubts(scores)]
    with atomic_write(Path(folder) / "scores.parquet", force=True) as aside:
        scores.to_parquet(aside, index=False)
    return Benchmark(scores, labels, names, kind, panel, warnings, missing, failed)


def _with_baselines(systems: Sequence[Contestant]) -> list[Contestant]:
    labels = [contestant.label for contestant in systems]
    if len(set(labels)) < len(labels):
        raise ModelError("A system is named twice", where=", ".join(labels), todo="Name every system once")
    found = dict.fromkeys(encoder for c in systems if c.system != "ridge" for encoder in _encoders_of(c))
    on_each = [Contestant(f"ridge on {name}", "ridge", {"fields": [[name, 224]]}) for name in found if name not in _HAS]
    return [*(Contestant.parse(label) for label in BASELINES if label not in labels), *on_each, *systems]


_HAS = ("colour-texture",)  # encoders on which there is a baseline in any case
_SOME_GENES = 50


def _encoders_of(contestant: Contestant) -> tuple[str, ...]:
    """Patch encoders that a system with these arguments takes features of; what cannot be built says so when fitted."""
    import torch

    cls: Any = system(contestant.system)
    sizes = {"n_genes": _SOME_GENES} if "n_genes" in inspect.signature(cls.__init__).parameters else {}
    try:
        with torch.device("meta"):
            return encoders_of(cls(**{**sizes, **contestant.arguments}))
    except (He2stError, TypeError, ValueError):
        return ()


def _file_name(text: str) -> str:
    return re.sub(r"[^\w-]+", "-", text)


def _digest(section: Section) -> list[str]:
    """What identifies image and spots; opening them shows that both are there."""
    opened = TrainingSection.open(section)
    opened.slide.original.close()
    return opened.digest()


@dataclass(frozen=True, eq=False)
class _Fit:
    """One system without one fold, where its scores go, and when it is too late to begin."""

    contestant: Contestant
    fold: Fold
    panel: str | Sequence[str]
    seed: int
    device: str
    path: Path
    deadline: float | None


_BUDGET_SPENT = None


def _make(fits: Sequence[_Fit], jobs: int, control: Control) -> list[str | None]:
    """Make fits, one after the other or side by side: of each "" when it is written, or why not."""
    if jobs == 1:
        return [_make_one(fit, control) for fit in fits]
    import dask

    control.start(len(fits), f"{len(fits)} fits in {jobs} processes")
    tasks = [dask.delayed(_make_one)(fit) for fit in fits]
    found: list[str | None] = []
    for start in range(0, len(tasks), jobs):
        found += dask.compute(*tasks[start : start + jobs], scheduler="processes", num_workers=jobs)
        control.advance(len(tasks[start : start + jobs]))
    return found


def _make_one(fit: _Fit, control: Control | None = None) -> str | None:
    """Write the scores of a fit: "" when that is done, what is wrong, or that the budget is spent."""
    control = control or Control()
    if fit.deadline is not None and time.monotonic() >= fit.deadline:
        return _BUDGET_SPENT
    try:
        scores = _scores(fit, control)
    except He2stError as error:
        control.note(f"{fit.contestant.label} failed on {fit.fold.name}: {error}")
        return str(error)
    with atomic_write(fit.path, force=True) as aside:
        scores.to_parquet(aside, index=False)
    return ""


def _scores(fit: _Fit, control: Control) -> pd.DataFrame:
    """Scores of one fit: the rows of :data:`COLUMNS`."""
    import pandas as pd

    control.start(None, f"{fit.contestant.label}, without {fit.fold.name}")
    with _watched() as peak_mb:
        start = time.perf_counter()
        bundle = train(
            fit.contestant.system,
            fit.fold.train,
            arguments=fit.contestant.arguments,
            recipe=fit.contestant.recipe,
            panel=fit.panel,
            seed=fit.seed,
            device=fit.device,
            control=control,
        )
        trained = time.perf_counter()
        parts = [score_section(bundle, fit.fold.train, section, fit.device, control) for section in fit.fold.test]
        scored = time.perf_counter()
    figures = {"seconds_training": trained - start, "seconds_scoring": scored - trained, "peak_mb": peak_mb[0]}
    of_fit = pd.DataFrame([{"section": "", "gene": "", "metric": m, "value": v} for m, v in figures.items()])
    scores = pd.concat([*parts, of_fit], ignore_index=True)
    return scores.assign(system=fit.contestant.label, fold=fit.fold.name, unit=bundle.manifest.scale)[COLUMNS]


def _doubts(scores: pd.DataFrame) -> list[str]:
    """Warnings that only the scores can give."""
    found = []
    for section, n_flat in scores[scores["metric"] == "genes_flat"].groupby("section")["value"].max().items():
        if n_flat:
            found.append(f"{int(n_flat)} genes of a panel do not vary in {section} and have no score there.")
    learners = scores[(scores["metric"] == "p_chance") & (scores["system"] != "mean")]
    for section, p in learners.groupby("section")["value"].min().items():
        if p > 0.05:
            found.append(
                f"No system does better than chance on {section} (p ≥ {p:.2f}): its counts may belong to other spots, "
                "or its image may be turned. he2st info shows how they fit."
            )
    units = scores["unit"].unique()
    if len(units) > 1:
        found.append(
            f"Systems predict in different units ({', '.join(sorted(units))}): compare MSE and MAE only within one "
            "unit; mse_ratio, over the error of the training mean in the same unit, compares all. Correlations compare "
            "with care: units that keep sequencing depth also correlate by depth."
        )
    return found


@contextmanager
def _watched() -> Iterator[list[float]]:
    """The highest resident memory of this process so far, in MB, as the only item of a list."""
    import psutil

    process, peak, done = psutil.Process(), [0.0], threading.Event()

    def watch() -> None:
        while True:
            peak[0] = max(peak[0], process.memory_info().rss / 1e6)
            if done.wait(0.05):
                return

    thread = threading.Thread(target=watch, daemon=True)
    thread.start()
    try:
        yield peak
    finally:
        done.set()
        thread.join()
