"""Output folders of Space Ranger."""

from __future__ import annotations

import gzip
import json
import shutil

import h5py
import numpy as np
import pandas as pd
import pytest
from PIL import Image

from napari_he2st.core.errors import GeneError, TruthError
from napari_he2st.core.schema import check_expression, grid_of
from napari_he2st.data.truth import detect, read_section

GENERATIONS = [
    {"positions": "tissue_positions_list.csv"},
    {"positions": "tissue_positions.csv"},
    {"positions": "tissue_positions.parquet"},
    {"matrix": "filtered_feature_bc_matrix"},
    {"matrix": "filtered_feature_bc_matrix", "gz": False},
    {"matrix": "raw_feature_bc_matrix.h5", "pictures": ("lowres",)},
    {"matrix": "V1_filtered_feature_bc_matrix.h5", "pictures": ()},
]


@pytest.mark.parametrize("generation", GENERATIONS, ids=str)
def test_every_generation_reads_the_same(visium, visium_positions, generation):
    section = read_section(visium(**generation))
    adata = section.adata
    check_expression(adata)
    in_tissue = visium_positions[visium_positions["in_tissue"] == 1]
    assert list(adata.obs_names) == list(in_tissue["barcode"])
    np.testing.assert_allclose(adata.obsm["spatial"], in_tissue[["pxl_col_in_fullres", "pxl_row_in_fullres"]])
    np.testing.assert_array_equal(adata.obs["array_row"], in_tissue["array_row"])
    assert adata.obs["in_tissue"].all()
    facts = adata.uns["he2st"]
    assert facts["mpp"] == pytest.approx(0.5)
    assert facts["mpp_source"] == "estimated from the spot pitch of 100 µm (centre to centre)"
    assert grid_of(adata).lattice == "hexagonal"
    assert (section.name, section.slide_path, section.patient) == ("brain", None, None)
    assert "full-resolution image" in section.missing
    assert set(adata.uns["spatial"]["brain"]["images"]) == set(generation.get("pictures", ("hires", "lowres")))


def test_counts_are_joined_by_barcode(visium, expected_counts):
    """The matrix is in the reverse order of the positions."""
    adata = read_section(visium()).adata
    np.testing.assert_array_equal(adata.layers["counts"].toarray()[::-1], expected_counts(25, 4))


def test_genes_that_share_a_symbol_stay_apart(visium):
    section = read_section(visium())
    assert list(section.adata.var_names) == ["Xkr4", "Rp1", "Rp1-1", "Sox17"]
    assert section.adata.var["ensembl"].is_unique
    assert "1 symbols belong to several Ensembl genes and got suffixes (Rp1-1 …)" in section.found


def test_raw_matrix_is_said_aloud(visium):
    section = read_section(visium(matrix="raw_feature_bc_matrix"))
    assert section.adata.n_obs == 25
    assert any("raw one is used" in line for line in section.missing)
    assert "5 rows of counts without a spot in tissue left out" in section.found


@pytest.mark.parametrize("level", ["..", ".", "spatial", "filtered_feature_bc_matrix.h5", "../.."])
def test_any_folder_level_will_do(visium, level):
    outs = visium()
    assert detect((outs / level).resolve()).sections == ["brain"]
    assert read_section((outs / level).resolve()).adata.n_obs == 25


def test_a_folder_of_samples_lists_them(visium):
    visium("brain")
    parent = visium("liver").parent.parent
    assert detect(parent).sections == ["brain", "liver"]
    assert read_section(parent, "liver").name == "liver"


def test_full_resolution_image_is_found(visium):
    outs = visium()
    Image.new("RGB", (60, 50)).save(outs.parent / "scan.tif")
    assert read_section(outs).slide_path == outs.parent / "scan.tif"


def test_a_picture_can_stand_in_for_the_slide(visium):
    outs = visium()
    full = read_section(outs).adata
    section = read_section(outs, image=outs / "spatial/tissue_hires_image.png")
    np.testing.assert_allclose(section.adata.obsm["spatial"], full.obsm["spatial"] * 0.5)
    np.testing.assert_allclose(section.adata.obsm["spatial_source"], full.obsm["spatial"])
    assert section.adata.uns["he2st"]["mpp"] == pytest.approx(1.0)
    factors = section.adata.uns["spatial"]["brain"]["scalefactors"]
    assert (factors["tissue_hires_scalef"], factors["tissue_lowres_scalef"]) == pytest.approx((1.0, 0.2))
    assert factors["spot_diameter_fullres"] == pytest.approx(65)


