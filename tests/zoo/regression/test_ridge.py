from __future__ import annotations

import math
from collections.abc import Iterator

import numpy as np
import pytest
import torch
from sklearn.linear_model import Ridge as Reference
from torch import Tensor

from napari_he2st.core.errors import ModelError
from napari_he2st.zoo.regression.ridge import Ridge

N_GENES, DIM = 6, 40
FIELDS = (("colour-texture", 224),)


class Sections:
    """Training sections in batches, as the engine gives them."""

    def __init__(self, system: Ridge, parts: list[tuple[Tensor, Tensor]], batch: int = 32) -> None:
        self.n_slides = len(parts)
        rows = torch.cat([torch.full((len(y),), i) for i, (_, y) in enumerate(parts)])
        x, y = torch.cat([x for x, _ in parts]), torch.cat([y for _, y in parts])
        self._items = [
            ({"expression": y[at], "slide": rows[at]}, system.prepare(feature_0=x[at]))
            for at in torch.arange(len(y)).split(batch)
        ]

    def __iter__(self) -> Iterator:
        return iter(self._items)

    def __len__(self) -> int:
        return len(self._items)


def _sections(n_sections: int, noise: float, n: int = 80) -> tuple[Tensor, list[tuple[Tensor, Tensor]]]:
    """Sections with features of unit spread, a known linear answer, and an offset of each section's own."""
    generator = torch.Generator().manual_seed(3)
    answer = torch.randn(DIM, N_GENES, generator=generator)
    parts = []
    for _ in range(n_sections):
        x = torch.randn(n, DIM, generator=generator)
        y = x @ answer + torch.randn(1, N_GENES, generator=generator)
        parts.append((x, y + noise * torch.randn(n, N_GENES, generator=generator)))
    return answer, parts


def _fit(system: Ridge, parts: list[tuple[Tensor, Tensor]]) -> list[dict[str, float]]:
    return list(system.fit(Sections(system, parts), system.recipe))


def test_one_section_is_scikit_learns_ridge() -> None:
    _, [(x, y)] = _sections(1, noise=2.0)
    system = Ridge(N_GENES, fields=FIELDS, penalties=[0.1])
    _fit(system, [(x, y)])
    z = (x / math.sqrt(DIM)).double().numpy()
    unit = ((z - z.mean(0)) ** 2).sum() / len(z)
    reference = Reference(alpha=0.1 * unit).fit(z, y.double().numpy())
    np.testing.assert_allclose(system.weight.numpy(), reference.coef_, rtol=1e-4, atol=1e-4)
    predicted = system.predict(**system.prepare(feature_0=x))
    np.testing.assert_allclose(predicted.numpy(), reference.predict(z), rtol=1e-4, atol=1e-4)


def test_several_sections_are_scikit_learns_ridge_on_deviations() -> None:
    _, parts = _sections(3, noise=2.0)
    system = Ridge(N_GENES, fields=FIELDS, penalties=[0.1])
    _fit(system, parts)
    z = np.concatenate([(x - x.mean(0)).double().numpy() for x, _ in parts]) / math.sqrt(DIM)
    deviations = np.concatenate([(y - y.mean(0)).double().numpy() for _, y in parts])
    reference = Reference(alpha=0.1 * (z**2).sum() / len(z), fit_intercept=False).fit(z, deviations)
    np.testing.assert_allclose(system.weight.numpy(), reference.coef_, rtol=1e-4, atol=1e-4)
    everything = torch.cat([x for x, _ in parts])
    measured = torch.cat([y for _, y in parts])
    predicted = system.predict(**system.prepare(feature_0=everything))
    torch.testing.assert_close(predicted.mean(0), measured.mean(0), rtol=1e-4, atol=1e-4)


def test_a_known_answer_is_found() -> None:
    answer, parts = _sections(3, noise=0.01)
    system = Ridge(N_GENES, fields=FIELDS, penalties=[1e-4, 1.0, 100.0])
    records = _fit(system, parts)
    assert [record["penalty"] for record in records] == [1e-4, 1.0, 100.0]
    assert records[0]["pcc"] > 0.99
    assert system.extras["penalty"] == 1e-4
    torch.testing.assert_close(system.weight.T / math.sqrt(DIM), answer, rtol=0, atol=0.02)


def test_the_score_is_that_of_sections_left_out() -> None:
    _, parts = _sections(3, noise=3.0)
    records = _fit(Ridge(N_GENES, fields=FIELDS, penalties=[0.3, 30.0]), parts)
    found = []
    for i, (x, y) in enumerate(parts):
        system = Ridge(N_GENES, fields=FIELDS, penalties=[0.3])
        _fit(system, parts[:i] + parts[i + 1 :])
        predicted = system.predict(**system.prepare(feature_0=x)).numpy()
        found += [np.corrcoef(predicted[:, g], y[:, g])[0, 1] for g in range(N_GENES)]
    assert records[0]["pcc"] == pytest.approx(np.mean(found), abs=1e-4)


def test_noise_asks_for_a_larger_penalty() -> None:
    chosen = []
    for noise in (0.1, 30.0):
        system = Ridge(N_GENES, fields=FIELDS)
        _fit(system, _sections(3, noise)[1])
        chosen.append(system.extras["penalty"])
    assert chosen[0] < chosen[1]


