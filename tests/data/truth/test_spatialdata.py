"""SpatialData stores."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

from napari_he2st.core.errors import TruthError
from napari_he2st.core.schema import check_expression
from napari_he2st.data.truth import detect, read_section

spatialdata = pytest.importorskip("spatialdata", reason="needs the extra spatial")

XY = np.stack(np.meshgrid(np.arange(5.0), np.arange(4.0)), -1).reshape(-1, 2) * 40 + 30
COUNTS = (np.arange(20)[:, None] + np.arange(3)) % 5


@pytest.fixture(scope="module")
def store(tmp_path_factory):
    """Circles in a space of micrometres, in which a pixel of the image is half as large and moved."""
    import anndata
    from spatialdata.models import Image2DModel, ShapesModel, TableModel
    from spatialdata.transformations import Affine, Identity

    obs = pd.DataFrame({"region": pd.Categorical(["spots"] * 21), "spot": [*range(20), 99]})
    obs.index = [f"s{i}" for i in range(21)]
    counts = np.concatenate([COUNTS, [[1, 1, 1]]]).astype(np.float32)
    adata = anndata.AnnData(counts, obs=obs, var=pd.DataFrame(index=["ERBB2", "CD74", "MUC1"]))
    table = TableModel.parse(adata, region="spots", region_key="region", instance_key="spot")
    index = pd.Index(range(20))[::-1]
    spots = ShapesModel.parse(XY[::-1], geometry=0, radius=10, index=index, transformations={"global": Identity()})
    half = Affine([[0.5, 0, 10], [0, 0.5, -5], [0, 0, 1]], input_axes=("x", "y"), output_axes=("x", "y"))
    pixels = np.full((3, 400, 500), 200, dtype=np.uint8)
    image = Image2DModel.parse(pixels, dims=("c", "y", "x"), transformations={"global": half})
    path = tmp_path_factory.mktemp("store") / "mini.zarr"
    spatialdata.SpatialData(images={"he": image}, shapes={"spots": spots}, tables={"counts": table}).write(path)
    return path


def test_a_table_lies_on_the_image_of_its_space(store):
    detection = detect(store)
    assert (detection.layout, detection.sections) == ("spatialdata", ["counts"])
    section = read_section(store, mpp=0.5)
    check_expression(section.adata)
    np.testing.assert_array_equal(section.adata.layers["counts"].toarray(), COUNTS)
    np.testing.assert_allclose(section.adata.obsm["spatial"] * 0.5 + [10, -5], XY)
    assert section.slide_path == store / "images/he"
    assert "1 rows without an element left out" in section.found


def test_a_store_needs_a_pixel_size(store):
    with pytest.raises(TruthError, match="how large its pixels are"):
        read_section(store)


def test_cells_that_were_exported_keep_place_and_outline(tmp_path):
    """Two cells on a slide of 5,000 px, whose picture in the store is smaller."""
    import anndata
    from PIL import Image

    from napari_he2st.core.schema import provenance
    from napari_he2st.core.wkt import corners_of, to_wkt
    from napari_he2st.data.export import export
    from napari_he2st.data.slides import Slide, is_slide_folder

    corners = np.array([(-40.0, -40), (40, -40), (40, 40), (-40, 40)])
    xy = np.array([(100.0, 200.0), (4000.0, 300.0)])
    adata = anndata.AnnData(np.ones((2, 1), np.float32), obs=pd.DataFrame(index=["a", "b"]))
    adata.var_names = ["ERBB2"]
    adata.obsm["spatial"] = xy
    adata.obs["polygon"] = [to_wkt(centre + corners) for centre in xy]
    facts = {"scale": "log1p_cp10k", "pitch_um": 20, "spot_um": 20, "lattice": "irregular", "library": "S1"}
    adata.uns["he2st"] = provenance("predicted", mpp=0.25, **facts)
    Image.fromarray(np.full((400, 5000, 3), 200, np.uint8)).save(tmp_path / "slide.png")
    with Slide.open(tmp_path / "slide.png", mpp=0.25) as slide:
        export(adata, "spatialdata", tmp_path / "cells.zarr", slide=slide)
    assert not is_slide_folder(tmp_path / "cells.zarr")
    on_slide = read_section(tmp_path / "cells.zarr", image=tmp_path / "slide.png", mpp=0.25).adata
    np.testing.assert_allclose(on_slide.obsm["spatial"], xy)
    assert on_slide.uns["he2st"]["mpp"] == 0.25
    found, owner = corners_of(on_slide.obs["polygon"])
    np.testing.assert_allclose(found[owner == 1].min(axis=0), xy[1] - 40)
    on_picture = read_section(tmp_path / "cells.zarr").adata
    assert on_picture.uns["he2st"]["mpp"] == pytest.approx(0.25 * 1.25)
    np.testing.assert_allclose(on_picture.obsm["spatial"], xy / 1.25)
    found, owner = corners_of(on_picture.obs["polygon"])
    np.testing.assert_allclose(found[owner == 0].max(axis=0), (xy[0] + 40) / 1.25)


@pytest.mark.needs_data
def test_a_store_of_points_alone_says_what_is_missing(he2st_data):
    path = he2st_data / "spatialdata_zarr_xenium_points/xenium_rep1_io.points_only.spatialdata.zarr"
    with pytest.raises(TruthError, match=r"found points: transcripts; missing a table of counts"):
        read_section(path)
