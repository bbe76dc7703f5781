"""Figures of a comparison, for its report and for papers."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from napari_he2st.core.atomic import atomic_write
from napari_he2st.core.errors import OutputError
from napari_he2st.engine.page import draw_boxes, figure_of

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

    from napari_he2st.engine.compare import Comparison
    from napari_he2st.engine.domain_agreement import DomainAgreement
    from napari_he2st.engine.ranking import Ranking

_BLUE, _GREEN, _ORANGE = "#0072B2", "#009E73", "#D55E00"
_MOST_POINTS = 5_000  # above, points are counted in hexagons
_DPI = 200


def figures(
    comparison: Comparison,
    gene: str | None = None,
    *,
    ranking: Ranking | None = None,
    domains: DomainAgreement | None = None,
) -> dict[str, tuple[str, Callable[[], Figure]]]:
    """By file name: what a figure shows, and the function that draws it.

    Parameters
    ----------
    comparison
        What is shown.
    gene
        The gene of maps and scatter; by default the one that agrees best.
    ranking, domains
        Shown where they are given.

    Raises
    ------
    UnknownNameError
        The gene was not compared.
    """
    gene = gene or best_gene(comparison)
    comparison.column(gene)
    reference, judged = comparison.titles[1], comparison.titles[0]
    drawn: dict[str, tuple[str, Callable[[], Figure]]] = {
        "maps": (f"{gene}: {reference}, {judged}, difference", partial(_maps, comparison, gene)),
        "scatter": (f"{gene} spot by spot, with its regression line", partial(_scatter, comparison, gene)),
        "residual": (f"{gene}: what the regression line leaves", partial(_residual, comparison, gene)),
        "agreement": ("correlation over genes at each spot", partial(_agreement, comparison)),
        "distribution": ("correlation of all genes", partial(_distribution, comparison, ranking)),
    }
    if domains is not None and domains.counts.size:
        drawn["domains"] = ("spots by group of either side", partial(_contingency, comparison, domains))
    return drawn


def write_figures(
    comparison: Comparison,
    folder: Path,
    *,
    gene: str | None = None,
    ranking: Ranking | None = None,
    domains: DomainAgreement | None = None,
    force: bool = False,
) -> list[Path]:
    """Write every figure as PNG and as SVG; returns the files.

    Raises
    ------
    OutputError
        A file exists or cannot be written.
    UnknownNameError
        The gene was not compared.
    """
    drawn = figures(comparison, gene, ranking=ranking, domains=domains)
    paths = [folder / f"{name}{suffix}" for name in drawn for suffix in (".png", ".svg")]
    there = [path for path in paths if path.exists()]
    if there and not force:
        raise OutputError("The figure exists already", where=there[0], todo="Choose another folder, or replace it")
    folder.mkdir(parents=True, exist_ok=True)
    for name, (_, draw) in drawn.items():
        figure = draw()
        for suffix in (".png", ".svg"):
            with atomic_write(folder / f"{name}{suffix}", force=True) as aside:
                figure.savefig(aside, format=suffix[1:], dpi=_DPI)
    return paths


def best_gene(comparison: Comparison) -> str:
    """The gene that agrees best; the first one where no correlation is defined."""
    pcc = comparison.table["pcc"].to_numpy()
    return comparison.genes[int(np.nanargmax(pcc)) if np.isfinite(pcc).any() else 0]


def _maps(comparison: Comparison, gene: str) -> Figure:
    column = comparison.column(gene)
    measured, predicted = comparison.measured[:, column], comparison.predicted[:, column]
    both = np.concatenate([measured, predicted])
    shared = tuple(np.nanpercentile(both, [1, 99])) if np.isfinite(both).any() else (0.0, 1.0)
    figure = figure_of(11, 3.8)
    panels = figure.subplots(1, 3)
    judged, reference = comparison.titles
    _map(panels[0], comparison, measured, shared, "viridis", f"{gene}, {reference}")
    _map(panels[1], comparison, predicted, shared, "viridis", f"{gene}, {judged}")
    title = "predicted − measured" if comparison.titles == ("predicted", "measured") else "difference"
    _difference(panels[2], comparison, comparison.difference(gene), f"{gene}, {title}")
    return figure


def _residual(comparison: Comparison, gene: str) -> Figure:
    figure = figure_of(4.6, 3.8)
    _difference(figure.subplots(), comparison, comparison.residual(gene), f"{gene}, residual of the line")
    return figure


def _agreement(comparison: Comparison) -> Figure:
    figure = figure_of(4.6, 3.8)
    values = comparison.spots["pcc"].to_numpy()
    known = values[np.isfinite(values)]
    limits = tuple(np.percentile(known, [1, 99])) if len(known) else (0.0, 1.0)
    _map(figure.subplots(), comparison, values, limits, "viridis", "agreement of each spot", "r over genes")
    return figure


def _difference(axes: Axes, comparison: Comparison, values: NDArray, title: str) -> None:
    known = np.abs(values[np.isfinite(values)])
    reach = max(float(np.percentile(known, 99)) if len(known) else 0.0, 1e-6)
    _map(axes, comparison, values, (-reach, reach), "RdBu_r", title)


def _map(
    axes: Axes,
    comparison: Comparison,
    values: NDArray,
    limits: tuple[Any, ...],
    cmap: str,
    title: str,
    unit: str | None = None,
) -> None:
    grid = comparison.grid
    um = grid.xy * grid.mpp
    span = max(float(np.ptp(um[:, 0])), float(np.ptp(um[:, 1])), grid.pitch_um)
    size = (155 * grid.pitch_um / span) ** 2  # points²: spots that touch
    drawn = axes.scatter(um[:, 0], um[:, 1], c=values, s=size, cmap=cmap, vmin=limits[0], vmax=limits[1], linewidths=0)
    axes.set(title=title, aspect="equal", xlabel="µm")
    axes.invert_yaxis()
    axes.figure.colorbar(drawn, ax=axes, label=unit or comparison.unit, shrink=0.6)


def _scatter(comparison: Comparison, gene: str) -> Figure:
    column = comparison.column(gene)
    x, y = comparison.measured[:, column], comparison.predicted[:, column]
    known = np.isfinite(x) & np.isfinite(y)
    x, y = x[known], y[known]
    figure = figure_of(4.6, 4.2)
    axes = figure.subplots()
    if len(x) > _MOST_POINTS:
        axes.hexbin(x, y, gridsize=40, bins="log", cmap="viridis", mincnt=1)
    else:
        axes.scatter(x, y, s=9, color=_BLUE, alpha=0.6, linewidths=0)
    slope, intercept = comparison.line(gene)
    if len(x):
        ends = np.array([x.min(), x.max()])
        axes.plot(ends, ends, "--", color=_ORANGE, linewidth=1, label="equal")
        if np.isfinite(slope):
            axes.plot(ends, slope * ends + intercept, color=_GREEN, label=f"y = {slope:.2f}x + {intercept:.2f}")
        axes.legend(fontsize=8)
    row = comparison.table.iloc[column]
    stated = f"r = {row['pcc']:.2f} [{row['pcc_low']:.2f}, {row['pcc_high']:.2f}], n = {int(row['n']):,}"
    judged, reference = comparison.titles
    axes.set(xlabel=f"{reference}, {comparison.unit}", ylabel=f"{judged}, {comparison.unit}", title=f"{gene}: {stated}")
    axes.title.set_fontsize(10)
    return figure


def _distribution(comparison: Comparison, ranking: Ranking | None) -> Figure:
    if ranking is not None and len(ranking.names) > 1:
        names, scores = ranking.names, [row[np.isfinite(row)] for row in ranking.pcc]
    else:
        names, scores = [comparison.titles[0]], [comparison.table["pcc"].dropna().to_numpy()]
    figure = figure_of(5.8, 1.6 + 0.7 * len(names))
    axes = figure.subplots()
    rng = np.random.default_rng(0)
    for place, values in enumerate(scores):
        axes.scatter(values, place + rng.uniform(-0.3, 0.3, len(values)), s=4, color=_BLUE, alpha=0.35, linewidths=0)
    draw_boxes(axes, scores, names, 0.7)
    axes.set(xlabel="Pearson correlation over spots, a point per gene")
    return figure


def _contingency(comparison: Comparison, domains: DomainAgreement) -> Figure:
    counts = domains.counts
    figure = figure_of(2.4 + 0.6 * counts.shape[1], 1.6 + 0.42 * counts.shape[0])
    axes = figure.subplots()
    total = counts.sum(axis=1, keepdims=True)
    share = counts / np.where(total > 0, total, 1)
    axes.imshow(share, cmap="viridis", vmin=0, vmax=1, aspect="auto")
    for (row, column), count in np.ndenumerate(counts):
        ink = "black" if share[row, column] > 0.6 else "white"
        axes.text(column, row, f"{count:,}", ha="center", va="center", color=ink, fontsize=8)
    axes.set_xticks(range(counts.shape[1]), domains.predicted, rotation=45, ha="right")
    axes.set_yticks(range(counts.shape[0]), domains.measured)
    judged, reference = comparison.titles
    axes.set(xlabel=judged, ylabel=reference)
    return figure
