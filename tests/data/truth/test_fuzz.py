"""Damaged files of every layout are read or refused in words: no crash, no hang, no unbounded memory."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest
from tests.data.truth.fuzz import LAYOUTS, MEMORY_GIB, SECONDS


def _fuzz(folder, count):
    command = [sys.executable, "-m", "tests.data.truth.fuzz", str(folder), str(count)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, f"hang over {SECONDS} s of CPU time, or a crash:\n{done.stderr[-3000:]}"
    report = json.loads(done.stdout)
    findings = {what: n for what, n in report["counts"].items() if what not in ("read", "refused")}
    assert not findings, findings
    assert report["total"] == count
    return report


def test_a_few_damaged_sections(tmp_path):
    report = _fuzz(tmp_path, 150)
    assert min(report["counts"]["read"], report["counts"]["refused"]) > 15


@pytest.mark.slow
@pytest.mark.timeout(3600)
def test_many_damaged_sections(tmp_path):
    report = _fuzz(tmp_path, 4000)
    said = f"{report['total']} damaged sections of {len(LAYOUTS)} layouts within {MEMORY_GIB} GiB: {report}"
    print(said)  # noqa: T201 - figures for the record
