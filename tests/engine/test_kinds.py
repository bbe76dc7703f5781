"""Every kind of input, unit and output, by predictors that know their answer."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import anndata as ad
import numpy as np
import pandas as pd
import pytest
import torch
from tests.tiny import predictors
from tests.tiny.predictors import GENES, bundle_of

from napari_he2st.core.errors import ModelError, TruthError
from napari_he2st.core.schema import provenance
from napari_he2st.core.types import Grid
from napari_he2st.data.slides import Slide
from napari_he2st.data.slides.grid import square_grid
from napari_he2st.engine.features import Given
from napari_he2st.engine.inputs.positions import nearest_edges
from napari_he2st.engine.predict import predict, predict_slide, tissue_grid
from napari_he2st.zoo.bundle import Bundle


def values_of(bundle: Bundle, slide: Slide, grid: Grid, **run) -> np.ndarray:
    values = np.full((len(grid), 3), np.nan, dtype=np.float32)
    for chunk in predict(bundle, slide, grid, **run):
        assert np.isnan(values[chunk.index]).all(), "a spot is predicted once"
        values[chunk.index] = chunk.mean
    return values


def blocks(pixels: np.ndarray, side: int = 4) -> np.ndarray:
    height, width, _ = pixels.shape
    return pixels.reshape(height // side, side, width // side, side, 3).mean(axis=(1, 3))


@pytest.mark.parametrize("cls", [predictors.DenseColour, predictors.PixelColour])
def test_dense_predictors_fill_their_lattice(cls, slide, pixels) -> None:
    bundle = bundle_of(cls)
    grid = tissue_grid(bundle, slide)
    assert grid.pitch_um == 2.0
    expected = blocks(pixels)[grid.index[:, 0], grid.index[:, 1]]
    for size in (4, 64):
        np.testing.assert_allclose(values_of(bundle, slide, grid, batch_size=size), expected, atol=1e-5)
    some = grid.take(np.arange(100, 2000, 7))
    np.testing.assert_allclose(values_of(bundle, slide, some), expected[100:2000:7], atol=1e-5)


@pytest.mark.parametrize("cls", [predictors.DenseColour, predictors.PixelColour])
def test_spots_are_means_over_the_cells_in_their_disc(cls, slide, pixels) -> None:
    grid = square_grid(slide, 10.0, spot_um=6.0)
    values = values_of(bundle_of(cls), slide, grid)
    lattice = blocks(pixels)
    row, column = np.mgrid[: lattice.shape[0], : lattice.shape[1]]
    inner = np.flatnonzero((grid.index[:, 0] > 2) & (grid.index[:, 0] < 20) & (grid.index[:, 1] == 12))
    for i in inner:
        x, y = grid.xy[i] / 4 - 0.5
        disc = np.hypot(column - x, row - y) <= 1.5
        np.testing.assert_allclose(values[i], lattice[disc].mean(axis=0), atol=1e-5)


def test_a_dense_run_goes_on_where_it_was_stopped(slide, tmp_path: Path) -> None:
    bundle = bundle_of(predictors.DenseColour)
    grid = tissue_grid(bundle, slide)
    whole = values_of(bundle, slide, grid, batch_size=8)
    run = predict(bundle, slide, grid, batch_size=8, store=tmp_path / "run")
    for _ in range(5):
        next(run)
    run.close()
    np.testing.assert_array_equal(values_of(bundle, slide, grid, batch_size=8, store=tmp_path / "run"), whole)


def test_scales_show_more_and_more(slide, grid, pixels) -> None:
    inside = grid.take(np.flatnonzero((grid.index > 0).all(axis=1) & (grid.index < 10).all(axis=1)))
    values = values_of(bundle_of(predictors.Scales), slide, inside)
    for value, (x, y) in zip(values, inside.xy.astype(int), strict=True):
        np.testing.assert_allclose(value, pixels[y - 16 : y + 16, x - 16 : x + 16].mean(axis=(0, 1)), atol=3e-3)


@pytest.mark.parametrize("cls", [predictors.NucleusColour, predictors.RegionNuclei])
def test_every_nucleus_has_its_own_value(cls, slide, pixels, nuclei) -> None:
    given = Given(nuclei=nuclei)
    adata = predict_slide(bundle_of(cls), slide, given=given)
    assert list(adata.obs_names) == [f"nucleus{n}" for n in nuclei.numbers]
    labels = np.kron(nuclei.labels, np.ones((2, 2), dtype=int))
    expected = np.stack([pixels[labels == n].mean(axis=0) for n in nuclei.numbers])
    np.testing.assert_allclose(adata.X, expected, atol=1e-5)
    assert adata.obs["polygon"].str.startswith("POLYGON").all()
    some = np.arange(5, len(expected), 7)
    part = predict_slide(bundle_of(cls), slide, grid=nuclei.grid(slide.mpp).take(some), given=given)
    np.testing.assert_allclose(part.X, expected[some], atol=1e-5)
    with pytest.raises(TruthError, match="nuclei"):
        list(predict(bundle_of(cls), slide, tissue_grid(bundle_of(cls), slide, 20.0)))


def test_neighbours_come_near_to_far_and_within_a_radius(slide, grid) -> None:
    values = values_of(bundle_of(predictors.Degree), slide, grid)
    rows, columns = grid.shape
    at_edge = (grid.index == 0).sum(axis=1) + (grid.index == [rows - 1, columns - 1]).sum(axis=1)
    assert (values[at_edge == 0, 0] == 4).all()
    np.testing.assert_allclose(values[at_edge == 0, 1], 20.0, rtol=1e-5)
    points = np.array([[0.0, 0], [1, 0], [3, 0], [50, 0]])
    np.testing.assert_array_equal(nearest_edges(points, 2, 5.0), [[1, 2, 0, 2, 1, 0], [0, 0, 1, 1, 2, 2]])
    np.testing.assert_array_equal(nearest_edges(points[:3], 1, loops=True), [[0, 1, 1, 0, 2, 1], [0, 0, 1, 1, 2, 2]])
    np.testing.assert_array_equal(nearest_edges(points[:3], 1, symmetric=True), [[1, 0, 1, 2], [0, 1, 2, 1]])
    assert nearest_edges(points[:1], 6).shape == (2, 0)


def test_overlapping_windows_stand_in_for_the_whole(slide) -> None:
    """Windows change no value by more than the bound, given the weight of what lies beyond their margin.

    Spots see each other with weights that fall to 1/e over 5 µm. A window of 1024 spots every 5 µm has a margin
    of 4 spots, thus what it leaves out weighs at most e⁻⁴ of what it sees; wider windows leave out less.
    """
    grid = square_grid(slide, 5.0)
    bundle = bundle_of(predictors.Nearby)
    whole = values_of(bundle, slide, grid)
    largest = []
    for max_spots in (300, 1024):
        bundle.members[0].max_spots = max_spots
        largest.append(np.abs(values_of(bundle, slide, grid) - whole).max() / np.ptp(whole))
    assert largest[0] > largest[1] > 0
    assert largest[1] < WINDOW_BOUND


WINDOW_BOUND = 0.03
"""Of the range of values."""


def test_a_bank_is_looked_up_and_survives_the_bundle(slide, grid, tmp_path: Path, monkeypatch) -> None:
    bundle = bundle_of(predictors.Lookup)
    with pytest.raises(ModelError, match="bank"):
        next(predict(bundle, slide, grid))
    rng = np.random.default_rng(0)
    bank = {
        "colour": rng.random((20, 3)).astype(np.float32),
        "expression": rng.random((20, 3)).astype(np.float32),
        "section": np.arange(20) % 3,
    }
    bundle.members[0].extras["reference"] = bank
    values = values_of(bundle, slide, grid)
    colour = values_of(bundle_of(predictors.Colour), slide, grid)
    nearest = np.linalg.norm(colour[:, None] - bank["colour"], axis=2).argmin(axis=1)
    np.testing.assert_array_equal(values, bank["expression"][nearest])

    monkeypatch.setattr("napari_he2st.zoo.bundle.system", lambda name: predictors.Lookup)
    loaded = Bundle.load(bundle.save(tmp_path / "mine.he2st"))
    assert (tmp_path / "mine.he2st" / "reference.h5ad").exists()
    for name, array in bank.items():
        np.testing.assert_array_equal(loaded.members[0].extras["reference"][name], array)
    np.testing.assert_array_equal(values_of(loaded, slide, grid), values)


@pytest.fixture
def measured(slide: Slide, grid: Grid) -> ad.AnnData:
    """Counts at every second spot of the grid."""
    rows = np.arange(0, len(grid), 2)
    counts = np.stack([rows % 5 + 1, rows % 7 + 1, rows % 3 + 1], axis=1).astype(np.float32)
    adata = ad.AnnData(counts, var=pd.DataFrame(index=list(GENES)), layers={"counts": counts})
    adata.obsm["spatial"] = grid.xy[rows]
    adata.uns["he2st"] = provenance(
        "measured", mpp=0.5, scale="counts", pitch_um=20, spot_um=20, lattice="square", library="X"
    )
    return adata


def test_measured_spots_are_an_input(slide, grid, measured) -> None:
    values = values_of(bundle_of(predictors.Context), slide, grid, given=Given(measured=measured))
    counts = measured.layers["counts"]
    np.testing.assert_allclose(values[::2], np.log1p(counts / counts.sum(axis=1, keepdims=True) * 1e4), rtol=1e-5)
    assert (values[1::2] == 0).all()
    assert (values_of(bundle_of(predictors.Context), slide, grid) == 0).all()


def test_single_cells_are_an_input(slide, grid, measured) -> None:
    measured.obs["cell_type"] = ["B" if i % 2 else "A" for i in range(measured.n_obs)]
    values = values_of(bundle_of(predictors.CellTypes), slide, grid, given=Given(cells=measured))
    np.testing.assert_allclose(values[5], measured.layers["counts"][::2].mean(axis=0), rtol=1e-5)
    with pytest.raises(TruthError, match="--cells"):
        next(predict(bundle_of(predictors.CellTypes), slide, grid))
    del measured.obs["cell_type"]
    with pytest.raises(TruthError, match="cell_type"):
        next(predict(bundle_of(predictors.CellTypes), slide, grid, given=Given(cells=measured)))


def test_a_slide_has_one_row(slide) -> None:
    adata = predict_slide(bundle_of(predictors.BagMean), slide)
    assert adata.shape == (1, 3)
    assert adata.X[0, 0] > 50
    np.testing.assert_allclose(adata.X[0, 1:], [160, 120], atol=10)


def test_draws_and_members_give_mean_and_spread(slide, grid) -> None:
    bundle = bundle_of(predictors.Random)
    chunks = list(predict(bundle, slide, grid, batch_size=50))
    assert all(chunk.std is not None for chunk in chunks)
    again = np.concatenate([c.mean for c in predict(bundle, slide, grid, batch_size=3)])
    np.testing.assert_allclose(np.concatenate([c.mean for c in chunks]), again, atol=1e-6)
    assert next(predict(bundle, slide, grid, n_samples=1)).std is None
    assert next(predict(bundle_of(predictors.Colour), slide, grid, n_samples=9)).std is None

    ensemble = bundle_of(predictors.Offset, 4)
    for member, offset in zip(ensemble.members, (0.0, 0.1, 0.4, 9.0), strict=True):
        torch.nn.init.constant_(member.offset, offset)
    adata = predict_slide(ensemble, slide, grid=grid)
    plain = values_of(bundle_of(predictors.Colour), slide, grid)
    np.testing.assert_allclose(adata.X, plain + 0.25, atol=1e-5)
    np.testing.assert_allclose(adata.layers["std"], np.std([0, 0.1, 0.4, 9.0], ddof=1), atol=1e-4)


def test_a_predictor_of_its_own_slide_refuses_others(slide, grid, monkeypatch) -> None:
    monkeypatch.setattr(predictors.Colour, "fitted", "slide")
    with pytest.raises(ModelError, match="another one"):
        next(predict(bundle_of(predictors.Colour), slide, grid))


def test_regions_that_do_not_fit_the_lattice_are_refused(slide, grid, monkeypatch) -> None:
    from napari_he2st.zoo.base import Regions

    monkeypatch.setattr(predictors.DenseColour, "unit", Regions(px=32, mpp=0.5, overlap=6, bins=8))
    with pytest.raises(ModelError, match="even number of cells"):
        next(predict(bundle_of(predictors.DenseColour), slide, grid))


@pytest.fixture
def slide(slide_path: Path) -> Iterator[Slide]:
    with Slide.open(slide_path, mpp=0.5) as opened:
        yield opened
