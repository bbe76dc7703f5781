"""``he2st domains``."""

from __future__ import annotations

from pathlib import Path

import anndata


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
