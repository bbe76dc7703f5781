from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

from napari_he2st.core.errors import BundleError, OutputError, UnknownNameError, WeightsError
from napari_he2st.zoo.bundle import Bundle
from napari_he2st.zoo.manifest import Manifest, read_manifest


@pytest.fixture
def folder(tmp_path: Path, bundle: Bundle) -> Path:
    return bundle.save(tmp_path / "small", model_card="# Small\n")


def _edit(folder: Path, change: Callable[[dict[str, Any]], None]) -> None:
    path = folder / "he2st.json"
    table = json.loads(path.read_text())
    change(table)
    path.write_text(json.dumps(table))


def _replace_file(folder: Path, name: str, write: Callable[[Path], None]) -> None:
    """Change a file and make the manifest agree with it."""
    write(folder / name)
    content = (folder / name).read_bytes()
    record = {"bytes": len(content), "sha256": hashlib.sha256(content).hexdigest()}
    _edit(folder, lambda table: table["files"].update({name: record}))


def test_a_bundle_comes_back_as_it_was(folder: Path, bundle: Bundle) -> None:
    loaded = Bundle.load(folder)
    assert (loaded.id, loaded.genes, loaded.sha256) == ("small", bundle.genes, bundle.sha256)
    assert loaded.scores["ERBB2"] == 0.5
    assert math.isnan(loaded.scores["GAPDH"])
    x = torch.randn(5, 40)
    for ours, theirs in zip(bundle.members, loaded.members, strict=True):
        torch.testing.assert_close(theirs(x), ours(x), rtol=0, atol=0)
        assert theirs.genes == bundle.genes
        assert theirs.extras["penalty"] == 3.0
        np.testing.assert_array_equal(theirs.extras["scale"]["shift"], ours.extras["scale"]["shift"])
        assert not theirs.training
        assert not any(p.requires_grad for p in theirs.parameters())
    assert (folder / "MODEL_CARD.md").read_text() == "# Small\n"
    assert loaded.manifest.files.keys() == {"model-0.safetensors", "model-1.safetensors", "extras.safetensors"}


def test_saving_again_gives_the_same_bytes(tmp_path: Path, folder: Path) -> None:
    again = Bundle.load(folder).save(tmp_path / "again")
    assert (again / "he2st.json").read_bytes() == (folder / "he2st.json").read_bytes()


def test_float16_halves_the_files_and_keeps_the_numbers_it_shows(tmp_path: Path, bundle: Bundle) -> None:
    half = Bundle(bundle.members, replace(bundle.manifest, dtype="float16"))
    loaded = Bundle.load(half.save(tmp_path / "half"))
    assert load_file(tmp_path / "half" / "model-0.safetensors")["weight"].dtype == torch.float16
    assert loaded.members[0].weight.dtype == torch.float32
    torch.testing.assert_close(loaded.members[0].weight, half.members[0].weight, rtol=0, atol=0)


def test_float16_refuses_what_it_cannot_hold(bundle: Bundle) -> None:
    bundle.members[0].bias[0] = 1e6
    with pytest.raises(BundleError, match="'bias' are too large for float16"):
        Bundle(bundle.members, replace(bundle.manifest, dtype="float16"))


def test_unmeasured_genes_stay_nan(tmp_path: Path, bundle: Bundle) -> None:
    bundle.members[0].bias[1] = torch.nan
    loaded = Bundle.load(bundle.save(tmp_path / "b"))
    assert loaded.members[0](torch.zeros(2, 40)).isnan().tolist() == [[False, True, False]] * 2


def test_an_existing_folder_is_kept(folder: Path, bundle: Bundle) -> None:
    with pytest.raises(OutputError, match="exists already"):
        bundle.save(folder)
    bundle.save(folder, force=True)
    assert not (folder / "MODEL_CARD.md").exists()
    assert Bundle.load(folder).id == "small"


