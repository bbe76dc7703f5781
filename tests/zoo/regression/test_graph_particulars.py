"""What single systems whose spots see each other promise beyond their parity cases."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from tests.zoo.regression.generated import engine_inputs

from napari_he2st.zoo.blocks.graph import nearest_graph
from napari_he2st.zoo.blocks.self_distilled import nb_loss, zinb_loss
from napari_he2st.zoo.blocks.slide_encoder import SlideEncoder
from napari_he2st.zoo.catalogue import cards, system
from napari_he2st.zoo.regression.asign import propagate, through_sections
from napari_he2st.zoo.regression.sepal import fill_zeros

N_GENES = 5


def _tiny(slug: str, **options: object):
    torch.manual_seed(0)
    return system(slug)(n_genes=N_GENES, **{**cards()[slug].variants["tiny"], **options}).eval()


def _far_spot(slug: str, **options: object) -> torch.Tensor:
    """Predictions of a slide whose first spot lies alone."""
    model = _tiny(slug, **options)
    inputs = engine_inputs(model, 6)
    inputs["grid_xy"][1:] += 40
    with torch.inference_mode():
        return model.predict(**model.prepare(**inputs))


@pytest.mark.parametrize("slug", ["hist2st", "hggep"])
def test_a_lonely_spot_is_nan_only_where_faithful(slug: str) -> None:
    assert _far_spot(slug).isfinite().all()
    assert _far_spot(slug, faithful=True).isnan().any()


@pytest.mark.parametrize("slug", ["hist2st", "thitogene", "hggep"])
def test_images_are_handed_over_width_first_and_not_scaled(slug: str) -> None:
    model = _tiny(slug)
    inputs = engine_inputs(model, 3)
    patches = model.prepare(**inputs)["patches"]
    torch.testing.assert_close(patches[0, 1, :, 3, 5], inputs["tiles"][1, :, 5, 3].float())


def test_hist2st_takes_the_maximum_of_neighbours() -> None:
    assert _far_spot("hist2st", policy="max").isfinite().all()
    assert not torch.allclose(_far_spot("hist2st", policy="max"), _far_spot("hist2st"))


def test_likelihoods_prefer_the_truth_and_skip_what_is_unmeasured() -> None:
    counts = torch.tensor([[0.0, 4.0], [2.0, torch.nan]])
    near, far = counts.nan_to_num() + 0.5, counts.nan_to_num() + 5
    dispersion, dropout, size = torch.full((2, 2), 10.0), torch.full((2, 2), 0.01), torch.ones(2)
    good, bad = (zinb_loss(counts, mean, dispersion, dropout, size) for mean in (near, far))
    assert good < bad
    assert zinb_loss(counts, near.index_fill(1, torch.tensor(1), 9), dispersion, dropout, size).isfinite()
    r = torch.full((2, 2), 2.0)
    good, bad = (nb_loss(counts, r, (mean / r.exp()).log()) for mean in (near, far))
    assert good < bad


@pytest.mark.parametrize("faithful", [False, True])
def test_the_slide_encoder_gives_each_spot_its_own_token_unless_faithful(faithful: bool) -> None:
    torch.manual_seed(0)
    xy = torch.tensor([[2, 0], [0, 1], [1, 1], [0, 0]])
    options = {"depth": 2, "heads": 2, "mlp_dim": 16, "dropout": 0.0, "kernel": 3, "packed": False}
    model = SlideEncoder(8, place="dense", faithful=faithful, **options).eval()
    x, order = torch.randn(1, 4, 8), torch.tensor([3, 1, 2, 0])  # of array column, then row
    with torch.inference_mode():
        there, back = model(x, xy[None]), model(x[:, order], xy[order][None])
    assert torch.allclose(back, there[:, order], atol=1e-5) is not faithful


def test_asign_sees_the_spot_unless_faithful() -> None:
    for faithful in (False, True):
        model = _tiny("asign", faithful=faithful)
        prepared = model.prepare(**engine_inputs(model, 8))
        with torch.inference_mode():
            same = torch.equal(
                model.predict(**prepared), model.predict(**{**prepared, "images": prepared["images"] + 1})
            )
        assert same is faithful


def test_asign_spreads_what_is_known() -> None:
    line = nearest_graph(torch.arange(4.0)[:, None], 2, within=1.0)
    known = torch.tensor([[2.0], [0.0], [0.0], [2.0]])
    spread = propagate(line, known)
    assert spread[[0, 3]].tolist() == [[2.0], [2.0]]
    torch.testing.assert_close(spread[1:3], torch.full((2, 1), 2.0), atol=1e-3, rtol=0)


@pytest.mark.parametrize("faithful", [False, True])
def test_asign_imputes_a_section_beside_a_measured_one(faithful: bool) -> None:
    model = _tiny("asign", volume=True, faithful=faithful)
    prepared = model.prepare(**engine_inputs(model, 8))
    owners, nodes = prepared.pop("owners"), prepared["nodes"]
    for name in ("positions", "likeness"):  # for graphs of one section
        prepared.pop(name, None)
    between = torch.zeros(8, 8)
    between[:4, 4:] = torch.eye(4)
    prepared["adjacency"] = through_sections(between + between.T, torch.rand(8, 2), k=1, neighbours=2)
    features = (nodes[0][owners[0]], nodes[1][owners[1]])
    known = torch.zeros(8, N_GENES)
    with torch.inference_mode():
        blank = model.impute(**prepared, features=features, known=known)[0]
        known[:4] = 3
        lent = model.impute(**prepared, features=features, known=known)[0]
    assert lent.shape == (8, N_GENES)
    assert (lent > blank).all()


def test_sepal_fills_zeros_alone() -> None:
    positions = np.array([[0, 0], [1, 0], [0, 1], [9, 9]])
    expression = np.array([[0, 0, 1], [4, 0, 0], [6, 0, 0], [2, 0, np.nan]], dtype=np.float32)
    filled = fill_zeros(expression, positions, 1)
    assert filled[0].tolist() == [4, 0, 1]  # median of 0, 4, 6; a gene without any count stays
    np.testing.assert_array_equal(filled[expression > 0], expression[expression > 0])
    assert np.isnan(filled[3, 2])


def test_sepal_corrects_by_neighbours_only() -> None:
    model = _tiny("sepal")
    inputs = engine_inputs(model, 12)
    with torch.inference_mode():
        before = model.predict(**model.prepare(**inputs))
        inputs["tiles"][0] = 255 - inputs["tiles"][0]
        after = model.predict(**model.prepare(**inputs))
    changed = (before != after).any(1).nonzero().flatten().tolist()
    assert set(changed) <= {0, 1, 4, 5}  # on four columns, those that touch the first
    assert 0 in changed


def test_erwanet_lengths_do_not_grow_with_the_slide_unless_faithful() -> None:
    for faithful in (False, True):
        model = _tiny("erwanet", pool_heads=0, faithful=faithful)
        window, positions = torch.randn(6, 40), torch.rand(6, 2) * 9
        one = torch.tensor([[1, 0]])
        more = torch.tensor([[1, 0], [4, 5]])
        with torch.inference_mode():
            alone, beside = (model(window, positions, edges, one, one)[0] for edges in (one, more))
        assert torch.allclose(alone, beside, atol=1e-6) is not faithful
