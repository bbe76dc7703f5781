"""Objects for QuPath, read back by shapely."""

from __future__ import annotations

import json

import numpy as np
import pytest
from shapely.geometry import shape

from napari_he2st.core.errors import GeneError
from napari_he2st.data.export import export


def _read(path) -> list[dict]:
    return json.loads(path.read_text())["features"]


def test_cells_keep_their_outline_and_are_measured(cells, tmp_path):
    cells.obs["domain"] = ["D1"] * 10 + ["D2"] * 10
    export(cells, "geojson", tmp_path / "cells.geojson", genes="CD74,ERBB2")
    found = _read(tmp_path / "cells.geojson")
    assert len(found) == 20
    for row, feature in enumerate(found):
        polygon = shape(feature["geometry"])
        assert polygon.area == pytest.approx(800)
        np.testing.assert_allclose(polygon.centroid.x, cells.obsm["spatial"][row, 0])
        known = feature["properties"]
        assert known["classification"]["name"] == ("D1" if row < 10 else "D2")
        assert list(known["measurements"]) == [f"{gene} (predicted, log1p CP10k)" for gene in ("CD74", "ERBB2")]
        assert known["measurements"]["ERBB2 (predicted, log1p CP10k)"] == cells.X[row, 0]


def test_spots_of_a_lattice_are_squares(expression, tmp_path):
    adata = expression(sparse=False)
    adata.X[3, 0] = np.nan
    export(adata, "geojson", tmp_path / "spots.geojson")
    found = _read(tmp_path / "spots.geojson")
    assert shape(found[0]["geometry"]).bounds == (50, 50, 150, 150)
    assert found[0]["properties"]["classification"]["name"] == "Spot"
    assert len(found[0]["properties"]["measurements"]) == 4
    assert len(found[3]["properties"]["measurements"]) == 3  # what is unknown is left out


def test_a_gene_that_is_not_there(expression, tmp_path):
    with pytest.raises(GeneError, match="NOTCH1"):
        export(expression(), "geojson", tmp_path / "spots.geojson", genes="NOTCH1")