def test_bins_of_visium_hd(visium, visium_positions):
    table = visium_positions.assign(
        pxl_row_in_fullres=visium_positions["array_row"] * 32.0, pxl_col_in_fullres=visium_positions["array_col"] * 32.0
    )
    outs = visium(positions="tissue_positions.parquet", table=table)
    bins = outs / "binned_outputs" / "square_008um"
    bins.mkdir(parents=True)
    for part in ("spatial", "filtered_feature_bc_matrix.h5"):
        shutil.move(outs / part, bins / part)
    factors = json.loads((bins / "spatial/scalefactors_json.json").read_text())
    factors |= {"bin_size_um": 8.0, "microns_per_pixel": 0.25}
    (bins / "spatial/scalefactors_json.json").write_text(json.dumps(factors))
    section = read_section(outs)
    facts = section.adata.uns["he2st"]
    assert section.name == "square_008um"
    assert (facts["lattice"], facts["pitch_um"], facts["spot_um"], facts["mpp"]) == ("square", 8, 8, 0.25)
    assert facts["mpp_source"] == "scale factors (microns_per_pixel)"


def test_features_that_are_not_genes_are_left_out(visium):
    outs = visium(matrix="filtered_feature_bc_matrix", gz=False)
    path = outs / "filtered_feature_bc_matrix/features.tsv"
    path.write_text(path.read_text().replace("Sox17\tGene Expression", "CD3\tAntibody Capture"))
    section = read_section(outs)
    assert "Sox17" not in section.adata.var_names
    assert section.adata.n_vars == 3
    assert "1 features that are not genes left out" in section.found


def test_parts_of_two_sections_in_one_folder_are_not_paired(visium):
    """All Visium slides share their barcodes, so a wrong pair would read without any error."""
    outs = visium()
    for name in ("D7", "D14"):
        shutil.copy(outs / "filtered_feature_bc_matrix.h5", outs / f"{name}_filtered_feature_bc_matrix.h5")
    (outs / "filtered_feature_bc_matrix.h5").unlink()
    with pytest.raises(TruthError, match=r"incomplete.*tissue_positions"):
        read_section(outs)


@pytest.mark.parametrize("mex", [False, True])
def test_several_sections_in_one_folder_are_told_apart_by_their_prefix(visium, tmp_path, mex):
    """As archives store them: every file with the sample's name before it."""
    folder = tmp_path / "archive"
    folder.mkdir()
    for number, sample in enumerate(("GSM1_A", "GSM2_B")):
        outs = visium(sample, matrix="filtered_feature_bc_matrix" + ("" if mex else ".h5"))
        files = [*(outs / "spatial").iterdir(), outs / "filtered_feature_bc_matrix.h5"]
        files += list((outs / "filtered_feature_bc_matrix").iterdir()) if mex else []
        for path in files:
            if path.exists():
                shutil.copy(path, folder / f"{sample}_{path.name}")
        positions = folder / f"{sample}_tissue_positions_list.csv"
        table = pd.read_csv(positions, header=None)
        table[4] += 1000 * number
        table.to_csv(positions, header=False, index=False)
    assert detect(folder).sections == ["GSM1_A", "GSM2_B"]
    first, second = (read_section(folder, name).adata for name in ("GSM1_A", "GSM2_B"))
    np.testing.assert_allclose(second.obsm["spatial"] - first.obsm["spatial"], [[0, 1000]] * 25)


def test_gzipped_positions(visium):
    outs = visium()
    path = outs / "spatial/tissue_positions_list.csv"
    path.with_suffix(".csv.gz").write_bytes(gzip.compress(path.read_bytes()))
    path.unlink()
    assert read_section(outs).adata.n_obs == 25


def test_without_scale_factors_there_are_no_pictures(visium):
    outs = visium()
    (outs / "spatial/scalefactors_json.json").unlink()
    section = read_section(outs)
    assert "spatial/scalefactors_json.json" in section.missing
    assert section.adata.uns["spatial"]["brain"]["images"] == {}


def _bad(name):
    positions = "barcode,in_tissue,array_row,array_col,pxl_row_in_fullres,pxl_col_in_fullres\n"
    return {
        "semicolons": (positions.replace(",", ";") + "A;1;0;0;0;0\n", "1 columns, not 6"),
        "few columns": ("A,1,0,0,0\n", "5 columns, not 6"),
        "other header": (positions.replace("array_row", "row") + "A,1,0,0,0,0\n", "array_row are missing"),
        "no rows": (positions, "lists no spots"),
        "no number": (positions + "A,1,0,0,here,0\n", "'here', which is not a number"),
        "no array position": (positions + "A,1,,0,0,0\n", "no array position"),
        "repeated": (positions + "A,1,0,0,0,0\nA,1,0,2,0,9\n", "1 barcodes appear more than once"),
        "others": (positions + "A,1,0,0,0,0\nB,1,0,2,0,9\nC,1,1,1,8,5\n", "no spot in common"),
        "not UTF-8": (positions.encode() + "Ä,1,0,0,0,0\n".encode("latin-1"), "not UTF-8"),
    }[name]


@pytest.mark.parametrize(
    "name",
    ["semicolons", "few columns", "other header", "no rows", "no number", "no array position", "repeated", "others",
     "not UTF-8"],
)  # fmt: skip
def test_bad_positions(visium, name):
    content, message = _bad(name)
    outs = visium(positions="tissue_positions.csv")
    (outs / "spatial/tissue_positions.csv").write_bytes(content if isinstance(content, bytes) else content.encode())
    with pytest.raises(TruthError, match=message):
        read_section(outs)


