"""Finding the layout and the section."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from napari_he2st.core.errors import TruthError, UnknownNameError
from napari_he2st.data.truth import TRUTH_READERS, detect, parse_section, read_section, read_truth


@pytest.mark.parametrize(
    ("text", "path", "name"),
    [
        ("/data/her2st:C5", "/data/her2st", "C5"),
        ("her2st", "her2st", None),
        ("/data/her2st:", "/data/her2st:", None),
        (r"C:\data\her2st", r"C:\data\her2st", None),
        (r"C:\data\her2st:C5", r"C:\data\her2st", "C5"),
        ("C:/data", "C:/data", None),
        ("a:b/c", "a:b/c", None),
        ("folder:with:C5", "folder:with", "C5"),
    ],
)
def test_section_names_follow_a_colon(text, path, name):
    assert parse_section(text) == (Path(path), name)


def test_a_path_that_exists_has_no_section_name(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    Path("scan:C5").mkdir()
    assert parse_section("scan:C5") == (Path("scan:C5"), None)


def test_unknown_folder_tells_what_each_layout_looks_for(tmp_path):
    with pytest.raises(TruthError) as error:
        detect(tmp_path)
    for entry in TRUTH_READERS:
        assert entry.name in str(error.value)
        assert entry.facts["looks_for"] in str(error.value)


def test_a_path_that_does_not_exist(tmp_path):
    with pytest.raises(TruthError, match="no such folder"):
        read_section(tmp_path / "nowhere")


def test_incomplete_folder_tells_what_was_found_and_what_is_missing(visium):
    outs = visium()
    (outs / "filtered_feature_bc_matrix.h5").unlink()
    with pytest.raises(TruthError, match=r"visium \(found tissue_positions_list.csv.*missing filtered_feature_bc"):
        detect(outs)


def test_several_sections_have_to_be_named(legacy):
    legacy("B2")
    root = legacy("B3")
    assert detect(root).sections == ["B2", "B3"]
    with pytest.raises(TruthError, match=r"2 sections: B2, B3.*:B2"):
        read_section(root)
    with pytest.raises(TruthError, match=r"no section named 'B4'.*Known: B2, B3"):
        read_section(root, "B4")
    assert read_section(root, "B3").name == "B3"


def test_layout_can_be_given(legacy, visium):
    root = legacy()
    assert read_section(root, layout="legacy_st").layout == "legacy_st"
    with pytest.raises(TruthError, match="layout is not visium"):
        read_section(root, layout="visium")
    with pytest.raises(UnknownNameError, match="no layout named 'slideseq'"):
        read_section(root, layout="slideseq")


@pytest.mark.parametrize("option", [{"mpp": 0.0}, {"mpp": float("nan")}, {"image_scale": -1.0}])
def test_sizes_have_to_be_above_zero(legacy, option):
    with pytest.raises(TruthError, match="above zero"):
        read_section(legacy(), **option)


def test_image_that_does_not_exist(legacy, tmp_path):
    with pytest.raises(TruthError, match="no such image"):
        read_section(legacy(), image=tmp_path / "none.png")


def test_read_truth_is_the_expression_of_the_section(legacy):
    root = legacy()
    adata = read_truth(root, mpp=0.7)
    assert adata.uns["he2st"]["mpp"] == 0.7
    assert (adata.X != read_section(root).adata.X).nnz == 0


def test_listing_layouts_loads_nothing_heavy():
    code = (
        "import sys; from napari_he2st.data.truth import TRUTH_READERS; from napari_he2st.data.export import EXPORTERS;"
        "names = TRUTH_READERS.names() + EXPORTERS.names(); assert len(names) >= 6;"
        "heavy = {'pandas', 'anndata', 'scanpy', 'scipy', 'h5py', 'matplotlib', 'PIL', 'torch'} & set(sys.modules);"
        "assert not heavy, heavy"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
