"""Fixtures that several rooms share."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

os.environ["HF_HUB_OFFLINE"] = "1"  # read when the hub is first imported; tests run offline


@pytest.fixture(autouse=True)
def own_folders(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> None:
    """Keep what a test caches or remembers out of the user's folders."""
    monkeypatch.setenv("HE2ST_CACHE", str(tmp_path_factory.getbasetemp() / "cache"))
    monkeypatch.setenv("HE2ST_CONFIG", str(tmp_path_factory.mktemp("config")))


@pytest.fixture(scope="session")
def he2st_data() -> Path:
    """The folder of real sections; tests that need it are skipped where there is none."""
    folder = os.environ.get("HE2ST_DATA")
    if not folder or not Path(folder).is_dir():
        pytest.skip("needs the real sections that HE2ST_DATA names")
    return Path(folder)


@pytest.fixture(scope="session")
def her2st(he2st_data: Path) -> Path:
    """The HER2+ breast tumour sections (legacy ST layout)."""
    return he2st_data / "her2st"