def test_a_single_section_is_scored_by_generalised_cross_validation() -> None:
    _, [(x, y)] = _sections(1, noise=5.0)
    system = Ridge(N_GENES, fields=FIELDS, penalties=[0.01, 0.3, 10.0])
    records = _fit(system, [(x, y)])
    z = (x / math.sqrt(DIM)).double().numpy()
    unit = ((z - z.mean(0)) ** 2).sum() / len(z)
    target = y.double().numpy()
    for record in records:
        alpha = record["penalty"] * unit
        residual = target - Reference(alpha=alpha).fit(z, target).predict(z)
        centred = z - z.mean(0)
        hat = centred @ np.linalg.solve(centred.T @ centred + alpha * np.eye(DIM), centred.T)
        free = 1 - (np.trace(hat) + 1) / len(z)
        wanted = ((residual**2).sum(0) / ((target - target.mean(0)) ** 2).sum(0) / free**2).mean()
        assert record["gcv"] == pytest.approx(wanted, rel=1e-6)
    assert system.extras["penalty"] == min(records, key=lambda record: record["gcv"])["penalty"]


def test_unmeasured_genes_are_left_out_section_by_section() -> None:
    _, parts = _sections(3, noise=1.0)
    gaps = [(x, y.clone()) for x, y in parts]
    gaps[0][1][:, 0] = torch.nan  # not in the first section
    gaps[1][1][5, 1] = torch.nan  # one spot: the section is left out for that gene
    for _, y in gaps:
        y[:, 2] = torch.nan  # nowhere
    system = Ridge(N_GENES, fields=FIELDS, penalties=[0.3])
    _fit(system, gaps)
    for gene, sections in {0: [1, 2], 1: [0, 2], 3: [0, 1, 2]}.items():
        alone = Ridge(N_GENES, fields=FIELDS, penalties=[0.3])
        _fit(alone, [parts[i] for i in sections])
        torch.testing.assert_close(system.weight[gene], alone.weight[gene], rtol=1e-4, atol=1e-4)
        torch.testing.assert_close(system.bias[gene], alone.bias[gene], rtol=1e-4, atol=1e-4)
    predicted = system.predict(**system.prepare(feature_0=parts[0][0]))
    assert bool(predicted[:, 2].isnan().all())
    assert bool(predicted[:, [0, 1, 3, 4, 5]].isfinite().all())


def test_a_rank_keeps_the_leading_directions() -> None:
    _, parts = _sections(3, noise=1.0)
    full, whole, low = (Ridge(N_GENES, fields=FIELDS, penalties=[0.3], rank=r) for r in (None, N_GENES, 2))
    for system in (full, whole, low):
        _fit(system, parts)
    x = full.prepare(feature_0=parts[0][0])
    torch.testing.assert_close(whole.predict(**x), full.predict(**x), rtol=1e-3, atol=1e-3)
    deviations = np.concatenate([(y - y.mean(0)).numpy() for _, y in parts])
    axes = np.linalg.svd(deviations, full_matrices=False)[2][:2]
    weight = (low.weight.T @ low.loadings.T).numpy()
    np.testing.assert_allclose(weight, full.weight.T.numpy() @ axes.T @ axes, rtol=1e-3, atol=1e-3)
    assert low.weight.shape == (2, DIM)


def test_every_field_has_the_same_say() -> None:
    system = Ridge(2, fields=(("colour-texture", 224), ("efficientnet-lite0", 448)))
    assert list(system.inputs) == ["feature_0", "feature_1"]
    assert (system.inputs["feature_1"].encoder, system.inputs["feature_1"].px) == ("efficientnet-lite0", 448)
    x = system.prepare(feature_0=torch.ones(1, 40), feature_1=torch.full((1, 1280), 50.0))["x"]
    assert x.shape == (1, 1320)
    assert float(x[:, :40].square().sum()) == pytest.approx(1)
    assert float(x[:, 40:].square().sum()) == pytest.approx(36)  # artefacts are cut at 6


def test_parts_of_a_feature_can_be_weighed() -> None:
    system = Ridge(2, fields=[["efficientnet-lite0-early", 448, [1, 3]]])
    x = system.prepare(feature_0=torch.ones(1, 152))["x"]
    assert float(x[:, :40].square().sum()) == pytest.approx(1)
    assert float(x[:, 40:].square().sum()) == pytest.approx(9)


def test_what_cannot_be_learnt_is_said() -> None:
    system = Ridge(N_GENES, fields=FIELDS)
    with pytest.raises(ModelError, match="no training spots"):
        _fit(system, [(torch.zeros(0, DIM), torch.zeros(0, N_GENES))])
    with pytest.raises(ModelError, match="do not vary"):
        _fit(system, [(torch.randn(9, DIM), torch.ones(9, N_GENES))] * 2)
    with pytest.raises(ModelError, match="rank of 7"):
        Ridge(N_GENES, fields=FIELDS, rank=7)


def test_a_noisy_section_counts_less_where_precision_counts() -> None:
    answer, parts = _sections(3, noise=1.0)
    x, y = parts[0]
    parts[0] = (x, y + 60 * torch.randn(y.shape, generator=torch.Generator().manual_seed(5)))
    errors = {}
    for precise in (False, True):
        system = Ridge(N_GENES, fields=FIELDS, penalties=[1e-3], precise=precise)
        _fit(system, parts)
        errors[precise] = float((system.weight.T / math.sqrt(DIM) - answer).square().mean())
    assert errors[True] < 0.2 * errors[False]


def test_weighing_equal_sections_changes_nothing() -> None:
    _, [(x, y)] = _sections(1, noise=1.0)
    weights = []
    for precise in (False, True):
        system = Ridge(N_GENES, fields=FIELDS, penalties=[0.1], precise=precise)
        _fit(system, [(x, y), (x, y + 3)])
        weights.append(system.weight.numpy())
    np.testing.assert_allclose(*weights, rtol=1e-4, atol=1e-5)
