"""``he2st export``."""

from __future__ import annotations

from pathlib import Path

import pandas as pd
import pytest
from PIL import Image


def test_csv(he2st, prediction: Path, tmp_path: Path) -> None:
    out = tmp_path / "x.csv"
    assert he2st("export", prediction, "--to", "csv", "-o", out).code == 0
    table = pd.read_csv(out)
    assert len(table) == 181
    assert table["kind"].str.startswith("predicted").all()


def test_png_with_an_option(he2st, prediction: Path, tmp_path: Path) -> None:
    out = tmp_path / "x.png"
    assert he2st("export", prediction, "--to", "png", "--option", "dpi=50", "-o", out).code == 0
    assert Image.open(out).width == 350


@pytest.mark.parametrize("arguments", [("--to", "cvs"), ("--to", "csv", "--option", "colour=red")])
def test_unknown_names(he2st, prediction: Path, tmp_path: Path, arguments: tuple[str, ...]) -> None:
    outcome = he2st("export", prediction, *arguments, "-o", tmp_path / "x.csv")
    assert outcome.code == 1
    assert not (tmp_path / "x.csv").exists()
