"""Systems for single cells from a real Xenium section and its own cell positions, end to end."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from napari_he2st.core.schema import grid_of
from napari_he2st.data.slides import Slide
from napari_he2st.data.truth import read_section
from napari_he2st.engine.predict import predict_slide
from napari_he2st.engine.train import train

MPP = 2.1
TILE = {"encoder": "colour-texture", "tile_px": 16, "tile_mpp": MPP}


@pytest.mark.slow
@pytest.mark.parametrize(("slug", "arguments"), [("scellst", {"dims": [32]}), ("spatialex", {"dim": 16})])
def test_cells_are_learned_and_predicted(he2st_data: Path, tmp_path: Path, slug: str, arguments: dict) -> None:
    folder = he2st_data / "xenium_hest_NCBI858_lung"
    section = read_section(folder, None, mpp=MPP)
    if section.slide_path is None:
        section = replace(section, slide_path=folder / "NCBI858.jpg")
    bundle = train(slug, [section], arguments={**TILE, **arguments}, panel="mean:20", epochs=3, device="cpu")
    bundle.save(tmp_path / "cells.he2st")
    with Slide.open(section.slide_path, mpp=MPP) as slide:
        adata = predict_slide(str(tmp_path / "cells.he2st"), slide, grid=grid_of(section.adata), device="cpu")
    assert adata.shape == (200, 20)
    assert np.isfinite(adata.X).all()
    np.testing.assert_array_equal(adata.obsm["spatial"], section.adata.obsm["spatial"])
