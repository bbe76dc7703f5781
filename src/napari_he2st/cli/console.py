"""What the terminal shows: results on stdout; progress, notes and errors on stderr."""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Mapping
from types import TracebackType
from typing import Any, Self

from rich.console import Console
from rich.markup import escape
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn
from rich.table import Table

from napari_he2st.core.errors import He2stError
from napari_he2st.core.progress import Control

out = Console()
err = Console(stderr=True)


def fail(error: He2stError) -> None:
    """Print what is wrong, where, and what to do."""
    err.print(f"[bold red]Error:[/] [red]{escape(str(error))}[/]", highlight=False, soft_wrap=True)


def warn(text: str) -> None:
    """Print something the user should know; the work goes on."""
    err.print(f"[bold yellow]Warning:[/] {escape(text)}", highlight=False, soft_wrap=True)


def note(text: str) -> None:
    """Print how the work went."""
    err.print(escape(text), highlight=False, soft_wrap=True)


def print_json(value: Any) -> None:
    """Print a value as JSON: numbers that are not finite become null."""
    print(json.dumps(_plain(value), indent=2, ensure_ascii=False))  # noqa: T201 - rich would wrap and colour it


def _plain(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {str(key): _plain(item) for key, item in value.items()}
    if hasattr(value, "tolist"):  # numpy's numbers and arrays
        return _plain(value.tolist())
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if value is None or isinstance(value, str | int):
        return value
    if isinstance(value, Iterable):
        return [_plain(item) for item in value]
    return str(value)


def print_fields(fields: Mapping[str, Any]) -> None:
    """Print names and values below each other; fields without a value are left out."""
    table = Table(box=None, show_header=False, padding=(0, 2, 0, 0))
    table.add_column(style="bold", no_wrap=True)
    table.add_column(overflow="fold")
    for name, value in fields.items():
        if value is not None and value != [] and value != "":
            table.add_row(name.replace("_", " "), escape(as_text(value)))
    out.print(table)


def print_rows(columns: Iterable[str], rows: Iterable[Iterable[str]]) -> None:
    """Print a table with a head."""
    table = Table(*columns, box=None, header_style="bold", padding=(0, 2, 0, 0))
    for row in rows:
        table.add_row(*map(escape, row))
    out.print(table)


def as_text(value: Any) -> str:
    """A value as a person reads it."""
    if value is None:
        return "–"
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, float):
        return f"{value:.4g}"
    if isinstance(value, Mapping):
        return ", ".join(f"{key} {as_text(item)}" for key, item in value.items())
    if isinstance(value, list | tuple):
        return ", ".join(as_text(item) for item in value)
    return str(value)


class Bar(Control):
    """A progress bar on stderr that long work reports to."""

    def __init__(self) -> None:
        super().__init__()
        self._progress = Progress(
            TextColumn("{task.description}"),
            BarColumn(),
            MofNCompleteColumn(),
            TimeElapsedColumn(),
            TimeRemainingColumn(),
            console=err,
        )
        self._task = self._progress.add_task("", visible=False)

    def start(self, total: int | None, what: str) -> None:
        """Begin a stage with an empty bar."""
        super().start(total, what)
        self._progress.reset(self._task, description=what, total=total, visible=True)

    def advance(self, n: int = 1) -> None:
        """Move the bar by ``n`` steps."""
        self._progress.advance(self._task, n)
        super().advance(n)

    def note(self, text: str) -> None:
        """Print it above the bar."""
        super().note(text)
        warn(text)

    def __enter__(self) -> Self:
        self._progress.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._progress.stop()
