"""Lists of genes in the forms people keep them."""

from __future__ import annotations

import pytest

from napari_he2st.core.errors import GeneError
from napari_he2st.data.truth.gene_lists import aliases, parse_genes, parse_gmt, read_text, symbol_of_alias


@pytest.mark.parametrize(
    ("text", "names"),
    [
        ("ERBB2\nCD3E\n\n", ["ERBB2", "CD3E"]),
        ("ERBB2, CD3E;MKI67 ERBB2", ["ERBB2", "CD3E", "MKI67"]),
        ("\ufeffsymbol\tscore\nERBB2\t1\nCD3E\t2\n", ["ERBB2", "CD3E"]),
        ('"gene","p"\n"ERBB2","0.1"\n"CD3E","0.2"', ["ERBB2", "CD3E"]),
        ("# a comment\nERBB2 # another\n", ["ERBB2"]),
        (" \n", []),
    ],
)
def test_lists_are_read_as_they_come(text, names):
    assert parse_genes(text) == names


def test_sets_of_genes_have_names():
    assert parse_gmt("A\thttp://x\tERBB2\tCD3E,1.0\t\nB\t\tMKI67") == {"A": ["ERBB2", "CD3E"], "B": ["MKI67"]}
    with pytest.raises(GeneError, match="GMT"):
        parse_gmt("ERBB2\nCD3E")


def test_files_that_are_no_lists_are_refused(tmp_path):
    file = tmp_path / "list.txt"
    with pytest.raises(GeneError, match="cannot be read"):
        read_text(file)
    file.write_bytes(b"\xff\xfe\x00bad\xff")
    with pytest.raises(GeneError, match="cannot be read"):
        read_text(file)
    file.write_bytes(b" " * (4 * 2**20 + 1))
    with pytest.raises(GeneError, match="larger"):
        read_text(file)


def test_an_everyday_name_means_one_gene():
    names = [name.upper() for found in aliases().values() for name in found]
    assert len(names) == len(set(names))
    assert not set(names) & set(aliases())
    assert symbol_of_alias()["HER2"] == "ERBB2"
