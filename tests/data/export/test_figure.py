"""Figures, read back by Pillow."""

from __future__ import annotations

from xml.etree import ElementTree

import numpy as np
import pytest
from PIL import Image

from napari_he2st.core.errors import GeneError, UnknownNameError
from napari_he2st.data.export import attach_image, export


def _pixels(path):
    return np.asarray(Image.open(path).convert("RGB"), dtype=int)


def _near(pixels, colour, tolerance=40):
    return np.abs(pixels - colour).sum(axis=2) < tolerance


@pytest.mark.parametrize("kind", ["measured", "predicted"])
def test_a_gene_over_the_slide(expression, slide, tmp_path, kind):
    export(expression(kind), "png", tmp_path / "out.png", slide=slide, gene="ERBB2", dpi=100)
    with Image.open(tmp_path / "out.png") as figure:
        assert figure.width == 700
        said = "measured" if kind == "measured" else "predicted from H&E"
        assert figure.text["Title"] == f"ERBB2, {said}, research use only"
        assert "Matplotlib" in figure.text["Software"]
    pixels = _pixels(tmp_path / "out.png")
    assert _near(pixels, (0, 160, 0)).sum() > 200, "the stripe of the slide"
    dark, bright = _near(pixels, (68, 1, 84)), _near(pixels, (253, 231, 37))
    assert dark.sum() > 200
    assert bright.sum() > 200
    map_width = 500  # the colour bar, which holds both colours, is to the right
    assert np.nonzero(dark[:, :map_width])[1].mean() < np.nonzero(bright[:, :map_width])[1].mean()


def test_without_a_slide_the_picture_in_the_data_is_drawn(expression, slide, tmp_path):
    adata = expression()
    export(adata, "png", tmp_path / "plain.png", dpi=80)
    assert _near(_pixels(tmp_path / "plain.png"), (0, 160, 0)).sum() < 30
    attach_image(adata, slide)
    export(adata, "png", tmp_path / "picture.png", dpi=80)
    assert _near(_pixels(tmp_path / "picture.png"), (0, 160, 0)).sum() > 100


@pytest.mark.parametrize("sparse", [True, False])
def test_the_most_variable_gene_is_drawn_by_default(expression, tmp_path, sparse):
    adata = expression(sparse=sparse)
    export(adata, "png", tmp_path / "out.png", dpi=50)
    assert Image.open(tmp_path / "out.png").text["Title"].startswith("ERBB2")


def test_unknown_values_leave_holes(expression, tmp_path):
    adata = expression(sparse=False)
    adata.X[:, 0] = np.where(np.arange(20) < 15, np.nan, adata.X[:, 0])
    export(adata, "png", tmp_path / "out.png", gene="ERBB2", dpi=50)
    adata.X[:, 0] = np.nan
    with pytest.raises(GeneError, match="no value anywhere: ERBB2"):
        export(adata, "png", tmp_path / "none.png", gene="ERBB2")


def test_a_constant_gene_can_be_drawn(expression, tmp_path):
    export(expression(), "png", tmp_path / "out.png", gene="MUC1", dpi=50, cmap="magma")
    assert _near(_pixels(tmp_path / "out.png"), (0, 0, 4)).sum() > 50


def test_unknown_gene_and_colour_map(expression, tmp_path):
    with pytest.raises(GeneError, match="NOPE"):
        export(expression(), "png", tmp_path / "out.png", gene="NOPE")
    with pytest.raises(UnknownNameError, match="no colour map named 'pink-ish'"):
        export(expression(), "png", tmp_path / "out.png", cmap="pink-ish")


def test_cells_are_drawn_in_their_own_shape(cells, slide, tmp_path):
    export(cells, "png", tmp_path / "cells.png", slide=slide, gene="ERBB2")
    picture = np.asarray(Image.open(tmp_path / "cells.png").convert("RGB")).astype(int)
    yellow = (np.abs(picture - (253, 231, 37)).sum(axis=-1) < 12).any(axis=0)  # viridis' upper end
    assert yellow.any()


def test_shapes_and_text_can_be_edited_in_svg(expression, slide, tmp_path):
    export(expression("predicted"), "svg", tmp_path / "out.svg", slide=slide, gene="ERBB2")
    tree = ElementTree.parse(tmp_path / "out.svg")
    texts = [text for node in tree.iter() for text in (node.text or "",) if node.tag.endswith("}text")]
    assert any("ERBB2 (log1p CP10k)" in text for text in texts)
    assert any("research use only" in text for text in texts)
    assert any(text.endswith("µm") for text in texts), "the scale bar"
    assert any(node.tag.endswith("}image") for node in tree.iter()), "the H&E"
