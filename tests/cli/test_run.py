"""``he2st run``."""

from __future__ import annotations

from pathlib import Path


def test_a_script_runs_here(he2st, tmp_path: Path, monkeypatch) -> None:
    monkeypatch.chdir(tmp_path)
    script = tmp_path / "section.py"
    script.write_text("import napari_he2st as he\nopen('made.txt', 'w').write(he.__version__)\n")
    assert he2st("run", script).code == 0
    assert (tmp_path / "made.txt").read_text()


def test_an_error_in_it_is_told_without_a_traceback(he2st, tmp_path: Path) -> None:
    script = tmp_path / "section.py"
    script.write_text("import napari_he2st as he\nhe.Slide.open('nowhere.svs')\n")
    outcome = he2st("run", script)
    assert outcome.code == 1
    assert "no such file" in outcome.err
    assert "Traceback" not in outcome.err


def test_a_script_that_is_not_there(he2st, tmp_path: Path) -> None:
    outcome = he2st("run", tmp_path / "none.py")
    assert outcome.code == 1
    assert "Copy as Python" in outcome.err
