"""Labels from files: spot names, positions, outlines."""

from __future__ import annotations

import json

import anndata as ad
import numpy as np
import pytest

from napari_he2st.core.errors import TruthError
from napari_he2st.core.schema import provenance
from napari_he2st.core.types import Region
from napari_he2st.data.labels import labels_in_regions, read_labels

EXPECTED = ["a", "a", "none", "b"]


@pytest.fixture
def section():
    adata = ad.AnnData(
        np.ones((4, 1), np.float32), obsm={"spatial": np.array([[0, 0], [100, 0], [200, 0], [300, 0.0]])}
    )
    adata.obs_names = ["s1", "s2", "s3", "s4"]
    facts = {"mpp": 0.5, "pitch_um": 50, "spot_um": 27, "lattice": "square", "library": "made"}
    adata.uns["he2st"] = provenance("measured", scale="counts", **facts)
    return adata


def ring(left, right):
    return [[left, -10], [right, -10], [right, 10], [left, 10], [left, -10]]


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("names.csv", "spot,area,label\ns2,1,a\ns1,1,a\ns4,1,b\ns3,1,\nother,1,a\n"),
        ("names.tsv", "spot\tgroup\ns1\ta\ns2\ta\ns4\tb\n"),
        ("places.csv", "x,y,label\n3,4,a\n99,0,a\n310,0,b\n249,30,b\n"),
    ],
)
def test_tables(section, tmp_path, name, text):
    (tmp_path / name).write_text(text)
    assert read_labels(tmp_path / name, section).tolist() == EXPECTED


def test_outlines_of_qupath_with_holes(section, tmp_path):
    shapes = [
        ({"type": "Polygon", "coordinates": [ring(-5, 250), ring(190, 210)]}, {"classification": {"name": "a"}}),
        ({"type": "MultiPolygon", "coordinates": [[ring(290, 305)], [ring(900, 950)]]}, {"name": "b"}),
        ({"type": "Polygon", "coordinates": [ring(-5, 400)]}, {}),
        ({"type": "Point", "coordinates": [0, 0]}, {"name": "c"}),
    ]
    features = [{"type": "Feature", "geometry": geometry, "properties": facts} for geometry, facts in shapes]
    file = tmp_path / "areas.geojson"
    for content in ({"type": "FeatureCollection", "features": features}, features):
        file.write_text(json.dumps(content))
        assert read_labels(file, section).tolist() == EXPECTED


def test_drawn_regions(section):
    regions = [Region.box(-5, -5, 120, 10, "a"), Region.box(290, -5, 20, 10, "b")]
    assert labels_in_regions(section.obsm["spatial"], regions).tolist() == EXPECTED


@pytest.mark.parametrize(
    ("name", "text", "match"),
    [
        ("x.csv", "spot,label\nz1,a\n", "None of the 4 spots has a label"),
        ("x.csv", "label\na\n", "cannot be read|only one column"),
        ("x.geojson", "{}", "outlines cannot be read"),
        ("x.geojson", '[{"geometry": 3, "properties": {"name": "a"}}]', "outlines cannot be read"),
        ("missing.csv", None, "labels cannot be read"),
    ],
)
def test_what_is_wrong_is_said(section, tmp_path, name, text, match):
    if text is not None:
        (tmp_path / name).write_text(text)
    with pytest.raises(TruthError, match=match):
        read_labels(tmp_path / name, section)
