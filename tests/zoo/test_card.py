from __future__ import annotations

from pathlib import Path

import pytest

from napari_he2st.core.errors import ModelError
from napari_he2st.zoo.card import read_card

CARD = """
title = "A system"
year = 2021
venue = "bioRxiv"
paper = "https://doi.org/10.0/1"
code = "https://example.org"
code_licence = "MIT"
commercial_use = "yes"
tasks = ["regression"]
inputs = "tiles of 112 px"
output = "log1p CP10k"
status = "ported"

[[weights]]
address = "https://example.org/w"
licence = "MIT"
gating = "open"

[variants.tiny]
dim = 8
"""


def _write(folder: Path, text: str, name: str = "a_system.toml") -> Path:
    path = folder / name
    path.write_text(text)
    return path


def test_a_card_is_read(tmp_path: Path) -> None:
    card = read_card(_write(tmp_path, CARD), "some.package")
    assert (card.slug, card.module) == ("a-system", "some.package.a_system")
    assert card.year == 2021
    assert card.variants == {"tiny": {"dim": 8}}
    assert card.weights[0].gating == "open"
    assert card.weights[0].sha256 is None


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("inputs =", "input =", "no field 'input'.*Did you mean 'inputs'"),
        ('title = "A system"', "", "missing.*title"),
        ("year = 2021", "", "missing.*year"),
        ("year = 2021", 'year = "2021"', "'year' is '2021'"),
        ('"ported"', '"fine"', "'status' is 'fine', not one of"),
        ('"ported"', '"unavailable"', "needs a reason"),
        ('tasks = ["regression"]', 'tasks = ["guessing"]', "guessing"),
        ('tasks = ["regression"]', "tasks = []", "not among the known ones"),
        ('licence = "MIT"\ngating', "gating", "missing.*licence"),
        ("year = 2021", "year = ", "not readable TOML"),
        ("year = 2021", 'year = 2021\nslug = "b"', "comes from the file's name"),
    ],
)
def test_what_is_wrong_is_said_with_the_file(tmp_path: Path, old: str, new: str, message: str) -> None:
    assert old in CARD
    path = _write(tmp_path, CARD.replace(old, new, 1))
    with pytest.raises(ModelError, match=message) as caught:
        read_card(path, "p")
    assert caught.value.where == path


def test_a_baseline_needs_no_publication(tmp_path: Path) -> None:
    lines = [line for line in CARD.splitlines() if not line.startswith(("year", "venue", "paper", "code"))]
    card = read_card(_write(tmp_path, "\n".join(lines).replace("ported", "baseline")), "p")
    assert card.year is None
