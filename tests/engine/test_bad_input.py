"""What goes wrong in the middle of a run: named, and nothing that was done is lost."""

from __future__ import annotations

import errno
import os
import shutil
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from tests.tiny import predictors
from tests.tiny.predictors import bundle_of
from tests.tiny.slides import tissue_image, write_slide

from napari_he2st.core.errors import ModelError, SlideError, StoreError, UnknownNameError
from napari_he2st.data.slides import Slide
from napari_he2st.data.slides.grid import square_grid
from napari_he2st.engine.predict import predict, predict_slide
from napari_he2st.engine.store import Store, disk_bytes
from napari_he2st.zoo import inputs as kinds
from napari_he2st.zoo.bundle import Bundle


@pytest.fixture(autouse=True)
def one_worker() -> Iterator[None]:
    """Batches one after the other, so that it is known which of them were done."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture
def stopped(slide, grid, tmp_path: Path):
    """Run until an error comes, then count what a second run finds done."""

    def run(bundle, error: type[Exception], match: str) -> int:
        with pytest.raises(error, match=match):
            list(predict(bundle, slide, grid, batch_size=8, store=tmp_path / "run"))
        bundle = Bundle(bundle_of(predictors.Colour).members, bundle.manifest)
        fresh = []
        forward = bundle.members[0].forward
        bundle.members[0].forward = lambda tiles: (fresh.append(len(tiles)), forward(tiles))[1]
        values = np.concatenate([c.mean for c in predict(bundle, slide, grid, batch_size=8, store=tmp_path / "run")])
        assert np.isfinite(values).all()
        return len(grid) - sum(fresh)

    return run


class Later(predictors.Colour):
    """Fails at its fourth batch."""

    calls = 0

    def forward(self, tiles):
        self.calls += 1
        colour = super().forward(tiles)
        return self.spoil(colour) if self.calls > 3 else colour


class NotFinite(Later):
    def spoil(self, colour):
        return colour * float("inf")


class OneTooMany(Later):
    def spoil(self, colour):
        return colour[:, [0, 1, 2, 2]]


class Lost(Later):
    def spoil(self, colour):
        message = "CUDA error: unspecified launch failure\nCompile with ..."
        raise RuntimeError(message)


@pytest.mark.parametrize(
    ("cls", "match"), [(NotFinite, "not finite"), (OneTooMany, "returned shape"), (Lost, "stopped working")]
)
def test_a_model_that_fails_is_named_and_finished_batches_are_kept(stopped, cls, match: str) -> None:
    assert stopped(bundle_of(cls), ModelError, match) == 24


def test_a_full_disk_is_named_and_the_store_goes_on(stopped, monkeypatch) -> None:
    append, written = Store._append, []

    def full(self, *args) -> None:
        written.append(args)
        if len(written) == 4:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        append(self, *args)

    monkeypatch.setattr(Store, "_append", full)
    assert stopped(bundle_of(predictors.Colour), StoreError, "No space left") == 24


def test_a_disk_that_is_too_small_is_refused_before_the_run(slide, grid, tmp_path: Path, monkeypatch) -> None:
    assert disk_bytes(1000, 10, spread=True) == 2 * disk_bytes(1000, 10) == 2 * 2 * 1000 * 10 * 4
    monkeypatch.setattr("napari_he2st.engine.store.disk_bytes", lambda *_, **__: 10**9)
    usage = SimpleNamespace(free=10**8)
    monkeypatch.setattr(shutil, "disk_usage", lambda _: usage)
    with pytest.raises(StoreError, match=r"needs 1 GB on disk, and 0.1 GB are free"):
        next(predict(bundle_of(predictors.Colour), slide, grid, store=tmp_path / "run"))
    usage.free = 2 * 10**9
    assert next(predict(bundle_of(predictors.Colour), slide, grid, store=tmp_path / "run")) is not None


def test_tiles_that_cannot_be_read_are_unknown_and_counted(tmp_path: Path) -> None:
    path = write_slide(tmp_path / "slide.tif", tissue_image(2000, 1600), compression="jpeg")
    bundle = bundle_of(predictors.Colour)
    with Slide.open(path) as slide:
        grid = square_grid(slide, 50.0)
        whole = predict_slide(bundle, slide, grid=grid, batch_size=4)
        assert whole.uns["he2st"]["unreadable_spots"] == 0
    with Slide.open(path) as slide:
        _ = slide.fingerprint
        os.truncate(path, path.stat().st_size // 3)  # its end vanishes once it is open
        rest = predict_slide(bundle, slide, grid=grid, batch_size=4)
    values = rest.X
    lost = np.isnan(values).all(axis=1)
    assert 0 < lost.sum() < len(grid)
    assert rest.uns["he2st"]["unreadable_spots"] == lost.sum()
    np.testing.assert_array_equal(values[~lost], whole.X[~lost])
    with pytest.raises(SlideError):
        Slide.open(path)


def test_a_grid_of_a_hundred_million_tiles_is_refused(slide) -> None:
    with pytest.raises(SlideError, match="positions"):
        square_grid(slide, 0.01)


def test_an_encoder_that_is_not_there_is_named(slide, grid, monkeypatch) -> None:
    monkeypatch.setattr(predictors.Colour, "inputs", {"tiles": kinds.Features(encoder="efficientnet-lite9")})
    with pytest.raises(UnknownNameError, match="efficientnet-lite0"):
        next(predict(bundle_of(predictors.Colour), slide, grid))
