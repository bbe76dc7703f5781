"""The cache as a whole stays within its limit; the longest unused goes first."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from napari_he2st.core import cache
from napari_he2st.core.errors import OutputError
from napari_he2st.core.paths import cache_folder


@pytest.fixture(autouse=True)
def three_entries(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A folder of 300 bytes that was used first, then files of 200 and 100 bytes."""
    monkeypatch.setenv("HE2ST_CACHE", str(tmp_path))
    folder = tmp_path / "pyramids" / "slide"
    folder.mkdir(parents=True)
    (folder / "a").write_bytes(bytes(200))
    (folder / "b").write_bytes(bytes(100))
    (tmp_path / "features").mkdir()
    (tmp_path / "features" / "old").write_bytes(bytes(200))
    (tmp_path / "features" / "new").write_bytes(bytes(100))
    (tmp_path / "weights.toml").write_text("", encoding="utf-8")
    for age, path in ((30, folder), (20, tmp_path / "features" / "old"), (10, tmp_path / "features" / "new")):
        os.utime(path, (1e9 - age, 1e9 - age))


def names() -> list[str]:
    return [entry.path.name for entry in cache.entries()]


def test_entries_are_listed_by_last_use() -> None:
    assert [(entry.kind, entry.path.name, entry.size) for entry in cache.entries()] == [
        ("pyramids", "slide", 300),
        ("features", "old", 200),
        ("features", "new", 100),
    ]


def test_nothing_goes_below_the_limit() -> None:
    assert cache.limit() == cache.DEFAULT_LIMIT
    assert cache.trim() == 0
    assert len(names()) == 3


def test_a_limit_makes_room_and_stays() -> None:
    cache.set_limit(300)
    assert cache.limit() == 300
    assert names() == ["old", "new"]


def test_a_negative_limit_is_refused() -> None:
    with pytest.raises(OutputError, match="-1 bytes"):
        cache.set_limit(-1)


def test_clear_removes_entries_and_leaves_settings() -> None:
    assert cache.clear() == 600
    assert names() == []
    assert (cache_folder() / "weights.toml").exists()
