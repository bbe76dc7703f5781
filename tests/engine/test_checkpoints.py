"""A training that is killed, or meets a full disk, goes on to exactly the result that it would have had."""

from __future__ import annotations

import errno
import os
import signal
import time
from dataclasses import replace
from multiprocessing import get_context
from pathlib import Path

import anndata as ad
import numpy as np
import pandas as pd
import pytest
import torch
from torch import nn

from napari_he2st.core.errors import ModelError, OutputError
from napari_he2st.core.progress import Control
from napari_he2st.core.schema import provenance
from napari_he2st.data.slides import Slide
from napari_he2st.data.slides.grid import square_grid
from napari_he2st.data.truth import Section
from napari_he2st.engine import train as module
from napari_he2st.engine.train import train
from napari_he2st.zoo.base import Predictor
from napari_he2st.zoo.inputs import Tiles
from napari_he2st.zoo.recipe import Recipe

GENES = ["RED", "GREEN", "BLUE"]
EPOCHS = 25


class Shaky(Predictor):
    """Dropout, batch normalisation and momentum: nothing of its state may be lost."""

    inputs = {"tiles": Tiles(px=16, mpp="native")}
    recipe = Recipe(optimizer="adamw", lr=1e-2, epochs=EPOCHS, batch_size=16, schedule="cosine:25")

    def __init__(self, n_genes: int, width: int = 8) -> None:
        super().__init__()
        self.encoder = nn.Sequential(nn.Conv2d(3, width, 3), nn.BatchNorm2d(width), nn.ReLU(), nn.Dropout(0.2))
        self.head = nn.Linear(width, n_genes)

    def prepare(self, *, tiles):
        return {"tiles": tiles.float() / 255}

    def forward(self, tiles):
        return self.head(self.encoder(tiles).mean((2, 3)))


@pytest.fixture
def sections(slide: Slide, slide_path: Path) -> list[Section]:
    """Three sections whose counts follow from the colours under their spots."""
    grid = square_grid(slide, 40.0)
    made = []
    for number, name in enumerate("XYZ"):
        tiles = np.concatenate([batch.tiles for batch in slide.read_tiles(grid.xy, 16, slide.mpp)])
        rates = tiles.reshape(len(tiles), -1, 3).mean(1) + number
        counts = np.random.default_rng(number).poisson(rates).astype(np.float32)
        adata = ad.AnnData(counts, var=pd.DataFrame(index=GENES), layers={"counts": counts})
        adata.obsm["spatial"] = grid.xy
        adata.obs["array_row"], adata.obs["array_col"] = grid.index[:, 0], grid.index[:, 1]
        facts = {"mpp": slide.mpp, "scale": "counts", "pitch_um": 40.0, "spot_um": 40.0, "lattice": "square"}
        adata.uns["he2st"] = provenance("measured", library=name, **facts)
        made.append(Section(name, adata, slide_path, layout="generated", patient=name))
    return made


@pytest.fixture(autouse=True)
def shaky(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "system", lambda name: Shaky)


def learn(sections: list[Section], folder: Path | None = None, **options):
    given = {"panel": "all", "folds": ["section"], "validate": sections[2:], "patience": EPOCHS, "device": "cpu"}
    return train("shaky", sections[:2], checkpoints=folder, **{**given, **options})


def equal(first, second) -> bool:
    """Same curve, scores and weights."""
    states = [member.state_dict() for bundle in (first, second) for member in bundle.members]
    same = all(torch.equal(states[0][key], states[1][key]) for key in states[0])
    facts = [(b.manifest.history, b.manifest.scores, b.manifest.splits) for b in (first, second)]
    return same and facts[0] == facts[1]


def train_slowly(sections: list[Section], folder: Path, told: Path) -> None:
    """In a process of its own; writes a line for every epoch."""
    module.system = lambda name: Shaky

    def tell(label: str, record: dict) -> None:
        with told.open("a") as file:
            file.write("epoch\n")
        time.sleep(0.05)

    learn(sections, folder, watch=tell)


def test_a_killed_run_goes_on_to_the_same_curve_and_bundle(sections, tmp_path: Path) -> None:
    whole = learn(sections)
    for number, epochs in enumerate((4, 40)):  # in the first fit, and in a later one
        told = tmp_path / f"told-{number}"
        arguments = sections, tmp_path / "run", told
        process = get_context("spawn").Process(target=train_slowly, args=arguments)  # torch's threads survive no fork
        process.start()
        while process.is_alive() and (not told.exists() or len(told.read_text().splitlines()) < epochs):
            time.sleep(0.01)
        assert process.is_alive()
        os.kill(process.pid, signal.SIGKILL)
        process.join()
        assert process.exitcode == -signal.SIGKILL
    kept = sorted((tmp_path / "run").glob("*.pt"))
    assert kept
    epochs = []
    resumed = learn(sections, tmp_path / "run", watch=lambda label, record: epochs.append(record))
    assert equal(resumed, whole)
    assert len(epochs) == 3 * EPOCHS  # the curve is told from its beginning
    assert len(whole.manifest.history) == EPOCHS


