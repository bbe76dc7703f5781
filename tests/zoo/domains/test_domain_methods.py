"""Every published domain method, in its smallest variant, on a section with known domains."""

from __future__ import annotations

import tracemalloc
from functools import partial
from inspect import signature
from sys import modules

import anndata as ad
import numpy as np
import pytest
import torch
from sklearn.metrics import adjusted_rand_score
from torch.utils._python_dispatch import TorchDispatchMode

from napari_he2st.analysis.domains.grouping import group
from napari_he2st.core.errors import He2stError
from napari_he2st.core.progress import Cancelled, Control
from napari_he2st.core.schema import provenance
from napari_he2st.engine.fitted import seeded
from napari_he2st.zoo.base import DomainMethod
from napari_he2st.zoo.catalogue import cards, system
from napari_he2st.zoo.inputs import Features, Tiles, TypedCells
from napari_he2st.zoo.recipe import Recipe

SLUGS = [card.slug for card in cards().values() if card.tasks[0] == "domains"]


def section(rows: int = 15, columns: int = 12) -> tuple[ad.AnnData, np.ndarray]:
    """Three stripes, as raw counts of 60 genes; positions in micrometres."""
    rng = np.random.default_rng(0)
    index = np.indices((rows, columns)).reshape(2, -1).T
    truth = index[:, 1] * 3 // columns
    rates = rng.gamma(0.6, size=(3, 60)) * 6 + 0.1
    adata = ad.AnnData(rng.poisson(rates[truth]).astype(np.float32), obsm={"spatial": index[:, ::-1] * 100.0})
    adata.obs["array_row"], adata.obs["array_col"] = index.T
    facts = {"mpp": 1.0, "pitch_um": 100, "spot_um": 55, "lattice": "square", "library": "made"}
    adata.uns["he2st"] = provenance("measured", scale="counts", **facts)
    return adata, truth


def inputs(method: DomainMethod, truth: np.ndarray, at: np.ndarray | None = None) -> dict:
    """Tiles, features and nuclei that look different in each stripe."""
    rng = np.random.default_rng(1)
    found: dict = {}
    for name, spec in method.inputs.items():
        if isinstance(spec, Features):
            centres = rng.normal(size=(3, 30)) * 2
            found[name] = torch.from_numpy(rng.normal(centres[truth], 1.0).astype(np.float32))
        elif isinstance(spec, Tiles):
            colours = np.array([[200, 60, 90], [120, 40, 160], [230, 200, 220]])[truth]
            found[name] = torch.from_numpy(colours.astype(np.uint8))[:, :, None, None].expand(-1, -1, 3, 3)
        elif isinstance(spec, TypedCells):
            xy = section()[0].obsm["spatial"] if at is None else at
            found[name] = (np.repeat(xy, 4, axis=0), np.repeat(truth, 4))
    return found


def tiny(slug: str) -> DomainMethod:
    return system(slug)(**cards()[slug].variants["tiny"])


def run(slug: str, adata: ad.AnnData, n: int | None, given: dict, seed: int = 0):
    with seeded(seed):
        return tiny(slug).segment(adata, n_domains=n, seed=seed, **given)


@pytest.mark.parametrize("slug", SLUGS)
def test_finds_known_domains(slug: str) -> None:
    adata, truth = section()
    before = adata.X.copy()
    found = run(slug, adata, 3, inputs(tiny(slug), truth))
    assert adjusted_rand_score(truth, found.labels) > 0.6
    assert found.labels.dtype == np.intp
    if found.embedding is not None:
        assert len(found.embedding) == len(truth)
        assert np.isfinite(found.embedding).all()
    np.testing.assert_array_equal(adata.X, before)


@pytest.mark.parametrize("slug", SLUGS)
def test_the_same_seed_gives_the_same_domains(slug: str) -> None:
    adata, truth = section(8, 9)
    given = inputs(tiny(slug), truth, adata.obsm["spatial"])
    labels = [run(slug, adata, 3, given, seed=5).labels for _ in range(2)]
    np.testing.assert_array_equal(*labels)


@pytest.mark.parametrize("slug", [slug for slug in SLUGS if tiny(slug).optional])
def test_runs_without_what_is_optional(slug: str) -> None:
    adata, truth = section()
    method = tiny(slug)
    left_out = {name: None for name in method.inputs if name in method.optional}
    found = run(slug, adata, 3, {**inputs(method, truth), **left_out})
    assert adjusted_rand_score(truth, found.labels) > 0.5


@pytest.mark.parametrize("slug", SLUGS)
def test_spots_in_one_place_and_genes_that_do_not_vary(slug: str) -> None:
    adata, truth = section()
    adata.obsm["spatial"][1] = adata.obsm["spatial"][0]
    adata.X[:, :3] = 4.0
    assert len(run(slug, adata, 2, inputs(tiny(slug), truth)).labels) == len(truth)


