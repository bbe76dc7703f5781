"""How close is each system to its original? Every parity case, its arrays compared one by one.

``python -m benchmarks.parity [SYSTEM …]`` runs the cases of ``tests/parity`` (of all systems without a name), also the
large ones, and those of the folder that ``HE2ST_PARITY_DIR`` names. The figures go into ``docs/parity.json``, which the
manual's table of the zoo shows: of each system the cases, how many passed, and the largest absolute difference.
``python -m benchmarks.parity encoders`` does so case by case for the encoders, into ``docs/encoders.json``.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from tests.parity.test_parity import ADAPTERS, cases, compare, find_adapter

FIGURES = Path(__file__).parents[1] / "docs" / "parity.json"
ENCODERS = FIGURES.with_name("encoders.json")


def parity(slug: str) -> dict[str, Any]:
    """The cases of one system: their number, those that passed, the largest absolute difference in these."""
    mine = [path for path in cases() if find_adapter(path.stem) == ADAPTERS[slug]]
    results = []
    for path in mine:
        try:
            results.append(compare(path, ADAPTERS[slug]))
        except pytest.skip.Exception as reason:  # what it needs is not installed here
            print(path.stem, "was not run:", reason, flush=True)
    passed = [largest for problems, largest in results if not problems]
    return {"cases": len(mine), "passed": len(passed), "max_abs": float(f"{max(passed, default=0.0):.1e}")}


def encoders() -> None:
    """Keep the figures of every case of an encoder."""
    found = {}
    for path in cases():
        adapter = find_adapter(path.stem)
        if adapter is not None and adapter.stem.startswith("enc"):
            problems, largest = compare(path, adapter)
            depth = json.loads(path.with_suffix(".json").read_text(encoding="utf-8"))["config"].get("depth")
            found[path.stem] = {"passed": not problems, "max_abs": float(f"{largest:.1e}"), "depth": depth}
            print(path.stem, found[path.stem], flush=True)
    ENCODERS.write_text(json.dumps(dict(sorted(found.items())), indent=1) + "\n", encoding="utf-8")


def main() -> None:
    """Compare the named systems and keep their figures."""
    torch.set_num_threads(1)
    if sys.argv[1:] == ["encoders"]:
        encoders()
        return
    for slug in sys.argv[1:] or sorted(ADAPTERS):
        figures = parity(slug)
        known = json.loads(FIGURES.read_text(encoding="utf-8")) if FIGURES.exists() else {}
        known[slug] = figures
        FIGURES.write_text(json.dumps(dict(sorted(known.items())), indent=1) + "\n", encoding="utf-8")
        print(slug, figures, flush=True)


if __name__ == "__main__":
    main()
