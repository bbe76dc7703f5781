"""The package as a whole: light to import, complete in its public names."""

from __future__ import annotations

import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

import napari_he2st

HEAVY = ("torch", "timm", "scanpy", "anndata", "skimage", "sklearn", "napari", "qtpy", "PyQt6", "PySide6", "PyQt5")


def loaded_by(code: str) -> set[str]:
    """Top-level modules that a fresh interpreter has loaded after running ``code``."""
    listing = "import sys; print(*{name.split('.')[0] for name in sys.modules})"
    command = [sys.executable, "-c", f"{code}\n{listing}"]
    done = subprocess.run(command, check=True, text=True, stdout=subprocess.PIPE)
    return set(done.stdout.splitlines()[-1].split())


@pytest.mark.parametrize(
    "code",
    [
        "import napari_he2st",
        "from napari_he2st.zoo.catalogue import cards, models; assert cards() and models()",
        "import napari_he2st.cli.app",
    ],
    ids=["package", "cards", "command line"],
)
def test_listing_loads_nothing_heavy(code: str) -> None:
    assert loaded_by(code).isdisjoint(HEAVY)


@pytest.mark.parametrize("name", napari_he2st.__all__)
def test_public_names_resolve(name: str) -> None:
    assert getattr(napari_he2st, name) is not None


def test_unknown_names_are_attribute_errors() -> None:
    with pytest.raises(AttributeError, match="no attribute 'nothing'"):
        _ = napari_he2st.nothing


def test_version_is_that_of_the_project() -> None:
    project = tomllib.loads((Path(__file__).parents[1] / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    assert napari_he2st.__version__ == project["version"]
