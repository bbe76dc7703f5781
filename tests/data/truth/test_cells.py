"""Single-cell platforms: Xenium, CosMx, MERSCOPE, segmented cells of Visium HD."""

from __future__ import annotations

import json

import numpy as np
import pytest
from tests.data.truth import cell_folders as mini

from napari_he2st.core.errors import MissingTruthMppError, TruthError
from napari_he2st.core.schema import check_expression
from napari_he2st.data.truth import detect, read_section
from napari_he2st.data.truth.alignment import read_matrix_csv, write_matrix_csv


def counts_of(section):
    check_expression(section.adata)
    return section.adata.layers["counts"].toarray()


@pytest.mark.parametrize("cells", ["cells.parquet", "cells.csv.gz", "cells.csv"])
def test_xenium_cells_lie_on_the_aligned_image(tmp_path, cells):
    section = read_section(mini.xenium(tmp_path / "xenium", cells=cells))
    facts = section.adata.uns["he2st"]
    np.testing.assert_array_equal(counts_of(section), mini.COUNTS[:-1])
    assert list(section.adata.var_names) == mini.GENES
    assert section.slide_path.name == "mini_he_image.tif"
    assert facts["mpp"] == pytest.approx(0.2125 * 1.6)
    on_morphology = section.adata.obsm["spatial"] * 1.6 + [-40, 25]
    np.testing.assert_allclose(on_morphology * mini.PIXEL_UM, mini.XY_UM[:-1])
    np.testing.assert_allclose(section.adata.obsm["spatial_source"] * mini.PIXEL_UM, mini.XY_UM[:-1])
    assert facts["spot_um"] == pytest.approx(2 * np.sqrt(80 / np.pi))
    assert "1 features that are not genes left out" in section.found
    assert "1 cells without counts left out" in section.found


def test_xenium_without_alignment_lies_in_the_morphology_image(tmp_path):
    section = read_section(mini.xenium(tmp_path / "xenium", aligned=False))
    assert section.slide_path is None
    assert section.adata.uns["he2st"]["mpp"] == mini.PIXEL_UM
    assert "H&E alignment (he_imagealignment.csv)" in section.missing


def test_xenium_from_transcripts_leaves_out_the_bad_ones(tmp_path):
    folder = mini.xenium(tmp_path / "xenium", matrix="transcripts")
    (folder / "cells.parquet").unlink()
    section = read_section(folder)
    order = [mini.GENES.index(gene) for gene in section.adata.var_names]
    cells = [int(name[4:8]) for name in section.adata.obs_names]
    np.testing.assert_array_equal(counts_of(section), mini.COUNTS[cells][:, order])
    np.testing.assert_allclose(section.adata.obsm["spatial_source"] * mini.PIXEL_UM, mini.XY_UM[cells])
    assert any(line.startswith("4 of ") for line in section.found)


def test_damaged_notes_of_pandas_in_a_parquet_file_do_not_matter(tmp_path):
    folder = mini.xenium(tmp_path / "xenium", matrix="transcripts", aligned=False)
    (folder / "cells.parquet").unlink()
    expected = read_section(folder).adata
    path = folder / "transcripts.parquet"
    path.write_bytes(path.read_bytes().replace(b'"index_columns"', b'"\x01ndex_columns"'))
    np.testing.assert_array_equal(read_section(folder).adata.X.toarray(), expected.X.toarray())


def test_xenium_needs_a_pixel_size(tmp_path):
    folder = mini.xenium(tmp_path / "xenium", aligned=False)
    (folder / "experiment.xenium").unlink()
    with pytest.raises(MissingTruthMppError, match="size of a pixel"):
        read_section(folder)
    assert read_section(folder, mpp=0.5).adata.uns["he2st"]["mpp"] == 0.5


@pytest.mark.parametrize(
    "text", ["1,0,0\n0,1,0\n0,0,2", "1,0\n0,1", "0,0,1\n0,0,1\n0,0,1", "a,b,c\nd,e,f\n0,0,1", "nan,0,0\n0,1,0\n0,0,1"]
)
def test_a_bad_alignment_is_refused(tmp_path, text):
    folder = mini.xenium(tmp_path / "xenium")
    (folder / "mini_he_imagealignment.csv").write_text(text)
    with pytest.raises(TruthError, match="alignment"):
        read_section(folder)


