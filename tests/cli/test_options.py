"""Text of options becomes values, or a message that says what was expected."""

from __future__ import annotations

import numpy as np
import pytest
import typer

from napari_he2st.cli.options import read_box, read_genes, read_pairs
from napari_he2st.core.errors import GeneError


def test_pairs_take_their_type_from_their_text() -> None:
    pairs = ["n=3", "alpha=0.5", "fast=true", "none=null", "name=leiden", "list=[1, 2]", "equals=a=b"]
    assert read_pairs(pairs) == {
        "n": 3,
        "alpha": 0.5,
        "fast": True,
        "none": None,
        "name": "leiden",
        "list": [1, 2],
        "equals": "a=b",
    }
    assert read_pairs(None) == {}


@pytest.mark.parametrize("text", ["novalue", "=3", "not a name=3"])
def test_pairs_without_name_or_value_are_refused(text: str) -> None:
    with pytest.raises(typer.BadParameter, match="NAME=VALUE"):
        read_pairs([text])


def test_box_is_x_y_width_height() -> None:
    region = read_box("10,20,30,40.5")
    np.testing.assert_array_equal(region.polygon.min(axis=0), [10, 20])
    np.testing.assert_array_equal(region.polygon.max(axis=0), [40, 60.5])
    assert read_box(None) is None


@pytest.mark.parametrize("text", ["1,2,3", "a,b,c,d", "0,0,0,5", "0,0,5,nan", ""])
def test_boxes_without_four_numbers_or_area_are_refused(text: str) -> None:
    with pytest.raises(typer.BadParameter):
        read_box(text)


def test_gene_list_skips_comments_and_blank_lines(tmp_path) -> None:
    path = tmp_path / "panel.txt"
    path.write_text("# breast\nERBB2\n\nKRT5  # basal\n", encoding="utf-8")
    assert read_genes(path).symbols == ("ERBB2", "KRT5")


@pytest.mark.parametrize("content", [b"", b"# only a comment\n", b"ERBB2\nERBB2\n", b"\xff\xfe\x00"])
def test_unusable_gene_lists_are_refused(tmp_path, content: bytes) -> None:
    path = tmp_path / "panel.txt"
    path.write_bytes(content)
    with pytest.raises(GeneError):
        read_genes(path)


def test_missing_gene_list_is_refused(tmp_path) -> None:
    with pytest.raises(GeneError, match="cannot be read"):
        read_genes(tmp_path / "none.txt")
