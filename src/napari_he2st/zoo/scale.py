"""Expression scales: how counts become what a system learns and predicts."""

from __future__ import annotations

import math
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from napari_he2st.core.expression import COUNTS_SCALE, LOG1P_CP10K, log1p_cp10k
from napari_he2st.core.registry import unknown_name


class Scale:
    """From counts to training units and back.

    Attributes
    ----------
    name
        How targets, bundles and provenance name it.
    """

    name: ClassVar[str]

    def fit(self, counts: Any, total: NDArray | None = None, n_measured: int | None = None) -> dict[str, Any]:
        """What has to be known of the training counts; kept in ``extras["scale"]``.

        Parameters
        ----------
        counts
            Spots × genes of the panel, dense.
        total
            Counts of each spot over all genes, shape (spots,); None where ``counts`` holds them all.
        n_measured
            Number of all genes; None where ``counts`` holds them all.
        """
        return {}

    def transform(self, counts: Any, fitted: dict[str, Any], total: NDArray | None = None) -> Any:
        """Counts in training units.

        Parameters
        ----------
        counts
            Spots × genes of the panel, dense or CSR; NaN is unmeasured and stays so.
        fitted
            What :meth:`fit` returned.
        total
            Counts of each spot over all genes, shape (spots,); None where ``counts`` holds them all.

        Returns
        -------
        array or CSR matrix
            float32, of the shape of ``counts``.
        """
        raise NotImplementedError

    def inverse(self, values: NDArray, fitted: dict[str, Any]) -> NDArray[np.float32]:
        """Training units back to linear ones; the library size is not undone."""
        raise NotImplementedError


class Counts(Scale):
    """Raw counts."""

    name = COUNTS_SCALE

    def transform(self, counts: Any, fitted: dict[str, Any], total: NDArray | None = None) -> Any:
        """Counts as float32."""
        return counts.astype(np.float32)

    def inverse(self, values: NDArray, fitted: dict[str, Any]) -> NDArray[np.float32]:
        """The values themselves."""
        return np.asarray(values, dtype=np.float32)


class Intensity(Counts):
    """Brightness of a stain or another number that stays as it is."""

    name = "intensity"


class Log1pCp10k(Scale):
    """Natural logarithm of 1 + counts per 10,000 of all genes."""

    name = LOG1P_CP10K

    def transform(self, counts: Any, fitted: dict[str, Any], total: NDArray | None = None) -> Any:
        """See :func:`napari_he2st.core.expression.log1p_cp10k`."""
        return log1p_cp10k(counts, total)

    def inverse(self, values: NDArray, fitted: dict[str, Any]) -> NDArray[np.float32]:
        """Counts per 10,000."""
        return np.expm1(np.asarray(values, dtype=np.float32))


class Log10Cp10k(Scale):
    """Decadic logarithm of 1 + counts per 10,000 of all genes."""

    name = "log10_cp10k"

    def transform(self, counts: Any, fitted: dict[str, Any], total: NDArray | None = None) -> Any:
        """Natural logarithms over that of 10."""
        return log1p_cp10k(counts, total) * np.float32(1 / math.log(10))

    def inverse(self, values: NDArray, fitted: dict[str, Any]) -> NDArray[np.float32]:
        """Counts per 10,000."""
        return np.expm1(np.asarray(values, dtype=np.float32) * np.float32(math.log(10)))


class Log10Cp10kPanel(Scale):
    """Decadic logarithm of 1 + counts per 10,000 of the panel's genes alone (scprep's, as in HisToGene)."""

    name = "log10_cp10k_panel"

    def transform(self, counts: Any, fitted: dict[str, Any], total: NDArray | None = None) -> Any:
        """``total`` plays no part, for only the panel counts."""
        return log1p_cp10k(counts) * np.float32(1 / math.log(10))

    def inverse(self, values: NDArray, fitted: dict[str, Any]) -> NDArray[np.float32]:
        """Counts per 10,000 of the panel."""
        return np.expm1(np.asarray(values, dtype=np.float32) * np.float32(math.log(10)))


class Log1pCp10kPanel(Scale):
    """Natural logarithm of 1 + counts per 10,000 of the panel's genes alone (as in TRIPLEX)."""

    name = "log1p_cp10k_panel"

    def transform(self, counts: Any, fitted: dict[str, Any], total: NDArray | None = None) -> Any:
        """``total`` plays no part, for only the panel counts."""
        return log1p_cp10k(counts)

    def inverse(self, values: NDArray, fitted: dict[str, Any]) -> NDArray[np.float32]:
        """Counts per 10,000 of the panel."""
        return np.expm1(np.asarray(values, dtype=np.float32))


