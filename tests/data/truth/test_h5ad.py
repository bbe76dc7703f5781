"""AnnData files."""

from __future__ import annotations

import anndata
import numpy as np
import pandas as pd
import pytest
from scipy.sparse import csr_matrix

from napari_he2st.core.errors import GeneError, SchemaError, TruthError
from napari_he2st.core.schema import check_expression
from napari_he2st.data.export import export
from napari_he2st.data.truth import read_section


@pytest.fixture
def squidpy_file(tmp_path, visium_positions, expected_counts):
    """Write an AnnData as scanpy reads Visium; ``change`` may alter it before."""

    def write(change=lambda adata: adata, name="brain.h5ad"):
        table = visium_positions.set_index("barcode")
        adata = anndata.AnnData(
            csr_matrix(expected_counts(30, 4).astype(np.float32)),
            obs=table[["in_tissue", "array_row", "array_col"]],
            var=pd.DataFrame({"gene_ids": [f"ENSG0000000000{i}" for i in range(4)]}, index=["A", "B", "C", "D"]),
        )
        adata.obsm["spatial"] = table[["pxl_col_in_fullres", "pxl_row_in_fullres"]].to_numpy()
        adata.uns["spatial"] = {
            "V1_Brain": {
                "images": {"hires": np.full((50, 60, 3), 0.5)},
                "scalefactors": {"tissue_hires_scalef": 0.05, "spot_diameter_fullres": 130.0},
                "metadata": {"source_image_path": "/home/somebody/scan.tif"},
            }
        }
        adata = change(adata) or adata
        adata.write_h5ad(tmp_path / name)
        return tmp_path / name

    return write


def test_visium_as_scanpy_writes_it(squidpy_file):
    section = read_section(squidpy_file())
    adata = section.adata
    check_expression(adata)
    assert (section.name, section.layout, adata.n_obs) == ("V1_Brain", "h5ad", 25)
    facts = adata.uns["he2st"]
    assert facts["mpp"] == pytest.approx(0.5)
    assert (facts["lattice"], facts["pitch_um"], facts["scale"]) == ("hexagonal", 100, "log1p_cp10k")
    assert list(adata.var["ensembl"])[:2] == ["ENSG00000000000", "ENSG00000000001"]
    assert adata.uns["spatial"]["V1_Brain"]["images"]["hires"].shape == (50, 60, 3)
    assert "metadata" not in adata.uns["spatial"]["V1_Brain"]
    assert "5 spots beside the tissue left out" in section.found


def test_our_own_schema_comes_back_as_it_was(legacy, tmp_path):
    adata = read_section(legacy()).adata
    export(adata, "h5ad", tmp_path / "own.h5ad")
    back = read_section(tmp_path / "own.h5ad")
    assert back.name == "B2"
    assert (back.adata.X != adata.X).nnz == 0
    assert (back.adata.layers["counts"] != adata.layers["counts"]).nnz == 0
    np.testing.assert_array_equal(back.adata.obsm["spatial"], adata.obsm["spatial"])
    np.testing.assert_array_equal(back.adata.uns["he2st"].pop("transform"), adata.uns["he2st"].pop("transform"))
    assert back.adata.uns["he2st"] == adata.uns["he2st"]


def test_our_own_files_take_another_pixel_size_but_no_image_scale(legacy, tmp_path):
    export(read_section(legacy()).adata, "h5ad", tmp_path / "own.h5ad")
    facts = read_section(tmp_path / "own.h5ad", mpp=3.9).adata.uns["he2st"]
    assert (facts["mpp"], facts["mpp_source"]) == (3.9, "given")
    with pytest.raises(TruthError, match="Leave the image scale out"):
        read_section(tmp_path / "own.h5ad", image_scale=0.5)


def test_a_damaged_provenance_is_named(legacy, tmp_path):
    adata = read_section(legacy()).adata
    del adata.uns["he2st"]["mpp"]
    adata.write_h5ad(tmp_path / "own.h5ad")
    with pytest.raises(SchemaError, match="lacks mpp"):
        read_section(tmp_path / "own.h5ad")


