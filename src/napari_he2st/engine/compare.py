"""Score a prediction against measured expression: spots matched by position, genes by name."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from napari_he2st.analysis.metrics import METRICS
from napari_he2st.analysis.metrics.table import per_gene, per_spot, summarise
from napari_he2st.core import keys
from napari_he2st.core.errors import GeneError, SchemaError, TruthError
from napari_he2st.core.expression import unit_of
from napari_he2st.core.schema import check_expression, facts_of, grid_of
from napari_he2st.core.types import Grid
from napari_he2st.data.truth.genes import match_genes

if TYPE_CHECKING:
    from anndata import AnnData
    from pandas import DataFrame

_LABELS = (keys.LABEL, keys.DOMAIN)


@dataclass(frozen=True, eq=False)
class Comparison:
    """How well a prediction agrees with measured expression.

    Attributes
    ----------
    genes
        Genes that both know, named as in the measured data.
    predicted, measured
        Their values at the matched spots, float32, shape (pairs, genes); NaN is unknown.
    index_predicted, index_measured
        Rows of the two data sets that belong together, intp, shape (pairs,).
    grid
        The matched measured spots.
    table, spots
        Scores per gene and per spot; see :mod:`napari_he2st.analysis.metrics.table`.
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
    index_predicted: NDArray[np.intp]
    index_measured: NDArray[np.intp]
    grid: Grid
    table: DataFrame
    spots: DataFrame
    summary: dict[str, Any]
    facts_predicted: dict[str, Any]
    facts_measured: dict[str, Any]
    warnings: list[str] = field(default_factory=list)


def compare(predicted: AnnData, measured: AnnData) -> Comparison:
    """Compare two results on one slide.

    Every measured spot is paired with the nearest predicted one within half a measured pitch, in level-0
    pixels. Genes are matched by symbol and by Ensembl identifier.

    Parameters
    ----------
    predicted, measured
        Expression in our schema. Domains or labels in ``obs`` of both are compared too.

    Raises
    ------
    SchemaError
        The two have different expression scales, or one does not follow the schema.
    TruthError
        No spot of one lies near a spot of the other.
    GeneError
        They share no gene.
    """
    check_expression(predicted)
    check_expression(measured)
    facts_predicted, facts_measured = facts_of(predicted), facts_of(measured)
    _check_scales(facts_predicted, facts_measured)
    grid = grid_of(measured)
    index_predicted, index_measured = match_spots(grid_of(predicted), grid)
    columns_predicted, columns_measured, genes = _match_genes(predicted, measured)
    left = _dense(predicted.X, index_predicted, columns_predicted)
    right = _dense(measured.X, index_measured, columns_measured)
    matched = grid.take(index_measured)
    table = per_gene(left, right, genes, grid=matched)
    if keys.HELD_OUT_PCC in predicted.var:
        table[keys.HELD_OUT_PCC] = np.asarray(predicted.var[keys.HELD_OUT_PCC], dtype=np.float64)[columns_predicted]
    summary = {
        "spots_predicted": predicted.n_obs,
        "spots_measured": measured.n_obs,
        "spots_matched": len(index_measured),
        "genes_predicted": predicted.n_vars,
        "genes_measured": measured.n_vars,
        **summarise(table, grid=matched),
        **_label_agreement(predicted.obs.iloc[index_predicted], measured.obs.iloc[index_measured]),
    }
    return Comparison(
        genes,
        left,
        right,
        index_predicted,
        index_measured,
        matched,
        table,
        per_spot(left, right, matched.names or tuple(map(str, index_measured))),
        summary,
        facts_predicted,
        facts_measured,
        _warnings(facts_predicted, summary),
    )


def match_spots(predicted: Grid, measured: Grid) -> tuple[NDArray[np.intp], NDArray[np.intp]]:
    """Rows of both grids that belong together: for each measured spot the nearest predicted one.

    Raises
    ------
    TruthError
        None lies within half a measured pitch.
    """
    from scipy.spatial import cKDTree

    reach_px = 0.5 * measured.pitch_um / measured.mpp
    distance, nearest = cKDTree(predicted.xy).query(measured.xy, distance_upper_bound=reach_px * (1 + 1e-6))
    rows = np.flatnonzero(np.isfinite(distance))
    if not len(rows):
        message = f"No predicted spot lies within {reach_px:.0f} px of a measured one"
        raise TruthError(message, todo="Check that both belong to the same slide and are in register")
    return nearest[rows].astype(np.intp), rows.astype(np.intp)


def _check_scales(predicted: dict[str, Any], measured: dict[str, Any]) -> None:
    if predicted["scale"] != measured["scale"]:
        scales = f"{unit_of(predicted['scale'])} and {unit_of(measured['scale'])}"
        todo = "Read the measured counts again, so that they are brought to the scale of the prediction"
        raise SchemaError(f"The two are on different expression scales ({scales})", todo=todo)


def _match_genes(predicted: AnnData, measured: AnnData) -> tuple[NDArray[np.intp], NDArray[np.intp], list[str]]:
    wanted = list(map(str, predicted.var_names))
    if keys.ENSEMBL in predicted.var and not set(wanted) & set(map(str, measured.var_names)):
        wanted = [str(e) or s for e, s in zip(predicted.var[keys.ENSEMBL], wanted, strict=True)]
    match = match_genes(wanted, measured)
    columns_predicted = np.flatnonzero(match.indices >= 0)
    if not len(columns_predicted):
        raise GeneError("The two share no gene", todo="Check that they are of one species and use the same names")
    columns_measured = match.indices[columns_predicted]
    return columns_predicted, columns_measured, [str(measured.var_names[i]) for i in columns_measured]


def _dense(X: Any, rows: NDArray[np.intp], columns: NDArray[np.intp]) -> NDArray[np.float32]:
    part = X[rows][:, columns]
    return np.asarray(part.toarray() if hasattr(part, "toarray") else part, dtype=np.float32)


def _label_agreement(predicted: DataFrame, measured: DataFrame) -> dict[str, float]:
    """ARI and NMI between the predicted domains and the best annotation of the measured spots."""
    theirs = next((name for name in _LABELS if name in measured), None)
    if keys.DOMAIN not in predicted or theirs is None:
        return {}
    groups = np.asarray(predicted[keys.DOMAIN]), np.asarray(measured[theirs])
    return {name: float(METRICS[name].function(*groups)) for name in ("ari", "nmi")}


def _warnings(predicted: dict[str, Any], summary: dict[str, Any]) -> list[str]:
    warnings = []
    training = [str(fingerprint) for fingerprint in predicted.get("training_slides", ())]
    if predicted.get("slide_fingerprint") in training:
        warnings.append("The predictor was trained on this very section: these scores are not held-out.")
    missing = summary["spots_measured"] - summary["spots_matched"]
    if missing:
        warnings.append(f"{missing} of {summary['spots_measured']} measured spots have no predicted spot nearby.")
    return warnings
