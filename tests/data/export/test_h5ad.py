"""AnnData for scanpy and squidpy, read back by them in a process of their own."""

from __future__ import annotations

import subprocess
import sys

import anndata
import numpy as np
import pytest
from PIL import Image

from napari_he2st.data.export import attach_image, export
from napari_he2st.data.truth import read_section

PLOT = """
import sys
import matplotlib
matplotlib.use("agg")
import anndata
import matplotlib.pyplot as plt
adata = anndata.read_h5ad(sys.argv[1])
if sys.argv[3] == "scanpy":
    import scanpy
    scanpy.pl.spatial(adata, color="ERBB2", show=False)
else:
    import squidpy
    squidpy.pl.spatial_scatter(adata, color="ERBB2")
axes = plt.gcf().axes[0]
picture = axes.images[0].get_array()
spots = axes.collections[-1]
radius = spots.get_paths()[0].get_extents().width / 2
print(picture.shape, len(spots.get_array()), round(float(radius), 1), "napari_he2st" in sys.modules)
plt.savefig(sys.argv[2], dpi=100)
"""


@pytest.mark.parametrize("program", ["scanpy", "squidpy"])
def test_other_programs_draw_it_over_the_image(expression, slide, tmp_path, program):
    path, figure = tmp_path / "out.h5ad", tmp_path / "figure.png"
    export(expression(), "h5ad", path, slide=slide)
    command = [sys.executable, "-W", "ignore", "-c", PLOT, str(path), str(figure), program]
    done = subprocess.run(command, check=True, capture_output=True, text=True)
    shape, n_spots, radius, ours = done.stdout.strip().splitlines()[-1].rsplit(maxsplit=3)
    assert (shape, n_spots, radius, ours) == ("(500, 600, 3)", "20", "25.0", "False")
    green = np.asarray(Image.open(figure).convert("RGB"), dtype=int) - (0, 160, 0)
    assert (np.abs(green).sum(axis=2) < 30).sum() > 50  # the stripe of the slide is in the figure


def test_read_back_the_same(expression, slide, tmp_path):
    adata = expression("predicted", sparse=False)
    adata.X[3, 1] = np.nan
    export(adata, "h5ad", tmp_path / "out.h5ad", slide=slide)
    back = anndata.read_h5ad(tmp_path / "out.h5ad")
    np.testing.assert_array_equal(back.X, adata.X)
    np.testing.assert_array_equal(back.obsm["spatial"], adata.obsm["spatial"])
    assert list(back.var["ensembl"]) == list(adata.var["ensembl"])
    assert back.uns["he2st"]["kind"] == "predicted"
    assert "research use only" in back.uns["he2st"]["note"]
    assert read_section(tmp_path / "out.h5ad").name == "S1"


def test_image_is_small_and_in_register(expression, slide):
    adata = expression()
    attach_image(adata, slide, max_px=300)
    entry = adata.uns["spatial"]["S1"]
    factor = entry["scalefactors"]["tissue_hires_scalef"]
    assert entry["images"]["hires"].shape == (250, 300, 3)
    assert factor == pytest.approx(0.5)
    green = np.argmax(entry["images"]["hires"][100, :, 0] < 100)
    assert green / factor == pytest.approx(300, abs=3)
    assert entry["scalefactors"]["spot_diameter_fullres"] == 50


def test_no_paths_in_the_file(expression, slide, tmp_path):
    adata = expression()
    adata.uns["spatial"] = {"S1": {"images": {}, "scalefactors": {}, "metadata": {"source_image_path": "/home/x.tif"}}}
    export(adata, "h5ad", tmp_path / "out.h5ad", slide=slide)
    content = (tmp_path / "out.h5ad").read_bytes()
    for path in ("/home", str(tmp_path), slide.path.name):
        assert path.encode() not in content


@pytest.mark.parametrize("sparse", [True, False])
def test_expression_that_lies_on_disk(expression, tmp_path, sparse):
    adata = expression(sparse=sparse)
    adata.write_h5ad(tmp_path / "in.h5ad")
    backed = anndata.read_h5ad(tmp_path / "in.h5ad", backed="r")
    export(backed, "h5ad", tmp_path / "out.h5ad")
    back = anndata.read_h5ad(tmp_path / "out.h5ad")
    difference = back.X - adata.X
    assert abs(difference).max() == 0