@pytest.mark.parametrize("content", ['{"tissue_hires_scalef": 0}', '{"tissue_hires_scalef": "big"}', "[1]", "{"])
def test_bad_scale_factors(visium, content):
    outs = visium()
    (outs / "spatial/scalefactors_json.json").write_text(content)
    with pytest.raises(TruthError, match=r"not above zero|damaged"):
        read_section(outs)


def test_no_spot_in_tissue(visium, visium_positions):
    outs = visium(table=visium_positions.assign(in_tissue=0), matrix="raw_feature_bc_matrix.h5")
    with pytest.raises(TruthError, match="No spot lies in tissue"):
        read_section(outs)


def test_position_that_is_not_a_number(visium, visium_positions):
    outs = visium(
        table=visium_positions.assign(pxl_row_in_fullres=[*[np.nan] * 10, *range(20)]), positions="tissue_positions.csv"
    )
    with pytest.raises(TruthError, match="5 spots have no position"):
        read_section(outs, mpp=0.5)


@pytest.mark.parametrize(
    ("value", "message"), [(-1.0, "25 counts are negative"), (np.nan, "not a finite number"), (0.5, "not whole")]
)
def test_bad_counts(visium, value, message):
    counts = np.ones((25, 4))
    counts[:, 2] = value
    with pytest.raises(TruthError, match=message):
        read_section(visium(counts=counts))


def test_nothing_counted(visium):
    with pytest.raises(TruthError, match="nothing was counted"):
        read_section(visium(counts=np.zeros((25, 4), dtype=int)))


def test_repeated_barcodes(visium):
    with pytest.raises(TruthError, match="barcodes appear more than once"):
        read_section(visium(barcodes=["AAAC0007-1"] * 25))


def test_genes_without_anything_to_tell_them_apart(visium):
    outs = visium()
    with h5py.File(outs / "filtered_feature_bc_matrix.h5", "r+") as file:
        file["matrix/features/id"][2] = file["matrix/features/id"][1]
    with pytest.raises(GeneError, match="Rp1"):
        read_section(outs)


@pytest.mark.parametrize("part", ["filtered_feature_bc_matrix.h5", "spatial/tissue_positions.parquet",
                                  "spatial/scalefactors_json.json", "spatial/tissue_hires_image.png"])  # fmt: skip
def test_truncated_parts(visium, part):
    outs = visium(positions="tissue_positions.parquet")
    path = outs / part
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    with pytest.raises(TruthError, match=r"damaged|cannot be read"):
        read_section(outs)


def test_an_h5_that_is_no_matrix(visium):
    outs = visium()
    with h5py.File(outs / "filtered_feature_bc_matrix.h5", "w") as file:
        file["other"] = 1
    with pytest.raises(TruthError, match="no feature-barcode matrix"):
        read_section(outs)


def test_an_h5_whose_declared_size_exceeds_memory_is_refused_before_reading(visium):
    outs = visium()
    with h5py.File(outs / "filtered_feature_bc_matrix.h5", "r+") as file:
        del file["matrix/data"]
        file.create_dataset("matrix/data", shape=(10**12,), dtype="i4", chunks=(1024,))
    with pytest.raises(TruthError, match="incomplete"):
        read_section(outs)


def test_an_h5_whose_indices_point_outside(visium):
    outs = visium()
    with h5py.File(outs / "filtered_feature_bc_matrix.h5", "r+") as file:
        file["matrix/indices"][0] = 99
    with pytest.raises(TruthError, match="damaged"):
        read_section(outs)


def test_a_matrix_folder_whose_parts_do_not_fit(visium):
    outs = visium(matrix="filtered_feature_bc_matrix", gz=False)
    path = outs / "filtered_feature_bc_matrix/barcodes.tsv"
    path.write_text(path.read_text() + "EXTRA-1\n")
    with pytest.raises(TruthError, match="declared as 4 × 25"):
        read_section(outs)
    path.unlink()
    with pytest.raises(TruthError, match="lacks barcodes"):
        read_section(outs)


def test_too_few_spots_to_tell_the_pixel_size(visium, visium_positions):
    table = visium_positions.iloc[10:12]
    with pytest.raises(TruthError, match="too few to tell the pixel size"):
        read_section(visium("two", table=table))
    assert read_section(visium("given", table=table), mpp=0.5).adata.n_obs == 2


def test_rows_and_columns_mixed_up(visium, visium_positions):
    shuffled = pd.Series(visium_positions["pxl_row_in_fullres"].sample(frac=1, random_state=0).to_numpy())
    with pytest.raises(TruthError, match="do not follow their array positions"):
        read_section(visium(table=visium_positions.assign(pxl_row_in_fullres=shuffled)))
