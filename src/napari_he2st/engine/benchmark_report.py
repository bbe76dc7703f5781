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
from napari_he2st.engine.benchmark_figures import ALPHA, boxes, critical_differences
from napari_he2st.engine.page import page, picture, rows_of, text_of

if TYPE_CHECKING:
    import pandas as pd

    from napari_he2st.engine.benchmark import Benchmark

GENE_METRICS = ("pcc_gene", "spearman", "mse", "mse_ratio", "mae", "ssim", "rvd")
WHOLE_METRICS = ("pcc_spot", "ari", "nmi")
"""Of a whole section rather than a gene."""

_COSTS = {"seconds_training": "sum", "seconds_scoring": "sum", "peak_mb": "max"}
_NOTE = """\
<b>pcc gene</b> is Pearson's correlation over the spots of a gene, <b>pcc spot</b> over the genes of a spot: the second
is high for the training mean already, for genes differ more than spots. <b>mse ratio</b> is the squared error over that
of the training mean. <b>ari</b> and <b>nmi</b> compare five domains found in the prediction by k-means with five found
in the measurement. ± is the standard deviation over folds, and over genes where there is a second one. A constant
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
    for metric in (*GENE_METRICS, *WHOLE_METRICS):
        columns |= {metric: mean[metric], f"{metric}_folds": spread[metric]}
        if metric in GENE_METRICS:
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
    shown = [*GENE_METRICS[:2], "pcc_spot", *GENE_METRICS[2:], "ari", "nmi"]
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


def markdown(result: Benchmark) -> str:
    """The table, its warnings and the ties of the best systems, for a page of a manual."""
    table, pairs = summarise(result), differences(result)
    head, rows = summary_rows(table)
    lines = ["| " + " | ".join(head) + " |", "|" + "---|" * len(head), *("| " + " | ".join(row) + " |" for row in rows)]
    best = str(table.index[0])
    tied = pairs[(pairs["p"] >= ALPHA) & ((pairs["first"] == best) | (pairs["second"] == best))]
    others = [str(r.second if r.first == best else r.first) for r in tied.itertuples()]
    said = f"It does not differ from {', '.join(others)}" if others else "It differs from all others"
    verdict = f"The best mean correlation per gene has {best}. {said} (Wilcoxon over genes, Holm, p = {ALPHA:g})."
    if len(set(table["unit"])) > 1:
        verdict += f" That is in its own unit, {table['unit'].iloc[0]}; others predict in other units."
    lines += ["", verdict, ""]
    undone = [f"{system} without {fold} (not done)" for system, fold in result.missing]
    undone += [f"{system} without {fold} ({reason})" for system, fold, reason in result.failed]
    lines += [f"- {text}" for text in (*result.warnings, *undone)]
    return "\n".join(lines) + "\n"


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
    scores = per_gene_scores(result)
    scores = scores[[system for system in table.index if system in scores]]
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
        picture(boxes(scores, pairs), "Pearson correlation per gene, a box per system, best first"),
        "<h2>Critical differences</h2>",
        "<p class='note'>Mean rank of each system over the genes, 1 the best; bars join systems that do not differ "
        f"(Wilcoxon, Holm, p ≥ {ALPHA:g}).</p>",
        picture(critical_differences(scores, pairs), "Mean ranks; bars join systems that do not differ"),
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
