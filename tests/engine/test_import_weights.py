"""Published checkpoints: wrapped or bare they fit key for key, and a wrong one is named."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from napari_he2st.core.errors import WeightsError
from napari_he2st.engine.import_weights import import_weights
from napari_he2st.zoo.bundle import Bundle
from napari_he2st.zoo.catalogue import system

GENES = [f"G{i}" for i in range(7)]
SMALL = {"dim": 32, "depth": 1, "heads": 2, "dim_head": 16, "tile_px": 14}
GIVEN = {"mpp": 0.69, "pitch_um": 200.0}


@pytest.fixture
def state() -> dict[str, torch.Tensor]:
    torch.manual_seed(0)
    return system("histogene")(n_genes=7, **SMALL).state_dict()


def lightning(state):
    return {"state_dict": state}


def parallel(state):
    return {"model": {f"module.{key}": value for key, value in state.items()}, "epoch": 3}


@pytest.mark.parametrize("wrap", [dict, lightning, parallel])
def test_a_checkpoint_becomes_a_bundle(state, wrap, tmp_path: Path) -> None:
    torch.save(wrap(state), tmp_path / "published.ckpt")
    bundle = import_weights("histogene", tmp_path / "published.ckpt", GENES, arguments=SMALL, **GIVEN)
    bundle.save(tmp_path / "bundle")
    loaded = Bundle.load(tmp_path / "bundle")
    assert loaded.genes == GENES
    assert loaded.manifest.scale == "log10_cp10k_panel"
    for key, value in loaded.members[0].state_dict().items():
        torch.testing.assert_close(value, state[key])


def test_what_does_not_fit_is_named_with_the_nearest_system(state, tmp_path: Path) -> None:
    torch.save(state, tmp_path / "published.pt")
    with pytest.raises(WeightsError, match=r"another shape gene_head.1.weight \(7, 32\) for \(6, 32\)"):
        import_weights("histogene", tmp_path / "published.pt", GENES[:6], arguments=SMALL, **GIVEN)
    published = dict(system("histogene")(n_genes=7, depth=4).state_dict().items())
    torch.save(published, tmp_path / "other.pt")
    with pytest.raises(WeightsError, match="most like a checkpoint of histogene"):
        import_weights("stnet", tmp_path / "other.pt", GENES, **GIVEN)


def test_a_file_on_the_hub_is_named_by_its_address(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    small: dict = {"dim": 16, "depth": 1, "heads": 2, "feature_dim": 8}
    torch.save(system("stpath")(n_genes=7, **small).state_dict(), tmp_path / "stpath.pkl")
    asked = []

    def find(name, source):
        asked.append((name, source.repo, source.file))
        return tmp_path / "stpath.pkl"

    monkeypatch.setattr("napari_he2st.engine.import_weights.find_weights", find)
    bundle = import_weights(
        "stpath", "hf:owner/name/stpath.pkl", GENES, arguments={**small, "organ": "breast"}, **GIVEN
    )
    assert asked == [("stpath", "owner/name", "stpath.pkl")]
    assert bundle.members[0].organ == 5
