"""Figures of a benchmark's report."""

from __future__ import annotations

from typing import TYPE_CHECKING

from napari_he2st.engine.page import draw_boxes, figure_of

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.figure import Figure

ALPHA = 0.05
"""Pairs with a larger p value count as equal."""


def boxes(scores: pd.DataFrame, pairs: pd.DataFrame) -> Figure:
    """Boxes of scores (genes × systems, the best first); a line beside them joins systems that do not differ."""
    order = [str(system) for system in scores]
    figure = figure_of(11, 1.2 + 0.45 * len(order))
    axes = figure.subplots()
    draw_boxes(axes, [scores[system].dropna().to_numpy() for system in order], order, 0.6)
    same = _ties(pairs)
    column = 0
    for place, system in enumerate(order):
        tied = [other for other in range(place + 1, len(order)) if frozenset((system, order[other])) in same]
        if tied:
            x = 1.02 + 0.02 * column
            axes.plot([x, x], [place, tied[-1]], transform=axes.get_yaxis_transform(), clip_on=False, color="#cc3311")
            column += 1
    axes.set(xlabel=f"Pearson correlation over spots, one value per gene (red: ends do not differ, p ≥ {ALPHA:g})")
    return figure


def critical_differences(scores: pd.DataFrame, pairs: pd.DataFrame) -> Figure:
    """Mean ranks over genes, bars joining groups of systems that do not differ (Demšar, JMLR 7, 2006).

    Parameters
    ----------
    scores
        Genes × systems, higher is better.
    pairs
        From :func:`~napari_he2st.engine.benchmark_report.differences`.
    """
    ranks = scores.rank(axis=1, ascending=False).mean().sort_values()
    names, n = [str(name) for name in ranks.index], len(ranks)
    groups = cliques(names, _ties(pairs))
    left = -(-n // 2)
    figure = figure_of(11, 1.0 + 0.3 * left + 0.15 * len(groups))
    axes = figure.subplots()
    axes.set(xlim=(0.4, n + 0.6), ylim=(-0.6 - 0.35 * len(groups) - left, 0.8), xticks=range(1, n + 1), yticks=[])
    axes.xaxis.tick_top()
    axes.set_xlabel("mean rank over genes, 1 is best")
    axes.xaxis.set_label_position("top")
    for side in ("left", "right", "bottom"):
        axes.spines[side].set_visible(False)
    for number, group in enumerate(groups):
        y = -0.1 - 0.35 * number
        axes.plot([ranks[group[0]] - 0.06, ranks[group[-1]] + 0.06], [y, y], color="#cc3311", linewidth=4)
    for place, name in enumerate(names):
        row, side = (place, "left") if place < left else (n - 1 - place, "right")
        y, end = -0.6 - 0.35 * len(groups) - row, 0.9 if side == "left" else n + 0.1
        axes.plot([ranks[name], ranks[name], end], [0.8, y, y], color="#555555", linewidth=0.9)
        axes.text(end, y, f" {name} ", ha="right" if side == "left" else "left", va="center", clip_on=False)
    return figure


def cliques(names: list[str], same: set[frozenset[str]]) -> list[list[str]]:
    """The longest runs of systems, by rank, of which no two differ."""
    runs: list[list[str]] = []
    for start in range(len(names)):
        end = start + 1
        while end < len(names) and all(frozenset((a, names[end])) in same for a in names[start:end]):
            end += 1
        if end - start > 1 and not (runs and runs[-1][-1] == names[end - 1]):
            runs.append(names[start:end])
    return runs


def _ties(pairs: pd.DataFrame) -> set[frozenset[str]]:
    equal = pairs[pairs["p"] >= ALPHA]
    return {frozenset(names) for names in zip(equal["first"], equal["second"], strict=True)}
