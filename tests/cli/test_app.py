"""What holds for every command: help, exit codes, errors."""

from __future__ import annotations

import pytest

from napari_he2st.cli import info
from napari_he2st.core.errors import SlideError

COMMANDS = ("info", "models", "predict", "train", "domains", "compare", "export", "cache", "doctor")


def test_help_names_every_command(he2st) -> None:
    outcome = he2st("--help")
    assert outcome.code == 0
    assert all(command in outcome.out for command in COMMANDS)


@pytest.mark.parametrize("command", COMMANDS)
def test_help_teaches_by_example(he2st, command: str) -> None:
    outcome = he2st(command, "--help")
    assert outcome.code == 0
    assert f"he2st {command}" in outcome.out.split("Examples:")[1]


def test_wrong_usage_exits_with_2(he2st) -> None:
    assert he2st("no-such-command").code == 2
    assert he2st("predict").code == 2
    assert he2st("info", "--no-such-option", "x").code == 2


def test_our_errors_are_one_line_and_exit_with_1(he2st, tmp_path) -> None:
    outcome = he2st("info", tmp_path / "missing.svs")
    assert outcome.code == 1
    assert outcome.out == ""
    assert outcome.err.startswith("Error: ")
    assert outcome.err.count("\n") == 1
    assert "missing.svs" in outcome.err


def test_square_brackets_in_an_error_are_kept(he2st, monkeypatch, tmp_path) -> None:
    def fail(*_: object, **__: object) -> None:
        raise SlideError("Cannot read [/bold]", where="a[1].tif")

    monkeypatch.setattr(info, "slide_facts", fail)
    assert "Cannot read [/bold]: a[1].tif" in he2st("info", tmp_path / "a.tif").err


def test_interrupt_exits_with_130(he2st, monkeypatch, tmp_path) -> None:
    def interrupt(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(info, "slide_facts", interrupt)
    assert he2st("info", tmp_path / "a.tif").code == 130


def test_version(he2st) -> None:
    assert he2st("--version").out.startswith("he2st ")
