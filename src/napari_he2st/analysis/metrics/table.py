"""Tables of all metrics per gene and per spot, and their summary."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from napari_he2st.analysis.metrics import METRICS
from napari_he2st.analysis.metrics.pairs import paired_blocks
from napari_he2st.analysis.metrics.ssim import ssim_form
from napari_he2st.core.types import Grid

if TYPE_CHECKING:
    import pandas as pd

_FIRST = ("pcc", "spearman", "mse", "mae", "ssim", "rvd")
_PER_SPOT = ("pcc", "mse", "mae")


def per_gene(predicted: Any, measured: Any, genes: Sequence[str], *, grid: Grid | None = None) -> pd.DataFrame:
    """Every metric of maps, one row per gene.

    Parameters
    ----------
    predicted, measured
        Expression in one scale, spots × genes, dense or sparse; not finite is unmeasured.
    genes
        Name of each column.
    grid
        The spots; without it there is no Moran's I, and SSIM takes its form without windows.

    Returns
    -------
    DataFrame
        ``gene``; ``n``, the pairs that count; ``constant``, whether one side does not vary (correlations
        are then NaN); one column per metric of pairs; ``moran_predicted`` and ``moran_measured``.
    """
    import pandas as pd

    n, constant = _pairs(predicted, measured)
    columns: dict[str, Any] = {"gene": list(map(str, genes)), "n": n, "constant": constant}
    # The usual ones first, then by name: columns do not depend on which metric was imported first.
    order = {name: place for place, name in enumerate(_FIRST)}
    for entry in sorted(METRICS, key=lambda e: (order.get(e.name, len(order)), e.name)):
        if entry.facts["of"] == "pairs":
            spatial = {"grid": grid} if entry.facts.get("spatial") else {}
            columns[entry.name] = entry.function(predicted, measured, **spatial)
        elif entry.facts["of"] == "map" and grid is not None:
            columns[f"{entry.name}_predicted"] = entry.function(predicted, grid=grid)
            columns[f"{entry.name}_measured"] = entry.function(measured, grid=grid)
    return pd.DataFrame(columns)


def per_spot(predicted: Any, measured: Any, names: Sequence[str]) -> pd.DataFrame:
    """Pearson correlation and errors over genes, one row per spot; index ``spot``, column ``n`` counts pairs."""
    import pandas as pd

    n, _ = _pairs(predicted.T, measured.T)
    columns = {name: METRICS[name].function(predicted.T, measured.T) for name in _PER_SPOT}
    return pd.DataFrame({"n": n, **columns}, index=pd.Index(list(map(str, names)), name="spot"))


def summarise(table: pd.DataFrame, *, grid: Grid | None = None) -> dict[str, Any]:
    """Figures of a whole table of :func:`per_gene`, ready for JSON.

    ``<metric>_mean`` and ``<metric>_median`` leave out genes where the metric is undefined;
    ``genes_constant`` and ``genes_without_pcc`` count them. ``rvd_mean`` is the RVD of papers.
    """
    summary: dict[str, Any] = {
        "genes": len(table),
        "genes_constant": int(table["constant"].sum()),
        "genes_without_pcc": int(table["pcc"].isna().sum()),
        "ssim_form": ssim_form(grid),
    }
    for name in table.columns.drop(["gene", "n", "constant"]):
        values = table[name].to_numpy(dtype=np.float64)
        values = values[np.isfinite(values)]
        summary[f"{name}_mean"] = float(values.mean()) if len(values) else None
        summary[f"{name}_median"] = float(np.median(values)) if len(values) else None
    return summary


def _pairs(predicted: Any, measured: Any) -> tuple[NDArray[np.int64], NDArray[np.bool_]]:
    """Number of known pairs of each column, and whether a side is constant over them."""
    counts, constant = [np.empty(0)], [np.empty(0, dtype=bool)]
    for pairs in paired_blocks(predicted, measured):
        moments = pairs.moments()
        counts.append(moments.n)
        constant.append(moments.flat_predicted | moments.flat_measured)
    return np.concatenate(counts).astype(np.int64), np.concatenate(constant)
