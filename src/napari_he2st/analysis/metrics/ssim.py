"""Structural similarity of spot maps."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from napari_he2st.analysis.metrics import metric
from napari_he2st.analysis.metrics.pairs import Floats, Pairs, over_genes, ratio
from napari_he2st.core.types import Grid

WINDOW = 7
"""Side of the window in spots, scikit-image's default."""

_UNBIASED = WINDOW**2 / (WINDOW**2 - 1)

_STACK = 2**16  # raster cells handled at once: what stays in the processor's cache


@metric("ssim", "Structural similarity of the maps", better="higher", of="pairs", spatial=True)
def ssim(predicted: Any, measured: Any, *, grid: Grid | None = None) -> NDArray[np.float64]:
    """Structural similarity per gene; the data range is the measured maximum minus minimum.

    On a lattice every spot is a pixel and scikit-image's ``structural_similarity`` (uniform 7 × 7 windows,
    sample covariance) is averaged over the windows that lie wholly on spots where the gene is known. A full
    raster gives scikit-image's own number. Without a lattice, or where no window fits, the same formula is
    taken once, over all spots (the form of benchmarks that have no raster); :func:`ssim_form` says which.

    Raises
    ------
    SchemaError
        The matrices differ in shape.
    """
    raster = None if grid is None else _raster(grid)
    if raster is None:
        return over_genes(_whole, predicted, measured)
    cells, shape = raster
    return over_genes(lambda pairs: _windows(pairs, cells, shape), predicted, measured)


def ssim_form(grid: Grid | None) -> str:
    """Which form :func:`ssim` takes on this grid, in words."""
    lattice = grid is not None and _raster(grid) is not None
    return f"mean over {WINDOW} × {WINDOW} spot windows" if lattice else "one window over all spots"


def _raster(grid: Grid) -> tuple[NDArray[np.intp], tuple[int, int]] | None:
    """Flat raster cell of each spot and the raster's shape, or None where no whole window of spots fits."""
    if grid.lattice == "irregular" or len(grid) < WINDOW**2:
        return None
    index = grid.index - grid.index.min(axis=0)
    if grid.lattice == "hexagonal":  # columns are counted in half pitches: pack them, rows stay zigzag
        index = np.stack([index[:, 0], index[:, 1] // 2], axis=1)
    rows, columns = (int(v) + 1 for v in index.max(axis=0))
    cells = index[:, 0] * columns + index[:, 1]
    sparse = rows * columns > 256 * len(grid)  # scattered spots hold no window and would only cost memory
    if min(rows, columns) < WINDOW or sparse or len(np.unique(cells)) < len(cells):
        return None
    known = np.zeros(rows * columns)
    known[cells] = 1.0
    fits = _whole_windows(known.reshape(1, rows, columns)).any()
    return (cells, (rows, columns)) if fits else None


def _windows(pairs: Pairs, cells: NDArray[np.intp], shape: tuple[int, int]) -> Floats:
    spread = _data_range(pairs)
    step = max(1, _STACK // (shape[0] * shape[1]))
    parts = []
    for start in range(0, len(pairs.n), step):
        part = slice(start, start + step)
        left, right = _stack(pairs.predicted[:, part], cells, shape), _stack(pairs.measured[:, part], cells, shape)
        known = np.ones((len(cells), 1)) if pairs.known is None else pairs.known[:, part].astype(np.float64)
        whole = _whole_windows(_stack(known, cells, shape))
        mean_l, mean_r = _means(left), _means(right)
        variances = _UNBIASED * (_means(left * left + right * right) - mean_l**2 - mean_r**2)
        covariance = _UNBIASED * (_means(left * right) - mean_l * mean_r)
        scores = _similarity(mean_l, mean_r, variances, covariance, spread[part, None, None])
        parts.append(ratio((scores * whole).sum(axis=(1, 2)), whole.sum(axis=(1, 2)).astype(np.float64)))
    return np.where(spread > 0, np.concatenate(parts), np.nan)


def _whole(pairs: Pairs) -> Floats:
    spread = _data_range(pairs)
    m = pairs.moments()
    unbiased = ratio(m.n, m.n - 1)
    variances = unbiased * (m.var_predicted + m.var_measured)
    scores = _similarity(m.mean_predicted, m.mean_measured, variances, unbiased * m.covariance, spread)
    return np.where(m.flat_measured, np.nan, scores)


def _similarity(mean_l: Floats, mean_r: Floats, variances: Floats, covariance: Floats, spread: Floats) -> Floats:
    """The formula of Wang et al. 2004 with K1 = 0.01 and K2 = 0.03."""
    c1, c2 = (0.01 * spread) ** 2, (0.03 * spread) ** 2
    with np.errstate(invalid="ignore", divide="ignore"):
        structure = (2 * covariance + c2) / (variances + c2)
        luminance = (2 * mean_l * mean_r + c1) / (mean_l**2 + mean_r**2 + c1)
        result: Floats = luminance * structure
    return result


def _whole_windows(known: Floats) -> NDArray[np.bool_]:
    """Windows of which every cell is known (1 rather than 0)."""
    return _means(known) > 1 - 0.5 / WINDOW**2


def _data_range(pairs: Pairs) -> Floats:
    known = True if pairs.known is None else pairs.known
    high = pairs.measured.max(axis=0, initial=-np.inf, where=known)
    low = pairs.measured.min(axis=0, initial=np.inf, where=known)
    return np.where(pairs.n > 0, np.subtract(high, low, dtype=np.float64), 0.0)


def _stack(values: NDArray, cells: NDArray[np.intp], shape: tuple[int, int]) -> Floats:
    """One raster per gene, shape (genes, rows, columns); 0 where there is no spot."""
    raster = np.zeros((values.shape[1], shape[0] * shape[1]))
    raster[:, cells] = values.T
    return raster.reshape(-1, *shape)


def _means(stack: Floats) -> Floats:
    """Means over all whole windows of a stack, shape (…, rows − 6, columns − 6)."""
    from scipy.ndimage import uniform_filter

    edge = WINDOW // 2
    result: Floats = uniform_filter(stack, size=(1, WINDOW, WINDOW))[:, edge:-edge, edge:-edge]
    return result
