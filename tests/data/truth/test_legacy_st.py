"""Legacy ST: counts and spot tables."""

from __future__ import annotations

import gzip

import numpy as np
import pytest
from PIL import Image

from napari_he2st.core.errors import GeneError, TruthError
from napari_he2st.core.schema import check_expression, grid_of
from napari_he2st.data.truth import detect, read_section

PITCH_PX = 50.0  # of the written section


@pytest.mark.parametrize("by_kind", [True, False])
def test_section_follows_the_schema(legacy, by_kind):
    root = legacy(by_kind=by_kind)
    section = read_section(root)
    adata = section.adata
    check_expression(adata)
    assert (section.name, section.layout, section.patient) == ("B2", "legacy_st", "B")
    assert section.slide_path is not None
    assert section.slide_path.name == "scan.jpg"
    assert section.missing == []
    assert adata.X.dtype == np.float32
    assert adata.obsm["spatial"].dtype == np.float64
    np.testing.assert_allclose(np.expm1(adata.X.toarray()).sum(axis=1), 1e4, rtol=1e-4)
    grid = grid_of(adata)
    assert (grid.lattice, grid.pitch_um, grid.spot_um) == ("square", 200, 100)


def test_counts_and_spots_are_joined_by_key(legacy, expected_counts):
    """The count table is in the reverse order of the spot table."""
    adata = read_section(legacy()).adata
    np.testing.assert_array_equal(adata.layers["counts"].toarray(), expected_counts(20, 3))
    first = adata.obs_names.get_loc("2x3")
    assert tuple(adata.obsm["spatial"][first]) == (2 * PITCH_PX + 3, 3 * PITCH_PX - 4)
    assert tuple(adata.obs[["array_row", "array_col"]].iloc[first]) == (3, 2)


def test_pixel_size_comes_from_the_spot_pitch_and_says_so(legacy):
    facts = read_section(legacy()).adata.uns["he2st"]
    assert facts["mpp"] == pytest.approx(200 / PITCH_PX)
    assert facts["mpp_source"] == "estimated from the spot pitch of 200 µm"
    facts = read_section(legacy(), mpp=3.9).adata.uns["he2st"]
    assert (facts["mpp"], facts["mpp_source"]) == (3.9, "given")


def test_an_image_of_another_size_takes_its_scale(legacy, tmp_path):
    root = legacy(image=False)
    assert read_section(root).missing == ["image"]
    small = tmp_path / "small.png"
    Image.new("RGB", (100, 95)).save(small)
    section = read_section(root, image=small, image_scale=0.25)
    facts = section.adata.uns["he2st"]
    assert section.slide_path == small
    assert facts["mpp"] == pytest.approx(200 / PITCH_PX / 0.25)
    np.testing.assert_allclose(section.adata.obsm["spatial"], section.adata.obsm["spatial_source"] * 0.25)
    np.testing.assert_allclose(facts["transform"], np.diag([0.25, 0.25, 1]))


def test_spots_without_counts_and_counts_without_spot_are_left_out_and_said(legacy):
    header, *rows = _counts(legacy()).splitlines()
    section = read_section(legacy(counts="\n".join([header, *rows[2:], rows[0].replace("6x6", "30x30")])))
    assert section.adata.n_obs == 18
    assert "2 spots in tissue without counts left out" in section.found
    assert "1 rows of counts without a spot in tissue left out" in section.found


def test_spots_beside_the_tissue_are_left_out(legacy):
    lines = _spots(legacy()).splitlines()
    lines[1] = lines[1][:-1] + "0"
    assert "2x3" not in read_section(legacy(spots="\n".join(lines))).adata.obs_names


def test_labels_are_matched_by_rounded_array_position(legacy):
    labels = (
        "Row.names\tx\ty\tpixel_x\tpixel_y\tlabel\n"
        "a\t2.02\t2.98\t7\t7\tinvasive cancer\n"
        "b\t3.1\t3.2\t7\t7\tundetermined\n"
        "c\t\t\t7\t7\tadipose tissue\n"
        "d\t30\t30\t7\t7\tadipose tissue\n"
    )
    section = read_section(legacy(labels=labels, by_kind=True))
    known = section.adata.obs["label"].dropna()
    assert dict(known) == {"2x3": "invasive cancer"}
    said = {
        "1 label rows without position left out",
        "1 labels without spot left out",
        "1 undetermined labels left out",
    }
    assert said <= set(section.found)


def test_ensembl_identifiers_are_kept_apart_from_symbols(legacy):
    adata = read_section(legacy(genes=("ENSG00000141736.14", "CD74", "MUC1"))).adata
    assert list(adata.var["ensembl"]) == ["ENSG00000141736", "", ""]


