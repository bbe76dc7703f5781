"""Figures that benchmarks measure, each against its limit, as the table of ``docs/performance.md``."""

from __future__ import annotations

import json
import os
import platform
from collections.abc import Callable
from datetime import date
from pathlib import Path
from typing import Any

import pytest

DOCS = Path(__file__).parents[1] / "docs"
_FIGURES, _PEERS = DOCS / "performance.json", DOCS / "peers.json"
_HEAD = """# Performance

Measured by `make bench`, which writes this page; `make bench-peers` adds the figures of other programs. A row that
misses its limit says so. Seconds of CPU are those of the whole process; shares and ratios are of two measurements in
one run, so that they hold whatever else the machine does. The load says how many others wanted the cores meanwhile.
"""
_MEMORY = """## Memory while a slide is predicted

![Memory over time](images/memory.png)

Resident memory of a process that predicts with the starter and writes to disk, beyond what it takes with the model
loaded and one batch predicted; made by `python -m benchmarks.memory`. The second slide has 100,000² pixels, a quarter
of them tissue.
"""

Record = Callable[..., None]


@pytest.fixture
def figure() -> Record:
    """Keep a figure: ``figure(what, value, unit, at_least=…)`` or ``at_most=…``; fails where the limit is missed."""
    return record


def record(
    what: str,
    value: float,
    unit: str = "",
    *,
    at_least: float | None = None,
    at_most: float | None = None,
    beside: str = "",
) -> None:
    """Keep a figure and rewrite the page, then fail if its limit is missed.

    Parameters
    ----------
    what
        The row, ``"part: what"``.
    value, unit
        The figure.
    at_least, at_most
        Its limit.
    beside
        What is shown beside it and has no limit.
    """
    limit = f"≥ {at_least:g} {unit}" if at_least is not None else f"≤ {at_most:g} {unit}" if at_most is not None else ""
    met = bool((at_least is None or value >= at_least) and (at_most is None or value <= at_most))
    kept = figures()
    kept[what] = {
        "value": f"{value:.3g} {unit}".strip() + (f" ({beside})" if beside else ""),
        "limit": limit.strip(),
        "met": met,
        "machine": machine(),
        "date": date.today().isoformat(),
    }
    _FIGURES.write_text(json.dumps(kept, indent=1, ensure_ascii=False, sort_keys=True) + "\n", encoding="utf-8")
    write_page()
    print(f"\n{what}: {kept[what]['value']} {limit}")
    assert met, f"{what}: {value:.3g} {unit}, wanted {limit}"


def figures() -> dict[str, dict[str, Any]]:
    """All figures that are kept."""
    return json.loads(_FIGURES.read_text(encoding="utf-8")) if _FIGURES.exists() else {}


def machine() -> str:
    """Processor, cores and how busy they are, interpreter: what a figure depends on."""
    info = Path("/proc/cpuinfo")
    lines = info.read_text().splitlines() if info.exists() else []
    name = next((line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")), platform.machine())
    load = os.getloadavg()[0] if hasattr(os, "getloadavg") else float("nan")
    return f"{name}, {os.cpu_count()} cores at load {load:.1f}, Python {platform.python_version()}"


def peers() -> dict[str, dict[str, Any]]:
    """What other programs did, where ``make bench-peers`` was run."""
    return json.loads(_PEERS.read_text(encoding="utf-8")) if _PEERS.exists() else {}


def peer_lines() -> list[str]:
    """Other programs on the slide of 20,480² pixels, as a table."""
    known = peers()
    if not known:
        return []
    lines = ["", "## Other programs", "", "The same slide, patches of 224 px, a model that does nothing, one core.", ""]
    lines += ["| program | what | patches per CPU-s | share of raw decode |", "| --- | --- | --- | --- |"]
    for name, row in known.items():
        done = f"{row['per_cpu_s']:,.0f} | {row['share']:.3f}" if "share" in row else f"did not run: {row['why']} |"
        lines.append(f"| {name} {row.get('version', '')} | {row['what']} | {done} |")
    return lines


def write_page() -> None:
    """Write the page anew from all figures that are kept."""
    lines = [_HEAD, "| what | measured | limit | met | on | date |", "| --- | --- | --- | --- | --- | --- |"]
    for what, row in sorted(figures().items()):
        met = ("yes" if row["met"] else "**no**") if row["limit"] else ""
        lines.append(f"| {what} | {row['value']} | {row['limit']} | {met} | {row['machine']} | {row['date']} |")
    lines += peer_lines()
    if (DOCS / "images" / "memory.png").exists():
        lines += ["", _MEMORY.rstrip()]
    (DOCS / "performance.md").write_text("\n".join(lines) + "\n", encoding="utf-8")
