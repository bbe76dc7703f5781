"""Maps as image channels, read back by tifffile."""

from __future__ import annotations

import numpy as np
import pytest
import tifffile

from napari_he2st.core.errors import OutputError
from napari_he2st.data.export import export


def test_channels_lie_in_register_with_the_slide(expression, slide, tmp_path):
    adata = expression("predicted")
    export(adata, "ome-tiff", tmp_path / "out.ome.tiff", slide=slide, genes="ERBB2,CD74")
    with tifffile.TiffFile(tmp_path / "out.ome.tiff") as file:
        maps = file.asarray()
        facts = tifffile.xml2dict(file.ome_metadata)["OME"]["Image"]["Pixels"]
    assert facts["PhysicalSizeX"] == facts["PhysicalSizeY"] == 50.0
    assert [channel["Name"] for channel in facts["Channel"]] == [
        "ERBB2 (log1p CP10k, predicted, research use only)",
        "CD74 (log1p CP10k, predicted, research use only)",
    ]
    assert maps.shape == (2, 20, 24)  # 1,000 × 1,200 µm
    for row in range(adata.n_obs):
        x, y = (adata.obsm["spatial"][row] * 2 / 50.0).astype(int)
        np.testing.assert_array_equal(maps[:, y, x], adata[row, ["ERBB2", "CD74"]].X.toarray().ravel())
    assert np.isnan(maps[:, 0, 0]).all(), "no spot reaches the corner"
    assert np.isfinite(maps[0, 2:18, 2:22]).all(), "squares leave no gaps"


def test_spots_off_a_square_lattice_are_discs(expression, slide, tmp_path):
    adata = expression()
    adata.uns["he2st"]["lattice"] = "hexagonal"
    export(adata, "ome-tiff", tmp_path / "out.ome.tiff", slide=slide, genes="ERBB2", pixel_um=5)
    covered = np.isfinite(tifffile.imread(tmp_path / "out.ome.tiff")).sum() * 25
    assert covered == pytest.approx(adata.n_obs * np.pi * 50**2, rel=0.02)


def test_a_map_of_more_tiles_than_one(expression, slide, tmp_path):
    export(expression(), "ome-tiff", tmp_path / "out.ome.tiff", slide=slide, genes="ERBB2", pixel_um=2)
    fine = tifffile.imread(tmp_path / "out.ome.tiff")
    assert fine.shape == (500, 600)
    assert fine[100, 100] == 1
    assert fine[100, 499] == 5


@pytest.mark.parametrize("pixel_um", [0, -1, 0.001])
def test_sizes_that_cannot_be_written(expression, slide, tmp_path, pixel_um):
    with pytest.raises(OutputError, match="too large|cannot be drawn"):
        export(expression(), "ome-tiff", tmp_path / "out.ome.tiff", slide=slide, pixel_um=pixel_um)
    assert not (tmp_path / "out.ome.tiff").exists()
