"""Expression in drawn regions: what it is in each, and how two of them differ."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.sparse import issparse

from napari_he2st.core.errors import He2stError
from napari_he2st.core.geometry import inside_polygon, signed_area
from napari_he2st.core.progress import Progress
from napari_he2st.core.types import Region

if TYPE_CHECKING:
    import pandas as pd

PERCENTILES = (5, 25, 50, 75, 95)
"""Percentiles of :func:`region_table`, its columns ``p5`` and so on."""

FEWEST = 3
"""Spots that each side of a comparison needs at least."""

_BLOCK_VALUES = 4_000_000


def area_mm2(region: Region, mpp: float) -> float:
    """Area of a region whose outline does not cross itself, mm², on a slide of that pixel size."""
    return abs(signed_area(region.polygon)) * (mpp / 1000) ** 2


def inside_any(xy: ArrayLike, regions: Iterable[Region]) -> NDArray[np.bool_]:
    """Which positions (x, y) in level-0 pixels lie in any of the regions."""
    found = np.zeros(len(np.asarray(xy)), dtype=bool)
    for region in regions:
        found |= inside_polygon(xy, region.polygon)
    return found


def region_table(
    regions: Sequence[Region], sources: Mapping[str, tuple[ArrayLike, ArrayLike]], mpp: float
) -> pd.DataFrame:
    """What one gene is in each region, by each source.

    Parameters
    ----------
    regions
        Of one slide.
    sources
        Name → values (spots,) and positions (spots, 2) in level-0 pixels; NaN is unmeasured and not counted.
    mpp
        Micrometres per level-0 pixel.

    Returns
    -------
    DataFrame
        A row per region and source: ``region``, ``class``, ``source``, ``n`` spots with a value, ``area_mm2``,
        ``mean``, ``sd`` (n − 1) and the percentiles ``p5`` … ``p95``; NaN where there are too few spots for a number.
    """
    import pandas as pd

    rows = []
    for region in regions:
        for source, (values, xy) in sources.items():
            known = np.asarray(values, dtype=np.float64)[inside_polygon(xy, region.polygon)]
            known = known[np.isfinite(known)]
            n, area = len(known), area_mm2(region, mpp)
            mean, sd = known.mean() if n else np.nan, known.std(ddof=1) if n > 1 else np.nan
            spread = np.percentile(known, PERCENTILES) if n else np.full(len(PERCENTILES), np.nan)
            rows.append((region.name, region.kind, source, n, area, mean, sd, *spread))
    columns = ["region", "class", "source", "n", "area_mm2", "mean", "sd", *(f"p{each}" for each in PERCENTILES)]
    return pd.DataFrame(rows, columns=columns)


def compare_spots(
    values: Any,
    genes: Sequence[str],
    first: NDArray[np.bool_],
    second: NDArray[np.bool_],
    *,
    control: Progress | None = None,
) -> pd.DataFrame:
    """Test which genes differ between two groups of spots, by Wilcoxon's rank-sum test.

    The test takes spots for independent, which neighbours are not: p values rank genes, they prove nothing.

    Parameters
    ----------
    values
        Spots × genes, an array or a sparse matrix; NaN is unmeasured and left out gene by gene.
    genes
        Names of the columns.
    first, second
        Which spots, bool (spots,). Those in both count for neither.
    control
        Told of progress, block by block; may cancel.

    Returns
    -------
    DataFrame
        A row per gene, the smallest p first: ``gene``, ``mean_first``, ``mean_second``, ``difference`` (first minus
        second), ``effect`` (rank-biserial correlation: 1 where every spot of the first is above every one of the
        second, −1 the other way), ``p`` and ``fdr`` (Benjamini–Hochberg); NaN where a gene has too few values.

    Raises
    ------
    He2stError
        A group has fewer than :data:`FEWEST` spots of its own.
    """
    import pandas as pd
    from scipy.stats import false_discovery_control, mannwhitneyu

    groups = [np.flatnonzero(first & ~second), np.flatnonzero(second & ~first)]
    few = min(map(len, groups))
    if few < FEWEST:
        message = f"One side has only {few} spots of its own; {FEWEST} are needed"
        raise He2stError(message, todo="Draw larger regions that do not overlap")
    a, b = (values[rows].tocsc() if issparse(values) else np.asarray(values)[rows] for rows in groups)
    block = max(1, _BLOCK_VALUES // (len(groups[0]) + len(groups[1])))
    means, effect, p = np.full((2, len(genes)), np.nan), np.full(len(genes), np.nan), np.full(len(genes), np.nan)
    if control is not None:
        control.start(-(-len(genes) // block), "Comparing regions")
    for start in range(0, len(genes), block):
        part = slice(start, min(start + block, len(genes)))
        x, y = (_dense(group[:, part]) for group in (a, b))
        n_x, n_y = np.isfinite(x).sum(axis=0), np.isfinite(y).sum(axis=0)
        with np.errstate(invalid="ignore"):
            means[:, part] = np.nansum(x, axis=0) / n_x, np.nansum(y, axis=0) / n_y
        told = np.minimum(n_x, n_y) >= FEWEST
        whole = told & (n_x == len(x)) & (n_y == len(y))
        for columns, policy in ((whole, "propagate"), (told & ~whole, "omit")):  # leaving out is slow
            if columns.any():
                tested = mannwhitneyu(x[:, columns], y[:, columns], method="asymptotic", nan_policy=policy)
                at = start + np.flatnonzero(columns)
                effect[at] = 2 * tested.statistic / (n_x * n_y)[columns] - 1
                p[at] = np.where(np.isfinite(tested.pvalue), tested.pvalue, 1.0)  # all values are the same
        if control is not None:
            control.advance()
    known, fdr = np.isfinite(p), np.full(len(genes), np.nan)
    if known.any():
        fdr[known] = false_discovery_control(p[known])
    table = pd.DataFrame({"gene": list(genes), "mean_first": means[0], "mean_second": means[1]})
    table["difference"] = means[0] - means[1]
    table["effect"], table["p"], table["fdr"] = effect, p, fdr
    order = np.lexsort((-np.abs(np.nan_to_num(effect)), np.where(known, p, np.inf)))
    return table.iloc[order].reset_index(drop=True)


def _dense(part: Any) -> NDArray[np.float64]:
    return np.asarray(part.toarray() if issparse(part) else part, dtype=np.float64)
