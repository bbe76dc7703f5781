"""Signatures of a result, and how they are exported."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from anndata import AnnData, read_h5ad

from napari_he2st.core.errors import GeneError
from napari_he2st.core.schema import provenance
from napari_he2st.data.export import export
from napari_he2st.engine.session import Session
from napari_he2st.engine.signatures import ratio, score, with_derived

GENES = ["ERBB2", "GRB7", "CD3E", "MKI67", "ACTB"]


@pytest.fixture
def result():
    rng = np.random.default_rng(0)
    y, x = np.mgrid[:4, :5]
    adata = AnnData(rng.gamma(2, size=(20, 5)).astype(np.float32), var=pd.DataFrame(index=GENES))
    adata.obs_names = [f"s{i}" for i in range(20)]
    adata.obsm["spatial"] = np.stack([x.ravel(), y.ravel()], axis=1) * 100.0
    facts = {"pitch_um": 50.0, "spot_um": 50.0, "lattice": "square", "library": "spots"}
    adata.uns["he2st"] = provenance("measured", mpp=0.5, scale="log1p_cp10k", **facts)
    return Session().add_adata(adata, "slide")


def test_what_the_panel_lacks_is_said(result):
    found = score(result, ["HER2", "GRB7", "TCAP"], source="a paper")
    assert "Mean of ERBB2, GRB7 minus" in found.made_of
    assert "not in the panel: TCAP; set: a paper" in found.made_of
    assert found.values.shape == (20,)
    with pytest.raises(GeneError, match="None of the 1 genes"):
        score(result, ["TCAP"])


def test_a_ratio_names_its_genes(result):
    found = ratio(result, "HER2", "ACTB")
    np.testing.assert_allclose(found.values, (result.column("ERBB2") - result.column("ACTB")) / np.log(2), rtol=1e-5)
    assert found.made_of.startswith("log2((ERBB2 + 1) / (ACTB + 1))")
    with pytest.raises(GeneError, match="XYZ"):
        ratio(result, "ERBB2", "XYZ")


def test_derived_maps_are_exported_like_genes(result, tmp_path):
    derived = {"HER2 score": score(result, ["ERBB2", "GRB7"])}
    wide = with_derived(result.adata, derived)
    assert result.adata.n_vars == 5
    back = read_h5ad(export(wide, "h5ad", tmp_path / "out.h5ad"))
    np.testing.assert_array_equal(np.asarray(back[:, "HER2 score"].X).ravel(), derived["HER2 score"].values)
    assert back.var["made_of"]["HER2 score"].startswith("Mean of ERBB2")
    assert back.var["made_of"]["ERBB2"] == ""
    table = pd.read_csv(export(wide, "csv", tmp_path / "out.csv"))
    np.testing.assert_allclose(table["HER2 score"], derived["HER2 score"].values, rtol=1e-5)
    assert with_derived(result.adata, {}) is result.adata
