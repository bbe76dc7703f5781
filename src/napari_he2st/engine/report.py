"""Write a comparison down: its table as CSV, and all of it as one self-contained web page."""

from __future__ import annotations

import html
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from napari_he2st.core import keys
from napari_he2st.core.atomic import atomic_write
from napari_he2st.core.expression import unit_of
from napari_he2st.data.export.table import inert
from napari_he2st.engine.page import figure_of, page, picture, rows_of, text_of

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

    from napari_he2st.engine.compare import Comparison

_LISTED = 25
_FACTS = {
    "Prediction": (
        *("library", "bundle_title", "bundle", "bundle_sha256", "system", "slide_fingerprint", "tile_px", "tile_mpp"),
        *("scale", "mpp", "pitch_um", "seed", "device", "version", "date"),
    ),
    "Measurement": ("library", "layout", "scale", "mpp", "mpp_source", "pitch_um", "spot_um", "version", "date"),
}


def write_table(comparison: Comparison, path: str | Path, *, force: bool = False) -> Path:
    """Write the scores per gene as CSV; raises :class:`~napari_he2st.core.errors.OutputError`."""
    table = comparison.table.assign(gene=inert(comparison.table["gene"]))
    with atomic_write(path, force=force) as aside:
        table.to_csv(aside, index=False, float_format="%.6g")
    return Path(path)


def write_report(comparison: Comparison, path: str | Path, *, gene: str | None = None, force: bool = False) -> Path:
    """Write one web page that needs no other file and no network.

    Parameters
    ----------
    comparison
        What to report.
    path
        The page.
    gene
        The gene whose maps are shown; by default the one that agrees best.
    force
        Replace an existing file.

    Raises
    ------
    OutputError
        The file exists or cannot be written.
    UnknownNameError
        The gene was not compared.
    """
    content = _page(comparison, gene or _best_gene(comparison))
    with atomic_write(path, force=force) as aside:
        aside.write_text(content, encoding="utf-8")
    return Path(path)


def _best_gene(comparison: Comparison) -> str:
    pcc = comparison.table["pcc"].to_numpy()
    return comparison.genes[int(np.nanargmax(pcc)) if np.isfinite(pcc).any() else 0]


def _page(comparison: Comparison, gene: str) -> str:
    facts = comparison.facts_predicted
    title = f"{facts.get('bundle_title', facts['library'])} on {comparison.facts_measured['library']}"
    ranked = comparison.table.sort_values("pcc", ascending=False, na_position="last")
    known = ranked[ranked["pcc"].notna()]
    parts = [
        f"<h1>{html.escape(title)}</h1>",
        f"<p class='note'>Predicted against measured expression. {html.escape(keys.RESEARCH_USE)}</p>",
        *(f"<p class='warning'>{html.escape(text)}</p>" for text in comparison.warnings),
        f"<h2>{html.escape(gene)}</h2>",
        picture(_maps(comparison, gene), f"{gene}: measured, predicted, difference"),
        "<h2>All genes</h2>",
        picture(_distribution(comparison, gene), "distribution of scores, and one gene spot by spot"),
        "<div class='columns'>",
        _table_of("Figures", comparison.summary),
        "<div>",
        _table_of("Prediction", _chosen(facts, "Prediction")),
        _table_of("Measurement", _chosen(comparison.facts_measured, "Measurement")),
        "</div></div>",
        f"<h2>The {min(_LISTED, len(known))} genes that agree best</h2>",
        _gene_rows(known.head(_LISTED)),
        f"<h2>The {min(_LISTED, len(known))} genes that agree least</h2>",
        _gene_rows(known.tail(_LISTED).iloc[::-1]),
    ]
    return page(title, parts)


def _chosen(facts: Mapping[str, Any], of: str) -> dict[str, Any]:
    """Provenance that is worth printing; what is not named here, such as a path, stays out."""
    return {name: facts[name] for name in _FACTS[of] if name in facts}


def _table_of(title: str, values: Mapping[str, Any]) -> str:
    rows = "".join(
        f"<tr><td>{html.escape(name.replace('_', ' '))}</td><td>{html.escape(text_of(value))}</td></tr>"
        for name, value in values.items()
    )
    return f"<div><h2>{title}</h2><table>{rows}</table></div>"


def _gene_rows(table: Any) -> str:
    columns = [name for name in table.columns if name != "constant"]
    return rows_of(columns, ([row[name] for name in columns] for row in table.to_dict("records")))


def _maps(comparison: Comparison, gene: str) -> Figure:
    column, difference = comparison.column(gene), comparison.difference(gene)
    measured, predicted = comparison.measured[:, column], comparison.predicted[:, column]
    both = np.concatenate([measured, predicted])
    low, high = np.nanpercentile(both, [1, 99]) if np.isfinite(both).any() else (0, 1)
    reach = float(np.nanmax(np.abs(difference), initial=1e-6))
    figure = figure_of(11, 3.8)
    panels = figure.subplots(1, 3)
    unit = unit_of(comparison.facts_measured["scale"])
    for axes, values, title, limits, cmap in (
        (panels[0], measured, "measured", (low, high), "viridis"),
        (panels[1], predicted, "predicted", (low, high), "viridis"),
        (panels[2], difference, "predicted − measured", (-reach, reach), "RdBu_r"),
    ):
        _map(axes, comparison, values, limits, cmap, f"{gene}, {title}", unit)
    return figure


def _map(
    axes: Axes,
    comparison: Comparison,
    values: np.ndarray,
    limits: tuple[float, float],
    cmap: str,
    title: str,
    unit: str,
) -> None:
    um = comparison.grid.xy * comparison.grid.mpp
    span = max(float(np.ptp(um[:, 0])), float(np.ptp(um[:, 1])), comparison.grid.pitch_um)
    size = (155 * comparison.grid.pitch_um / span) ** 2  # points²: spots that touch
    drawn = axes.scatter(um[:, 0], um[:, 1], c=values, s=size, cmap=cmap, vmin=limits[0], vmax=limits[1], linewidths=0)
    axes.set(title=title, aspect="equal", xlabel="µm")
    axes.invert_yaxis()
    axes.figure.colorbar(drawn, ax=axes, label=unit, shrink=0.6)


def _distribution(comparison: Comparison, gene: str) -> Figure:
    figure = figure_of(11, 3.4)
    left, right = figure.subplots(1, 2)
    pcc = comparison.table["pcc"].dropna().to_numpy()
    left.hist(pcc, bins=40, color="#4477aa")
    if len(pcc):
        left.axvline(float(np.mean(pcc)), color="#cc3311", label=f"mean {np.mean(pcc):.3f}")
        left.legend()
    left.set(xlabel="Pearson correlation over spots", ylabel="genes")
    column = comparison.column(gene)
    right.scatter(comparison.measured[:, column], comparison.predicted[:, column], s=9, color="#4477aa", alpha=0.6)
    unit = unit_of(comparison.facts_measured["scale"])
    right.set(xlabel=f"measured, {unit}", ylabel=f"predicted, {unit}", title=gene)
    return figure
