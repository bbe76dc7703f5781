"""Layouts of published collections: legacy arrays of four sets, HEST-1k, STimage-1K4M."""

from __future__ import annotations

import gzip
import json

import anndata
import numpy as np
import pandas as pd
import pytest
from PIL import Image
from tests.data.truth import cell_folders as mini

from napari_he2st.core.errors import MissingTruthMppError, TruthError
from napari_he2st.core.schema import check_expression
from napari_he2st.data.slides import Slide
from napari_he2st.data.slides.tissue import tissue_mask
from napari_he2st.data.truth import detect, read_section
from napari_he2st.data.truth.fit import check_fit

X, Y = (part.ravel() for part in np.meshgrid(np.arange(2, 7), np.arange(3, 7)))
KEYS = [f"{x}x{y}" for x, y in zip(X, Y, strict=True)]
COUNTS = pd.DataFrame((np.arange(20)[:, None] + np.arange(3)) % 5, index=KEYS, columns=["ERBB2", "CD74", "MUC1"])
PITCH_PX = 60.0


def picture(path):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", (500, 480), (230, 200, 220)).save(path)


def gz(path, text):
    path.write_bytes(gzip.compress(text.encode()))


def cscc(root):
    gz(root / "GSM4284316_P2_ST_rep1_stdata.tsv.gz", COUNTS.to_csv(sep="\t"))
    table = pd.DataFrame({"x": X, "y": Y, "new_x": X, "new_y": Y, "pixel_x": X * PITCH_PX, "pixel_y": Y * PITCH_PX})
    gz(root / "GSM4284316_spot_data-selection-P2_ST_rep1.tsv.gz", table.to_csv(sep="\t", index=False))
    picture(root / "GSM4284316_P2_ST_rep1.jpg")


def breast_st(root):
    gz(root / "BC23209_C1_stdata.tsv.gz", COUNTS.to_csv(sep="\t"))
    table = pd.DataFrame({"X": X * PITCH_PX, "Y": Y * PITCH_PX}, index=KEYS)
    gz(root / "spots_BC23209_C1.csv.gz", table.to_csv())
    picture(root / "HE_BC23209_C1.jpg")


def olfactory_bulb(root):
    (root / "Rep1_MOB_count_matrix-1.tsv").write_text(COUNTS.to_csv(sep="\t"))
    (root / "Rep1_MOB_transformation.txt").write_text(f"{PITCH_PX} 0 0 0 {PITCH_PX} 0 0 0 1")
    picture(root / "HE_Rep1.jpg")


def st_utility(root):
    genes = ["ENSMUSG00000064339.1", "ENSMUSG00000064337.1", "ENSMUSG00000098178.2"]
    (root / "MOB1.tsv").write_text(COUNTS.set_axis(genes, axis=1).to_csv(sep="\t"))
    table = pd.DataFrame({"x": X, "y": Y, "new_x": X, "new_y": Y, "pixel_x": X * PITCH_PX, "pixel_y": Y * PITCH_PX})
    table.assign(selected=1).to_csv(root / "alignment_table_MOB1.tsv", sep="\t", index=False)
    names = pd.DataFrame({"gene_id": genes, "gene_type": "x", "gene_name": ["ERBB2", "CD74", "MUC1"]})
    gz(root / "mouse_genes.tsv.gz", names.to_csv(sep="\t", index=False))
    picture(root / "MOB1.jpg")


@pytest.mark.parametrize(
    ("write", "name", "patient"),
    [
        (cscc, "P2_ST_rep1", "P2"),
        (breast_st, "BC23209_C1", "BC23209"),
        (olfactory_bulb, "Rep1", None),
        (st_utility, "MOB1", None),
    ],
)
def test_every_legacy_layout_reads_the_same(tmp_path, write, name, patient):
    write(tmp_path)
    detection = detect(tmp_path)
    assert (detection.layout, len(detection.sections)) == ("legacy_st", 1)
    section = read_section(tmp_path)
    check_expression(section.adata)
    assert section.name.startswith(name)
    assert list(section.adata.var_names) == ["ERBB2", "CD74", "MUC1"]
    np.testing.assert_array_equal(section.adata.layers["counts"].toarray(), COUNTS.loc[section.adata.obs_names])
    at = np.array([key.split("x") for key in section.adata.obs_names], dtype=float)
    np.testing.assert_allclose(section.adata.obsm["spatial"], at * PITCH_PX)
    assert section.adata.uns["he2st"]["mpp"] == pytest.approx(200 / PITCH_PX)
    assert section.slide_path.suffix == ".jpg"
    assert section.patient == patient


