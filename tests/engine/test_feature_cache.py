"""Encoder features are computed once per slide, encoder and place, and kept on disk."""

from __future__ import annotations

import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from tests.tiny.predictors import bundle_of

from napari_he2st.core import cache
from napari_he2st.core.progress import Control
from napari_he2st.data.slides import Slide
from napari_he2st.data.slides.stain import normalised
from napari_he2st.engine import features as engine_features
from napari_he2st.engine.estimate import estimate
from napari_he2st.engine.feature_cache import FeatureCache, feature_cache
from napari_he2st.engine.features import encoder_on
from napari_he2st.engine.inputs import tiles as tile_inputs
from napari_he2st.engine.predict import predict
from napari_he2st.engine.training_data import TrainingSection, resolve
from napari_he2st.zoo import inputs as kinds
from napari_he2st.zoo.base import Predictor

CPU = torch.device("cpu")
ENCODER = "colour-texture"


@pytest.fixture(autouse=True)
def one_worker() -> Iterator[None]:
    """Batches one after the other, so that it is known which of them were done."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


class First(Predictor):
    """The first numbers of a tile's features."""

    inputs = {"features": kinds.Features(encoder=ENCODER, px=32, mpp="native")}

    def forward(self, features):
        return features[:, :3]


class Last(First):
    """Others of the same features."""

    def forward(self, features):
        return features[:, -3:]


class Around(First):
    """The mean of the features of nine tiles."""

    inputs = {"features": kinds.NeighbourFeatures(encoder=ENCODER, px=32, mpp="native", size=3, at="lattice")}

    def forward(self, features):
        values, there = features
        return (values * there[..., None]).sum(1)[:, :3] / there.sum(1, keepdim=True)


