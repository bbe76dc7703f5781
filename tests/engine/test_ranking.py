"""Ranking results against one reference, and agreement on domains."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from anndata import AnnData

from napari_he2st.core.errors import GeneError, SchemaError
from napari_he2st.core.schema import provenance
from napari_he2st.engine.compare import compare
from napari_he2st.engine.domain_agreement import agree_on_domains, group_columns
from napari_he2st.engine.ranking import rank

SIDE, GENES = 12, 40


def result(
    values: np.ndarray, kind: str = "predicted", spots: slice = slice(None), genes: slice = slice(None)
) -> AnnData:
    index = np.indices((SIDE, SIDE)).reshape(2, -1).T
    names = np.array([f"G{i}" for i in range(GENES)])
    adata = AnnData(values.astype(np.float32), obs=pd.DataFrame(index=[f"s{i}" for i in range(SIDE**2)]))
    adata.var_names = names
    adata.obs["array_row"], adata.obs["array_col"] = index.T
    adata.obsm["spatial"] = index[:, ::-1] * 200.0
    facts = {"pitch_um": 100, "spot_um": 55, "lattice": "square", "library": kind}
    adata.uns["he2st"] = provenance(kind, mpp=0.5, scale="log1p_cp10k", **facts)
    return adata[spots, genes].copy()


@pytest.fixture
def truth() -> np.ndarray:
    return np.random.default_rng(0).normal(size=(SIDE**2, GENES))


@pytest.fixture
def noisy(truth):
    def noisy(noise: float, seed: int) -> np.ndarray:
        return truth + noise * np.random.default_rng(seed).normal(size=truth.shape)

    return noisy


def test_the_better_one_comes_first_and_the_test_says_so(truth, noisy) -> None:
    measured = result(truth, "measured")
    guesses = {"far": noisy(3, 1), "near": noisy(0.5, 2), "middle": noisy(1, 3)}
    ranking = rank({name: compare(result(values), measured) for name, values in guesses.items()})
    assert ranking.names == ["near", "middle", "far"]
    assert list(ranking.table["pcc_mean"]) == sorted(ranking.table["pcc_mean"], reverse=True)
    assert (ranking.table["p"].dropna() < 1e-3).all()
    assert ranking.table["wins"].sum() == pytest.approx(1)
    assert (ranking.table["pcc_low"] < ranking.table["pcc_mean"]).all()
    assert (ranking.table["pcc_high"] > ranking.table["pcc_mean"]).all()


def test_equals_are_not_told_apart(truth, noisy) -> None:
    measured = result(truth, "measured")
    ranking = rank({"a": compare(result(noisy(1, 1)), measured), "b": compare(result(noisy(1, 2)), measured)})
    assert ranking.table["p"].iloc[1] > 0.05


def test_only_what_all_know_counts(truth, noisy) -> None:
    measured = result(truth, "measured")
    near = noisy(0.5, 2)
    few = result(noisy(0.5, 1), spots=slice(0, 100), genes=slice(5, None))
    ranking = rank({"few": compare(few, measured), "all": compare(result(near), measured)})
    assert ranking.genes == [f"G{i}" for i in range(5, GENES)]
    assert ranking.spots == 100
    assert "44 spots" in ranking.warnings[0]
    row = ranking.names.index("all")
    assert ranking.pcc[row, 0] == pytest.approx(np.corrcoef(near[:100, 5], truth[:100, 5])[0, 1], abs=1e-5)


def test_a_predictor_that_saw_the_section_is_named(truth, noisy) -> None:
    measured, seen = result(truth, "measured"), result(noisy(0.5, 1))
    seen.uns["he2st"] |= {"slide_fingerprint": "abc", "training_slides": np.array(["abc"])}
    ranking = rank({"seen": compare(seen, measured), "new": compare(result(noisy(1, 2)), measured)})
    assert "flattered by it: seen" in ranking.warnings[0]
    assert not rank({"seen": compare(seen, measured)}).warnings


def test_a_constant_prediction_scores_zero(truth, noisy) -> None:
    measured = result(truth, "measured")
    flat = noisy(0.5, 1)
    flat[:, 3] = 1
    ranking = rank({"flat": compare(result(flat), measured), "near": compare(result(noisy(0.5, 2)), measured)})
    assert ranking.pcc[ranking.names.index("flat"), ranking.genes.index("G3")] == 0
    with pytest.raises(GeneError, match="no gene that varies"):
        rank({"flat": compare(result(np.ones_like(truth)), measured)})


def test_domains_are_counted_and_expression_scored_within(truth, noisy) -> None:
    comparison = compare(result(noisy(0.5, 1)), result(truth, "measured"))
    column = np.tile(np.arange(SIDE), SIDE)
    given = np.where(column < 6, "tumour", "stroma")
    found = np.where(column < 7, "D1", "D2").astype(object)
    found[0] = "none"
    agreed = agree_on_domains(comparison, found, given)
    assert (agreed.predicted, agreed.measured) == (["D1", "D2"], ["stroma", "tumour"])
    np.testing.assert_array_equal(agreed.counts, [[12, 60], [71, 0]])
    assert agreed.scores is not None
    assert 0.5 < agreed.scores.ari < 0.8
    assert agreed.scores.n == 143
    assert agreed.table["n"].tolist() == [72, 72]
    assert (agreed.table["pcc"] > 0.8).all()
    spots = column >= 6
    left, right = comparison.predicted[spots], comparison.measured[spots]
    assert agreed.table["profile_pcc"][0] == pytest.approx(np.corrcoef(left.mean(0), right.mean(0))[0, 1], abs=1e-5)


def test_one_side_alone_has_groups(truth, noisy) -> None:
    comparison = compare(result(noisy(0.5, 1)), result(truth, "measured"))
    agreed = agree_on_domains(comparison, measured=np.where(np.arange(SIDE**2) < 50, "a", "b"))
    assert agreed.scores is None
    assert agreed.counts.shape == (2, 0)
    assert agreed.table["n"].tolist() == [50, 94]
    with pytest.raises(SchemaError, match="Neither side"):
        agree_on_domains(comparison)


def test_columns_of_groups_are_offered(truth) -> None:
    adata = result(truth, "measured")
    adata.obs["domain"] = pd.Categorical(np.where(np.arange(SIDE**2) < 50, "D1", "D2"))
    adata.obs["label"] = np.where(np.arange(SIDE**2) < 50, "a", "b")
    adata.obs["barcode"] = list(adata.obs_names)
    adata.obs["same"] = "x"
    assert group_columns(adata) == ["label", "domain"]