def test_detection_names_what_is_missing(legacy):
    root = legacy("B2", by_kind=True)
    legacy("B3", by_kind=True, image=False)
    (root / "ST-spotfiles/B9_selection.tsv").write_text("x\ty\n")
    for path in (root, root / "ST-cnts"):
        detection = detect(path)
        assert detection.sections == ["B2", "B3"]
        assert detection.missing == ["counts of B9", "image of B3"]


def test_one_of_several_images_is_not_guessed(legacy):
    root = legacy()
    Image.new("RGB", (10, 10)).save(root / "other.png")
    section = read_section(root)
    assert section.slide_path is None
    assert section.missing == ["one image (other.png, scan.jpg are there; name one with image=)"]


BAD_COUNTS = {
    "negative": ("\tA\tB\n2x3\t1\t-2\n", "1 counts are negative"),
    "NaN": ("\tA\tB\n2x3\t1\tnan\n", "not a finite number"),
    "not whole": ("\tA\tB\n2x3\t1\t0.5\n", "not whole"),
    "no number": ("\tA\tB\n2x3\t1\tmany\n", "not a number"),
    "empty cell": ("\tA\tB\n2x3\t1\t\n", "empty cells"),
    "no spots": ("\tA\tB\n", "no spots"),
    "nothing counted": ("\tA\tB\n2x3\t0\t0\n", "nothing was counted"),
    "repeated spot": ("\tA\tB\n2x3\t1\t2\n2x3\t1\t2\n", "appear more than once"),
    "no common key": ("\tA\tB\n90x91\t1\t2\n", "no spot in common.*90x91.*2x3"),
    "short row": ("\tA\tB\n2x3\t1\n", "Line 2 has 2 cells, the header 3"),
    "commas": (",A,B\n2x3,1,2\n", "not separated by tabs"),
    "not UTF-8": ("\tA\tB\n2x3\t1\t2\n".replace("A", "Ä").encode("latin-1"), "not UTF-8"),
    "empty file": ("\n", "empty"),
}


@pytest.mark.parametrize("counts", BAD_COUNTS, ids=str)
def test_bad_counts(legacy, counts):
    content, message = BAD_COUNTS[counts]
    with pytest.raises(TruthError, match=message):
        read_section(legacy(counts=content))


def test_repeated_gene(legacy):
    with pytest.raises(GeneError, match="1 genes appear more than once, such as CD74"):
        read_section(legacy(genes=("CD74", "CD74", "MUC1")))


HEADER = "x\ty\tpixel_x\tpixel_y\n"
BAD_SPOTS = {
    "commas": ("x,y,pixel_x,pixel_y\n2,3,1,1\n", "separated by tabs"),
    "lacking column": ("x\ty\n2\t3\n", "pixel_x, pixel_y are missing"),
    "no number": (HEADER + "2\t3\t1\there\n", "'here', which is not a number"),
    "no array position": (HEADER + "2\t\t1\t1\n", "no array position"),
    "no pixel position": (HEADER + "2\t3\t1\t1\n3\t3\t9\t1\n2\t4\t1\t9\n3\t4\tNaN\t9\n", "1 spots have no position"),
    "repeated spot": (HEADER + "2\t3\t1\t1\n2\t3\t1\t1\n", "appear more than once"),
    "no rows": (HEADER, "No spot lies in tissue"),
    "one spot": (HEADER + "2\t3\t1\t1\n", "too few to tell the pixel size"),
    "mixed up": (
        HEADER + "2\t3\t1\t1\n3\t3\t900\t1\n4\t3\t3\t1\n2\t4\t7\t9\n3\t5\t800\t9\n6\t6\t1\t1\n",
        "do not follow",
    ),
}


@pytest.mark.parametrize("spots", BAD_SPOTS, ids=str)
def test_bad_spot_file(legacy, spots):
    content, message = BAD_SPOTS[spots]
    with pytest.raises(TruthError, match=message):
        read_section(legacy(spots=content))


def test_truncated_gzip(legacy):
    root = legacy()
    path = root / "B2.tsv.gz"
    path.write_bytes(path.read_bytes()[:-20])
    with pytest.raises(TruthError, match="truncated or damaged"):
        read_section(root)


def test_a_gzip_that_unpacks_to_too_much_is_refused(legacy, monkeypatch):
    monkeypatch.setattr("napari_he2st.data.truth.tables.MAX_BYTES", 100)
    with pytest.raises(TruthError, match="unpacks to more than"):
        read_section(legacy())


def _counts(root):
    return gzip.decompress((root / "B2.tsv.gz").read_bytes()).decode()


def _spots(root):
    return (root / "B2_selection.tsv").read_text()