class MaxAbsLog1pCp10kPanel(Log1pCp10kPanel):
    """Natural logarithm of 1 + CP10k of the panel over the highest one of the spot (as in stDiff)."""

    name = "maxabs_log1p_cp10k_panel"

    def transform(self, counts: Any, fitted: dict[str, Any], total: NDArray | None = None) -> Any:
        """Each spot's highest gene is 1; a spot without counts is 0."""
        logs = np.asarray(log1p_cp10k(_dense(counts)), dtype=np.float32)
        highest = np.nan_to_num(logs).max(axis=1, keepdims=True)
        return logs / np.where(highest > 0, highest, np.float32(1))

    def inverse(self, values: NDArray, fitted: dict[str, Any]) -> NDArray[np.float32]:
        """The values themselves: what each spot was divided by is not known."""
        return np.asarray(values, dtype=np.float32)


class TimesPanelMean(Scale):
    """Counts over the mean of the panel's genes in the same spot or cell, so that they sum to their number."""

    name = "times_panel_mean"

    def transform(self, counts: Any, fitted: dict[str, Any], total: NDArray | None = None) -> Any:
        """``total`` plays no part; a spot without counts is 0."""
        counts = _dense(counts)
        measured = np.isfinite(counts).sum(axis=1, keepdims=True)
        sums = np.nansum(counts, axis=1, keepdims=True)
        return (counts * measured / np.where(sums > 0, sums, 1.0)).astype(np.float32)

    def inverse(self, values: NDArray, fitted: dict[str, Any]) -> NDArray[np.float32]:
        """The values themselves."""
        return np.asarray(values, dtype=np.float32)


class Log1pCpmPanel(Scale):
    """Natural logarithm of 1 + counts per million of the panel's genes alone (as in M2ORT)."""

    name = "log1p_cpm_panel"

    def transform(self, counts: Any, fitted: dict[str, Any], total: NDArray | None = None) -> Any:
        """``total`` plays no part, for only the panel counts."""
        return np.log1p(np.float32(100) * np.expm1(log1p_cp10k(_dense(counts))))

    def inverse(self, values: NDArray, fitted: dict[str, Any]) -> NDArray[np.float32]:
        """Counts per million of the panel."""
        return np.expm1(np.asarray(values, dtype=np.float32))


class Log2Cpm(Scale):
    """Binary logarithm of 1 + counts per million of all genes (SEPAL's, but for the genes' lengths)."""

    name = "log2_cpm"

    def transform(self, counts: Any, fitted: dict[str, Any], total: NDArray | None = None) -> Any:
        """log2(1 + counts per million)."""
        cpm = np.float32(100) * np.expm1(log1p_cp10k(_dense(counts), total))
        return np.log1p(cpm) * np.float32(1 / math.log(2))

    def inverse(self, values: NDArray, fitted: dict[str, Any]) -> NDArray[np.float32]:
        """Counts per million."""
        return np.exp2(np.asarray(values, dtype=np.float32)) - 1


class Log1p(Scale):
    """Natural logarithm of 1 + counts, whatever the library size."""

    name = "log1p"

    def transform(self, counts: Any, fitted: dict[str, Any], total: NDArray | None = None) -> Any:
        """``total`` plays no part."""
        return np.log1p(_dense(counts)).astype(np.float32)

    def inverse(self, values: NDArray, fitted: dict[str, Any]) -> NDArray[np.float32]:
        """Counts."""
        return np.expm1(np.asarray(values, dtype=np.float32))


class Log2p(Scale):
    """Binary logarithm of 1 + counts, whatever the library size (as in HyperST)."""

    name = "log2p"

    def transform(self, counts: Any, fitted: dict[str, Any], total: NDArray | None = None) -> Any:
        """``total`` plays no part."""
        return np.log2(1 + _dense(counts)).astype(np.float32)

    def inverse(self, values: NDArray, fitted: dict[str, Any]) -> NDArray[np.float32]:
        """Counts."""
        return np.exp2(np.asarray(values, dtype=np.float32)) - 1


class LogShare(Scale):
    """Natural logarithm of a gene's share of a spot's counts, each gene counted once more (as in ST-Net)."""

    name = "log_share"

    def fit(self, counts: Any, total: NDArray | None = None, n_measured: int | None = None) -> dict[str, Any]:
        """The number of all genes, for each adds one count to the total."""
        return {"n_measured": counts.shape[1] if n_measured is None else n_measured}

    def transform(self, counts: Any, fitted: dict[str, Any], total: NDArray | None = None) -> Any:
        """ln((1 + count) / (genes + total))."""
        counts = _dense(counts)
        total = np.nansum(counts, axis=1) if total is None else total
        return np.log((1 + counts) / (fitted["n_measured"] + total)[:, None]).astype(np.float32)

    def inverse(self, values: NDArray, fitted: dict[str, Any]) -> NDArray[np.float32]:
        """Share of the spot's counts."""
        return np.exp(np.asarray(values, dtype=np.float32))


