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
    unit
        For legends.
    """

    name: ClassVar[str]
    unit: ClassVar[str]

    def fit(self, counts: Any) -> dict[str, Any]:
        """What has to be known of the training counts (spots × genes); kept in ``extras["scale"]``."""
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

    name, unit = COUNTS_SCALE, "counts"

    def transform(self, counts: Any, fitted: dict[str, Any], total: NDArray | None = None) -> Any:
        """Counts as float32."""
        return counts.astype(np.float32)

    def inverse(self, values: NDArray, fitted: dict[str, Any]) -> NDArray[np.float32]:
        """The values themselves."""
        return np.asarray(values, dtype=np.float32)


class Log1pCp10k(Scale):
    """Natural logarithm of 1 + counts per 10,000 of all genes."""

    name, unit = LOG1P_CP10K, "log1p CP10k"

    def transform(self, counts: Any, fitted: dict[str, Any], total: NDArray | None = None) -> Any:
        """See :func:`napari_he2st.core.expression.log1p_cp10k`."""
        return log1p_cp10k(counts, total)

    def inverse(self, values: NDArray, fitted: dict[str, Any]) -> NDArray[np.float32]:
        """Counts per 10,000."""
        return np.expm1(np.asarray(values, dtype=np.float32))


class Log10Cp10kPanel(Scale):
    """Decadic logarithm of 1 + counts per 10,000 of the panel's genes alone (scprep's, as in HisToGene)."""

    name, unit = "log10_cp10k_panel", "log10 (1 + CP10k of the panel)"

    def transform(self, counts: Any, fitted: dict[str, Any], total: NDArray | None = None) -> Any:
        """``total`` plays no part, for only the panel counts."""
        return log1p_cp10k(counts) * np.float32(1 / math.log(10))

    def inverse(self, values: NDArray, fitted: dict[str, Any]) -> NDArray[np.float32]:
        """Counts per 10,000 of the panel."""
        return np.expm1(np.asarray(values, dtype=np.float32) * np.float32(math.log(10)))


SCALES: dict[str, Scale] = {kind.name: kind() for kind in (Log1pCp10k, Log10Cp10kPanel, Counts)}
"""Every scale by name."""


def scale_of(name: str) -> Scale:
    """The scale of that name; raises :class:`~napari_he2st.core.errors.UnknownNameError` with near matches."""
    if name not in SCALES:
        raise unknown_name("expression scale", name, list(SCALES))
    return SCALES[name]