def test_identifiers_stay_beside_the_symbols(tmp_path):
    st_utility(tmp_path)
    assert read_section(tmp_path).adata.var["ensembl"].iloc[0] == "ENSMUSG00000064339"


def test_counts_without_rows(tmp_path):
    olfactory_bulb(tmp_path)
    (tmp_path / "Rep1_MOB_count_matrix-1.tsv").write_text("\tERBB2\tCD74\n")
    with pytest.raises(TruthError, match="no spots"):
        read_section(tmp_path)


@pytest.mark.parametrize("value", [1e300, -1e308])
def test_a_position_beyond_all_measure(tmp_path, value):
    st_utility(tmp_path)
    path = tmp_path / "alignment_table_MOB1.tsv"
    table = pd.read_csv(path, sep="\t")
    table["pixel_x"] = table["pixel_x"].astype(float)
    table.loc[3, "pixel_x"] = value
    table.to_csv(path, sep="\t", index=False)
    with pytest.raises(TruthError, match="pixels away"):
        read_section(tmp_path)


@pytest.fixture
def hest(tmp_path):
    """Two sections; arguments replace the metadata."""

    def write(metadata, *, flat=False, pictures=True):
        folders = {part: tmp_path if flat else tmp_path / part for part in ("st", "wsis", "metadata")}
        for folder in folders.values():
            folder.mkdir(exist_ok=True)
        for name in ("TENX1", "TENX2"):
            adata = anndata.AnnData(COUNTS.astype(np.float32))
            adata.obsm["spatial"] = np.stack([X, Y], 1) * PITCH_PX
            adata.write_h5ad(folders["st"] / f"{name}.h5ad")
            (folders["metadata"] / f"{name}.json").write_text(json.dumps(metadata))
            if pictures:
                picture(folders["wsis"] / f"{name}.tif")
        return tmp_path

    return write


@pytest.mark.parametrize("flat", [True, False])
def test_hest(hest, flat):
    root = hest({"pixel_size_um_estimated": 0.5, "patient": "P1"}, flat=flat)
    assert detect(root).sections == ["TENX1", "TENX2"]
    section = read_section(root, "TENX2")
    facts = section.adata.uns["he2st"]
    assert (section.layout, section.slide_path.name, section.patient) == ("hest", "TENX2.tif", "P1")
    assert (facts["mpp"], facts["mpp_source"]) == (0.5, "pixel_size_um_estimated")
    assert section.warnings == []
    one = root / "TENX1.h5ad" if flat else root / "st/TENX1.h5ad"
    assert detect(one).sections == ["TENX1"]
    assert read_section(one, mpp=0.25).adata.uns["he2st"]["mpp_source"] == "given"


def test_pixel_sizes_that_contradict_each_other_are_said(hest):
    root = hest({"pixel_size_um_embedded": 0.2738, "pixel_size_um_estimated": 0.2125})
    section = read_section(root, "TENX1")
    assert section.adata.uns["he2st"]["mpp"] == 0.2125
    assert "contradicts itself" in section.warnings[0]


def test_metadata_without_pixel_size(hest):
    with pytest.raises(MissingTruthMppError, match="metadata tells none"):
        read_section(hest({"pixel_size_um_embedded": None}), "TENX1")


@pytest.fixture
def stimage(tmp_path):
    """One section of one technology."""

    def write(technology, *, flat=False):
        name = f"Human_Breast_Andersson_10142021_{technology}_A1"
        root = tmp_path / technology
        folders = {part: root if flat else root / part for part in ("gene_exp", "coord", "image")}
        for folder in folders.values():
            folder.mkdir(parents=True, exist_ok=True)
        keys = [f"{name}_{key}" for key in KEYS]
        COUNTS.set_axis(keys).to_csv(folders["gene_exp"] / f"{name}_count.csv")
        table = pd.DataFrame({"yaxis": Y * PITCH_PX, "xaxis": X * PITCH_PX, "r": 15.0}, index=keys)
        table.iloc[::-1].to_csv(folders["coord"] / f"{name}_coord.csv")
        picture(folders["image"] / f"{name}.png")
        return tmp_path

    return write


