from __future__ import annotations

import random
import subprocess
import sys

import anndata as ad
import numpy as np
import pytest
import scipy.sparse as sp
from sklearn.metrics import adjusted_rand_score

from napari_he2st.analysis.domains import DOMAIN_METHODS
from napari_he2st.analysis.domains.embedding import embed
from napari_he2st.analysis.domains.leiden import join_alike
from napari_he2st.core.errors import He2stError, SchemaError
from napari_he2st.core.schema import provenance

METHODS = ["leiden", "kmeans", "mixture"]


def section(X, xy, scale="log1p_cp10k"):
    adata = ad.AnnData(X, obsm={"spatial": np.asarray(xy, dtype=float)})
    facts = {"mpp": 0.5, "pitch_um": 100, "spot_um": 55, "lattice": "square", "library": "made"}
    adata.uns["he2st"] = provenance("measured", scale=scale, **facts)
    return adata


@pytest.fixture
def tissue():
    """Four quarters of a 20 × 20 lattice with known domains of different sizes, as counts."""
    rng = np.random.default_rng(0)
    index = np.indices((20, 20)).reshape(2, -1).T
    truth = (index[:, 0] >= 12).astype(int) * 2 + (index[:, 1] >= 13)
    rates = rng.gamma(0.6, size=(4, 60)) * 6
    adata = section(rng.poisson(rates[truth]).astype(np.float32), index[:, ::-1] * 200.0, scale="counts")
    return adata, truth


def segment(name, adata, n_domains=4, seed=0, **options):
    return DOMAIN_METHODS[name].function(adata, n_domains=n_domains, seed=seed, **options)


@pytest.mark.parametrize("name", METHODS)
@pytest.mark.parametrize("form", [np.asarray, sp.csr_matrix, sp.csr_array])
def test_finds_known_domains(tissue, name, form):
    adata, truth = tissue
    adata.X = form(adata.X)
    domains = segment(name, adata)
    assert adjusted_rand_score(truth, domains.labels) > 0.98
    assert domains.n_domains == domains.params["n_domains"] == 4
    assert domains.embedding.shape[0] == 400
    assert (np.diff(np.bincount(domains.labels)) <= 0).all()


def test_leiden_finds_the_number_itself(tissue):
    adata, truth = tissue
    domains = segment("leiden", adata, None)
    assert adjusted_rand_score(truth, domains.labels) > 0.98


@pytest.mark.parametrize("name", METHODS)
@pytest.mark.parametrize("n", [1, 2, 3, 7, 11])
def test_exactly_as_many_domains_as_asked_for(tissue, name, n):
    domains = segment(name, tissue[0], n)
    assert sorted(set(domains.labels.tolist())) == list(range(n))


@pytest.mark.parametrize("name", METHODS)
def test_same_seed_same_domains_and_nothing_else_is_disturbed(tissue, name):
    random.seed(5)
    before = tissue[0].X.copy()
    first = segment(name, tissue[0], 6, seed=3, smooth=4)
    state = random.getstate()
    second = segment(name, tissue[0], 6, seed=3, smooth=4)
    np.testing.assert_array_equal(first.labels, second.labels)
    np.testing.assert_array_equal(first.embedding, second.embedding)
    assert random.getstate() == state
    np.testing.assert_array_equal(tissue[0].X, before)


def test_smoothing_joins_what_lies_together(tissue):
    adata, truth = tissue
    rng = np.random.default_rng(1)
    noisy = section(np.log1p(adata.X) + rng.normal(scale=4, size=adata.shape), adata.obsm["spatial"])
    plain, smooth = (segment("kmeans", noisy, smooth=k) for k in (0, 8))
    assert adjusted_rand_score(truth, smooth.labels) > adjusted_rand_score(truth, plain.labels) + 0.1


def test_components_are_those_of_scikit_learn(tissue):
    from sklearn.decomposition import PCA

    adata = section(np.log1p(tissue[0].X), tissue[0].obsm["spatial"])
    ours = embed(adata, genes=1000, components=5, smooth=0).components
    theirs = PCA(5, svd_solver="full").fit_transform(adata.X.astype(float))
    signs = np.sign((ours * theirs).sum(axis=0))
    np.testing.assert_allclose(ours * signs, theirs, atol=1e-3)


