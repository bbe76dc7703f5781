"""Our systems reproduce the numbers of the original code."""

from __future__ import annotations

import importlib.util
import os
import re
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
import torch
from tests.parity.fill import load_case, n_parameters

HERE = Path(__file__).parent
OWN = HERE / "cases"
ADAPTERS = {path.stem.replace("_", "-"): path for path in (HERE / "adapters").glob("*.py")}
SLOW = 50_000_000
TOLERANCE = 1e-5


def cases() -> list[Path]:
    paths = sorted(OWN.glob("*.json"))
    if further := os.environ.get("HE2ST_PARITY_DIR"):
        known = {path.name for path in paths}
        paths += [path for path in sorted(Path(further).glob("*.json")) if path.name not in known]
    return paths


def _parameter(path: Path) -> object:
    marks = [pytest.mark.slow] if n_parameters(load_case(path)) > SLOW else []
    return pytest.param(path, marks=marks, id=path.stem)


def find_adapter(name: str, adapters: dict[str, Path] = ADAPTERS) -> Path | None:
    """The adapter of the longest slug that starts a case's name."""
    slugs = [slug for slug in adapters if name == slug or name.startswith(f"{slug}-")]
    return adapters[max(slugs, key=len)] if slugs else None


def _load(path: Path) -> ModuleType:
    spec = importlib.util.spec_from_file_location(f"parity_{path.stem}", path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def difference(ours: np.ndarray, theirs: np.ndarray) -> str | None:
    """What is wrong with an array, or None: |a − b| ≤ 1e-5 · max(1, max|b|), NaN where theirs is NaN."""
    if ours.shape != theirs.shape:
        return f"shape {ours.shape}, not {theirs.shape}"
    if not np.issubdtype(theirs.dtype, np.number):
        return None if np.array_equal(ours, theirs) else "not the same"
    a, b = ours.astype(np.float64), theirs.astype(np.float64)
    if not np.array_equal(np.isfinite(a), np.isfinite(b)):
        return "not finite in the same places"
    finite = np.isfinite(b)
    worst = np.abs(a[finite] - b[finite]).max(initial=0.0)
    allowed = TOLERANCE * max(1.0, np.abs(b[finite]).max(initial=0.0))
    return None if worst <= allowed else f"differs by {worst:.2e}, allowed are {allowed:.2e}"


def compare(path: Path, adapter: Path) -> tuple[dict[str, str], float]:
    """What is wrong with each array of a case, and the largest difference in those without a rule of their own."""
    case, module = load_case(path), _load(adapter)
    torch.manual_seed(0)
    with torch.inference_mode(getattr(module, "INFERENCE", True)):
        ours = module.run(case)
    problems, largest = {}, 0.0
    for name, theirs in case["outputs"].items():
        if name not in ours:
            problems[name] = "missing"
            continue
        found = np.asarray(ours[name])
        rules = [rule for pattern, rule in getattr(module, "COMPARE", {}).items() if re.fullmatch(pattern, name)]
        problem = (rules[0] if rules else difference)(found, theirs)
        if problem is not None:
            problems[name] = problem
        elif not rules and np.issubdtype(theirs.dtype, np.number) and theirs.size:
            largest = max(largest, float(np.nanmax(np.abs(found.astype(np.float64) - theirs))))
    return problems, largest


@pytest.mark.parametrize("path", [_parameter(path) for path in cases()])
def test_case(path: Path) -> None:
    adapter = find_adapter(path.stem)
    if adapter is None:
        if path.parent != OWN:
            pytest.skip(f"no adapter for {path.stem} yet")
        pytest.fail(f"{path.name} has no adapter in {ADAPTERS}")
    assert not compare(path, adapter)[0]


@pytest.mark.parametrize("adapter", sorted(ADAPTERS))
def test_every_adapter_has_a_case(adapter: str) -> None:
    assert any(find_adapter(path.stem) == ADAPTERS[adapter] for path in OWN.glob("*.json"))


def test_longest_slug_wins() -> None:
    adapters = {"egn": Path("egn.py"), "egn-v2": Path("egn_v2.py")}
    assert find_adapter("egn-v2-loss", adapters) == Path("egn_v2.py")
    assert find_adapter("egn-retrieval", adapters) == Path("egn.py")
    assert find_adapter("eggn", adapters) is None


def test_a_difference_is_found() -> None:
    theirs = np.array([1.0, 100.0])
    assert difference(theirs + 9e-4, theirs) is None
    assert "differs" in (difference(theirs + 2e-3, theirs) or "")
    assert "shape" in (difference(theirs[:1], theirs) or "")
    assert "finite" in (difference(np.array([np.nan, 100.0]), theirs) or "")