def _bare(adata):
    adata.uns.clear()
    adata.obs = adata.obs[[]]


def test_bare_positions_need_a_pixel_size(squidpy_file):
    path = squidpy_file(_bare)
    with pytest.raises(TruthError, match=r"does not say how large its pixels are.*Give the pixel size"):
        read_section(path)
    adata = read_section(path, mpp=0.25).adata
    facts = adata.uns["he2st"]
    assert facts["lattice"] == "irregular"
    assert facts["pitch_um"] == pytest.approx(50)  # neighbours are 200 px apart
    assert facts["mpp_source"] == "given"
    assert adata.n_obs == 30


def test_a_square_lattice_is_not_taken_for_visium(squidpy_file):
    def square(adata):
        adata.obs["array_col"] = adata.obs["array_col"] // 2

    with pytest.raises(TruthError, match="does not say how large"):
        read_section(squidpy_file(square))


def _logged(adata):
    adata.X = csr_matrix(np.log1p(adata.X.toarray()))


def test_values_without_counts_are_kept_and_said(squidpy_file):
    section = read_section(squidpy_file(_logged))
    assert section.adata.uns["he2st"]["scale"] == "as_stored"
    assert "counts" not in section.adata.layers
    assert any(line.startswith("raw counts") for line in section.missing)


@pytest.mark.parametrize("place", ["layer", "raw"])
def test_counts_are_found_beside_normalised_values(squidpy_file, expected_counts, place):
    def change(adata):
        if place == "layer":
            adata.layers["counts"] = adata.X.copy()
        else:
            adata.raw = adata.copy()
        _logged(adata)

    adata = read_section(squidpy_file(change)).adata
    np.testing.assert_array_equal(adata.layers["counts"].toarray(), expected_counts(30, 4)[5:])
    np.testing.assert_allclose(np.expm1(adata.X.toarray()).sum(axis=1), 1e4, rtol=1e-4)


def test_identifiers_in_the_index_give_way_to_symbols(squidpy_file):
    def change(adata):
        adata.var = pd.DataFrame({"feature_name": adata.var_names}, index=adata.var["gene_ids"].to_numpy())

    adata = read_section(squidpy_file(change)).adata
    assert list(adata.var_names) == ["A", "B", "C", "D"]
    assert adata.var["ensembl"].iloc[0] == "ENSG00000000000"


def _negative(adata):
    adata.layers["counts"] = adata.X.copy()
    adata.layers["counts"].data[-1] = -1


def _infinite(adata):
    _logged(adata)
    adata.X.data[-1] = np.inf


def _nan_position(adata):
    adata.obsm["spatial"][7, 0] = np.nan


def _one_place(adata):
    _bare(adata)
    adata.obsm["spatial"][:] = 1.0


def _two_libraries(adata):
    adata.uns["spatial"]["other"] = {}


def _flat(adata):
    adata.obsm["spatial"] = np.zeros((30, 1))


def _no_positions(adata):
    del adata.obsm["spatial"]


def _beside(adata):
    adata.obs["in_tissue"] = 0


def _no_values(adata):
    adata.X = None


def _zero(adata):
    adata.X = csr_matrix(adata.X.shape, dtype=np.float32)


def _twice(adata):
    adata.obs_names = ["A"] * 30


BAD = {
    _negative: "negative",
    _infinite: "infinite in places",
    _nan_position: "1 spots have no position",
    _one_place: "no distance from each other",
    _two_libraries: "mixes 2 sections",
    _flat: r"shape \(25, 1\)",
    _no_positions: r"no spot positions.*obsm holds nothing",
    _beside: "no spots",
    _no_values: "no values",
    _zero: "nothing was counted",
    _twice: "spots appear more than once",
}


