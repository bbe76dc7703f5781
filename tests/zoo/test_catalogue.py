from __future__ import annotations

import inspect
import json
import subprocess
import sys
import tomllib
from importlib.metadata import EntryPoint
from pathlib import Path
from typing import Any

import pytest
import torch

import napari_he2st
from napari_he2st.core.errors import ModelError, UnknownNameError
from napari_he2st.zoo import catalogue
from napari_he2st.zoo.base import Predictor, System
from napari_he2st.zoo.bundle import Bundle
from napari_he2st.zoo.card import TASKS, Card
from napari_he2st.zoo.scale import SCALES

ZOO = Path(napari_he2st.__file__).parent / "zoo"
CARDS = catalogue.cards()
USABLE = [card for card in CARDS.values() if card.status != "unavailable"]
VARIANTS = [pytest.param(card, name, id=f"{card.slug}-{name}") for card in USABLE for name in card.variants]
DECIDED_BY_DATA = {"n_genes": 4, "n_classes": 3, "n_features": 6, "n_reference": 5}


def _arguments(cls: type[System], card: Card, variant: str) -> dict[str, Any]:
    wanted = inspect.signature(cls).parameters
    data = {name: value for name, value in DECIDED_BY_DATA.items() if name in wanted}
    return {**data, **card.variants[variant]}


def test_every_module_has_its_card_and_every_card_its_module() -> None:
    for task in TASKS:
        modules = {path.stem for path in (ZOO / task).glob("*.py")} - {"__init__"}
        absent = {card.module.rsplit(".", 1)[-1] for card in CARDS.values() if card.status == "unavailable"}
        assert modules == {path.stem for path in (ZOO / task).glob("*.toml")} - absent


@pytest.mark.parametrize("card", USABLE, ids=lambda card: card.slug)
def test_a_usable_system_has_variants(card: Card) -> None:
    assert card.variants


@pytest.mark.parametrize(("card", "variant"), VARIANTS)
def test_every_variant_builds(card: Card, variant: str) -> None:
    cls = catalogue.system(card.slug)
    arguments = _arguments(cls, card, variant)
    built = cls(**arguments)
    assert json.loads(json.dumps(arguments)) == arguments
    if isinstance(built, Predictor):
        assert built.targets
        assert {target.scale for target in built.targets.values() if hasattr(target, "scale")} <= SCALES.keys()
        with torch.device("meta"):  # as a bundle does before it takes any memory
            blank = cls(**arguments)
        shapes = {key: value.shape for key, value in blank.state_dict().items()}
        assert shapes == {key: value.shape for key, value in built.state_dict().items()}


def test_the_independence_contract_lists_exactly_the_systems() -> None:
    project = tomllib.loads((ZOO.parents[2] / "pyproject.toml").read_text())
    contracts = project["tool"]["importlinter"]["contracts"]
    (contract,) = [c for c in contracts if c["type"] == "independence"]
    assert sorted(contract["modules"]) == sorted(card.module for card in USABLE)


def test_listing_loads_nothing_heavy() -> None:
    code = """
import sys, time
start = time.process_time()
import napari_he2st
cost = time.process_time() - start
napari_he2st.models()
from napari_he2st.zoo.catalogue import cards
from napari_he2st.zoo.encoders.table import encoders
assert cards() and encoders()
heavy = {"torch", "timm", "torchvision", "scanpy", "anndata", "pandas", "napari", "qtpy", "PyQt6", "PySide6"}
assert not heavy & sys.modules.keys(), heavy & sys.modules.keys()
assert cost <= 0.3, cost
"""
    subprocess.run([sys.executable, "-c", code], check=True)


def test_public_names_lead_here() -> None:
    assert napari_he2st.load is catalogue.load
    assert napari_he2st.models is catalogue.models


def test_models_are_listed_for_json() -> None:
    rows = catalogue.models()
    assert json.loads(json.dumps(rows)) == rows
    assert {row["slug"] for row in rows if row["kind"] == "system"} == set(CARDS)
    assert catalogue.models("regression")
    assert all("regression" in row["tasks"] for row in catalogue.models("regression"))
    with pytest.raises(UnknownNameError, match="Did you mean regression"):
        catalogue.models("regresion")


def test_shipped_bundles_are_listed_and_loaded_by_name(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, bundle: Bundle
) -> None:
    bundle.save(tmp_path / "small")
    monkeypatch.setattr(catalogue, "_BUNDLES", tmp_path)
    (row,) = [row for row in catalogue.models() if row["kind"] == "bundle"]
    assert (row["slug"], row["system"], row["genes"], row["weights"]) == ("small", "ridge", 3, "included")
    assert row["organs"] == ["breast"]
    assert catalogue.load("small").genes == bundle.genes
    assert catalogue.load(tmp_path / "small").sha256 == bundle.sha256


def test_names_that_lead_nowhere() -> None:
    with pytest.raises(UnknownNameError, match="Did you mean ridge"):
        catalogue.system("rigde")
    with pytest.raises(UnknownNameError, match="is a system, not a trained predictor"):
        catalogue.load("ridge")
    with pytest.raises(UnknownNameError, match="no trained predictor named 'nothing'"):
        catalogue.load("nothing")


CARD = """
title = "Another"
tasks = ["regression"]
inputs = "none"
output = "nothing"
status = "baseline"
commercial_use = "yes"
"""


@pytest.fixture
def other_package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The folder of a package that brings systems of its own."""
    folder = tmp_path / "another_package" / "systems"
    folder.mkdir(parents=True)
    (folder.parent / "__init__.py").write_text("raise RuntimeError('listing imports nothing')")
    monkeypatch.syspath_prepend(tmp_path)
    point = EntryPoint("another", "another_package.systems", catalogue.GROUP)
    monkeypatch.setattr(catalogue, "entry_points", lambda group: [point] if group == catalogue.GROUP else [])
    catalogue.cards.cache_clear()
    yield folder
    catalogue.cards.cache_clear()


def test_systems_of_other_packages_are_found_without_importing_them(other_package: Path) -> None:
    (other_package / "their_own.toml").write_text(CARD)
    card = catalogue.cards()["their-own"]
    assert card.module == "another_package.systems.their_own"
    assert "another_package" not in sys.modules


@pytest.mark.parametrize(("name", "text"), [("broken", "title = "), ("ridge", CARD)])
def test_a_broken_card_of_another_package_is_left_out(other_package: Path, name: str, text: str) -> None:
    (other_package / f"{name}.toml").write_text(text)
    with pytest.warns(UserWarning, match=f"{name}.toml"):
        assert catalogue.cards().keys() == CARDS.keys()


def test_an_unavailable_system_says_why(other_package: Path) -> None:
    (other_package / "gone.toml").write_text(
        CARD.replace('"baseline"', '"unavailable"\nreason = "never published"\n')
        + 'year = 2020\nvenue = ""\npaper = ""\ncode = ""\ncode_licence = ""\n'
    )
    with pytest.raises(ModelError, match="never published"):
        catalogue.system("gone")
