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


def test_several_sections_share_their_domains(he2st, sample: str, tmp_path: Path) -> None:
    folder = tmp_path / "shared"
    wanted = ("--method", "staig", "--n", "3", "--variant", "tiny", "--option", "epochs=3", "--option", "refine=0")
    outcome = he2st("domains", sample, sample, *wanted, "-o", folder)
    assert outcome.code == 0, outcome.err
    files = sorted(folder.iterdir())
    assert [file.name for file in files] == ["C5-1.h5ad", "C5-2.h5ad"]
    domains = [anndata.read_h5ad(file).obs["domain"] for file in files]
    assert [one.cat.categories.tolist() for one in domains] == [["D1", "D2", "D3"]] * 2
    assert (domains[0].to_numpy() == domains[1].to_numpy()).mean() > 0.9
    assert "3 epochs of" in outcome.err
    assert "exists already" in he2st("domains", sample, sample, *wanted, "-o", folder).err
    assert "into a folder" in he2st("domains", sample, sample, *wanted, "-o", files[0]).err
    outcome = he2st("domains", sample, sample, "--method", "leiden", "--on", "x", "-o", folder)
    assert outcome.code != 0
    assert "Several sections take none" in outcome.err