@pytest.mark.parametrize(("technology", "spot_um"), [("ST", 100), ("Visium", 55)])
@pytest.mark.parametrize("flat", [True, False])
def test_stimage(stimage, technology, spot_um, flat):
    section = read_section(stimage(technology, flat=flat))
    check_expression(section.adata)
    facts = section.adata.uns["he2st"]
    assert facts["mpp"] == pytest.approx(spot_um / 30)
    assert facts["spot_um"] == pytest.approx(spot_um)
    np.testing.assert_array_equal(section.adata.layers["counts"].toarray()[::-1], COUNTS)
    np.testing.assert_allclose(section.adata.obsm["spatial"][::-1], np.stack([X, Y], 1) * PITCH_PX)
    assert section.slide_path.suffix == ".png"


def test_a_spot_that_is_counted_twice(stimage):
    root = stimage("ST")
    path = next(root.rglob("*_count.csv"))
    lines = path.read_text().splitlines()
    path.write_text("\n".join([*lines, lines[-1]]))
    with pytest.raises(TruthError, match="of the counts appear more than once"):
        read_section(root)


def test_stimage_of_bins_needs_a_pixel_size(stimage):
    root = stimage("VisiumHD")
    with pytest.raises(MissingTruthMppError, match="technology does not tell"):
        read_section(root)
    assert read_section(root, mpp=0.5).adata.n_obs == 20


# --- real files


@pytest.mark.needs_data
@pytest.mark.parametrize(("name", "n_spots"), [("MOB1", 379), ("MOB2", 407), ("MOB3", 438)])
def test_mouse_olfactory_bulb(he2st_data, name, n_spots):
    section = read_section(he2st_data / "st_mouse_olfactory_bulb_2k", name)
    facts = section.adata.uns["he2st"]
    assert section.adata.shape == (n_spots, 1000)
    assert facts["mpp"] == pytest.approx(4.41, rel=0.01)
    assert facts["pitch_um"] == pytest.approx(141.4, abs=0.1)
    assert section.adata.var_names[0] == "mt-Rnr2"
    with Slide.open(section.slide_path, mpp=facts["mpp"]) as slide:
        fit = check_fit(section.adata, tissue_mask(slide))
    assert fit.message is None
    assert fit.on_tissue > 0.98


@pytest.mark.needs_data
def test_exchanged_axes_of_a_hest_section_are_caught(he2st_data):
    section = read_section(he2st_data / "xenium_hest_NCBI858_lung", mpp=2.124)
    with Slide.open(section.slide_path, mpp=2.124) as slide:
        fit = check_fit(section.adata, tissue_mask(slide))
    assert fit.correction.said == "x and y exchanged"
    assert fit.correction.on_tissue > 0.98
    assert 0.05 < fit.outside < 0.1


def test_counts_beside_a_free_table_of_positions(tmp_path):
    mini.write_10x(tmp_path / "my_matrix.h5", COUNTS.to_numpy(), KEYS, list(COUNTS.columns))
    table = pd.DataFrame({"barcode": KEYS, "px_x": X * PITCH_PX, "px_y": Y * PITCH_PX})
    table.iloc[::-1].to_csv(tmp_path / "spots.csv", index=False)
    picture(tmp_path / "image.png")
    with pytest.raises(MissingTruthMppError):
        read_section(tmp_path)
    section = read_section(tmp_path, mpp=2.0)
    assert (section.layout, section.slide_path.name) == ("loose", "image.png")
    np.testing.assert_array_equal(section.adata.layers["counts"].toarray()[::-1], COUNTS)
    np.testing.assert_allclose(section.adata.obsm["spatial"][::-1], np.stack([X, Y], 1) * PITCH_PX)
    table.rename(columns={"px_x": "east"}).to_csv(tmp_path / "spots.csv", index=False)
    with pytest.raises(TruthError, match="no columns such as"):
        read_section(tmp_path, mpp=2.0)


@pytest.mark.needs_data
def test_a_converted_brain_section_fits(he2st_data):
    section = read_section(he2st_data / "visium_mouse_brain_anterior_100spots/converted", mpp=9.68)
    assert section.adata.shape == (100, 32285)
    with Slide.open(section.slide_path, mpp=9.68) as slide:
        fit = check_fit(section.adata, tissue_mask(slide))
    assert fit.message is None
    assert fit.on_tissue > 0.95
