from __future__ import annotations

import anndata as ad
import numpy as np
import pandas as pd
import pytest
import scipy.sparse as sp
from sklearn.metrics import adjusted_rand_score

from napari_he2st.analysis.domains import DOMAIN_METHODS
from napari_he2st.core.errors import He2stError, SchemaError, UnknownNameError
from napari_he2st.core.schema import provenance
from napari_he2st.core.types import Domains
from napari_he2st.engine.segment import alike, markers, neighbour_markers, profile, segment, write_domains


@pytest.fixture(params=["predicted", "measured"])
def tissue(request):
    """Three stripes; genes g0–g2 mark one each."""
    rng = np.random.default_rng(0)
    index = np.indices((15, 12)).reshape(2, -1).T
    truth = index[:, 1] // 4
    X = rng.normal(1.0, 0.3, size=(180, 20)).astype(np.float32)
    X[np.arange(180), truth] += 2
    X[:, 19] = 0.5
    adata = ad.AnnData(X, obsm={"spatial": index[:, ::-1] * 200.0})
    adata.var_names = [f"g{i}" for i in range(20)]
    facts = {"mpp": 0.5, "pitch_um": 100, "spot_um": 55, "lattice": "square", "library": "made"}
    adata.uns["he2st"] = provenance(request.param, scale="log1p_cp10k", **facts)
    return adata, truth


@pytest.mark.parametrize("method", [entry.name for entry in DOMAIN_METHODS])
def test_every_method_groups_predicted_and_measured_expression(tissue, method):
    adata, truth = tissue
    domains = segment(adata, method, n_domains=3, smooth=2)
    assert adjusted_rand_score(truth, domains.labels) > 0.9
    assert domains.params["method"] == method
    assert domains.params["smooth"] == 2
    assert domains.embedding.shape[0] == 180
    assert "domain" not in adata.obs


def test_unknown_method_and_option(tissue):
    with pytest.raises(UnknownNameError, match="leiden"):
        segment(tissue[0], "leidn")
    with pytest.raises(UnknownNameError, match="Did you mean smooth"):
        segment(tissue[0], "leiden", smoth=3)


def test_data_out_of_schema():
    with pytest.raises(SchemaError, match="no provenance"):
        segment(ad.AnnData(np.ones((3, 2))))


def test_domains_are_written_with_how_they_were_found(tissue, tmp_path):
    adata, _ = tissue
    labels = np.where(np.arange(180) < 5, -1, np.arange(180) % 2)
    write_domains(adata, Domains(labels, {"method": "leiden", "seed": 4}))
    assert adata.obs["domain"].cat.categories.tolist() == ["D1", "D2", "none"]
    assert adata.obs["domain"].iloc[[0, 5, 6]].tolist() == ["none", "D2", "D1"]
    adata.write_h5ad(tmp_path / "x.h5ad")
    assert ad.read_h5ad(tmp_path / "x.h5ad").uns["he2st"]["domains"] == "method=leiden, seed=4"


def test_markers_are_the_genes_that_were_planted(tissue):
    adata, truth = tissue
    domains = Domains(truth.astype(np.intp), {})
    table = markers(adata, domains, n=4)
    assert table.groupby("domain")["gene"].first().tolist() == ["g0", "g1", "g2"]
    assert (table["difference"] > 0).all()
    assert "g19" not in set(table["gene"])
    assert table.groupby("domain").size().max() <= 4
    sparse = adata.copy()
    sparse.X = sp.csr_matrix(sparse.X)
    pd.testing.assert_frame_equal(markers(sparse, domains, n=4), table)


def test_markers_are_scanpys_t_test(tissue):
    import scanpy as sc

    adata, truth = tissue
    adata = adata[:, :19].copy()
    adata.obs["domain"] = pd.Categorical(truth.astype(str))
    sc.tl.rank_genes_groups(adata, "domain", method="t-test")
    ours = markers(adata, Domains(truth.astype(np.intp), {}), n=19)
    for label in range(3):
        theirs = sc.get.rank_genes_groups_df(adata, str(label)).set_index("names")
        own = ours[ours["domain"] == label].set_index("gene")
        np.testing.assert_allclose(own["score"], theirs.loc[own.index, "scores"], rtol=1e-3)
        np.testing.assert_allclose(own["p_adjusted"], theirs.loc[own.index, "pvals_adj"], rtol=1e-2, atol=1e-12)


def test_markers_leave_out_spots_without_a_domain(tissue):
    adata, truth = tissue
    labels = truth.astype(np.intp)
    labels[truth == 2] = -1
    adata.X[truth == 2] = np.nan
    table = markers(adata, Domains(labels, {}), n=3)
    expected = markers(adata[truth < 2].copy(), Domains(labels[truth < 2], {}), n=3)
    pd.testing.assert_frame_equal(table, expected)


