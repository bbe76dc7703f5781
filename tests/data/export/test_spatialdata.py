"""SpatialData stores, read back by spatialdata."""

from __future__ import annotations

import numpy as np
import pytest
import spatialdata
from spatialdata.transformations import get_transformation

from napari_he2st.data.export import attach_image, export


def test_cells_are_polygons_that_the_table_annotates(cells, slide, tmp_path):
    export(cells, "spatialdata", tmp_path / "cells.zarr", slide=slide)
    found = spatialdata.read_zarr(tmp_path / "cells.zarr")
    shapes, table = found["cells"], found["table"]
    np.testing.assert_allclose(shapes.geometry.centroid.x, cells.obsm["spatial"][:, 0])
    np.testing.assert_allclose(shapes.geometry.area, 40 * 40 / 2)
    np.testing.assert_array_equal(table.X.toarray(), cells.X.toarray())
    assert table.uns["he2st"]["kind"] == "predicted"
    assert "polygon" not in table.obs
    elements, rows = spatialdata.join_spatialelement_table(found, "cells", table=table, how="inner")
    assert list(elements["cells"].index) == list(rows.obs["instance_id"]) == list(cells.obs_names)
    image = found["he"]
    assert image.shape == (3, 500, 600)
    assert get_transformation(image, "global").to_affine_matrix(("x", "y"), ("x", "y"))[0, 0] == pytest.approx(1.0)


def test_spots_are_circles(expression, slide, tmp_path):
    adata = expression()
    attach_image(adata, slide, max_px=300)
    export(adata, "spatialdata", tmp_path / "spots.zarr")
    found = spatialdata.read_zarr(tmp_path / "spots.zarr")
    np.testing.assert_allclose(found["spots"].radius, 25.0)
    np.testing.assert_allclose(
        np.stack([found["spots"].geometry.x, found["spots"].geometry.y], 1), adata.obsm["spatial"]
    )
    picture = get_transformation(found["he"], "global").to_affine_matrix(("x", "y"), ("x", "y"))
    assert picture[0, 0] == pytest.approx(2.0)
