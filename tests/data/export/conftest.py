"""Small expression in our schema, and the slide it lies on."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import anndata
import numpy as np
import pandas as pd
import pytest
from PIL import Image
from scipy.sparse import csr_matrix

from napari_he2st.core.schema import check_expression, provenance
from napari_he2st.core.wkt import to_wkt
from napari_he2st.data.slides import Slide

GENES = ["ERBB2", "=HYPERLINK(1)", "CD74", "MUC1"]


@pytest.fixture
def expression() -> Callable[..., anndata.AnnData]:
    """Expression on 5 × 4 spots at 2 µm per pixel; the first gene grows from left to right."""

    def make(kind: str = "measured", *, sparse: bool = True) -> anndata.AnnData:
        x, y = (part.ravel() for part in np.meshgrid(np.arange(1, 6), np.arange(1, 5)))
        X = np.stack([x, y, x * y % 3, np.zeros(20)], axis=1).astype(np.float32)
        adata = anndata.AnnData(
            csr_matrix(X) if sparse else X,
            obs=pd.DataFrame(
                {"label": ["-1+2", *["tumour"] * 19]}, index=[f"{a}x{b}" for a, b in zip(x, y, strict=True)]
            ),
            var=pd.DataFrame({"ensembl": ["ENSG00000141736", "", "ENSG00000019582", ""]}, index=GENES),
        )
        adata.obsm["spatial"] = np.stack([x, y], axis=1) * 100.0
        adata.uns["he2st"] = provenance(
            kind, mpp=2.0, scale="log1p_cp10k", pitch_um=200, spot_um=100, lattice="square", library="S1"
        )
        check_expression(adata)
        return adata

    return make


@pytest.fixture
def slide(tmp_path: Path) -> Iterator[Slide]:
    """600 × 500 px at 2 µm per pixel: pink, with a green stripe from x = 300 to 320."""
    pixels = np.full((500, 600, 3), (230, 190, 210), dtype=np.uint8)
    pixels[:, 300:320] = (0, 160, 0)
    Image.fromarray(pixels).save(tmp_path / "slide.png")
    with Slide.open(tmp_path / "slide.png", mpp=2.0) as opened:
        yield opened


@pytest.fixture
def cells(expression) -> anndata.AnnData:
    """The same values in 20 cells, each a triangle around its centre."""
    adata = expression("predicted")
    adata.uns["he2st"]["lattice"] = "irregular"
    corners = np.array([(-20.0, -20.0), (20.0, -20.0), (0.0, 20.0)])
    adata.obs["polygon"] = [to_wkt(xy + corners) for xy in adata.obsm["spatial"]]
    return adata
