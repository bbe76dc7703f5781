"""Write a benchmark down: who did how well, with which spread, and which differences are more than chance."""

from __future__ import annotations

import html
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from napari_he2st.analysis.metrics import METRICS
from napari_he2st.analysis.paired import wilcoxon_pairs
from napari_he2st.core import keys
from napari_he2st.core.atomic import atomic_write
from napari_he2st.core.errors import TruthError
from napari_he2st.engine.page import figure_of, page, picture, rows_of, text_of

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.figure import Figure

    from napari_he2st.engine.benchmark import Benchmark

GENE_METRICS = ("pcc_gene", "spearman", "mse", "mse_ratio", "mae", "ssim", "rvd")
_COSTS = {"seconds_training": "sum", "seconds_scoring": "sum", "peak_mb": "max"}
_ALPHA = 0.05
_NOTE = """\
<b>pcc gene</b> is Pearson's correlation over the spots of a gene, <b>pcc spot</b> over the genes of a spot: the second
is high for the training mean already, for genes differ more than spots. <b>mse ratio</b> is the squared error over that
of the training mean. ± is the standard deviation over folds, and over genes where there is a second one. A constant
prediction counts as a correlation of 0; genes that do not vary in a scored section are left out; no gene was chosen by
its score. Features of a slide are kept once read, so whoever needs them first pays for them in seconds. Memory is the
highest of the whole process while it ran."""


def per_gene_scores(result: Benchmark, metric: str = "pcc_gene") -> pd.DataFrame:
    """Genes × systems, the mean over folds and sections; undefined correlations, of constant predictions, are 0."""
    rows = result.scores[result.scores["metric"] == metric]
    if metric in ("pcc_gene", "spearman"):
        rows = rows.fillna({"value": 0.0})
    table = rows.pivot_table(index="gene", columns="system", values="value", aggfunc="mean")
    return table[[system for system in result.systems if system in table]]


def summarise(result: Benchmark) -> pd.DataFrame:
    """One row per system, the best mean correlation first.

    Columns are the metrics (mean over folds of the mean over genes and sections), each with ``_folds`` and, for
    those per gene, ``_genes``, the standard deviations over both; costs over all folds; ``folds``, how many
    there are; and ``unit``.
    """
    import pandas as pd

    scores = result.scores
    known = scores.assign(
        value=scores["value"].where(~(scores["metric"].isin(("pcc_gene", "spearman")) & scores["value"].isna()), 0.0)
    )
    folds = known.pivot_table("value", ["system", "fold"], "metric").groupby("system")
    mean, spread = folds.mean(), folds.std()
    columns = {"folds": scores.groupby("system")["fold"].nunique(), "unit": scores.groupby("system")["unit"].first()}
    for metric in (*GENE_METRICS, "pcc_spot"):
        columns |= {metric: mean[metric], f"{metric}_folds": spread[metric]}
        if metric != "pcc_spot":
            columns[f"{metric}_genes"] = per_gene_scores(result, metric).std()
    for cost, how in _COSTS.items():
        columns[cost] = scores[scores["metric"] == cost].groupby("system")["value"].agg(how)
    return pd.DataFrame(columns).sort_values("pcc_gene", ascending=False)


def differences(result: Benchmark) -> pd.DataFrame:
    """Every pair of systems: mean difference of the correlation per gene and Wilcoxon's p value, Holm-corrected."""
    import pandas as pd

    table = per_gene_scores(result)
    values, names = table.to_numpy().T, list(table)
    return pd.DataFrame(
        [
            {
                "first": names[i],
                "second": names[j],
                "difference": float(np.nanmean(values[i] - values[j])),
                "genes": int(np.isfinite(values[i] - values[j]).sum()),
                "p": p,
            }
            for i, j, p in wilcoxon_pairs(values)
        ]
    )


def short_rows(table: pd.DataFrame) -> tuple[list[str], list[list[str]]]:
    """What decides of :func:`summary_rows`, narrow enough for a terminal, without spreads."""
    shown = ["pcc_gene", "pcc_spot", "mse_ratio"]
    head = ["system", *(_heading(metric) for metric in shown), "training s", "folds"]
    rows = [
        [
            str(system),
            *(text_of(float(row[metric])) for metric in shown),
            f"{row['seconds_training']:.1f}",
            str(row["folds"]),
        ]
        for system, row in table.iterrows()
    ]
    return head, rows