@pytest.mark.parametrize("name", ["model-0.safetensors", "model-1.safetensors", "extras.safetensors"])
def test_every_file_is_checked(folder: Path, name: str) -> None:
    path = folder / name
    content = bytearray(path.read_bytes())
    content[-1] ^= 1
    path.write_bytes(content)
    with pytest.raises(BundleError, match="wrong checksum") as caught:
        Bundle.load(folder)
    assert caught.value.where == path
    path.write_bytes(content[:-4])
    with pytest.raises(BundleError, match="bytes, not"):
        Bundle.load(folder)
    path.unlink()
    with pytest.raises(BundleError, match="missing"):
        Bundle.load(folder)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda t: t.update(format=2), "format 2, not 1.*Update"),
        (lambda t: t.pop("format"), "format None"),
        (lambda t: t.pop("genes"), "missing.*genes"),
        (lambda t: t.update(gene=[]), "no field 'gene'.*Did you mean 'genes'"),
        (lambda t: t.update(mpp="half"), "'mpp' is 'half'"),
        (lambda t: t.update(genes=["A", "A", "B"]), "more than once"),
        (lambda t: t.update(genes=["A", "B"]), "'pcc' has 3 values for 2 genes"),
        (lambda t: t["arguments"].update(n_genes=10**12), "do not match 3 genes"),
        (lambda t: t["arguments"].update(depth=3), "cannot be built.*depth"),
        (lambda t: t["files"].update({"../x": {"bytes": 1, "sha256": ""}}), "outside the folder"),
        (lambda t: t["files"].pop("model-1.safetensors"), "does not list its members"),
        (lambda t: t["files"].pop("extras.safetensors"), "fitted array is missing"),
        (lambda t: t.update(name="../small"), "no name for a bundle"),
    ],
)
def test_a_wrong_manifest_is_refused(folder: Path, change: Callable[[dict[str, Any]], None], message: str) -> None:
    _edit(folder, change)
    with pytest.raises(BundleError, match=message):
        Bundle.load(folder)


def test_an_unknown_system_gets_a_hint(folder: Path) -> None:
    _edit(folder, lambda table: table.update(system="rigde"))
    with pytest.raises(UnknownNameError, match="Did you mean ridge"):
        Bundle.load(folder)


def test_no_memory_is_taken_for_arguments_that_do_not_fit_the_file(folder: Path) -> None:
    fields = [["colour-texture", 224]] * 5000
    _edit(folder, lambda table: table["arguments"].update(fields=fields))
    with pytest.raises(WeightsError, match=r"another shape weight \(3, 40\) for \(3, 200000\)"):
        Bundle.load(folder)


def test_a_state_that_does_not_fit_is_listed(folder: Path) -> None:
    def write(path: Path) -> None:
        state = load_file(path)
        save_file({"weights": state["weight"], "bias": state["bias"][:2].clone()}, path)

    _replace_file(folder, "model-0.safetensors", write)
    with pytest.raises(WeightsError) as caught:
        Bundle.load(folder)
    for part in ("lacks weight", "has besides weights", r"another shape bias (2,) for (3,)"):
        assert part in str(caught.value)


def test_a_file_that_is_no_safetensors_is_refused(folder: Path) -> None:
    _replace_file(folder, "model-0.safetensors", lambda path: path.write_bytes(b"x" * 100))
    with pytest.raises(BundleError, match="damaged"):
        Bundle.load(folder)
    _replace_file(folder, "extras.safetensors", lambda path: path.write_bytes(b"x" * 100))
    with pytest.raises(BundleError, match="damaged"):
        Bundle.load(folder)


def test_what_is_no_bundle(tmp_path: Path) -> None:
    with pytest.raises(BundleError, match=r"no he2st\.json"):
        Bundle.load(tmp_path)
    (tmp_path / "he2st.json").write_text("{")
    with pytest.raises(BundleError, match="not readable JSON"):
        Bundle.load(tmp_path)
    (tmp_path / "he2st.json").write_text("[]")
    with pytest.raises(BundleError, match="not a JSON object"):
        read_manifest(tmp_path)
    with (tmp_path / "he2st.json").open("wb") as file:
        file.truncate(2**27)
    with pytest.raises(BundleError, match="too large"):
        read_manifest(tmp_path)


def test_fitted_values_of_other_kinds_are_refused(bundle: Bundle, tmp_path: Path) -> None:
    bundle.members[1].extras["model"] = object()
    with pytest.raises(BundleError, match="a object, not an array") as caught:
        bundle.save(tmp_path / "b")
    assert caught.value.where == "1/model"
    assert not list(tmp_path.iterdir())


def test_scores_have_to_match_the_panel(bundle: Bundle) -> None:
    with pytest.raises(BundleError, match="2 values for 3 genes"):
        replace(bundle.manifest, scores={"pcc": (0.1, 0.2)})
    facts = replace(bundle.manifest, scores={"pcc": tuple(np.float32([0.5, np.nan, 1]))})
    assert facts.scores["pcc"] == (0.5, None, 1.0)
    assert Manifest.render(facts) == facts.render()
