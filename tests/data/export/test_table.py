"""Tables, read back by pandas."""

from __future__ import annotations

import json

import anndata
import numpy as np
import pandas as pd
import pytest
from pyarrow import parquet

from napari_he2st.core.errors import GeneError
from napari_he2st.data.export import export


def test_read_back_by_pandas(expression, tmp_path):
    adata = expression("predicted", sparse=False)
    adata.X[5, 3] = np.nan
    export(adata, "csv", tmp_path / "out.csv")
    table = pd.read_csv(tmp_path / "out.csv")
    assert list(table.columns[:7]) == ["spot", "kind", "x_px", "y_px", "x_um", "y_um", "label"]
    assert list(table["spot"]) == list(adata.obs_names)
    assert set(table["kind"]) == {"predicted (research use only)"}
    np.testing.assert_allclose(table[["x_px", "y_px"]], adata.obsm["spatial"])
    np.testing.assert_allclose(table[["x_um", "y_um"]], adata.obsm["spatial"] * 2)
    np.testing.assert_allclose(table[["ERBB2", "CD74", "MUC1"]], adata[:, ["ERBB2", "CD74", "MUC1"]].X)


def test_no_cell_is_taken_for_a_formula(expression, tmp_path):
    export(expression(), "csv", tmp_path / "out.csv")
    text = (tmp_path / "out.csv").read_text()
    table = pd.read_csv(tmp_path / "out.csv")
    assert "'=HYPERLINK(1)" in table.columns
    assert table["label"][0] == "'-1+2"
    for line in text.splitlines():
        assert not any(cell.strip('"')[:1] in ("=", "@") for cell in line.split(","))


@pytest.mark.parametrize("genes", ["CD74, ENSG00000141736", ["CD74", "ENSG00000141736"]])
def test_chosen_genes_in_the_wanted_order(expression, tmp_path, genes):
    export(expression(), "csv", tmp_path / "out.csv", genes=genes)
    assert list(pd.read_csv(tmp_path / "out.csv").columns[7:]) == ["CD74", "ERBB2"]


def test_a_gene_that_is_not_there(expression, tmp_path):
    with pytest.raises(GeneError, match="no gene NOPE"):
        export(expression(), "csv", tmp_path / "out.csv", genes="CD74,NOPE")
    assert list(tmp_path.iterdir()) == []


def test_more_spots_than_one_block(expression, tmp_path, monkeypatch):
    monkeypatch.setattr("napari_he2st.data.export.table._ROWS", 7)
    export(expression(), "csv", tmp_path / "out.csv")
    table = pd.read_csv(tmp_path / "out.csv")
    assert list(table["spot"]) == list(expression().obs_names)
    np.testing.assert_allclose(table["ERBB2"], expression()[:, "ERBB2"].X.toarray().ravel())


def test_expression_that_lies_on_disk(expression, tmp_path):
    expression().write_h5ad(tmp_path / "in.h5ad")
    export(anndata.read_h5ad(tmp_path / "in.h5ad", backed="r"), "csv", tmp_path / "out.csv")
    assert len(pd.read_csv(tmp_path / "out.csv")) == 20


def test_parquet_is_read_back_by_pandas_with_its_provenance(expression, tmp_path, monkeypatch):
    monkeypatch.setattr("napari_he2st.data.export.table._ROWS", 7)
    adata = expression("predicted", sparse=False)
    adata.X[5, 3] = np.nan
    export(adata, "parquet", tmp_path / "out.parquet")
    table = pd.read_parquet(tmp_path / "out.parquet")
    assert list(table["spot"]) == list(adata.obs_names)
    assert table["label"][0] == "-1+2"
    assert table["ERBB2"].dtype == np.float32
    np.testing.assert_array_equal(table[list(adata.var_names)].to_numpy(), adata.X)
    facts = json.loads(parquet.read_schema(tmp_path / "out.parquet").metadata[b"he2st"])
    assert facts["kind"] == "predicted"
