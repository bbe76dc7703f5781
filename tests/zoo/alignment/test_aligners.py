"""Every published aligner, in its smallest variant, on a section and a turned copy of it."""

from __future__ import annotations

import anndata as ad
import numpy as np
import pytest
import torch
from tests.zoo.domains.test_domain_methods import section

from napari_he2st.core.errors import He2stError
from napari_he2st.engine.fitted import seeded
from napari_he2st.zoo.alignment.paste import PASTE
from napari_he2st.zoo.alignment.paste2 import PASTE2, overlap_of
from napari_he2st.zoo.base import Aligner
from napari_he2st.zoo.blocks.transport import counts_and_places
from napari_he2st.zoo.catalogue import cards, system
from napari_he2st.zoo.inputs import Overview

SLUGS = [card.slug for card in cards().values() if card.tasks[0] == "alignment"]
ANGLE = np.deg2rad(12)
TURN = np.array([[np.cos(ANGLE), -np.sin(ANGLE)], [np.sin(ANGLE), np.cos(ANGLE)]])
CENTRE = np.array([550.0, 700.0])


def pair(*, flipped: bool = False) -> tuple[ad.AnnData, ad.AnnData]:
    """An L-shaped section, and the same after a turn, a shift and other counting noise."""
    first, _ = section()
    xy = first.obsm["spatial"]
    first = first[~((xy[:, 0] > 600) & (xy[:, 1] < 500))].copy()
    second = first.copy()
    rng = np.random.default_rng(3)
    second.X = rng.poisson(first.X + 0.1).astype(np.float32)
    xy = first.obsm["spatial"]
    if flipped:
        xy = np.column_stack([1100 - xy[:, 0], xy[:, 1]])
    second.obsm["spatial"] = (xy - CENTRE) @ TURN.T + CENTRE + [40.0, -30.0]
    return first, second


def painted(adata: ad.AnnData, um: float = 20.0) -> tuple[torch.Tensor, float]:
    """A white image with a dark disc at each spot."""
    image = np.full((3, 96, 96), 255, np.uint8)
    rows, columns = np.indices((96, 96))
    for x, y in adata.obsm["spatial"] / um + 10:
        image[:, (rows - y) ** 2 + (columns - x) ** 2 < 9] = 90
    return torch.from_numpy(image), um


def run(method: Aligner, sections: tuple[ad.AnnData, ...]) -> list:
    given = {}
    if any(isinstance(spec, Overview) for spec in method.inputs.values()):
        images = [painted(s) for s in sections]
        given["images"] = images
        for s in sections:
            s.obsm["spatial"] = s.obsm["spatial"] + 200.0  # as they are painted
    with seeded(0):
        return method.align(list(sections), **given)


@pytest.mark.parametrize("slug", SLUGS)
def test_turned_sections_come_together(slug: str) -> None:
    first, second = pair()
    found = run(system(slug)(**cards()[slug].variants["tiny"]), (first, second))
    np.testing.assert_array_equal(found[0].matrix, np.eye(3))
    before = np.linalg.norm(first.obsm["spatial"] - second.obsm["spatial"], axis=1).mean()
    after = np.linalg.norm(first.obsm["spatial"] - found[1](second.obsm["spatial"]), axis=1).mean()
    assert after < 0.5 * before
    if "moved" in found[1].info:
        moved = np.linalg.norm(first.obsm["spatial"] - found[1].info["moved"], axis=1).mean()
        assert moved < 0.6 * before


@pytest.mark.parametrize("slug", ["paste", "paste2"])
def test_a_flipped_section_comes_together_where_that_is_allowed(slug: str) -> None:
    first, second = pair(flipped=True)
    for mirror in (True, False):
        method = system(slug)(max_spots=200, mirror=mirror)
        found = run(method, (first, second))[1]
        assert found.info["reflected"] is mirror
        apart = np.linalg.norm(first.obsm["spatial"] - found(second.obsm["spatial"]), axis=1).mean()
        assert bool(apart < 60) is mirror


def test_three_sections_are_chained() -> None:
    first, second = pair()
    third = second.copy()
    third.obsm["spatial"] = second.obsm["spatial"] + [500.0, 0.0]
    found = run(system("paste")(), (first, second, third))
    apart = np.linalg.norm(found[1](second.obsm["spatial"]) - found[2](third.obsm["spatial"]), axis=1).mean()
    assert apart < 1


def test_couplings_keep_their_mass() -> None:
    first, second = pair()
    whole = run(system("paste")(max_spots=80), (first, second))[1].info["coupling"]
    part = run(system("paste2")(overlap=0.5, max_spots=80), (first, second))[1].info["coupling"]
    assert whole.sum() == pytest.approx(1)
    assert part.sum() == pytest.approx(0.5)
    assert whole.shape == (80, 80)


def test_an_overlap_out_of_range() -> None:
    with pytest.raises(He2stError, match="above 0 and at most 1, not 1.2"):
        system("paste2")(overlap=1.2)


def test_sections_meet_at_their_centre():
    first, second = pair()
    third = second.copy()
    third.obsm["spatial"] = second.obsm["spatial"] + [300.0, 0.0]
    found = PASTE(onto="centre").align([first, second, third])
    np.testing.assert_allclose(found[0].matrix, np.eye(3), atol=1e-9)
    for section_, transform in zip((second, third), found[1:], strict=True):
        moved = transform(section_.obsm["spatial"])
        assert np.abs(moved - first.obsm["spatial"]).max() < 20


def test_how_much_two_sections_have_in_common_is_found():
    xy = np.indices((20, 20)).reshape(2, -1).T.astype(float)
    common = xy[:, 0] < 12  # 60 %
    order = np.concatenate([np.random.default_rng(0).permutation(np.flatnonzero(common)), np.flatnonzero(~common)])

    def couple(mass: float) -> np.ndarray:
        coupling = np.zeros((400, 400))
        rows = order[: round(400 * mass)]
        coupling[rows, rows] = 1 / 400
        return coupling

    assert overlap_of(couple, xy, xy) == pytest.approx(0.6, abs=0.1)
    given = (*counts_and_places(pair()[0]), *counts_and_places(pair()[1]))
    assert 0.2 < PASTE2(overlap=None, search="mixing").couple(*given)[0].sum() <= 1
    with pytest.raises(He2stError, match="overlap has to be above 0"):
        PASTE2(overlap=0.0)


def test_the_overlap_is_that_by_which_expression_agrees_most():
    first, second = pair()
    half = second[second.obsm["spatial"][:, 1] > 500].copy()
    given = (*counts_and_places(first), *counts_and_places(half))
    found = run(PASTE2(overlap=None), (first, half))[1]
    apart = np.linalg.norm(first[half.obs_names].obsm["spatial"] - found(half.obsm["spatial"]), axis=1).mean()
    assert apart < 60
    assert 0 < PASTE2(overlap=None).couple(*given)[0].sum() <= 1