@pytest.mark.parametrize("slug", SLUGS)
def test_two_pieces_of_tissue_far_apart(slug: str) -> None:
    adata, truth = section()
    adata.obsm["spatial"][truth == 2] += 5e4
    found = run(slug, adata, 3, inputs(tiny(slug), truth))
    assert adjusted_rand_score(truth, found.labels) > 0.5


def test_work_is_cancelled_between_epochs() -> None:
    adata, truth = section()
    method = tiny("gist")
    method.progress = Control()
    method.progress.cancel()
    with pytest.raises(Cancelled):
        method.segment(adata, n_domains=3, seed=0, **inputs(method, truth))
    assert method.progress.total == 30


def test_training_that_does_not_get_better_ends_early() -> None:
    method = system("gist")(**{**cards()["gist"].variants["tiny"], "epochs": 3000})
    layer = torch.nn.Linear(1, 1)
    report = method.minimise(layer, lambda _: (layer.weight * 0).sum() + 1.0, method.recipe, patience=7)
    assert report["epochs"] == 8


def test_methods_that_have_to_be_told_the_number_say_so() -> None:
    adata, truth = section()
    with pytest.raises(He2stError, match="needs the number of domains"):
        run("staig", adata, None, inputs(tiny("staig"), truth))


def test_spagcn_is_the_same_on_a_sparse_graph(monkeypatch: pytest.MonkeyPatch) -> None:
    from napari_he2st.zoo.domains import spagcn

    adata, _ = section()
    points = spagcn.places(adata.obsm["spatial"], None, 1.0)
    dense, length = spagcn.weights(points, 0.5)
    monkeypatch.setattr(spagcn, "_DENSE", 10)
    sparse, same = spagcn.weights(points, 0.5)
    assert same == pytest.approx(length, rel=1e-6)
    torch.testing.assert_close(sparse.to_dense(), dense, atol=1e-6, rtol=0)


def test_iimpact_needs_no_nuclei_near_a_spot() -> None:
    from napari_he2st.zoo.domains.iimpact import abundance

    far = np.array([[9e5, 9e5]])
    counts, kinds = abundance(far, np.array(["tumour"]), section()[0].obsm["spatial"], hexagonal=False)
    assert counts.shape == (180, 1)
    assert not counts.any()
    assert kinds.tolist() == ["tumour"]


class _Largest(TorchDispatchMode):
    """Remembers how many elements the largest tensor had that any operation made."""

    def __init__(self) -> None:
        super().__init__()
        self.elements = 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):  # type: ignore[no-untyped-def]
        out = func(*args, **(kwargs or {}))
        for one in out if isinstance(out, tuple | list) else (out,):
            if isinstance(one, torch.Tensor) and one.layout is torch.strided:
                self.elements = max(self.elements, one.numel())
        return out


@pytest.mark.slow
@pytest.mark.parametrize("slug", [*SLUGS, "transformerst"])
def test_no_matrix_of_all_pairs_above_5000_spots(slug: str, monkeypatch: pytest.MonkeyPatch) -> None:
    adata, truth = section(80, 75)
    n, few = adata.n_obs, {"epochs": 2, "epochs_after": 1, "iterations": 4, "burn_in": 1, "grouping": "kmeans"}
    options = {**cards()[slug].variants["domains" if slug == "transformerst" else "tiny"]}
    options |= {name: value for name, value in few.items() if name in signature(system(slug)).parameters}
    method = system(slug)(**options)
    method.max_spots = 256  # of which pairs are contrasted
    code = modules[type(method).__module__]
    monkeypatch.setattr(code, "_BLOCK", 64, raising=False)
    if slug == "stmvgae":  # its mixture takes minutes under such watch
        monkeypatch.setattr(code, "group", partial(group, how="kmeans"))
    tracemalloc.start()
    with _Largest() as largest, seeded(0):
        method.segment(adata, n_domains=3, seed=0, **inputs(method, truth, adata.obsm["spatial"]))
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert largest.elements < n**2 / 2
    assert peak < n**2 * 8  # bytes: one matrix in double precision


def test_training_goes_on_while_a_large_loss_falls_slowly_and_after_a_term_has_come_in() -> None:
    method, layer = tiny("gist"), torch.nn.Linear(1, 1)
    falling = method.minimise(layer, lambda n: (layer.weight * 0).sum() + 100 - 1e-3 * n, Recipe(epochs=30), patience=5)
    assert falling["epochs"] == 30
    risen = method.minimise(
        layer,
        lambda n: (layer.weight * 0).sum() + (1.0 if n < 10 else 9.0 - 0.1 * n),
        Recipe(epochs=30),
        patience=15,
        whole_from=10,
    )
    assert risen["epochs"] == 30