def test_markers_of_one_domain_are_none(tissue):
    assert len(markers(tissue[0], Domains(np.zeros(180, dtype=np.intp), {}))) == 0
    with pytest.raises(SchemaError, match="180 spots but labels for 3"):
        markers(tissue[0], Domains(np.zeros(3, dtype=np.intp), {}))


def section_of_counts():
    rng = np.random.default_rng(0)
    index = np.indices((9, 8)).reshape(2, -1).T
    truth = index[:, 1] // 4
    adata = ad.AnnData(rng.poisson(1 + 9 * np.eye(2)[truth].repeat(15, 1)).astype(np.float32))
    adata.obsm["spatial"] = index[:, ::-1] * 100.0
    adata.var_names = [f"g{i}" for i in range(30)]
    facts = {"mpp": 1.0, "pitch_um": 100, "spot_um": 55, "lattice": "square", "library": "made"}
    adata.uns["he2st"] = provenance("measured", scale="counts", **facts)
    return adata, truth


@pytest.mark.parametrize("method", ["leiden", "kmeans", "mixture", "spagcn", "mucost"])
def test_bad_requests_and_bad_data(method):
    adata, truth = section_of_counts()
    options = {"epochs": 5, "refine": 0} if method == "mucost" else {}
    assert set(segment(adata, method, n_domains=1, **options).labels) == {0}
    with pytest.raises(He2stError, match="73 domains cannot be made of 72 spots"):
        segment(adata, method, n_domains=73, **options)
    adata.obsm["spatial"][truth == 1, 0] += 1e5  # two pieces
    adata.obsm["spatial"][5] = adata.obsm["spatial"][4]  # two spots in one place
    adata.X[:, 3] = 2.0  # a gene that does not vary
    found = segment(adata, method, n_domains=2, **options)
    assert found.n_domains == 2
    published = method in ("spagcn", "mucost")  # which see counts; scaled to the spot's total, the gene varies
    assert found.params["genes_constant"] == int(published)


def test_genes_against_the_domains_around_are_scanpys_wilcoxon():
    import scanpy as sc

    from napari_he2st.zoo.domains.spagcn import rank_scores

    adata, truth = section_of_counts()
    table = neighbour_markers(adata, Domains(truth.astype(np.intp), {}), 0)
    assert set(table["gene"]) == {f"g{i}" for i in range(15)}
    assert (table["fold_change"] > 1.5).all()
    sc.pp.log1p(adata)
    adata.obs["domain"] = pd.Categorical(truth.astype(str))
    sc.tl.rank_genes_groups(adata, "domain", method="wilcoxon")
    theirs = sc.get.rank_genes_groups_df(adata, "0").set_index("names")
    ours = rank_scores(np.asarray(adata.X, dtype=np.float64), truth == 0)
    np.testing.assert_allclose(ours, theirs.loc[adata.var_names, "scores"], rtol=1e-5)
    np.testing.assert_allclose(table["p_adjusted"], theirs.loc[table["gene"], "pvals_adj"], rtol=1e-5)


def test_a_domain_without_another_beside_it_has_no_such_genes():
    adata, truth = section_of_counts()
    with pytest.raises(He2stError, match="no other domain"):
        neighbour_markers(adata, Domains(np.zeros(72, dtype=np.intp), {}), 0)
    adata.obsm["spatial"][truth == 1, 0] += 1e5
    with pytest.raises(He2stError, match="No other domain lies within"):
        neighbour_markers(adata, Domains(truth.astype(np.intp), {}), 0)


def test_a_profile_is_the_mean_and_the_share_above_zero(tissue):
    adata, truth = tissue
    adata.X[truth == 1, 5] = np.nan
    mean, share = profile(adata, Domains(truth.astype(np.intp), {}), ["g0", "g5"])
    np.testing.assert_allclose(mean[:, 0], [adata.X[truth == k, 0].mean() for k in range(3)], rtol=1e-6)
    assert (mean[1, 1], share[1, 1]) == (0, 0)
    assert share[0, 0] == (adata.X[truth == 0, 0] > 0).mean()


def test_alike_spots_lie_together(tissue):
    adata, truth = tissue
    layout = alike(adata, Domains(truth.astype(np.intp), {}))
    apart = np.linalg.norm(layout[:, None] - layout, axis=2)
    np.fill_diagonal(apart, np.inf)
    assert (truth[apart.argmin(axis=1)] == truth).mean() > 0.95
    embedding = np.full((180, 3), np.nan, dtype=np.float32)
    embedding[10:] = np.random.default_rng(0).normal(size=(170, 3))
    assert np.isnan(alike(adata, Domains(truth.astype(np.intp), {}, embedding))[:10]).all()
