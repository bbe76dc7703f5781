"""From one expression scale to another, so that two results can be compared."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
from numpy.typing import NDArray

from napari_he2st.core import keys
from napari_he2st.core.expression import COUNTS_SCALE, LOG1P_CP10K, log1p_cp10k, unit_of

if TYPE_CHECKING:
    from anndata import AnnData

PANEL = "log1p_cp10k_panel"
"""Scale of :func:`on_panel`."""

_LN_BASE = {
    LOG1P_CP10K: 1.0,
    PANEL: 1.0,
    "log1p_cpm_panel": 1.0,
    "log1p": 1.0,
    "log10_cp10k": math.log(10),
    "log10_cp10k_panel": math.log(10),
    "log2_cpm": math.log(2),
    "log2p": math.log(2),
}
"""Scales that are logarithms of 1 + a number proportional to counts, with the natural logarithm of their base."""

Floats = NDArray[np.float32]


@dataclass(frozen=True)
class Conversion:
    """A way to bring two results to one scale.

    Attributes
    ----------
    how
        ``"measured"`` or ``"predicted"``: that side is normalised anew from its raw counts; ``"panel"``: both sides
        are normalised over the genes that they share.
    scale
        The scale of both afterwards.
    said
        What it does, in words.
    """

    how: Literal["measured", "predicted", "panel"]
    scale: str
    said: str


def conversion(predicted: AnnData, measured: AnnData) -> Conversion | None:
    """How two results of different scales can be compared, or None where they cannot.

    Raw counts of all genes are normalised to log1p CP10k where that is the other side's scale. Otherwise both sides
    become log1p of counts per 10,000 of the shared genes, which needs no library size: a factor per spot drops out.
    """
    scales = {"predicted": _scale(predicted), "measured": _scale(measured)}
    sides = {"predicted": predicted, "measured": measured}
    for side, other in (("measured", "predicted"), ("predicted", "measured")):
        adata = sides[side]
        whole = adata.uns[keys.UNS]["kind"] == "measured"  # predicted counts are those of a panel alone
        if scales[other] == LOG1P_CP10K and whole and _counts(adata) is not None:
            said = f"Normalises the raw counts of {_name(adata)} to {unit_of(LOG1P_CP10K)}, over all its genes"
            return Conversion(side, LOG1P_CP10K, said)  # type: ignore[arg-type]
    if all(_counts(adata) is not None or scales[side] in _LN_BASE for side, adata in sides.items()):
        parts = " and ".join(unit_of(scale) for scale in scales.values())
        said = f"Brings both ({parts}) to log1p of counts per 10,000 of the genes they share"
        return Conversion("panel", PANEL, said)
    return None


def linear(values: Floats, scale: str) -> Floats:
    """Values proportional to counts, whose means over an area mean something; other scales stay as they are."""
    return np.expm1(values * np.float32(_LN_BASE[scale])) if scale in _LN_BASE else values


def logged(values: Floats, scale: str) -> Floats:
    """The way back from :func:`linear`."""
    if scale not in _LN_BASE:
        return values
    logs: Floats = (np.log1p(values) / _LN_BASE[scale]).astype(np.float32)
    return logs


def source_of(adata: AnnData, how: str | None) -> tuple[Any, str]:
    """The matrix to start from, and its scale: raw counts, where there are any and both sides are converted."""
    counts = _counts(adata) if how == "panel" else None
    return (adata.X, _scale(adata)) if counts is None else (counts, COUNTS_SCALE)


def on_panel(left: Floats, right: Floats, scales: tuple[str, str]) -> tuple[Floats, Floats]:
    """Two matrices of the same spots and genes, both in :data:`PANEL`; what one does not know is unknown in both.

    Values that a predictor puts below zero count as zero.
    """
    unknown = ~(np.isfinite(left) & np.isfinite(right))
    both = []
    for values, scale in zip((left, right), scales, strict=True):
        counts = np.maximum(linear(values, scale), 0)
        counts[unknown] = np.nan
        both.append(log1p_cp10k(counts))
    return both[0], both[1]


def _counts(adata: AnnData) -> Any:
    if keys.COUNTS in adata.layers:
        return adata.layers[keys.COUNTS]
    return adata.X if _scale(adata) == COUNTS_SCALE else None


def _scale(adata: AnnData) -> str:
    return str(adata.uns[keys.UNS]["scale"])


def _name(adata: AnnData) -> str:
    return str(adata.uns[keys.UNS]["library"])
