"""Genes of a result by any of their names."""

from __future__ import annotations

import numpy as np

from napari_he2st.core.types import Grid
from napari_he2st.engine.gene_names import also_called, find_genes
from napari_he2st.engine.session import Session


def a_result(adata=None):
    session = Session()
    grid = Grid(np.zeros((1, 2)), 50.0, "square", 50.0, 0.5, np.zeros((1, 2), np.intp), (1, 1), np.ones(1, bool))
    result = session.begin_result("run", "", grid, ["ERBB2", "MKI67", "Cd3e"], scale="log1p_cp10k")
    result.adata = adata
    return result


def test_symbols_everyday_names_and_case():
    found, missing = find_genes(["HER2", "ki-67", "CD3E", "NOPE"], a_result())
    assert found == ["ERBB2", "MKI67", "Cd3e"]
    assert missing == ["NOPE"]


def test_nothing_found_is_no_error():
    assert find_genes(["NOPE"], a_result()) == ([], ["NOPE"])


def test_identifiers_of_the_data_count():
    import pandas as pd
    from anndata import AnnData

    var = pd.DataFrame({"ensembl": ["ENSG00000141736", "ENSG00000148773", ""]}, index=["ERBB2", "MKI67", "Cd3e"])
    result = a_result(AnnData(np.zeros((1, 3), np.float32), var=var))
    assert find_genes(["ENSG00000148773.5"], result) == (["MKI67"], [])
    assert also_called(result).tolist()[0].startswith("ENSG00000141736 HER2")
