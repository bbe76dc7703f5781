"""Stereo-seq: bins and cells of gef files, on miniatures of the published layout."""

from __future__ import annotations

import h5py
import numpy as np
import pytest
from tests.data.truth import cell_folders as mini

from napari_he2st.core.errors import TruthError
from napari_he2st.core.schema import check_expression, grid_of
from napari_he2st.data.truth import detect, read_section
from napari_he2st.data.truth import stereo_seq as reader


def test_layout_is_found_in_the_folder_the_output_around_it_and_the_file(tmp_path):
    folder = mini.stereo_seq(tmp_path / "outs" / "feature_expression")
    (folder / "C04042E2.raw.gef").write_bytes((folder / "C04042E2.tissue.gef").read_bytes())
    for path in (folder, tmp_path / "outs", tmp_path):
        detection = detect(path)
        assert (detection.layout, detection.default) == ("stereo_seq", "bin100")
        assert detection.sections == ["bin100", "bin50", "bin20", "cells"]
        assert detection.found == ["C04042E2.tissue.gef", "C04042E2.adjusted.cellbin.gef"]
    assert detect(folder / "C04042E2.adjusted.cellbin.gef").sections == ["cells"]


@pytest.mark.parametrize(("name", "width"), [("bin100", 100), ("bin50", 50), ("bin20", 20)])
@pytest.mark.parametrize("block", [5, 2**22])
def test_bins_are_sums_of_the_spots_in_them(tmp_path, monkeypatch, name, width, block):
    monkeypatch.setattr(reader, "_BLOCK", block)
    section = read_section(mini.stereo_seq(tmp_path / "saw"), name)
    adata = section.adata
    check_expression(adata)
    expected: dict[tuple[int, int], np.ndarray] = {}
    for (x, y), counts in zip((mini.XY_UM * 2).astype(int) // width, mini.COUNTS, strict=True):
        expected[x, y] = expected.get((x, y), 0) + counts
    found = dict(
        zip(
            zip(adata.obs["array_col"], adata.obs["array_row"], strict=True),
            adata.layers["counts"].toarray(),
            strict=True,
        )
    )
    assert found.keys() == expected.keys()
    for at, counts in expected.items():
        np.testing.assert_array_equal(found[at], counts)
    np.testing.assert_allclose(adata.obsm["spatial"] // width, adata.obs[["array_col", "array_row"]])
    assert list(adata.var_names) == mini.GENES
    assert list(adata.var["ensembl"]) == [f"ENSG0000000000{i}" for i in range(3)]
    assert adata.uns["he2st"]["mpp"] == 0.5
    assert grid_of(adata).pitch_um == width / 2


def test_cells_have_their_positions_and_areas(tmp_path):
    section = read_section(mini.stereo_seq(tmp_path / "saw"), "cells", genes=["CD3E", "EPCAM"])
    check_expression(section.adata)
    np.testing.assert_array_equal(section.adata.layers["counts"].toarray(), mini.COUNTS[:, :2])
    np.testing.assert_allclose(section.adata.obsm["spatial"] * 0.5, mini.XY_UM)
    np.testing.assert_allclose(section.adata.obs["area_um2"], 80)


@pytest.mark.parametrize(
    ("name", "part", "field"), [("bin100", "geneExp/bin1/gene", "offset"), ("cells", "cellBin/cell", "geneCount")]
)
def test_tables_that_do_not_fit_are_refused(tmp_path, name, part, field):
    folder = mini.stereo_seq(tmp_path / "saw")
    for path in folder.glob("*.gef"):
        with h5py.File(path, "r+") as file:
            if part in file:
                table = file[part][:]
                table[field] += 5
                file[part][...] = table
    with pytest.raises(TruthError, match="does not fit the records"):
        read_section(folder, name)


def test_what_is_no_gef_file_is_refused(tmp_path):
    path = tmp_path / "a.tissue.gef"
    path.write_bytes(b"nothing")
    with pytest.raises(TruthError, match="damaged or has another layout"):
        read_section(path)
    with h5py.File(path, "w") as file:
        file.attrs["resolution"] = [500]
    with pytest.raises(TruthError, match="damaged or has another layout"):
        read_section(path)
