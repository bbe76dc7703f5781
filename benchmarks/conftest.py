"""Figures that benchmarks measure, each against its limit, as the table of ``docs/performance.md``."""

from __future__ import annotations

import json
import os
import platform
from collections.abc import Callable
from datetime import date
from pathlib import Path

import pytest

DOCS = Path(__file__).parents[1] / "docs"
_FIGURES = DOCS / "performance.json"

Record = Callable[..., None]


@pytest.fixture
def figure() -> Record:
    """Keep a figure: ``figure(what, value, unit, at_least=…)`` or ``at_most=…``; fails where the limit is missed."""

    def record(
        what: str, value: float, unit: str = "", *, at_least: float | None = None, at_most: float | None = None
    ) -> None:
        kept = json.loads(_FIGURES.read_text()) if _FIGURES.exists() else {}
        limit = f"≥ {at_least:g}" if at_least is not None else f"≤ {at_most:g}" if at_most is not None else ""
        kept[what] = {
            "value": f"{value:.3g} {unit}".strip(),
            "limit": f"{limit} {unit}".strip() if limit else "",
            "machine": machine(),
            "date": date.today().isoformat(),
        }
        _FIGURES.write_text(json.dumps(kept, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
        assert at_least is None or value >= at_least, f"{what}: {value:.3g} {unit}, wanted {limit}"
        assert at_most is None or value <= at_most, f"{what}: {value:.3g} {unit}, wanted {limit}"

    return record


def machine() -> str:
    """Processor, cores and how busy they are, interpreter: what a figure depends on."""
    info = Path("/proc/cpuinfo")
    lines = info.read_text().splitlines() if info.exists() else []
    name = next((line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")), platform.machine())
    load = os.getloadavg()[0] if hasattr(os, "getloadavg") else float("nan")
    return f"{name}, {os.cpu_count()} cores at load {load:.1f}, Python {platform.python_version()}"


def pytest_sessionfinish() -> None:
    """Write the table anew from all figures that are kept."""
    if not _FIGURES.exists():
        return
    rows = json.loads(_FIGURES.read_text())
    lines = [
        "# Performance",
        "",
        "Measured by `make bench`, which writes this page. Seconds of CPU are those of the whole process; the load says",
        "how many others wanted the cores meanwhile.",
        "",
        "| what | measured | limit | on | date |",
        "| --- | --- | --- | --- | --- |",
        *(
            f"| {what} | {r['value']} | {r['limit']} | {r['machine']} | {r['date']} |"
            for what, r in sorted(rows.items())
        ),
        "",
    ]
    (DOCS / "performance.md").write_text("\n".join(lines), encoding="utf-8")
