"""Prediction: the same numbers however it is run, and a clear word when it cannot be."""

from __future__ import annotations

import threading
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from napari_he2st.core.errors import GeneError, ModelError, StoreError
from napari_he2st.core.progress import Cancelled, Control
from napari_he2st.core.schema import check_expression, facts_of
from napari_he2st.core.types import Region
from napari_he2st.data.slides.grid import square_grid
from napari_he2st.data.slides.tissue import tissue_mask
from napari_he2st.engine.estimate import estimate
from napari_he2st.engine.live import LiveMap
from napari_he2st.engine.predict import predict, predict_slide
from napari_he2st.engine.store import read_store
from napari_he2st.zoo.bundle import Bundle
from napari_he2st.zoo.inputs import Positions


def collect(chunks, n: int, n_genes: int = 3) -> np.ndarray:
    values = np.full((n, n_genes), np.nan, dtype=np.float32)
    for chunk in chunks:
        assert np.isnan(values[chunk.index]).all(), "a spot is predicted once"
        values[chunk.index] = chunk.mean
    return values


def test_values_are_those_of_the_tiles_whatever_the_batch_and_the_order(predictors, bundle_of, slide, grid) -> None:
    bundle = bundle_of(predictors.Colour)
    expected = np.stack(
        [slide.read(x - 16, y - 16, 32, 32, mpp=0.5).reshape(-1, 3).mean(axis=0) / 255 for x, y in grid.xy]
    )
    for batch_size in (1, 7, 1000):
        values = collect(predict(bundle, slide, grid, batch_size=batch_size), len(grid))
        np.testing.assert_allclose(values, expected, atol=1e-5)
    chunks = list(predict(bundle, slide, grid, order="centre", batch_size=5))
    np.testing.assert_allclose(collect(chunks, len(grid)), expected, atol=1e-5)
    middle = grid.xy.mean(axis=0)
    distance = [np.linalg.norm(grid.xy[chunk.index] - middle, axis=1).mean() for chunk in chunks]
    assert distance[0] < distance[len(distance) // 2] < distance[-1]


def test_a_refused_option_leaves_no_store_behind(predictors, bundle_of, slide, grid, tmp_path: Path) -> None:
    bundle = bundle_of(predictors.Colour)
    with pytest.raises(ModelError, match="no option steps"):
        list(predict(bundle, slide, grid, options={"steps": 3}, store=tmp_path / "run"))
    assert not list(tmp_path.iterdir())
    list(predict(bundle, slide, grid, store=tmp_path / "run"))


def test_a_region_limits_what_is_predicted(predictors, bundle_of, slide, grid) -> None:
    region = Region.box(101, 101, 200, 150)
    rows = np.concatenate([c.index for c in predict(bundle_of(predictors.Colour), slide, grid, region=region)])
    inside = (grid.xy[:, 0] > 100) & (grid.xy[:, 0] < 301) & (grid.xy[:, 1] > 100) & (grid.xy[:, 1] < 251)
    assert sorted(rows) == np.flatnonzero(inside).tolist()
    with pytest.raises(ModelError, match="No spot lies"):
        list(predict(bundle_of(predictors.Colour), slide, grid, region=Region.box(5000, 5000, 10, 10)))


def test_genes_limit_what_is_kept_and_unknown_ones_are_named(predictors, bundle_of, slide, grid) -> None:
    bundle = bundle_of(predictors.Colour)
    every = collect(predict(bundle, slide, grid), len(grid))
    some = collect(predict(bundle, slide, grid, genes=["BLUE", "RED"]), len(grid), 2)
    np.testing.assert_array_equal(some, every[:, [0, 2]])
    with pytest.raises(GeneError, match="TP53"):
        list(predict(bundle, slide, grid, genes=["RED", "TP53"]))


def test_memory_that_runs_out_halves_the_batch(predictors, bundle_of, slide, grid) -> None:
    bundle = bundle_of(predictors.Hungry)
    values = collect(predict(bundle, slide, grid, batch_size=32), len(grid))
    assert np.isfinite(values).all()
    assert bundle.members[0].largest == 4


def test_values_that_are_not_finite_stop_the_run_and_name_a_gene(predictors, bundle_of, slide, grid) -> None:
    with pytest.raises(ModelError, match="RED"):
        list(predict(bundle_of(predictors.NotFinite), slide, grid))


def test_a_wrong_shape_is_named(predictors, bundle_of, slide, grid) -> None:
    with pytest.raises(ModelError, match=r"\(4, 4\) for 4 spots and 3 genes"):
        list(predict(bundle_of(predictors.TooWide), slide, grid, batch_size=4))


def test_noise_depends_on_seed_and_spot_not_on_batches(predictors, bundle_of, slide, grid) -> None:
    bundle = bundle_of(predictors.Random)
    a = collect(predict(bundle, slide, grid, batch_size=3, seed=5), len(grid))
    b = collect(predict(bundle, slide, grid, batch_size=50, seed=5, order="centre"), len(grid))
    c = collect(predict(bundle, slide, grid, batch_size=50, seed=6), len(grid))
    np.testing.assert_allclose(a, b, atol=1e-6)
    assert not np.allclose(a, c)
    spread = np.concatenate([chunk.std for chunk in predict(bundle, slide, grid, n_samples=40)])
    assert spread.mean() == pytest.approx(1, abs=0.1)


def test_cancelling_stops_within_a_batch_and_ends_the_readers(predictors, bundle_of, slide, grid) -> None:
    control = Control()
    run = predict(bundle_of(predictors.Colour), slide, grid, batch_size=4, control=control)
    next(run)
    next(run)
    control.cancel()
    with pytest.raises(Cancelled):
        next(run)
    assert not [t for t in threading.enumerate() if t.name == "he2st-reader" and t.is_alive()]


def test_a_stored_run_goes_on_where_it_was_stopped(predictors, bundle_of, slide, grid, tmp_path: Path) -> None:
    bundle = bundle_of(predictors.Colour)
    whole = collect(predict(bundle, slide, grid, batch_size=8), len(grid))
    run = predict(bundle, slide, grid, batch_size=8, store=tmp_path / "run")
    first = [next(run) for _ in range(3)]
    run.close()
    calls: list[int] = []
    forward = type(bundle.members[0]).forward

    def counting(self, tiles):
        calls.append(len(tiles))
        return forward(self, tiles)

    type(bundle.members[0]).forward = counting
    try:
        values = collect(predict(bundle, slide, grid, batch_size=99, store=tmp_path / "run"), len(grid))
    finally:
        type(bundle.members[0]).forward = forward
    np.testing.assert_array_equal(values, whole)
    assert sum(calls) == len(grid) - sum(len(chunk.index) for chunk in first)
    np.testing.assert_array_equal(read_store(tmp_path / "run")[2][:], whole)
    with pytest.raises(StoreError, match="seed"):
        list(predict(bundle, slide, grid, seed=9, store=tmp_path / "run"))


def test_the_result_follows_the_schema_and_says_where_it_comes_from(predictors, bundle_of, slide) -> None:
    adata = predict_slide(bundle_of(predictors.Colour), slide)
    check_expression(adata)
    facts = facts_of(adata)
    assert facts["kind"] == "predicted"
    assert facts["slide_fingerprint"] == slide.fingerprint
    assert facts["training_slides"] == ["abc"]
    assert "research use" in facts["note"]
    assert str(slide.path.parent) not in str(adata.uns)
    assert list(adata.var_names) == ["RED", "GREEN", "BLUE"]
    np.testing.assert_array_equal(adata.var["held_out_pcc"], [0.5, np.nan, 0.1])
    assert adata.n_obs > 50
    region = predict_slide(bundle_of(predictors.Colour), slide, region=Region.box(200, 150, 200, 200))
    assert 0 < region.n_obs < adata.n_obs


def test_the_stain_is_recorded_and_another_one_is_another_run(predictors, bundle_of, slide, tmp_path: Path) -> None:
    bundle = bundle_of(predictors.Colour)
    plain = predict_slide(bundle, slide, store=tmp_path / "run")
    stained = predict_slide(bundle, slide, stain="macenko")
    assert facts_of(plain)["colours"] == "as stored"
    assert facts_of(stained)["colours"] == "macenko"
    assert np.abs(plain.X - stained.X).max() > 0.02
    with pytest.raises(StoreError, match="colours"):
        predict_slide(bundle, slide, stain="macenko", store=tmp_path / "run")


def test_the_cost_is_told_before_the_run(predictors, bundle_of, slide, grid) -> None:
    cost = estimate(bundle_of(predictors.Colour), slide, grid)
    assert cost.tiles == len(grid)
    assert cost.seconds > 0
    assert cost.memory_bytes == len(grid) * 3 * 4
    assert cost.disk_bytes == 2 * cost.memory_bytes  # its journal, and then its array
    half = estimate(bundle_of(predictors.Colour), slide, grid, precision="float16")
    assert half.disk_bytes == cost.memory_bytes + cost.memory_bytes // 2


def test_an_empty_grid_and_an_unknown_device_are_refused(predictors, bundle_of, slide, grid) -> None:
    with pytest.raises(ModelError, match="no spots"):
        list(predict(bundle_of(predictors.Colour), slide, grid.take(np.zeros(0, dtype=int))))
    with pytest.raises(ModelError, match="nonsense"):
        list(predict(bundle_of(predictors.Colour), slide, grid, device="nonsense"))


def test_spots_that_see_each_other_run_in_windows_of_known_positions(predictors, bundle_of, slide, grid) -> None:
    bundle = bundle_of(predictors.Place)
    values = collect(predict(bundle, slide, grid), len(grid))
    assert np.isfinite(values).all()
    assert values[:, :2].max() < 16
    assert values[:, 2].max() <= 150 < len(grid)


def test_a_finer_grid_shares_the_positions_of_the_trained_one(predictors, bundle_of, slide) -> None:
    bundle = bundle_of(predictors.Place)
    fine = square_grid(slide, bundle.manifest.pitch_um / 2, region=Region.box(100, 100, 200, 200))
    values = collect(predict(bundle, slide, fine), len(fine))
    expected = fine.index[:, ::-1] - fine.index[:, ::-1].min(axis=0)
    np.testing.assert_array_equal(values[:, :2], expected // 2)
    bundle.members[0].inputs = {"position": Positions(kind="lattice")}
    values = collect(predict(bundle, slide, fine), len(fine))
    np.testing.assert_array_equal(values[:, :2], expected)  # its own


def test_a_bundle_trained_on_a_normalised_stain_gets_it_everywhere(predictors, bundle_of, slide, grid) -> None:
    """In predictions of any kind and live, once and not twice, unless another stain is asked for."""
    plain = bundle_of(predictors.Colour)
    trained = Bundle(plain.members, replace(plain.manifest, stain="macenko"))
    expected = collect(predict(plain, slide, grid, stain="macenko"), len(grid))
    unchanged = collect(predict(plain, slide, grid), len(grid))
    np.testing.assert_array_equal(collect(predict(trained, slide, grid), len(grid)), expected)
    np.testing.assert_array_equal(predict_slide(trained, slide, grid=grid).X, expected)
    assert facts_of(predict_slide(trained, slide, grid=grid))["colours"] == "macenko"
    np.testing.assert_array_equal(collect(predict(trained, slide, grid, stain="as-stored"), len(grid)), unchanged)
    whole = Region.box(0, 0, *slide.size)
    for stain, values in ((None, expected), ("as-stored", unchanged)):
        live = LiveMap(trained, slide, grid, stain)
        seen = np.full_like(values, np.nan)
        for chunk in live.look(whole):
            seen[chunk.index] = chunk.mean
        np.testing.assert_allclose(seen, values, atol=1e-6)


def test_how_the_tissue_was_found_is_remembered(predictors, bundle_of, slide, tmp_path: Path) -> None:
    adata = predict_slide(bundle_of(predictors.Colour), slide, store=tmp_path / "run")
    tissue = facts_of(adata)["tissue"]
    assert tissue["method"] == "texture and stain"
    assert tissue["close_um"] == 60.0
    assert 0 < tissue["fraction"] <= 1
    assert read_store(tmp_path / "run")[0].tissue == tissue
    again = tissue_mask(slide, **{name: tissue[name] for name in ("threshold", "min_area_um2", "close_um")})
    assert again.fraction == tissue["fraction"]