class LogSharePanel(LogShare):
    """Natural logarithm of a gene's share of the panel's counts, each gene counted once more (as in ASIGN)."""

    name = "log_share_panel"

    def fit(self, counts: Any, total: NDArray | None = None, n_measured: int | None = None) -> dict[str, Any]:
        """Only the panel counts."""
        return super().fit(counts)

    def transform(self, counts: Any, fitted: dict[str, Any], total: NDArray | None = None) -> Any:
        """ln((1 + count) / sum of (1 + count)); nothing has to be fitted."""
        return super().transform(counts, self.fit(counts))


class ZLog1p(Scale):
    """Natural logarithm of 1 + counts, standardised per gene over the training spots (as in BrST-Net)."""

    name = "z_log1p"

    def _logs(self, counts: Any, total: NDArray | None) -> NDArray:
        return np.log1p(_dense(counts))

    def fit(self, counts: Any, total: NDArray | None = None, n_measured: int | None = None) -> dict[str, Any]:
        """Mean and standard deviation of each gene; one that does not vary is only centred."""
        logs = self._logs(counts, total)
        std = np.nanstd(logs, axis=0)
        return {"mean": np.nanmean(logs, axis=0), "std": np.where(std > 0, std, 1.0)}

    def transform(self, counts: Any, fitted: dict[str, Any], total: NDArray | None = None) -> Any:
        """Standard deviations from the training mean."""
        return ((self._logs(counts, total) - fitted["mean"]) / fitted["std"]).astype(np.float32)

    def inverse(self, values: NDArray, fitted: dict[str, Any]) -> NDArray[np.float32]:
        """What was counted before the logarithm."""
        return np.expm1(values * fitted["std"] + fitted["mean"]).astype(np.float32)


class ZLog1pCp10k(ZLog1p):
    """Natural logarithm of 1 + CP10k of all genes, standardised per gene over the training spots."""

    name = "z_log1p_cp10k"

    def _logs(self, counts: Any, total: NDArray | None) -> NDArray:
        return log1p_cp10k(_dense(counts), total)


class MinMax(Scale):
    """Counts brought to 0 … 1 per gene over the training spots (as in iStar)."""

    name = "minmax"

    def _values(self, counts: Any, total: NDArray | None) -> NDArray:
        return _dense(counts)

    def fit(self, counts: Any, total: NDArray | None = None, n_measured: int | None = None) -> dict[str, Any]:
        """Smallest value and range of each gene; one that does not vary has range 1."""
        values = self._values(counts, total)
        low = np.nanmin(values, axis=0)
        span = np.nanmax(values, axis=0) - low
        return {"low": low, "span": np.where(span > 0, span, 1.0)}

    def transform(self, counts: Any, fitted: dict[str, Any], total: NDArray | None = None) -> Any:
        """Spots outside the training range lie outside 0 … 1."""
        return ((self._values(counts, total) - fitted["low"]) / fitted["span"]).astype(np.float32)

    def inverse(self, values: NDArray, fitted: dict[str, Any]) -> NDArray[np.float32]:
        """Counts."""
        return (values * fitted["span"] + fitted["low"]).astype(np.float32)


class MinMaxLog10(MinMax):
    """Decadic logarithm of 1 + counts, brought to 0 … 1 per gene over the training spots (as in EGN)."""

    name = "minmax_log10"

    def _values(self, counts: Any, total: NDArray | None) -> NDArray:
        return np.log10(1 + _dense(counts))

    def inverse(self, values: NDArray, fitted: dict[str, Any]) -> NDArray[np.float32]:
        """What was counted before the logarithm."""
        return (10 ** super().inverse(values, fitted) - 1).astype(np.float32)


class MinMaxLog10Cp10k(MinMaxLog10):
    """Decadic logarithm of 1 + CP10k, brought to 0 … 1 per gene over the training spots (as in DeepSpaCE)."""

    name = "minmax_log10_cp10k"

    def _values(self, counts: Any, total: NDArray | None) -> NDArray:
        return Log10Cp10k().transform(_dense(counts), {}, total)


def _dense(counts: Any) -> NDArray[np.float64]:
    return np.asarray(counts.toarray() if hasattr(counts, "toarray") else counts, dtype=np.float64)


_KINDS: tuple[type[Scale], ...] = (
    Log1pCp10k,
    Log10Cp10k,
    Log10Cp10kPanel,
    Log1pCp10kPanel,
    MaxAbsLog1pCp10kPanel,
    TimesPanelMean,
    Log1pCpmPanel,
    Log2Cpm,
    Log1p,
    Log2p,
    LogShare,
    LogSharePanel,
    ZLog1p,
    ZLog1pCp10k,
    MinMax,
    MinMaxLog10,
    MinMaxLog10Cp10k,
    Counts,
    Intensity,
)
SCALES: dict[str, Scale] = {kind.name: kind() for kind in _KINDS}
"""Every scale by name."""


def scale_of(name: str) -> Scale:
    """The scale of that name; raises :class:`~napari_he2st.core.errors.UnknownNameError` with near matches."""
    if name not in SCALES:
        raise unknown_name("expression scale", name, list(SCALES))
    return SCALES[name]