@pytest.fixture(autouse=True)
def empty_cache(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("HE2ST_CACHE", str(tmp_path / "cache"))


@pytest.fixture
def encoded(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """How many tiles went through an encoder at each call."""
    calls: list[int] = []
    plain = engine_features.encode

    def counted(encoder, tiles):
        calls.append(len(tiles))
        return plain(encoder, tiles)

    monkeypatch.setattr(engine_features, "encode", counted)
    return calls


def values_of(cls: type[Predictor], slide: Slide, grid, **run) -> np.ndarray:
    values = np.full((len(grid), 3), np.nan, dtype=np.float32)
    for chunk in predict(bundle_of(cls), slide, grid, batch_size=8, device="cpu", **run):
        values[chunk.index] = chunk.mean
    return values


def test_a_second_model_finds_the_features_of_the_first_bit_for_bit(slide, slide_path, grid, encoded) -> None:
    last = values_of(Last, slide, grid)
    cache.clear()
    encoded.clear()
    values_of(First, slide, grid)
    assert sum(encoded) == len(grid)
    encoded.clear()
    with Slide.open(slide_path, mpp=0.5) as again:
        np.testing.assert_array_equal(values_of(Last, again, grid), last)
        assert not encoded
        assert again.decoded == 0, "not even tiles are read"
        some = grid.take(np.arange(5, len(grid), 3))
        np.testing.assert_array_equal(values_of(Last, again, some), last[5::3])
        around = values_of(Around, again, grid)
    assert not encoded, "nor those of neighbours"
    assert np.isfinite(around).all()


def test_what_is_new_alone_is_encoded(slide, grid, encoded) -> None:
    known = np.arange(0, len(grid), 2)
    values_of(First, slide, grid.take(known))
    encoded.clear()
    values_of(First, slide, grid)
    assert sum(encoded) == len(grid) - len(known)


def test_another_slide_pixel_size_stain_or_encoder_is_not_mistaken_for_it(slide, slide_path, encoded) -> None:
    def folder(of: Slide, encoder: str = ENCODER, device: torch.device = CPU, px: int = 32, mpp: float = 0.5) -> str:
        kept = feature_cache(of, encoder_on(encoder, device), device, px, mpp)
        kept.put(np.zeros((1, 2)), np.zeros((1, encoder_on(encoder, device).spec.dim), np.float32))
        return ",".join(sorted(entry.path.name for entry in cache.entries() if entry.kind == "features"))

    seen = [folder(slide), folder(slide, px=64), folder(slide, mpp=0.25), folder(normalised(slide, "macenko"))]
    seen.append(folder(slide, "timm:resnet18?pretrained=no"))
    with Slide.open(slide_path, mpp=0.4) as other:
        seen.append(folder(other))
    changed = slide_path.with_name("changed.png")
    changed.write_bytes(slide_path.read_bytes() + b"\0")
    with Slide.open(changed, mpp=0.5) as other:
        seen.append(folder(other))
    assert [len(names.split(",")) for names in seen] == list(range(1, 8))
    assert folder(slide) == seen[-1]


def test_a_run_that_was_cancelled_keeps_what_it_finished(slide, grid, encoded) -> None:
    run = predict(bundle_of(First), slide, grid, batch_size=8, device="cpu")
    for _ in range(6):
        next(run)
    run.close()
    done = sum(encoded)
    assert 48 <= done < len(grid)
    encoded.clear()
    values_of(Last, slide, grid)
    assert sum(encoded) == len(grid) - done


def test_damaged_features_are_said_to_be_so_and_computed_again(slide, grid, encoded, monkeypatch) -> None:
    whole = values_of(First, slide, grid)
    encoded.clear()
    (entry,) = [entry for entry in cache.entries() if entry.kind == "features"]
    (file,) = entry.path.glob("*.f32")
    damaged = bytearray(file.read_bytes())
    damaged[len(damaged) // 2] ^= 1
    file.write_bytes(damaged)
    with pytest.warns(UserWarning, match="Damaged features"):
        np.testing.assert_array_equal(values_of(First, slide, grid), whole)
    assert encoded
    encoded.clear()
    np.testing.assert_array_equal(values_of(First, slide, grid), whole)
    values_of(First, slide, grid)
    assert sum(encoded) < len(grid)


def test_a_file_with_a_torn_end_gives_what_is_whole(tmp_path: Path) -> None:
    folder, xy = tmp_path / "features" / "x", np.arange(20.0).reshape(10, 2)
    values = np.random.default_rng(0).random((10, 4), dtype=np.float32)
    FeatureCache(folder, 4).put(xy, values)
    (rows,) = folder.glob("*.rows")
    rows.write_bytes(rows.read_bytes()[:-7])
    other = FeatureCache(folder, 4)
    other.refresh()
    found, known = other.get(xy)
    assert known.tolist() == [True] * 9 + [False]
    np.testing.assert_array_equal(found[:9], values[:9])


def test_many_writers_share_a_folder_and_the_first_value_stays(tmp_path: Path) -> None:
    folder, n = tmp_path / "cache" / "features" / "x", 5000
    xy = np.random.default_rng(0).permutation(2 * n).reshape(n, 2).astype(float)
    writers = [FeatureCache(folder, 3) for _ in range(2)]

    def write(first: int) -> None:
        for i in range(first, n, 40):
            writers[first // 10 % 2].put(xy[i : i + 10], np.repeat(xy[i : i + 10, :1], 3, 1).astype(np.float32))

    threads = [threading.Thread(target=write, args=(first,)) for first in (0, 10, 20, 30)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    reader = FeatureCache(folder, 3)
    reader.refresh()
    assert len(list(folder.glob("*.rows"))) == 2
    reader.put(xy, np.zeros((n, 3), np.float32))
    found, known = reader.get(xy)
    assert known.all()
    np.testing.assert_array_equal(found[:, 0], xy[:, 0].astype(np.float32))
    cache.clear()
    reader.refresh()
    assert not reader.has(xy).any()


_WRITER = """
import sys
from pathlib import Path
import numpy as np
from napari_he2st.engine.feature_cache import FeatureCache

folder, number, n = Path(sys.argv[1]), int(sys.argv[2]), 3000
cache = FeatureCache(folder, 3)
print("ready", flush=True)
sys.stdin.readline()
for i in np.random.default_rng(number).permutation(n // 10) * 10:
    xy = np.arange(i, i + 10, dtype=float)[:, None] * [1, 2]
    cache.put(xy, np.repeat(xy[:, :1] + number / 10, 3, 1).astype(np.float32))
    if i % 100 == 0:
        cache.refresh()
        found, known = cache.get(xy)
        assert known.all() and np.isin(np.round(found[:, 0] - xy[:, 0], 1), [0, 0.1, 0.2]).all()
"""


@pytest.mark.slow
def test_processes_that_write_at_once_lose_and_mix_up_nothing(tmp_path: Path) -> None:
    """Three of them put values of their own at the same places; one is killed on the way."""
    folder, n = tmp_path / "features", 3000
    command = [sys.executable, "-c", _WRITER, str(folder)]
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True}
    writers = [subprocess.Popen([*command, str(number)], **pipes) for number in range(3)]
    for writer in writers:
        assert writer.stdout.readline() == "ready\n"
    for writer in writers:
        writer.stdin.write("go\n")
        writer.stdin.flush()
    while not list(folder.glob(f"{writers[2].pid}-*.rows")) and writers[2].poll() is None:
        time.sleep(0.001)
    writers[2].kill()
    assert [writer.communicate() and writer.returncode for writer in writers[:2]] == [0, 0]
    writers[2].communicate()
    xy = np.arange(n, dtype=float)[:, None] * [1, 2]
    reader = FeatureCache(folder, 3)
    reader.refresh()
    found, known = reader.get(xy)
    assert known.all()
    whose = np.round((found[:, 0] - xy[:, 0]) * 10).astype(int)
    assert set(whose) <= {0, 1, 2}
    np.testing.assert_array_equal(found, np.repeat(xy[:, :1] + whose[:, None] / 10, 3, 1).astype(np.float32))
    again = FeatureCache(folder, 3)
    again.refresh()
    np.testing.assert_array_equal(again.get(xy)[0], found)


def test_a_cache_of_no_size_keeps_nothing_and_a_probe_does_not_count(slide, grid, encoded) -> None:
    estimate(bundle_of(First), slide, grid, device="cpu")
    assert not [entry for entry in cache.entries() if entry.kind == "features"]
    cache.set_limit(0)
    for _ in range(2):
        encoded.clear()
        values_of(First, slide, grid)
        assert sum(encoded) == len(grid)
    assert not [entry for entry in cache.entries() if entry.kind == "features"]


@pytest.mark.parametrize("cached", [True, False])
def test_few_neighbours_are_held_in_memory(slide, grid, encoded, monkeypatch, cached: bool) -> None:
    monkeypatch.setattr(tile_inputs, "RECENT_TILES", 60)
    if not cached:
        cache.set_limit(0)
    most = 0
    plain = tile_inputs.OrderedDict

    class Watched(plain):
        def popitem(self, last: bool = True):
            nonlocal most
            found = super().popitem(last=last)
            most = max(most, len(self))
            return found

    monkeypatch.setattr(tile_inputs, "OrderedDict", Watched)
    bounded = values_of(Around, slide, grid)
    assert 60 <= most < 60 + 8 * 9
    assert sum(encoded) == len(grid) if cached else sum(encoded) >= len(grid)
    monkeypatch.setattr(tile_inputs, "RECENT_TILES", 10**6)
    cache.clear()
    cache.set_limit(0)
    np.testing.assert_allclose(values_of(Around, slide, grid), bounded, atol=1e-6)


def test_what_trains_on_a_slide_leaves_its_features_for_predicting(slide, grid, encoded) -> None:
    model = First()
    section = TrainingSection("X", "X", None, slide, grid)  # type: ignore[arg-type]
    resolved = resolve(model, section, 0.5, CPU, Control())
    assert sum(encoded) == len(grid) == len(resolved.ok)
    encoded.clear()
    np.testing.assert_array_equal(values_of(First, slide, grid), resolved.inputs["features"][:, :3].numpy())
    assert not encoded