def test_an_alignment_comes_back_as_it_was_written(tmp_path):
    (tmp_path / "in.csv").write_text("0.5,0.1,3\n-0.1,0.5,4\n0,0,1\n")
    transform = read_matrix_csv(tmp_path / "in.csv")
    write_matrix_csv(transform, tmp_path / "out.csv")
    np.testing.assert_array_equal(read_matrix_csv(tmp_path / "out.csv").matrix, transform.matrix)


@pytest.mark.parametrize("matrix", [True, False])
def test_cosmx(tmp_path, matrix):
    section = read_section(mini.cosmx(tmp_path / "cosmx", matrix=matrix))
    assert section.name == "Mini"
    facts, adata = section.adata.uns["he2st"], section.adata
    assert facts["mpp"] == pytest.approx(0.12028)
    order = [mini.GENES.index(gene) for gene in adata.var_names]
    cells = [(int(fov) - 1) * 6 + int(cell) - 1 for fov, cell in (name.split("_") for name in adata.obs_names)]
    expected = mini.COUNTS if matrix else mini.COUNTS > 0
    np.testing.assert_array_equal(counts_of(section), expected[cells][:, order])
    np.testing.assert_allclose(adata.obsm["spatial"] * 0.12028, mini.XY_UM[cells])


def test_cosmx_needs_a_pixel_size(tmp_path):
    folder = mini.cosmx(tmp_path / "cosmx", mm=False)
    with pytest.raises(MissingTruthMppError, match="0.12028"):
        read_section(folder)
    assert read_section(folder, mpp=0.18).adata.n_obs == mini.N


@pytest.mark.parametrize("mosaic", [True, False])
def test_merscope(tmp_path, mosaic):
    section = read_section(mini.merscope(tmp_path / "region_0", mosaic=mosaic))
    assert section.name == "region_0"
    np.testing.assert_array_equal(counts_of(section)[::-1], mini.COUNTS)
    facts = section.adata.uns["he2st"]
    assert facts["mpp"] == pytest.approx(1 / 9.25 if mosaic else 1.0)
    zoom, shift = (9.25, [30, -12]) if mosaic else (1.0, [0, 0])
    np.testing.assert_allclose(section.adata.obsm["spatial"][::-1], mini.XY_UM * zoom + shift)
    assert "1 blank barcodes left out" in section.found


@pytest.mark.parametrize("level", ["segmented_outputs", ".", "..", "segmented_outputs/spatial"])
def test_segmented_cells_of_visium_hd(tmp_path, level):
    folder = mini.visium_hd_cells(tmp_path / "run/outs/segmented_outputs")
    section = read_section((folder.parent / level).resolve(), stand_in=True)
    np.testing.assert_array_equal(counts_of(section), mini.COUNTS)
    facts = section.adata.uns["he2st"]
    assert (section.layout, facts["mpp"]) == ("visium_hd_cells", 0.5)
    assert section.slide_path.name == "tissue_hires_image.png"
    np.testing.assert_allclose(section.adata.obsm["spatial_source"], 4 * mini.XY_UM)
    np.testing.assert_allclose(section.adata.obsm["spatial"], 2 * mini.XY_UM)
    np.testing.assert_allclose(section.adata.obs["area_um2"], 400 * 0.25**2)
    assert read_section(folder).slide_path is None


@pytest.mark.parametrize("content", ["{", "[]", '{"features": [{}]}', '{"features": 3}'])
def test_bad_outlines(tmp_path, content):
    folder = mini.visium_hd_cells(tmp_path / "segmented_outputs")
    (folder / "cell_segmentations.geojson").write_text(content)
    with pytest.raises(TruthError, match="outlines of the cells are damaged"):
        read_section(folder)


BAD_TABLES = {
    "semicolons": lambda text: text.replace(",", ";"),
    "no rows": lambda text: text.splitlines()[0] + "\n",
    "a word": lambda text: text.replace("\n1", "\none", 1).replace(",1\n", ",many\n", 1).replace(",2\n", ",many\n", 1),
    "empty cells": lambda text: text.replace(",1", ",").replace(",2", ","),
    "negative": lambda text: text.replace(",1\n", ",-1\n").replace(",2\n", ",-2\n").replace(",3", ",-3"),
}


