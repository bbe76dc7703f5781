"""Awkward input to every published regressor: a result for each spot, or an error that says what to do."""

from __future__ import annotations

import inspect
from pathlib import Path

import numpy as np
import pytest
import torch

from napari_he2st.core.errors import GeneError, ModelError, WeightsError
from napari_he2st.core.types import Grid
from napari_he2st.data.samples import sample_section
from napari_he2st.data.slides import Slide
from napari_he2st.engine.import_weights import import_weights, nearest_system
from napari_he2st.engine.predict import predict
from napari_he2st.engine.train import train
from napari_he2st.zoo.bundle import Bundle
from napari_he2st.zoo.catalogue import cards, system
from napari_he2st.zoo.inputs import Positions
from napari_he2st.zoo.manifest import Manifest

GENES = ("RED", "GREEN", "BLUE", "CYAN", "PINK")
PITCH_UM, MPP = 20.0, 0.5
SLUGS = [card.slug for card in cards().values() if card.tasks[0] == "regression" and card.status != "baseline"]


@pytest.fixture(autouse=True)
def _one_thread():
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def tiny(slug: str, **arguments: object):
    torch.manual_seed(0)
    return system(slug)(n_genes=len(GENES), **{**cards()[slug].variants["tiny"], **arguments}).eval()


def bundle_of(model, slug: str) -> Bundle:
    model.genes = list(GENES)
    px = max((spec.px for spec in model.inputs.values() if hasattr(spec, "px")), default=0)
    manifest = Manifest(
        name=slug,
        title=slug,
        system=slug,
        arguments={},
        genes=GENES,
        scale=model.targets["expression"].scale,
        tile_px=px,
        mpp=MPP,
        pitch_um=PITCH_UM,
    )
    return Bundle([model], manifest)


def lattice(*cells: tuple[int, int]) -> Grid:
    """Spots at array (row, column), in the middle of the slide."""
    index = np.array(cells, dtype=np.intp)
    xy = np.array([200.0, 160.0]) + index[:, ::-1] * PITCH_UM / MPP
    ones = np.ones(len(index), dtype=bool)
    return Grid(xy, PITCH_UM, "square", PITCH_UM, MPP, index, tuple(index.max(0) + 1), ones)


def predicted(model, slug: str, slide: Slide, grid: Grid) -> np.ndarray:
    values = np.full((len(grid), len(GENES)), np.nan, dtype=np.float32)
    for chunk in predict(bundle_of(model, slug), slide, grid, device="cpu"):
        values[chunk.index] = chunk.mean
    return values


@pytest.mark.parametrize("slug", SLUGS)
def test_one_spot(slug: str, slide: Slide) -> None:
    assert np.isfinite(predicted(tiny(slug), slug, slide, lattice((0, 0)))).all()


@pytest.mark.parametrize("slug", SLUGS)
def test_an_isolated_spot(slug: str, slide: Slide) -> None:
    assert np.isfinite(predicted(tiny(slug), slug, slide, lattice((0, 0), (0, 1), (1, 0), (1, 1), (5, 9)))).all()


@pytest.mark.parametrize("slug", SLUGS)
def test_a_slide_of_another_resolution_and_a_spot_beyond_its_edge(slug: str, slide_path: Path) -> None:
    grid = lattice((0, 0), (0, 1), (-5, 0))
    with Slide.open(slide_path, mpp=2 * MPP) as coarser:
        values = predicted(tiny(slug), slug, coarser, grid)
    assert values.shape == (3, len(GENES))
    assert np.isfinite(values[:2]).all()


WITH_BINS = [slug for slug in SLUGS if any(getattr(spec, "bins", None) for spec in tiny(slug).inputs.values())]


@pytest.mark.parametrize("slug", WITH_BINS)
def test_more_spots_than_position_bins_go_in_windows(slug: str, slide: Slide) -> None:
    model = tiny(slug, bins=8)
    grid = lattice(*((0, column) for column in range(11)))
    assert np.isfinite(predicted(model, slug, slide, grid)).all()
    bins = next(spec.bins for spec in model.inputs.values() if isinstance(spec, Positions))
    assert bins == 8


def test_systems_with_position_bins_are_known() -> None:
    assert {"histogene", "hist2st", "hggep", "thitogene"} <= set(WITH_BINS)


def write(model, folder: Path) -> Path:
    torch.save(model.state_dict(), folder / "published.pt")
    return folder / "published.pt"


def load(slug: str, checkpoint: Path, genes: tuple[str, ...] = GENES, **arguments: object) -> Bundle:
    given, model = {**cards()[slug].variants["tiny"], **arguments}, tiny(slug)
    pixels = {"mean": [0.7, 0.5, 0.6], "std": [0.2, 0.2, 0.2]}
    beside = {name: model.extras.get(name, pixels) for name in model.beside}
    return import_weights(slug, checkpoint, genes, mpp=MPP, pitch_um=PITCH_UM, arguments=given, beside=beside)


