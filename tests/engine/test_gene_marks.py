"""Favourites last, recently seen genes do not."""

from __future__ import annotations

from napari_he2st.core.paths import config_folder
from napari_he2st.engine.gene_marks import GeneMarks


def test_favourites_are_kept_in_the_settings():
    marks, told = GeneMarks(), []
    marks.changed.connect(lambda: told.append(1))
    marks.toggle("ERBB2")
    marks.toggle("CD3E")
    marks.toggle("ERBB2")
    assert GeneMarks().favourites == ["CD3E"]
    assert len(told) == 3


def test_settings_that_cannot_be_read_are_no_favourites():
    (config_folder() / "favourite_genes.json").write_text("{not json")
    assert GeneMarks().favourites == []


def test_the_latest_gene_comes_first():
    marks = GeneMarks()
    for gene in ("A", "B", "A", None):
        marks.see(gene)
    assert marks.recent == ["A", "B"]
