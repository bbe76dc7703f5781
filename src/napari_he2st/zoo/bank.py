"""The reference bank of a trained predictor as ``reference.h5ad``: expression in ``X``, the rest beside it."""

from __future__ import annotations

import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from napari_he2st.core.errors import BundleError

BANK = "reference"
"""Key of ``extras`` that holds the bank: a dict of arrays with one row per reference spot."""

EXPRESSION = "expression"
"""The array of the bank that it always has: float32 (m, genes)."""


def pack_bank(bank: Mapping[str, Any], genes: Sequence[str]) -> bytes:
    """A bank as the bytes of an h5ad file: arrays of one column in ``obs``, the others in ``obsm``.

    Raises
    ------
    BundleError
        It has no expression, or an array of another length.
    """
    import anndata as ad
    import pandas as pd

    arrays = {name: np.asarray(value) for name, value in bank.items()}
    expression = arrays.pop(EXPRESSION, None)
    if expression is None or expression.ndim != 2:
        raise BundleError("A reference bank has no expression of shape (spots, genes)")
    n, width = expression.shape
    wrong = [name for name, value in arrays.items() if value.ndim == 0 or len(value) != n]
    if wrong:
        raise BundleError(f"A reference bank of {n} spots has other rows in {', '.join(wrong)}")
    rows = pd.Index([str(i) for i in range(n)])
    columns = pd.Index(genes if len(genes) == width else [str(i) for i in range(width)])
    adata = ad.AnnData(
        X=expression,
        obs=pd.DataFrame({name: value for name, value in arrays.items() if value.ndim == 1}, index=rows),
        var=pd.DataFrame(index=columns),
        obsm={name: value for name, value in arrays.items() if value.ndim > 1},
    )
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "bank.h5ad"
        adata.write_h5ad(file)
        return file.read_bytes()


def load_bank(path: Path) -> dict[str, NDArray]:
    """The bank that a file holds.

    Raises
    ------
    BundleError
        It cannot be read.
    """
    import anndata as ad

    try:
        adata = ad.read_h5ad(path)
    except (OSError, ValueError, KeyError, ad.io.IORegistryError) as error:
        raise BundleError(f"The reference bank is damaged ({error})", where=path) from error
    columns = {str(name): np.asarray(adata.obs[name]) for name in adata.obs.columns}
    return {EXPRESSION: np.asarray(adata.X), **columns, **{name: np.asarray(adata.obsm[name]) for name in adata.obsm}}
