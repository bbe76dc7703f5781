"""What single generative systems promise beyond their parity cases."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from tests.zoo.generation.test_tiny import N_GENES, N_SPOTS, draw, fit, target_of, tiny

from napari_he2st.core.noise import Noise
from napari_he2st.zoo.generation.genar import GenAR, pooled
from napari_he2st.zoo.generation.hadm_st import _Discriminator, raster_of
from napari_he2st.zoo.generation.stflow import STFlow, zinb_counts
from napari_he2st.zoo.generation.stpath import gene_order, organ_id, to_extent


def test_stflow_prior_is_the_zero_inflated_distribution() -> None:
    drawn = zinb_counts(*torch.rand(2, 200_000, generator=torch.Generator().manual_seed(0)))
    mean = math.exp(0.1)
    zero = 0.5 + 0.5 / (1 + mean)
    assert abs(float((drawn == 0).float().mean()) - zero) < 0.01
    assert abs(float(drawn.mean()) - 0.5 * mean) < 0.02
    assert (drawn >= 0).all()


def _padded(model: STFlow, genes_of_padding: float) -> torch.Tensor:
    generator = torch.Generator().manual_seed(0)
    features, coords = torch.randn(1, 6, 152, generator=generator), torch.randn(1, 6, 2, generator=generator)
    features[:, 4:], coords[:, 4:] = 0, 0
    noisy = torch.rand(1, 6, N_GENES, generator=generator)
    noisy[:, 4:] = genes_of_padding
    with torch.inference_mode():
        return model.eval()(noisy, features, coords, torch.tensor([0.5]))[:, :4]


def test_stflow_does_not_see_rows_that_fill_up_unless_faithful() -> None:
    for faithful in (False, True):
        model = tiny("stflow", neighbours=3, faithful=faithful)
        assert torch.allclose(_padded(model, 0.0), _padded(model, 5.0)) is not faithful


def test_stpath_distances_give_what_the_frames_give() -> None:
    models = [tiny("stpath", faithful=faithful) for faithful in (False, True)]
    models[1].load_state_dict(models[0].state_dict())
    torch.testing.assert_close(*(draw(model, N_SPOTS) for model in models), atol=1e-5, rtol=1e-5)


def test_stpath_known_spots_inform_the_others() -> None:
    model = tiny("stpath")
    context = torch.full((N_SPOTS, N_GENES), torch.nan)
    context[0] = 3.0
    alone, told = draw(model, N_SPOTS), draw(model, N_SPOTS, measured=context)
    assert not torch.allclose(alone[1:], told[1:])


def test_stpath_spots_in_a_line_are_finite() -> None:
    line = to_extent(torch.tensor([[3.0, 0.0], [3.0, 5.0]]))
    assert line.tolist() == [[0.0, 0.0], [0.0, 100.0]]


def test_stpath_words_of_its_vocabulary_are_known_unless_faithful() -> None:
    assert (organ_id("Mouth"), organ_id("Mouth", faithful=True)) == (18, 0)
    assert organ_id("breast") == organ_id("Breast") == organ_id("breast", faithful=True) == 5
    assert organ_id("nose") == 0


def test_stpath_genes_are_in_the_order_of_their_identifiers() -> None:
    assert gene_order({"B": "ENSG2", "A": "ENSG3", "C": "ENSG1"}) == ["C", "B", "A"]


def test_stdiff_leaves_measured_genes_as_they_are() -> None:
    model = tiny("stdiff")
    target = target_of(model)
    fit(model, target, epochs=2)
    measured = target.clone()
    measured[:, 2] = torch.nan
    found = draw(model, N_SPOTS, measured=measured, steps=3)
    known = measured.isfinite()
    torch.testing.assert_close(found[known], measured[known])
    assert ((found >= -1e-5) & (found <= 1 + 1e-5)).all()


def test_stdiff_spots_see_the_slide_unless_faithful(monkeypatch) -> None:
    monkeypatch.setattr("napari_he2st.zoo.generation.stdiff._BATCH", 6)
    for faithful in (False, True):
        model = tiny("stdiff", faithful=faithful)
        target = target_of(model)
        fit(model, target, epochs=60)
        measured = target.clone()
        measured[:, 2] = torch.nan
        other = measured.clone()
        other[6:, 0] += 0.3
        before, after = (draw(model, N_SPOTS, measured=m, steps=20)[:6, 2] for m in (measured, other))
        assert torch.allclose(before, after) is faithful


def _groups_of_genes(n: int) -> torch.Tensor:
    """Counts in which even genes follow one number and odd genes another."""
    generator = torch.Generator().manual_seed(0)
    rates = 1 + 8 * torch.rand(n, 2, generator=generator)
    return torch.poisson(rates[:, torch.arange(24) % 2], generator=generator)


def test_genar_orders_genes_for_itself_alone() -> None:
    torch.manual_seed(0)
    counts = _groups_of_genes(60)
    model = GenAR(24, encoder="colour-texture", feature_dim=40, vocabulary=32, dim=32, depth=1, heads=2)
    from napari_he2st.zoo.blocks.gene_order import gene_order as order_of

    order = order_of(counts.numpy())
    assert sorted(order) == list(range(24))
    parity = order % 2
    assert np.abs(np.diff(parity)).sum() <= 5
    model.extras["order"] = order
    shuffled = counts[:, order]
    features, place = torch.randn(60, 40), torch.rand(60, 2)
    with torch.inference_mode():
        direct = model.eval()(features, place)[1]
        assert torch.equal(model.predict(features=features, place=place, reading="likeliest")[:, order], direct.float())
        losses = model.scale_losses(model(features, place, shuffled)[0], shuffled)
        given = model.loss({"expression": counts}, features=features, place=place)
    torch.testing.assert_close(given, torch.stack(losses).mean())


def test_genar_expects_the_mean_of_its_tokens() -> None:
    model = tiny("genar", scale_dims=(2, N_GENES)).eval()
    features, place, noise = torch.randn(3, 152), torch.rand(3, 2), Noise(0, 0, np.arange(3))
    tokens = torch.arange(float(model.vocabulary))
    with torch.inference_mode():
        for parameter in model.parameters():  # so that what was drawn for groups matters
            parameter.normal_(std=0.3)
        greedy = model(features, place)[0][-1].softmax(-1) @ tokens
        without = model.predict(features=features, place=place)
        drawn = model.predict(features=features, place=place, noise=noise)
        tokens_drawn = model.predict(features=features, place=place, noise=noise, reading="drawn")
    torch.testing.assert_close(without, greedy)
    assert not torch.allclose(drawn, greedy)
    assert (tokens_drawn == tokens_drawn.round()).all()


def test_genar_starts_at_how_frequent_tokens_are() -> None:
    model = tiny("genar")
    counts = torch.full((N_SPOTS, N_GENES), 3.0)
    counts[:3] = 9
    model._start_at_frequencies(counts)
    share = model.output_head.bias.softmax(0)
    torch.testing.assert_close(share[[3, 9]], torch.tensor([0.75, 0.25]), atol=1e-3, rtol=0)


def test_genar_groups_are_means_of_measured_genes() -> None:
    counts = torch.tensor([[1.0, 3.0, torch.nan, 5.0, torch.nan, torch.nan]])
    assert pooled(counts, 3).tolist() == [[2.0, 5.0, 0.0]]
    assert pooled(counts, 1).tolist() == [[3.0]]


def test_genar_draws_tokens_by_their_probability() -> None:
    model = tiny("genar")
    logits = torch.tensor([0.1, 0.2, 0.7]).log().expand(10_000, 1, 3)
    ranks = torch.rand(10_000, 1, generator=torch.Generator().manual_seed(0))
    share = torch.bincount(model._choose(logits, ranks, 1.0, 0).flatten(), minlength=3) / 10_000
    torch.testing.assert_close(share, torch.tensor([0.1, 0.2, 0.7]), atol=0.02, rtol=0)
    assert set(model._choose(logits, ranks, 1.0, 2).flatten().tolist()) == {1, 2}


def test_stem_predicts_with_averaged_weights() -> None:
    model = tiny("stem")
    before = model.label_embed[0].weight.detach().clone()
    fit(model, target_of(model), epochs=3)
    after = model.label_embed[0].weight.detach().clone()
    assert not torch.equal(before, after)


def test_stem_that_knows_nothing_stays_within_bounds_unless_faithful() -> None:
    for faithful in (False, True):
        drawn = draw(tiny("stem", faithful=faithful), N_SPOTS, steps=4)
        assert bool((drawn.abs() <= 25).all()) is not faithful


def test_hadm_st_raster_reads_what_it_lays() -> None:
    grid_xy = torch.tensor([[0, 0], [4, 1], [2, 2]])
    values = torch.randn(3, 5)
    raster = raster_of(grid_xy)
    assert raster.shape == (4, 6)
    torch.testing.assert_close(raster.lay(values).sum(), values.sum())
    assert torch.equal(raster.read(raster.lay(values)), values)


def test_hadm_st_known_spots_inform_the_others() -> None:
    model = tiny("hadm-st")
    target = target_of(model)
    fit(model, target, epochs=2)
    known = torch.full((N_SPOTS, N_GENES), torch.nan)
    known[0] = 2.0
    blind, told = draw(model, N_SPOTS, steps=3), draw(model, N_SPOTS, steps=3, measured=known)
    assert not torch.allclose(blind[1:], told[1:])


def test_hadm_st_has_a_discriminator_per_gene() -> None:
    judge = _Discriminator(3)
    maps = torch.randn(1, 3, 4, 4)
    other = maps.clone()
    other[:, 1] += 1
    same = (judge(maps) == judge(other)).all(dim=3).all(dim=2)[0]
    assert same.tolist() == [True, False, True]


@pytest.mark.parametrize(
    "ablation",
    [
        {"regression": "mse", "gene_identity": False},
        {"regression": "gaussian_nll", "plain_ablation": True},
        {"final_loss": "cross_entropy", "shared_modulation": True, "unit_attention": False},
        {"scale_dims": (2, 6), "scale_weights": (0.0, 1.0)},
    ],
)
def test_genar_ablations_train_and_predict(ablation: dict) -> None:
    model = tiny("genar", **ablation)
    target = target_of(model)
    target[0, 0] = torch.nan
    losses = [record["loss"] for record in fit(model, target, epochs=20)]
    assert losses[-1] < losses[0]
    assert draw(model, N_SPOTS).isfinite().all()