@pytest.mark.parametrize("epoch", [1, 13, EPOCHS])
def test_a_run_stopped_at_any_epoch_goes_on(sections, tmp_path: Path, epoch: int) -> None:
    class Stop(BaseException):
        pass

    def stop(label: str, record: dict) -> None:
        if label == "all" and record["epoch"] == epoch - 1:
            raise Stop

    with pytest.raises(Stop):
        learn(sections, tmp_path, watch=stop)
    made = []
    true_step = torch.optim.AdamW.step
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(torch.optim.AdamW, "step", lambda self, *a: (made.append(1), true_step(self, *a))[1])
        resumed = learn(sections, tmp_path)
    assert equal(resumed, learn(sections))
    steps = -(-sum(s.adata.n_obs for s in sections[:2]) // 16)
    assert len(made) == steps * (EPOCHS - epoch + 1)  # the epoch that was being told, and those after it


def test_a_full_disk_stops_with_the_last_checkpoint_intact(sections, tmp_path: Path, monkeypatch) -> None:
    true_fsync, written = os.fsync, []

    def full(number: int) -> None:
        written.append(number)
        if len(written) == 9:
            raise OSError(errno.ENOSPC, "No space left on device")
        true_fsync(number)

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OutputError, match="No space left on device.*Check free disk space"):
        learn(sections, tmp_path)
    assert [path.name for path in tmp_path.glob("*.pt")] == ["without-X.pt"]
    assert not list(tmp_path.glob(".*"))
    kept = torch.load(tmp_path / "without-X.pt", weights_only=True)
    assert len(kept["history"]) == 8
    monkeypatch.undo()
    monkeypatch.setattr(module, "system", lambda name: Shaky)
    assert equal(learn(sections, tmp_path), learn(sections))


def test_another_run_s_checkpoints_are_refused(sections, tmp_path: Path) -> None:
    class Enough(BaseException):
        pass

    def stop(label: str, record: dict) -> None:
        raise Enough

    with pytest.raises(Enough):
        learn(sections, tmp_path, watch=stop)
    with pytest.raises(ModelError, match=r"of another training \(seed 0, not 1\).*Remove the folder"):
        learn(sections, tmp_path, seed=1)
    with pytest.raises(ModelError, match="other arguments|arguments"):
        learn(sections, tmp_path, arguments={"width": 4})
    other = replace(sections[0], adata=sections[0].adata[::2].copy())
    with pytest.raises(ModelError, match="other sections"):
        learn([other, *sections[1:]], tmp_path)


def test_a_damaged_or_foreign_file_is_named(sections, tmp_path: Path) -> None:
    learn(sections, tmp_path)
    (tmp_path / "all.pt").write_bytes(b"not a checkpoint")
    with pytest.raises(OutputError, match="damaged"):
        learn(sections, tmp_path)
    torch.save(
        {"done": True, "history": [], "longest": None, "model": {}, "buffers": {}, "extras": {}}, tmp_path / "all.pt"
    )
    with pytest.raises(ModelError, match="does not fit this network"):
        learn(sections, tmp_path)


def test_an_early_end_keeps_the_best_so_far_and_is_the_same_for_all_fits(sections, tmp_path: Path) -> None:
    control, told = Control(), []

    def enough(label: str, record: dict) -> None:
        told.append(label)
        if len(told) == 6:
            control.finish()

    bundle = learn(sections, tmp_path, control=control, watch=enough)
    assert [told.count(label) for label in ("without X", "without Y", "all")] == [6, 6, 6]
    assert len(bundle.manifest.history) == 6
    assert bundle.manifest.scores["pcc"]


def test_gradients_of_several_batches_make_one_step(sections) -> None:
    class Plain(Shaky):
        """Without what depends on the batch."""

        def __init__(self, n_genes: int) -> None:
            super().__init__(n_genes)
            self.encoder = nn.Sequential(nn.Conv2d(3, 8, 3), nn.ReLU())

    def weights(**recipe):
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(module, "system", lambda name: Plain)
            bundle = learn(sections, folds=[], validate=[], recipe={"optimizer": "sgd", "epochs": 3, **recipe})
        return bundle.members[0].head.weight

    n = sum(s.adata.n_obs for s in sections[:2])
    halves = weights(batch_size=n // 2, accumulate=2)
    assert torch.allclose(halves, weights(batch_size=n), atol=1e-4)
    assert not torch.allclose(halves, weights(batch_size=n // 2), atol=1e-4)


def test_a_bundle_is_gone_on_from_and_its_encoder_frozen(sections) -> None:
    from napari_he2st.engine.train_fit import Departures

    first = learn(sections, folds=[], validate=[])
    frozen = learn(sections, folds=[], validate=[], seed=7, epochs=2, departures=Departures(first, frozen=True))
    thawed = learn(sections, folds=[], validate=[], seed=7, epochs=2, departures=Departures(first))
    before, still, moved = (bundle.members[0].state_dict() for bundle in (first, frozen, thawed))
    encoder = [key for key in before if key.startswith("encoder")]
    assert all(torch.equal(before[key], still[key]) for key in encoder)
    assert not torch.equal(before["head.weight"], still["head.weight"])
    assert not torch.equal(before["encoder.0.weight"], moved["encoder.0.weight"])
    assert frozen.manifest.history[0]["loss"] < first.manifest.history[0]["loss"] / 2
