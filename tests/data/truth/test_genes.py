"""Finding genes by name."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from napari_he2st.core.errors import GeneError
from napari_he2st.data.truth.genes import match_genes, species_of, without_version


@pytest.fixture
def var():
    return pd.DataFrame(
        {"ensembl": ["ENSG00000141736", "ENSG00000019582", "", "ENSG00000000003"]},
        index=["ERBB2", "CD74", "MUC1", "Actb"],
    )


def test_symbols_and_identifiers_mixed(var):
    match = match_genes(["CD74", "ENSG00000141736.14", "NOPE", "actb", " MUC1 "], var)
    assert list(match.indices) == [1, 0, -1, 3, 2]
    assert match.how == ("symbol", "ensembl", "missing", "letter case", "symbol")
    assert match.missing == ("NOPE",)
    assert list(match.found) == [1, 0, 3, 2]
    assert str(match) == "4 of 5 genes found: 2 by symbol, 1 by ensembl, 1 missing, 1 by letter case"


def test_two_names_of_one_gene_count_once(var):
    match = match_genes(["ERBB2", "ENSG00000141736", "ERBB2"], var)
    assert match.how == ("symbol", "repeat", "repeat")
    assert list(match.indices) == [0, -1, -1]


def test_identifiers_as_index_are_found_whatever_their_version():
    var = pd.DataFrame(index=["ENSMUSG00000064339.1", "ENSMUSG00000051951.5"])
    assert list(match_genes(["ENSMUSG00000051951", "ENSMUSG00000064339.9"], var).indices) == [1, 0]


def test_letter_case_that_leaves_a_choice_is_not_used():
    var = pd.DataFrame(index=["Abc", "ABC", "Def"])
    match = match_genes(["abc", "DEF", "ABC"], var)
    assert match.how == ("missing", "letter case", "symbol")


def test_no_overlap_shows_both_sides(var):
    with pytest.raises(GeneError, match=r"None of the 2 genes.*wanted Xkr4, Sox17; there are ERBB2, CD74, MUC1"):
        match_genes(["Xkr4", "Sox17"], var)


def test_an_empty_list(var):
    with pytest.raises(GeneError, match="list of genes is empty"):
        match_genes([], var)


@pytest.mark.parametrize(
    ("gene", "identifier"),
    [
        ("ENSG00000141736", "ENSG00000141736"),
        ("ENSMUSG00000051951.5", "ENSMUSG00000051951"),
        ("ENSG00000182378.14_PAR_Y", "ENSG00000182378_PAR_Y"),
        ("ENSA", None),
        ("DEPRECATED_ENSMUSG00000000157", None),
        ("FO538757.1", None),
    ],
)
def test_ensembl_identifiers(gene, identifier):
    assert without_version(gene) == identifier


@given(st.lists(st.sampled_from(["A", "B", "c", "D", "Q"]), min_size=1))
def test_indices_point_at_the_wanted_genes(wanted):
    var = pd.DataFrame(index=["Q", "C", "B", "A"])
    try:
        match = match_genes(wanted, var)
    except GeneError:
        assert set(wanted) == {"D"}
        return
    for name, index in zip(wanted, match.indices, strict=True):
        assert index == -1 or var.index[index].upper() == name.upper()
    assert len(np.unique(match.found)) == len(match.found) == len({n for n in wanted if n != "D"})


@pytest.mark.parametrize(
    ("names", "species"),
    [
        (["GAPDH", "ERBB2", "CD3E", "C1orf54"], "human"),
        (["Gapdh", "Erbb2", "Cd3e", "4933401J01Rik"], "mouse"),
        (["ENSG00000111640.15", "ENSG00000141736", "ENSG00000198851"], "human"),
        (["ENSMUSG00000057666", "ENSMUSG00000062312.3", "ENSMUSG00000032093"], "mouse"),
        (["GRCh38_GAPDH", "GRCh38_ERBB2", "GRCh38_CD3E"], "human"),
        (["GAPDH", "Gapdh", "ERBB2", "Erbb2", "CD3E", "Cd3e"], None),
        (["GAPDH"], None),
    ],
)
def test_species(names, species):
    assert species_of(names) == species


def test_mixed_names_and_another_species_are_said():
    var = pd.DataFrame({"ensembl": ["ENSMUSG00000057666", "ENSMUSG00000062312", "ENSMUSG00000032093"]})
    var.index = ["Gapdh", "Erbb2", "Cd3e"]
    match = match_genes(["GAPDH", "ERBB2", "CD3E", "MUC1"], var)
    assert match.how == ("letter case", "letter case", "letter case", "missing")
    assert "look human, the data mouse" in str(match)
    mixed = match_genes(["Gapdh", "ENSMUSG00000062312.9", "mm10_Cd3e", "Gapdh"], var)
    assert mixed.how == ("symbol", "ensembl", "symbol", "repeat")
    assert mixed.note is None
