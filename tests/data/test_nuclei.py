"""Nuclei in files: outlines, label images, GeoJSON."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from skimage.draw import disk, ellipse

from napari_he2st.core.errors import OutputError, SchemaError, TruthError
from napari_he2st.core.types import Nuclei
from napari_he2st.core.wkt import from_wkt, to_wkt
from napari_he2st.data.nuclei import outlines, read_nuclei, write_nuclei
from napari_he2st.data.slides import Slide


@pytest.fixture
def labels() -> np.ndarray:
    labels = np.zeros((240, 320), np.int32)
    for number, (row, column) in enumerate([(20, 30), (100, 150), (200, 300), (60, 250)], start=1):
        labels[ellipse(row, column, 8, 12, labels.shape, rotation=0.4 * number)] = number
    labels[0:3, 0:5] = 7  # at the corner
    return labels


@pytest.fixture
def slide(tmp_path: Path):
    Image.fromarray(np.full((480, 640, 3), 240, np.uint8)).save(tmp_path / "slide.png")
    with Slide.open(tmp_path / "slide.png", mpp=0.25) as opened:
        yield opened


def _iou(one: np.ndarray, other: np.ndarray) -> float:
    return float((one & other).sum() / (one | other).sum())


def _area(polygon: np.ndarray) -> float:
    x, y = polygon.T
    return abs(float(x @ np.roll(y, 1) - y @ np.roll(x, 1))) / 2


def test_outlines_run_along_the_edges_of_pixels(labels):
    found = outlines(Nuclei.of(labels, 0.5))
    corner = found[-1]
    assert {tuple(xy) for xy in corner.tolist()} == {(0, 0), (5, 0), (5, 3), (0, 3)}
    for number, polygon in enumerate(found[:-1], start=1):
        assert _area(polygon) == pytest.approx((labels == number).sum(), rel=0.06)
    (alone,) = outlines(Nuclei.of(labels, 0.5), np.array([7]))
    np.testing.assert_array_equal(alone, corner)


@pytest.mark.parametrize("suffix", [".tif", ".geojson"])
def test_written_nuclei_are_read_back(labels, slide, tmp_path, suffix):
    path = tmp_path / f"nuclei{suffix}"
    write_nuclei(Nuclei.of(labels, 0.5), path, slide.mpp)
    found = read_nuclei(path, slide)
    assert found.mpp == pytest.approx(0.5)
    assert found.labels.shape == labels.shape
    assert len(found.numbers) == 5
    for number in (1, 2, 3, 4, 7):
        own = found.labels == found.labels[labels == number][0]
        assert _iou(own, labels == number) > (0.999 if suffix == ".tif" else 0.93)


def test_geojson_is_what_qupath_reads(labels, slide, tmp_path):
    path = tmp_path / "nuclei.geojson"
    write_nuclei(Nuclei.of(labels, 0.5), path, slide.mpp)
    found = json.loads(path.read_text())
    assert found["type"] == "FeatureCollection"
    assert len(found["features"]) == 5
    first = found["features"][0]
    assert first["properties"]["objectType"] == "detection"
    assert first["properties"]["classification"] == {"name": "Nucleus"}
    assert first["properties"]["measurements"]["Area µm^2"] == pytest.approx((labels == 1).sum() * 0.25, rel=1e-4)
    ring = np.array(first["geometry"]["coordinates"][0])
    assert (ring[0] == ring[-1]).all()
    np.testing.assert_allclose(ring.mean(axis=0), (61, 41), atol=2)  # level-0 pixels


def test_qupath_cells_give_their_nucleus(slide, tmp_path):
    def square(x: int, half: int) -> dict:
        ring = [[x - half, 100 - half], [x + half, 100 - half], [x + half, 100 + half], [x - half, 100 + half]]
        return {"type": "Polygon", "coordinates": [[*ring, ring[0]]]}

    cell = {"type": "Feature", "geometry": square(100, 20), "nucleusGeometry": square(100, 10), "properties": {}}
    line = {"type": "Feature", "geometry": {"type": "LineString", "coordinates": [[0, 0], [1, 1]]}, "properties": {}}
    (tmp_path / "cells.geojson").write_text(json.dumps([cell, line]))
    found = read_nuclei(tmp_path / "cells.geojson", slide)
    assert (found.labels > 0).sum() == 10 * 10  # of 20 px at twice the slide's pixel size


@pytest.mark.parametrize(
    ("name", "content", "said"),
    [
        ("a.geojson", b"{", "no GeoJSON"),
        ("a.geojson", b'{"type": "FeatureCollection", "features": []}', "no polygon"),
        ("a.geojson", b'[{"geometry": {"type": "Polygon", "coordinates": [[["x", 1], [2, 2]]]}}]', "no GeoJSON"),
        ("a.tif", b"II*", "cannot be read"),
        ("a.npy", b"no array", "cannot be read"),
    ],
)
def test_damaged_files_are_refused(slide, tmp_path, name, content, said):
    (tmp_path / name).write_bytes(content)
    with pytest.raises(TruthError, match=said):
        read_nuclei(tmp_path / name, slide)


def test_what_does_not_fit_is_refused(labels, slide, tmp_path):
    np.save(tmp_path / "wide.npy", labels[:100])
    with pytest.raises(TruthError, match="not the shape"):
        read_nuclei(tmp_path / "wide.npy", slide)
    with pytest.raises(TruthError, match="no such file"):
        read_nuclei(tmp_path / "none.tif", slide)
    with pytest.raises(OutputError, match="geojson"):
        write_nuclei(Nuclei.of(labels, 0.5), tmp_path / "nuclei.txt", slide.mpp)


def test_numbers_beyond_reason_are_counted_through(slide, tmp_path):
    labels = np.zeros((480, 640), np.uint32)
    labels[disk((100, 100), 9)] = 4_000_000_000
    np.save(tmp_path / "large.npy", labels)
    assert read_nuclei(tmp_path / "large.npy", slide).largest == 1


def test_outlines_as_text():
    polygon = np.array([[1.0, 2.5], [4.0, 2.5], [4.0, 7.25]])
    text = to_wkt(polygon)
    assert text == "POLYGON ((1.00 2.50, 4.00 2.50, 4.00 7.25, 1.00 2.50))"
    np.testing.assert_array_equal(from_wkt(text), polygon)
    for broken in ("", "POINT (1 2)", "POLYGON ((1 2, x 3))", "POLYGON ((1 2 3, 4 5))"):
        with pytest.raises(SchemaError, match="no polygon"):
            from_wkt(broken)
