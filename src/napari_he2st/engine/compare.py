"""Score one result against another on the same slide: spots matched by position, genes by name."""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from napari_he2st.analysis.bootstrap import pcc_interval
from napari_he2st.analysis.matching import Matching, match
from napari_he2st.analysis.metrics import METRICS
from napari_he2st.analysis.metrics.table import per_gene, per_spot, summarise
from napari_he2st.analysis.normalise import to_log1p_cp10k
from napari_he2st.core import keys
from napari_he2st.core.errors import SchemaError
from napari_he2st.core.expression import unit_of
from napari_he2st.core.registry import unknown_name
from napari_he2st.core.schema import check_expression, facts_of, grid_of
from napari_he2st.core.types import Grid
from napari_he2st.data.truth.genes import match_genes
from napari_he2st.engine.conversion import Conversion, conversion, linear, logged, on_panel, source_of

if TYPE_CHECKING:
    from anndata import AnnData
    from pandas import DataFrame

_LABELS = (keys.LABEL, keys.DOMAIN)


@dataclass(frozen=True, eq=False)
class Comparison:
    """How well a result agrees with another, most often a prediction with measured expression.

    Attributes
    ----------
    genes
        Genes that both know, named as in the reference.
    predicted, measured
        Values of the result that is judged and of the reference at the common spots, float32, shape (common spots,
        genes); NaN is unknown.
    matching
        Which spots are common, and how they were found.
    scale
        Expression scale of both.
    titles
        What both are called: "predicted" and "measured", or their names where both are of one kind.
    table, spots
        Scores per gene and per spot; see :mod:`napari_he2st.analysis.metrics.table`. ``pcc_low`` and ``pcc_high``
        are the ends of the correlation's interval, see :mod:`napari_he2st.analysis.bootstrap`.
    summary
        Figures of the whole, ready for JSON.
    warnings
        What one has to know when reading the scores.
    facts_predicted, facts_measured
        Provenance of both.
    """

    genes: list[str]
    predicted: NDArray[np.float32]
    measured: NDArray[np.float32]
    matching: Matching
    scale: str
    titles: tuple[str, str]
    table: DataFrame
    spots: DataFrame
    summary: dict[str, Any]
    facts_predicted: dict[str, Any]
    facts_measured: dict[str, Any]
    warnings: list[str] = field(default_factory=list)

    @property
    def grid(self) -> Grid:
        """The common spots."""
        return self.matching.grid

    @property
    def unit(self) -> str:
        """Expression scale of both, as it is written in legends."""
        return unit_of(self.scale)

    @property
    def seen(self) -> bool:
        """Whether the judged result's predictor was trained on this very section."""
        return _seen(self.facts_predicted)

    def column(self, gene: str) -> int:
        """Column of a gene; raises :class:`~napari_he2st.core.errors.UnknownNameError` where it was not compared."""
        if gene not in self.genes:
            raise unknown_name("compared gene", gene, self.genes)
        return self.genes.index(gene)

    def difference(self, gene: str) -> NDArray[np.float32]:
        """Predicted minus measured expression of a gene, float32 (common spots,); NaN where one is unknown."""
        column = self.column(gene)
        return self.predicted[:, column] - self.measured[:, column]

    def line(self, gene: str) -> tuple[float, float]:
        """Slope and intercept of the regression of predicted on measured values; NaN where it is undefined."""
        column = self.column(gene)
        x, y = self.measured[:, column].astype(np.float64), self.predicted[:, column].astype(np.float64)
        known = np.isfinite(x) & np.isfinite(y)
        if known.sum() < 2 or np.ptp(x[known]) == 0:
            return float("nan"), float("nan")
        slope, intercept = np.polyfit(x[known], y[known], 1)
        return float(slope), float(intercept)

    def residual(self, gene: str) -> NDArray[np.float32]:
        """What the regression line leaves of the predicted values, float32 (common spots,)."""
        column = self.column(gene)
        slope, intercept = self.line(gene)
        rest: NDArray[np.float32] = (self.predicted[:, column] - (slope * self.measured[:, column] + intercept)).astype(
            np.float32
        )
        return rest