@pytest.mark.parametrize("name", METHODS)
def test_unmeasured_genes_and_spots_are_dropped_and_reported(tissue, name):
    adata, truth = tissue
    X = np.log1p(adata.X)
    X[5, 3] = np.nan  # one incomplete gene
    X[:, 9] = 1.5  # one constant gene
    X[[7, 399]] = np.nan  # two unreadable spots
    domains = segment(name, section(X, adata.obsm["spatial"]))
    assert domains.params["spots_dropped"] == 2
    assert domains.params["genes_incomplete"] == domains.params["genes_constant"] == 1
    assert domains.params["genes_used"] == 58
    assert domains.labels[[7, 399]].tolist() == [-1, -1]
    assert np.isnan(domains.embedding[7]).all()
    assert adjusted_rand_score(truth[domains.labels >= 0], domains.labels[domains.labels >= 0]) > 0.98


@pytest.mark.parametrize("name", METHODS)
@pytest.mark.parametrize("n", [0, 401])
def test_impossible_numbers_of_domains(tissue, name, n):
    with pytest.raises(He2stError, match=f"{n} domains cannot be made of 400 spots"):
        segment(name, tissue[0], n)


@pytest.mark.parametrize("name", METHODS)
@pytest.mark.parametrize("X", [np.ones((30, 4)), np.full((30, 4), np.nan), np.zeros((30, 0))])
def test_nothing_that_varies(name, X):
    with pytest.raises(SchemaError, match="known in all"):
        segment(name, section(X.astype(np.float32), np.zeros((30, 2))), 2)


def test_more_domains_than_different_profiles():
    X = np.repeat(np.eye(3, dtype=np.float32), 10, axis=0)
    with pytest.raises(He2stError, match="only 3 different expression profiles, not 25"):
        segment("kmeans", section(X, np.zeros((30, 2))), 25)


def test_leiden_says_how_far_its_search_came(tissue, monkeypatch):
    monkeypatch.setattr("napari_he2st.analysis.domains.leiden._MAX_TRIES", 1)
    with pytest.raises(He2stError, match="fall into 4 domains at most, not 9"):
        segment("leiden", tissue[0], 9)


@pytest.mark.parametrize("name", METHODS)
def test_spots_at_one_place(tissue, name):
    adata, truth = tissue
    domains = segment(name, section(np.log1p(adata.X), np.zeros((400, 2))), smooth=0)
    assert adjusted_rand_score(truth, domains.labels) > 0.98
    assert len(segment(name, section(np.log1p(adata.X), np.zeros((400, 2))), smooth=3).labels) == 400


@pytest.mark.parametrize(
    "wrong", [{"genes": 0}, {"components": 0}, {"smooth": -1}, {"neighbours": 0}, {"resolution": -0.5}]
)
def test_settings_out_of_range(tissue, wrong):
    with pytest.raises(He2stError, match=f"{next(iter(wrong))!r} has to be at least"):
        segment("leiden", tissue[0], None, **wrong)


def test_kmeans_needs_a_number(tissue):
    with pytest.raises(He2stError, match="number of domains"):
        segment("kmeans", tissue[0], None)


def test_join_alike_takes_the_nearest_of_many():
    points = np.array([[0.0], [0.1], [5.0], [9.0]], dtype=np.float32)
    assert join_alike(np.array([4, 2, 7, 9]), points, 3).tolist() == [0, 0, 1, 2]
    assert join_alike(np.array([4, 2, 7, 9]), points, 2).tolist() == [0, 0, 1, 1]


@pytest.mark.parametrize("name", METHODS)
def test_options_are_the_users_choices(name):
    options = DOMAIN_METHODS[name].options
    assert "smooth" in options
    assert options["smooth"].annotation is int
    assert not {"n_domains", "seed", "adata"} & set(options)


def test_listing_methods_loads_no_heavy_library():
    code = (
        "import sys; from napari_he2st.analysis.domains import DOMAIN_METHODS; DOMAIN_METHODS.names();"
        "print([m for m in ('torch','scanpy','anndata','sklearn','igraph','numba','scipy') if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