@pytest.mark.parametrize("change", BAD_TABLES)
@pytest.mark.parametrize(
    ("write", "table"), [(mini.cosmx, "Mini_exprMat_file.csv"), (mini.merscope, "cell_by_gene.csv")]
)
def test_bad_count_tables(tmp_path, write, table, change):
    folder = write(tmp_path / "folder")
    path = folder / table
    path.write_text(BAD_TABLES[change](path.read_text()))
    with pytest.raises(TruthError):
        read_section(folder)


def test_a_table_that_is_not_utf8(tmp_path):
    folder = mini.merscope(tmp_path / "folder")
    path = folder / "cell_by_gene.csv"
    path.write_bytes(path.read_bytes().replace(b"EPCAM", b"EPC\xff\xfeM"))
    with pytest.raises(TruthError, match="not UTF-8"):
        read_section(folder)


@pytest.mark.parametrize("value", ["nan", "inf", "", "9" * 400, "1e300"])
def test_a_cell_without_position(tmp_path, value):
    folder = mini.merscope(tmp_path / "folder")
    path = folder / "cell_metadata.csv"
    lines = path.read_text().splitlines()
    cells = lines[3].split(",")
    lines[3] = ",".join([*cells[:2], value, cells[3]])
    path.write_text("\n".join(lines))
    with pytest.raises(TruthError, match="have no position"):
        read_section(folder)


@pytest.mark.parametrize("value", ["many", "1_000", "1;2"])
def test_a_position_that_is_no_number(tmp_path, value):
    folder = mini.merscope(tmp_path / "folder")
    path = folder / "cell_metadata.csv"
    path.write_text(path.read_text().replace(",70.0", f",{value}"))
    with pytest.raises(TruthError, match="which is not a number"):
        read_section(folder)


def test_a_missing_half_is_named(tmp_path):
    folder = mini.merscope(tmp_path / "region_0")
    (folder / "cell_metadata.csv").unlink()
    with pytest.raises(TruthError, match=r"merscope \(found cell_by_gene.csv.*missing cell_metadata.csv of region_0"):
        detect(folder)
    folder = mini.xenium(tmp_path / "xenium")
    (folder / "cells.parquet").unlink()
    with pytest.raises(TruthError, match=r"missing cells \(.parquet or .csv.gz\)"):
        detect(folder)


def test_an_experiment_file_without_pixel_size(tmp_path):
    folder = mini.xenium(tmp_path / "xenium")
    (folder / "experiment.xenium").write_text(json.dumps({"pixel_size": "small"}))
    with pytest.raises(TruthError, match="no pixel size"):
        read_section(folder)


# --- real files


@pytest.mark.needs_data
@pytest.mark.parametrize(
    ("folder", "layout", "shape", "mpp"),
    [
        ("xenium_layout_samples/MoleculeExperiment_mouse_brain/sample1", "xenium", (7, 124), None),
        ("xenium_layout_samples/MoleculeExperiment_mouse_brain/sample2", "xenium", (9, 122), None),
        ("xenium_layout_samples/SpatialExperimentIO_breast", "xenium", (6, 4), 0.2125),
        ("cosmx_lung/CosMx_small", "cosmx", (9, 8), 0.18),
        ("cosmx_lung/Lung12_mini", "cosmx", (120, 960), 0.18),
        ("merscope/vpt/smallset", "merscope", (997, 130), None),
    ],
)
def test_real_cells(he2st_data, folder, layout, shape, mpp):
    section = read_section(he2st_data / folder, mpp=mpp)
    check_expression(section.adata)
    assert (section.layout, section.adata.shape) == (layout, shape)
    if mpp is None:
        assert section.adata.uns["he2st"]["mpp"] == pytest.approx(0.2125 if layout == "xenium" else 0.108, rel=0.01)


@pytest.mark.needs_data
def test_a_region_in_which_nothing_was_counted(he2st_data):
    with pytest.raises(TruthError, match="nothing was counted"):
        read_section(he2st_data / "merscope/MERSCOPE_small")