def compare(
    predicted: AnnData,
    measured: AnnData,
    *,
    labels: str | None = None,
    convert: bool = False,
    titles: tuple[str, str] | None = None,
) -> Comparison:
    """Compare two results on one slide; either may be predicted or measured.

    Spots are matched by :func:`~napari_he2st.analysis.matching.match`: paired, or gathered by area where one result
    is denser. Genes are matched by symbol, and those whose symbol is not measured by Ensembl identifier.

    Parameters
    ----------
    predicted
        The result that is judged, in our schema.
    measured
        The reference.
    labels
        Column of the reference's ``obs`` that the other's domains (``obs["domain"]``) are compared with; by
        default ``"label"``, or else ``"domain"``, where there is one.
    convert
        Bring both to one scale where theirs differ, see :func:`~napari_he2st.engine.conversion.conversion`; the
        comparison's first warning says what was done.
    titles
        What both are called; by default by their kinds, or by their names where these are the same.

    Raises
    ------
    SchemaError
        The two have different expression scales, or one does not follow the schema.
    UnknownNameError
        The reference has no such labels.
    TruthError
        They have no spot in common.
    GeneError
        They share no gene.
    """
    check_expression(predicted)
    check_expression(measured)
    facts = facts_of(predicted), facts_of(measured)
    change = _change(predicted, measured, convert=convert)
    matching = match(grid_of(predicted), grid_of(measured))
    predicted_columns, measured_columns, genes = _match_genes(predicted, measured)
    values, scale = _values(predicted, measured, matching, (predicted_columns, measured_columns), change)
    left, right = values
    grid = matching.grid
    table = per_gene(left, right, genes, grid=grid)
    interval = pcc_interval(left, right, grid)
    place = list(table).index("pcc") + 1
    table.insert(place, "pcc_low", interval.low)
    table.insert(place + 1, "pcc_high", interval.high)
    summary = {
        "spots_predicted": predicted.n_obs,
        "spots_measured": measured.n_obs,
        "spots_matched": len(grid),
        "spots_predicted_unmatched": predicted.n_obs - matching.used[0],
        "spots_measured_unmatched": measured.n_obs - matching.used[1],
        "matched_by": "nearest spot" if matching.by_area is None else "area",
        "genes_predicted": predicted.n_vars,
        "genes_measured": measured.n_vars,
        "scale": scale,
        **summarise(table.drop(columns=["pcc_low", "pcc_high"]), grid=grid),
        "pcc_mean_low": _known(interval.mean[0]),
        "pcc_mean_high": _known(interval.mean[1]),
        **_label_agreement(predicted, measured, matching, labels),
    }
    if keys.HELD_OUT_PCC in predicted.var:
        table[keys.HELD_OUT_PCC] = np.asarray(predicted.var[keys.HELD_OUT_PCC], dtype=np.float64)[predicted_columns]
    return Comparison(
        genes,
        left,
        right,
        matching,
        scale,
        titles or _titles(*facts),
        table,
        per_spot(left, right, grid.names or tuple(map(str, range(len(grid))))),
        summary,
        *facts,
        _warnings(*facts, summary, change),
    )


def _change(predicted: AnnData, measured: AnnData, *, convert: bool) -> Conversion | None:
    """How scales that differ are brought together; raises SchemaError where they are not to be, or cannot."""
    scales = facts_of(predicted)["scale"], facts_of(measured)["scale"]
    if scales[0] == scales[1]:
        return None
    change = conversion(predicted, measured)
    if change is None or not convert:
        todo = "Read the measured counts again, so that they can be brought to the scale of the prediction"
        if change is not None:
            todo = f"Convert them (he2st compare --convert). That {change.said[0].lower()}{change.said[1:]}"
        raise SchemaError(
            f"The two are on different expression scales ({' and '.join(map(unit_of, scales))})", todo=todo
        )
    return change