def summary_rows(table: pd.DataFrame) -> tuple[list[str], list[list[str]]]:
    """Head and cells of the table that people read, from :func:`summarise`."""
    shown = [*GENE_METRICS[:2], "pcc_spot", *GENE_METRICS[2:]]
    head = ["system", *(_heading(metric) for metric in shown), "training s", "scoring s", "peak MB", "folds", "unit"]
    rows = []
    for system, row in table.iterrows():
        cells = []
        for metric in shown:
            spreads = (row[f"{metric}_folds"], row.get(f"{metric}_genes") if metric == "pcc_gene" else None)
            known = [f" ± {value:.3f}" for value in spreads if value is not None and np.isfinite(value)]
            cells.append(text_of(float(row[metric])) + "".join(known))
        costs = [f"{row[cost]:.1f}" if cost != "peak_mb" else f"{row[cost]:.0f}" for cost in _COSTS]
        rows.append([str(system), *cells, *costs, str(row["folds"]), str(row["unit"])])
    return head, rows


def write_report(result: Benchmark, path: str | Path, *, force: bool = False) -> Path:
    """Write one web page that needs no other file and no network.

    Raises
    ------
    TruthError
        There is no score to report.
    OutputError
        The file exists or cannot be written.
    """
    if result.scores.empty:
        raise TruthError("No fit was finished, so there is nothing to report", todo="Raise the budget")
    table, pairs = summarise(result), differences(result)
    panel = result.panel if isinstance(result.panel, str) else f"a list of {len(result.panel)} genes"
    about = (
        f"Predicted against measured expression on what was left out of training: {len(result.folds)} folds, one per "
        f"{result.kind}. Panel {panel}, chosen within the training sections of each fold. {keys.RESEARCH_USE}"
    )
    undone = [
        *(f"Not done, for the budget was spent: {system} without {fold}." for system, fold in result.missing),
        *(f"Failed: {system} without {fold}. {reason}" for system, fold, reason in result.failed),
    ]
    incomplete = [f"{s} has fewer folds than others." for s in table.index[table["folds"] < table["folds"].max()]]
    parts = [
        "<h1>Benchmark</h1>",
        f"<p class='note'>{html.escape(about)}</p>",
        *(f"<p class='warning'>{html.escape(text)}</p>" for text in (*result.warnings, *undone, *incomplete)),
        rows_of(*summary_rows(table)),
        f"<p class='note'>{_NOTE}</p>",
        "<h2>Correlation of each gene</h2>",
        picture(_boxes(result, table, pairs), "Pearson correlation per gene, a box per system, best first"),
        "<h2>Pairs</h2>",
        "<p class='note'>Wilcoxon's signed-rank test over genes, corrected by Holm. Genes are not independent of each "
        "other, and few folds say little of other patients: read small p values with care.</p>",
        rows_of(
            ("first", "second", "mean difference", "genes", "p"),
            ([r.first, r.second, r.difference, r.genes, f"{r.p:.2g}"] for r in pairs.itertuples()),
        ),
    ]
    with atomic_write(path, force=force) as aside:
        aside.write_text(page("Benchmark", parts), encoding="utf-8")
    return Path(path)


def _heading(metric: str) -> str:
    better = METRICS[metric.partition("_")[0]].facts["better"]
    return f"{metric} {'↑' if better == 'higher' else '↓'}"


def _boxes(result: Benchmark, table: pd.DataFrame, pairs: pd.DataFrame) -> Figure:
    """Boxes ranked by mean correlation; a line beside them joins systems that do not differ."""
    scores = per_gene_scores(result)
    order = [system for system in table.index if system in scores]
    figure = figure_of(11, 1.2 + 0.45 * len(order))
    axes = figure.subplots()
    places = np.arange(len(order))
    axes.boxplot(
        [scores[system].dropna().to_numpy() for system in order],
        positions=places,
        orientation="horizontal",
        widths=0.6,
        showmeans=True,
        showfliers=False,
        tick_labels=order,
    )
    axes.axvline(0, color="#999999", linewidth=0.8)
    equal = pairs[pairs["p"] >= _ALPHA]
    same = {frozenset(names) for names in zip(equal["first"], equal["second"], strict=True)}
    column = 0
    for place, system in enumerate(order):
        tied = [other for other in range(place + 1, len(order)) if frozenset((system, order[other])) in same]
        if tied:
            x = 1.02 + 0.02 * column
            axes.plot([x, x], [place, tied[-1]], transform=axes.get_yaxis_transform(), clip_on=False, color="#cc3311")
            column += 1
    axes.invert_yaxis()
    axes.set(xlabel=f"Pearson correlation over spots, one value per gene (red: ends do not differ, p ≥ {_ALPHA:g})")
    return figure
