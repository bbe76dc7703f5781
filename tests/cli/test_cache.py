"""``he2st cache``."""

from __future__ import annotations

from pathlib import Path

import pytest


@pytest.fixture(autouse=True)
def one_entry(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A cache that holds 1,500 bytes of features."""
    monkeypatch.setenv("HE2ST_CACHE", str(tmp_path))
    path = tmp_path / "features" / "x"
    path.parent.mkdir()
    path.write_bytes(bytes(1500))
    return path


def test_sizes_by_kind(he2st, tmp_path: Path) -> None:
    facts = he2st("cache", "--json").json
    assert facts == {"folder": str(tmp_path), "size": 1500, "limit": 20 * 10**9, "kinds": {"features": 1500}}
    assert "1.5 KB" in he2st("cache").out


def test_clear(he2st, one_entry: Path) -> None:
    outcome = he2st("cache", "clear")
    assert outcome.code == 0
    assert "1.5 KB" in outcome.err
    assert not one_entry.exists()


@pytest.mark.parametrize(("text", "size"), [("1.2KB", 1200), ("5gb", 5 * 10**9), ("10", 10)])
def test_limit(he2st, one_entry: Path, text: str, size: int) -> None:
    assert he2st("cache", "limit", text).code == 0
    assert he2st("cache", "--json").json["limit"] == size
    assert one_entry.exists() == (size >= 1500)


def test_limit_that_is_no_size(he2st) -> None:
    outcome = he2st("cache", "limit", "much")
    assert outcome.code == 2
    assert "500MB" in outcome.err