@pytest.mark.parametrize("slug", SLUGS)
def test_a_panel_of_another_size_is_refused(slug: str, tmp_path: Path) -> None:
    with pytest.raises(WeightsError, match="another shape"):
        load(slug, write(tiny(slug), tmp_path), GENES[:4])


@pytest.mark.parametrize("slug", SLUGS)
def test_missing_and_unexpected_keys_are_named(slug: str, tmp_path: Path) -> None:
    state = tiny(slug).state_dict()
    gone = next(iter(state))
    torch.save(
        {**{key: value for key, value in state.items() if key != gone}, "extra.thing": torch.ones(1)}, tmp_path / "x.pt"
    )
    with pytest.raises(WeightsError) as error:
        load(slug, tmp_path / "x.pt")
    assert f"lacks {gone}" in error.value.what
    assert "has besides extra.thing" in error.value.what


@pytest.mark.parametrize("slug", SLUGS)
def test_a_published_network_is_recognised(slug: str) -> None:
    with torch.device("meta"):
        state = system(slug)(n_genes=2).state_dict()
    assert nearest_system(state) == slug


@pytest.mark.parametrize("slug", SLUGS)
def test_what_lies_beside_a_checkpoint_is_asked_for_by_name(slug: str, tmp_path: Path) -> None:
    checkpoint, names = write(tiny(slug), tmp_path), tuple(tiny(slug).beside)
    given = {"mpp": MPP, "pitch_um": PITCH_UM, "arguments": cards()[slug].variants["tiny"]}
    for name in names[:1]:
        with pytest.raises(ModelError, match=f"needs '{name}' beside it"):
            import_weights(slug, checkpoint, GENES, **given)
    bundle = load(slug, checkpoint)
    bundle.save(tmp_path / "bundle")
    again = Bundle.load(tmp_path / "bundle").members[0]
    assert set(names) <= set(again.extras)
    with pytest.raises(ModelError, match="has no use for 'other'"):
        import_weights(slug, checkpoint, GENES, beside={**bundle.members[0].extras, "other": 1}, **given)


@pytest.mark.parametrize("slug", ["brstnet", "he2gene"])
def test_auxiliary_genes_are_learnt_beside_the_panel(slug: str) -> None:
    small = {**cards()[slug].variants["tiny"], "tile_px": 32}
    trained = train(slug, [sample_section()], arguments={**small, "n_aux": 7}, panel="mean:10", epochs=1, device="cpu")
    assert len(trained.genes) == 10
    assert trained.members[0].n_aux == 7
    with pytest.raises(GeneError, match="Beside the panel only"):
        train(slug, [sample_section()], arguments={**small, "n_aux": 10**6}, panel="mean:10", epochs=1, device="cpu")


SIZED = {
    slug: cards()[slug].variants["tiny"].get("tile_px", 112)
    for slug in SLUGS
    if "tile_px" in inspect.signature(system(slug).__init__).parameters
}


@pytest.mark.parametrize("slug", SIZED)
def test_tiles_of_another_size_work_or_are_refused(slug: str, slide: Slide, tmp_path: Path) -> None:
    px = 2 * SIZED[slug]
    checkpoint = write(tiny(slug), tmp_path)
    try:
        bundle = load(slug, checkpoint, tile_px=px)
    except (WeightsError, ModelError) as error:
        told = error.what
    else:
        found = np.concatenate([c.mean for c in predict(bundle, slide, lattice((0, 0), (0, 1)), device="cpu")])
        told = f"{px} px work" if np.isfinite(found).all() else "not finite"
    assert "shape" in told or str(px) in told


FINER = [card.slug for card in cards().values() if card.slug in SLUGS and "superres" in card.tasks]


@pytest.mark.parametrize("slug", FINER)
def test_a_finer_pitch_is_super_resolved(slug: str, slide: Slide) -> None:
    coarse = lattice((0, 0), (0, 1), (1, 0), (1, 1))
    index = np.stack(np.meshgrid(range(4), range(4), indexing="ij"), -1).reshape(-1, 2).astype(np.intp)
    xy = coarse.xy[0] + index[:, ::-1] * PITCH_UM / 2 / MPP
    fine = Grid(xy, PITCH_UM / 2, "square", PITCH_UM / 2, MPP, index, (4, 4), np.ones(16, dtype=bool))
    values = predicted(tiny(slug), slug, slide, fine)
    assert np.isfinite(values).all()
    assert len(np.unique(values.round(6), axis=0)) > len(coarse)


def test_systems_that_super_resolve_are_known() -> None:
    assert {"histogene", "deepspace"} <= set(FINER)