def _values(
    predicted: AnnData,
    measured: AnnData,
    matching: Matching,
    columns: tuple[NDArray[np.intp], NDArray[np.intp]],
    change: Conversion | None,
) -> tuple[tuple[NDArray[np.float32], NDArray[np.float32]], str]:
    """Both sides at the common spots and genes, in one scale, and that scale."""
    how = None if change is None else change.how
    found, scales = [], []
    for side, (adata, kind) in enumerate(((predicted, "predicted"), (measured, "measured"))):
        if how == kind:
            adata = to_log1p_cp10k(adata)
        X, scale = source_of(adata, how)
        there, back = partial(linear, scale=scale), partial(logged, scale=scale)
        found.append(matching.values(side, X, columns[side], linear=there, back=back))
        scales.append(scale)
    if how == "panel" and change is not None:
        return on_panel(found[0], found[1], (scales[0], scales[1])), change.scale
    return (found[0], found[1]), scales[0]


def _titles(predicted: dict[str, Any], measured: dict[str, Any]) -> tuple[str, str]:
    kinds = str(predicted["kind"]), str(measured["kind"])
    if kinds == ("predicted", "measured"):
        return kinds
    names = [str(facts.get("bundle_title", facts["library"])) for facts in (predicted, measured)]
    return f"{names[0]} ({kinds[0]})", f"{names[1]} ({kinds[1]})"


def _known(value: float) -> float | None:
    return value if np.isfinite(value) else None


def _match_genes(predicted: AnnData, measured: AnnData) -> tuple[NDArray[np.intp], NDArray[np.intp], list[str]]:
    wanted = list(map(str, predicted.var_names))
    if keys.ENSEMBL in predicted.var:
        symbols = set(map(str, measured.var_names))
        pairs = zip(wanted, map(str, predicted.var[keys.ENSEMBL]), strict=True)
        wanted = [symbol if symbol in symbols or not ensembl else ensembl for symbol, ensembl in pairs]
    match = match_genes(wanted, measured)
    columns_predicted = np.flatnonzero(match.indices >= 0)
    columns_measured = match.indices[columns_predicted]
    return columns_predicted, columns_measured, [str(measured.var_names[i]) for i in columns_measured]


def _label_agreement(predicted: AnnData, measured: AnnData, matching: Matching, labels: str | None) -> dict[str, Any]:
    """ARI and NMI between the predicted domains and the labels of the reference; None where no spot has both."""
    if labels is not None and labels not in measured.obs:
        raise unknown_name("column of labels", labels, list(map(str, measured.obs)))
    theirs = labels or next((name for name in _LABELS if name in measured.obs), None)
    if keys.DOMAIN not in predicted.obs or theirs is None:
        return {}
    groups = matching.labels(0, predicted.obs[keys.DOMAIN]), matching.labels(1, measured.obs[theirs])
    scores = {name: METRICS[name].function(*groups) for name in ("ari", "nmi")}
    return {"labels": theirs, **{name: _known(score) for name, score in scores.items()}}


def _seen(facts: dict[str, Any]) -> bool:
    return facts.get("slide_fingerprint") in [str(fingerprint) for fingerprint in facts.get("training_slides", ())]


def _warnings(
    predicted: dict[str, Any], measured: dict[str, Any], summary: dict[str, Any], change: Conversion | None
) -> list[str]:
    warnings = []
    if change is not None:
        warnings.append(f"Converted: {change.said[0].lower()}{change.said[1:]}.")
    if _seen(predicted):
        warnings.append("The predictor was trained on this very section: these scores are not held-out.")
    sizes = float(predicted["mpp"]), float(measured["mpp"])
    if abs(sizes[0] - sizes[1]) > 0.02 * max(sizes):
        warnings.append(
            f"The two state different pixel sizes ({sizes[0]:.3g} and {sizes[1]:.3g} µm): one of them is wrong, "
            "or they belong to differently scaled images and spots are paired wrongly."
        )
    missing = summary["spots_measured_unmatched"]
    if missing:
        of = f"{missing:,} of {summary['spots_measured']:,} {measured['kind']} spots"
        warnings.append(f"{of} have no {predicted['kind']} spot nearby, and are left out.")
    return warnings
