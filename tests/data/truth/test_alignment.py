"""Alignment files: what is read, and what is said of those that are not."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from napari_he2st.core.errors import TruthError
from napari_he2st.data.truth.alignment import holds_keypoints, read_keypoints_csv, read_matrix_csv


def written(folder: Path, text: str) -> Path:
    path = folder / "a.csv"
    path.write_text(text)
    return path


@pytest.mark.parametrize(
    "text",
    [
        "fixedX,fixedY,alignmentX,alignmentY\n1,2,30,40\n5.5,6,70,80.25\n",
        '"fixedX","fixedY","alignmentX","alignmentY"\r\n1,2,30,40\r\n5.5,6,70,80.25\r\n',
        "spots_x,spots_y,slide_x,slide_y,residual_um\n1,2,30,40,0.1\n5.5,6,70,80.25,0.2\n",
        "id,alignmentX,alignmentY,fixedX,fixedY\n0,30,40,1,2\n1,70,80.25,5.5,6\n",
    ],
)
def test_keypoints(tmp_path: Path, text: str) -> None:
    path = written(tmp_path, text)
    assert holds_keypoints(path)
    spots, slide = read_keypoints_csv(path)
    np.testing.assert_array_equal(spots, [[1, 2], [5.5, 6]])
    np.testing.assert_array_equal(slide, [[30, 40], [70, 80.25]])


@pytest.mark.parametrize("text", ["1,0,0\n0,1,0\n0,0,1\n", "x,y\n1,2\n"])
def test_what_holds_no_keypoints(tmp_path: Path, text: str) -> None:
    path = written(tmp_path, text)
    assert not holds_keypoints(path)
    with pytest.raises(TruthError):
        read_keypoints_csv(path)


@pytest.mark.parametrize("cell", ["nan", "inf", "far"])
def test_keypoints_have_to_be_numbers(tmp_path: Path, cell: str) -> None:
    with pytest.raises(TruthError):
        read_keypoints_csv(written(tmp_path, f"fixedX,fixedY,alignmentX,alignmentY\n1,2,30,{cell}\n"))


@pytest.mark.parametrize("text", ["1,0\n0,1\n", "1,0,0\n0,1,0\n0,1,1\n", "1,0,0\n1,0,0\n0,0,1\n", "a,b,c\n"])
def test_matrices_that_are_none(tmp_path: Path, text: str) -> None:
    with pytest.raises(TruthError):
        read_matrix_csv(written(tmp_path, text))
