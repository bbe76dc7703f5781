"""Bundles are handed on whole, to folders and to a hub that is stood in for by a folder."""

from __future__ import annotations

import shutil
from pathlib import Path
from types import SimpleNamespace

import pytest
from tests.tiny.predictors import DenseColour, bundle_of

from napari_he2st.core.errors import BundleError, OutputError
from napari_he2st.zoo import hub
from napari_he2st.zoo.bundle import Bundle
from napari_he2st.zoo.catalogue import load


@pytest.fixture
def bundle(tmp_path: Path) -> Path:
    """A bundle of the starter's kind on disk."""
    shipped = load("starter")
    return shipped.save(tmp_path / "mine.he2st", model_card="# Mine\n")


def test_a_folder_is_pushed_and_pulled_whole(bundle: Path, tmp_path: Path) -> None:
    hub.push(bundle, str(tmp_path / "shared"))
    (tmp_path / "shared" / "evil.py").write_text("raise SystemExit")
    pulled = hub.pull(str(tmp_path / "shared"), tmp_path / "back")
    assert Bundle.load(pulled).sha256 == Bundle.load(bundle).sha256
    assert sorted(path.name for path in pulled.iterdir()) == sorted(path.name for path in bundle.iterdir())
    with pytest.raises(OutputError, match="exists already"):
        hub.pull(str(bundle), pulled)


def test_a_damaged_one_is_refused_both_ways(bundle: Path, tmp_path: Path) -> None:
    weights = next(bundle.glob("*.safetensors"))
    content = bytearray(weights.read_bytes())
    content[-1] ^= 1
    weights.write_bytes(content)
    for hand_on in (lambda: hub.push(bundle, str(tmp_path / "out")), lambda: hub.pull(str(bundle), tmp_path / "out")):
        with pytest.raises(BundleError, match="wrong checksum"):
            hand_on()
    assert not (tmp_path / "out").exists()


def test_a_repository_gives_only_what_the_manifest_names(bundle: Path, tmp_path: Path, monkeypatch) -> None:
    asked = []

    class EntryNotFoundError(Exception):
        pass

    def download(repo, name, revision, local_dir):
        asked.append((repo, name, revision))
        if not (remote / name).is_file():
            raise EntryNotFoundError(name)
        return shutil.copyfile(remote / name, Path(local_dir) / name)

    class Api:
        def create_repo(self, repo, exist_ok):
            remote.mkdir()

        def upload_folder(self, repo_id, folder_path, allow_patterns):
            for name in allow_patterns:
                shutil.copyfile(Path(folder_path) / name, remote / name)
            return SimpleNamespace(oid="abc123")

        def repo_info(self, repo, revision=None):
            return SimpleNamespace(sha=revision or "abc123")

    errors = SimpleNamespace(
        EntryNotFoundError=EntryNotFoundError, HfHubHTTPError=ConnectionError, HFValidationError=ConnectionError
    )
    remote = tmp_path / "remote"
    library = SimpleNamespace(HfApi=Api, hf_hub_download=download, errors=errors)
    monkeypatch.setattr(hub, "_library", lambda: library)
    assert hub.push(bundle, "hf://lab/mine") == "hf://lab/mine@abc123"
    (remote / "modeling.py").write_text("raise SystemExit")
    (remote / "MODEL_CARD.md").unlink()  # may be missing
    pulled = hub.pull("hf://lab/mine@abc123", tmp_path / "back")
    assert Bundle.load(pulled).sha256 == Bundle.load(bundle).sha256
    assert "modeling.py" not in {name for _, name, _ in asked}
    assert {revision for *_, revision in asked} == {"abc123"}
    next(remote.glob("*.safetensors")).unlink()
    with pytest.raises(BundleError, match="lacks a file"):
        hub.pull("hf://lab/mine", tmp_path / "again")


def test_an_address_is_checked(bundle: Path) -> None:
    with pytest.raises(BundleError, match="no address"):
        hub.push(bundle, "hf://../../etc")


def test_doubtful_genes_are_those_below_what_is_trusted() -> None:
    from dataclasses import replace

    made = bundle_of(DenseColour)
    assert not made.doubtful
    scores = {"pcc": (0.5, 0.1, None)}
    judged = Bundle(made.members, replace(made.manifest, scores=scores, trusted_pcc=0.2))
    assert judged.doubtful == set(made.genes[1:])
