"""Regions to QuPath and back."""

from __future__ import annotations

import json

import numpy as np
import pytest

from napari_he2st.core.errors import OutputError, TruthError
from napari_he2st.core.geometry import inside_polygon, signed_area
from napari_he2st.core.types import Region
from napari_he2st.data.geojson import read_regions, write_regions

TUMOUR = Region(np.array([(10.0, 20.0), (110, 20), (60, 90.5)]), "core", "Tumor", "#c80000")
PLAIN = Region.box(200, 0, 50, 40, "somewhere")


def test_names_classes_and_colours_survive(tmp_path) -> None:
    path = tmp_path / "regions.geojson"
    write_regions(path, [TUMOUR, PLAIN])
    first, second = read_regions(path)
    np.testing.assert_allclose(first.polygon, TUMOUR.polygon)
    assert (first.name, first.kind, first.colour) == ("core", "Tumor", "#c80000")
    assert (second.name, second.kind, second.colour) == ("somewhere", "", None)
    with pytest.raises(OutputError):
        write_regions(path, [PLAIN])


def test_they_are_what_qupath_reads(tmp_path) -> None:
    path = tmp_path / "regions.geojson"
    write_regions(path, [TUMOUR, PLAIN])
    first, second = json.loads(path.read_text())["features"]
    assert first["properties"] == {
        "objectType": "annotation",
        "name": "core",
        "classification": {"name": "Tumor", "color": [200, 0, 0]},
    }
    ring = first["geometry"]["coordinates"][0]
    assert ring[0] == ring[-1]
    assert "classification" not in second["properties"]


def test_holes_and_parts(tmp_path) -> None:
    box = lambda x, y, side: [[x, y], [x + side, y], [x + side, y + side], [x, y + side], [x, y]]  # noqa: E731
    feature = {
        "type": "Feature",
        "geometry": {"type": "MultiPolygon", "coordinates": [[box(0, 0, 100), box(40, 40, 20)], [box(300, 0, 10)]]},
        "properties": {"classification": {"name": "Stroma", "color": [150, 200, 150]}},
    }
    path = tmp_path / "one.geojson"
    path.write_text(json.dumps(feature))
    ring, small = read_regions(path)
    assert ring.name == ring.kind == "Stroma"
    assert ring.colour == "#96c896"
    assert inside_polygon([(50, 50), (10, 10), (70, 50), (50, 70)], ring.polygon).tolist() == [False, True, True, True]
    assert abs(signed_area(ring.polygon)) == pytest.approx(100**2 - 20**2)
    assert abs(signed_area(small.polygon)) == pytest.approx(100)


@pytest.mark.parametrize(
    "text",
    [
        "no json",
        '{"type": "FeatureCollection", "features": []}',
        '[{"geometry": {"type": "Polygon", "coordinates": [[[0, 0], [1, 1]]]}}]',
        '[{"geometry": {"type": "Polygon", "coordinates": [[[0, 0], [1, 1], [1, 0]]]},'
        ' "properties": {"classification": {"name": "a", "color": [300, 0, 0]}}}]',
    ],
)
def test_anything_else_is_refused(tmp_path, text: str) -> None:
    path = tmp_path / "bad.geojson"
    path.write_text(text)
    with pytest.raises(TruthError, match="GeoJSON|no polygon"):
        read_regions(path)