@pytest.mark.filterwarnings("ignore:Observation names are not unique")
@pytest.mark.parametrize("change", BAD, ids=lambda change: change.__name__.strip("_"))
def test_bad_files(squidpy_file, change):
    with pytest.raises(TruthError, match=BAD[change]):
        read_section(squidpy_file(change), mpp=0.5)


@pytest.mark.filterwarnings("ignore:Variable names are not unique")
def test_repeated_genes(squidpy_file):
    def change(adata):
        adata.var = pd.DataFrame(index=["A", "A", "B", "C"])

    with pytest.raises(GeneError, match="appear more than once, such as A"):
        read_section(squidpy_file(change))


@pytest.mark.parametrize("content", [b"", b"not hdf5"])
def test_not_an_anndata(tmp_path, content):
    path = tmp_path / "broken.h5ad"
    path.write_bytes(content)
    with pytest.raises(TruthError, match="no readable AnnData"):
        read_section(path)


def test_truncated_file(squidpy_file):
    path = squidpy_file()
    path.write_bytes(path.read_bytes()[:-4000])
    with pytest.raises(TruthError, match="no readable AnnData"):
        read_section(path)


def test_the_picture_in_the_file_can_stand_in_for_the_slide(squidpy_file):
    def painted(adata):
        rng = np.random.default_rng(0)
        adata.uns["spatial"]["V1_Brain"]["images"]["hires"] = rng.random((50, 60, 3))

    path = squidpy_file(painted)
    full, small = read_section(path), read_section(path, stand_in=True)
    assert full.slide_path is None
    assert small.slide_path.suffix == ".png"
    assert small.adata.uns["he2st"]["mpp"] == pytest.approx(0.5 / 0.05)
    np.testing.assert_allclose(small.adata.obsm["spatial"], full.adata.obsm["spatial"] * 0.05)
    assert small.missing[0] == "slide image (the hires picture in the file stands in)"
    assert read_section(path, stand_in=True, mpp=0.4).adata.uns["he2st"]["mpp"] == pytest.approx(0.4 / 0.05)


def test_a_blank_picture_stands_in_for_nothing(squidpy_file):
    assert read_section(squidpy_file(), stand_in=True).slide_path is None


def _cells(xy):
    return anndata.AnnData(csr_matrix(np.arange(60).reshape(20, 3) % 4), obs=pd.DataFrame(xy, columns=["x", "y"]))


XY = np.stack(np.meshgrid(np.arange(5.0), np.arange(4.0)), -1).reshape(-1, 2) * 40


def test_stereo_seq_cell_bins_tell_their_resolution(tmp_path):
    adata = _cells(XY)
    adata.obsm["spatial"] = np.column_stack([XY, np.zeros(20)])
    adata.uns |= {"bin_type": "cell_bins", "resolution": 500}
    adata.write_h5ad(tmp_path / "SS200000135TL_D1.cellbin.h5ad")
    section = read_section(tmp_path / "SS200000135TL_D1.cellbin.h5ad")
    facts = section.adata.uns["he2st"]
    assert (facts["mpp"], facts["mpp_source"]) == (0.5, "resolution of the Stereo-seq chip")
    np.testing.assert_array_equal(section.adata.obsm["spatial"], XY)


def test_positions_in_columns_are_found(tmp_path):
    _cells(XY).write_h5ad(tmp_path / "bare.h5ad")
    np.testing.assert_array_equal(read_section(tmp_path / "bare.h5ad", mpp=0.5).adata.obsm["spatial"], XY)


def test_a_file_that_declares_more_than_there_is_memory(tmp_path):
    import h5py

    adata = _cells(XY)
    adata.write_h5ad(tmp_path / "huge.h5ad")
    with h5py.File(tmp_path / "huge.h5ad", "r+") as file:
        del file["X"]
        file.create_dataset("X", shape=(10**8, 10**6), dtype="f4", chunks=(1024, 1024))
    with pytest.raises(TruthError, match=r"declares \d+ GiB"):
        read_section(tmp_path / "huge.h5ad", mpp=0.5)
