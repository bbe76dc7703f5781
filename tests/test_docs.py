"""The code that the manual shows does what the manual says."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

MANUAL = Path(__file__).parents[1] / "docs"

CHECKS = {
    "class MyNet": """
import torch
net = MyNet(n_genes=5)
assert net.predict(**net.prepare(tiles=torch.zeros(2, 3, 224, 224, dtype=torch.uint8))).shape == (2, 5)
""",
    "def bias": """
from napari_he2st.analysis.metrics import METRICS
assert METRICS["bias"].function(np.ones((3, 2)), np.zeros((3, 2))).tolist() == [1, 1]
""",
}


@pytest.mark.parametrize("start", CHECKS)
def test_example_of_the_manual(start: str) -> None:
    blocks = re.findall(r"```python\n(.*?)```", (MANUAL / "howto" / "add.md").read_text(encoding="utf-8"), re.DOTALL)
    (code,) = [block for block in blocks if start in block]
    subprocess.run([sys.executable, "-c", code + CHECKS[start]], check=True)


def test_every_command_is_in_the_manual() -> None:
    sys.path.insert(0, str(MANUAL))
    try:
        from generate import command_line
    finally:
        sys.path.remove(str(MANUAL))
    text = command_line()
    for command in ("info", "models", "predict", "impute", "train", "domains", "compare", "export", "cache", "doctor"):
        assert f"## `he2st {command}`" in text
        assert f"\nhe2st {command}" in text
