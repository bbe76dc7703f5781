"""Real sections, each layout with its quirks (their folders say where they come from)."""

from __future__ import annotations

import numpy as np
import pytest

from napari_he2st.core.errors import TruthError
from napari_he2st.core.schema import check_expression
from napari_he2st.data.slides import Slide
from napari_he2st.data.slides.tissue import tissue_mask
from napari_he2st.data.truth import detect, read_section
from napari_he2st.data.truth.fit import check_fit

pytestmark = pytest.mark.needs_data


@pytest.mark.parametrize(
    ("name", "shape"), [("B4", (283, 15289)), ("C2", (187, 15706)), ("C3", (180, 15821)), ("C5", (181, 15721))]
)
def test_her2st(her2st, name, shape):
    section = read_section(her2st, name)
    check_expression(section.adata)
    assert section.adata.shape == shape
    assert section.adata.uns["he2st"]["mpp"] == pytest.approx(0.69, rel=0.005)
    assert section.slide_path.suffix == ".jpg"
    assert section.patient == name[0]


def test_her2st_labels(her2st):
    section = read_section(her2st, "A1")
    counts = section.adata.obs["label"].value_counts()
    assert section.adata.n_obs == 346
    assert counts["invasive cancer"] == 282  # 284 rows, two of which have no counts
    assert "undetermined" not in counts
    assert section.missing == ["image"]


def test_her2st_with_its_small_picture(her2st):
    section = read_section(her2st, "A1", image=her2st / "app/A1_HE_image_dark.png", image_scale=2000 / 6954)
    assert section.adata.uns["he2st"]["mpp"] == pytest.approx(3.2, rel=0.01)
    assert (section.adata.obsm["spatial"] < 2000).all()


@pytest.mark.parametrize(
    ("folder", "layout", "name", "shape", "mpp"),
    [
        ("visium_v1_mouse_brain_100genes", "visium", "visium_v1_mouse_brain_100genes", (2702, 100), 0.730),
        ("visium_v1_mouse_muscle", "visium", "Vis5A_2dpi", (982, 33217), 0.361),
        ("visium_v2_cytassist_mouse", "visium", "visium_v2_cytassist_mouse", (2898, 19465), 4.68),
        ("visium_layout_samples/scanpy/1.0.0", "visium", "1.0.0", (100, 100), 0.73),
        ("visium_layout_samples/seurat/visium/spatial", "visium", "visium", (2695, 100), 0.73),
        ("visium_layout_samples/VisiumIO/10xVisium/section1", "visium", "section1", (22, 49), 0.73),
        ("visium_hd_layout_samples/seurat:square_008um", "visium_hd", "square_008um", (1368, 100), 0.2738),
    ],
)
def test_space_ranger(he2st_data, folder, layout, name, shape, mpp):
    folder, _, wanted = folder.partition(":")
    section = read_section(he2st_data / folder, wanted or None)
    check_expression(section.adata)
    assert (section.layout, section.name, section.adata.shape) == (layout, name, shape)
    assert section.adata.uns["he2st"]["mpp"] == pytest.approx(mpp, rel=0.01)
    totals = np.expm1(section.adata.X).sum(axis=1)
    counted = np.asarray(section.adata.layers["counts"].sum(axis=1)).ravel() > 0
    np.testing.assert_allclose(np.asarray(totals).ravel()[counted], 1e4, rtol=1e-3)


def test_mismatched_barcodes_are_reported(he2st_data):
    section = read_section(he2st_data / "visium_hd_layout_samples/seurat")  # 16 µm unless another size is named
    assert section.name == "square_016um"
    assert section.adata.n_obs == 336
    unknown, foreign = section.warnings
    assert unknown.startswith("2,053 of the 2,695 barcodes of the counts are not in the position file")
    assert foreign.startswith("2,695 barcodes, such as AAACAAGTATCTCCCA-1, do not start with s_016um_")
    finer = read_section(he2st_data / "visium_hd_layout_samples/seurat", "square_008um")
    assert finer.warnings[0] == "1,327 of the 2,695 barcodes of the filtered counts lie beside the tissue."


def test_squidpy_sample(he2st_data):
    path = he2st_data / "visium_layout_samples/squidpy/test_data.h5ad"
    section = read_section(path, mpp=0.73)
    check_expression(section.adata)
    assert (section.name, section.adata.shape) == ("V1_Adult_Mouse_Brain", (49, 1999))
    assert section.adata.var["ensembl"].str.startswith("ENSMUSG").all()


@pytest.mark.parametrize(
    ("path", "message"),
    [
        ("visium_layout_samples/scanpy/2.1.0", "No measured expression was found"),
        ("visium_mouse_brain_anterior_100spots/converted", "do not say how large a pixel is"),
        ("visium_hd_layout_samples/FineST_CRC", "incomplete.*missing filtered_feature_bc_matrix"),
        ("visium_v1_chicken_heart_regions", "incomplete.*missing filtered_feature_bc_matrix"),
        ("visium_hd_layout_samples/VisiumIO", "nothing was counted"),
        ("xenium_hest_NCBI858_lung/NCBI858.h5ad", "does not say how large its pixels are"),
    ],
)
def test_what_cannot_be_read_says_why(he2st_data, path, message):
    with pytest.raises(TruthError, match=message):
        read_section(he2st_data / path)


@pytest.mark.parametrize(("section", "warns"), [("C5", False), ("C5 moved", True)])
def test_fit_to_the_tissue(her2st, section, warns):
    name, *moved = section.split()
    measured = read_section(her2st, name)
    if moved:
        measured.adata.obsm["spatial"] += 3000
    with Slide.open(measured.slide_path, mpp=measured.adata.uns["he2st"]["mpp"]) as slide:
        fit = check_fit(measured.adata, tissue_mask(slide))
    assert (fit.message is not None) is warns
    assert (fit.on_tissue < 0.8) is warns


def test_all_her2st_sections_are_listed(her2st):
    detection = detect(her2st)
    assert detection.layout == "legacy_st"
    assert len(detection.sections) == 12
    assert "image of A1" in detection.missing
