"""``he2st domains``."""

from __future__ import annotations

from pathlib import Path

import anndata
import pandas


def test_domains_are_a_column(he2st, sample: str, tmp_path: Path) -> None:
    out = tmp_path / "domains.h5ad"
    outcome = he2st("domains", sample, "--method", "kmeans", "--n", "4", "-o", out)
    assert outcome.code == 0
    assert "4 domains" in outcome.err
    assert anndata.read_h5ad(out).obs["domain"].nunique() == 4


def test_unknown_method_names_the_known_ones(he2st, prediction: Path, tmp_path: Path) -> None:
    outcome = he2st("domains", prediction, "--method", "leidn", "-o", tmp_path / "x.h5ad")
    assert outcome.code == 1
    assert "leiden" in outcome.err


def test_genes_are_ranked_over_the_tissue_and_found_for_a_domain(he2st, sample: str, tmp_path: Path) -> None:
    every, own, grouped = tmp_path / "genes.csv", tmp_path / "own.csv", tmp_path / "domains.h5ad"
    assert he2st("spatial-genes", sample, "-o", every).code == 0
    moran = pandas.read_csv(every)["moran"].dropna()
    assert (moran.diff().dropna() <= 0).all()
    assert he2st("domains", sample, "--method", "kmeans", "--n", "3", "-o", grouped).code == 0
    assert he2st("spatial-genes", grouped, "--domain", "D1", "-o", own).code == 0
    assert list(pandas.read_csv(own).columns)[:2] == ["gene", "score"]
    outcome = he2st("spatial-genes", grouped, "--domain", "D9", "-o", tmp_path / "x.csv")
    assert outcome.code == 1
    assert "Choose one of D1, D2, D3" in outcome.err
