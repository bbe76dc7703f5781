"""``he2st models``: the zoo, from its cards."""

from __future__ import annotations

from typing import Annotated

import typer

from napari_he2st.cli import console
from napari_he2st.cli.options import AsJson, examples

app = typer.Typer()

COLUMNS = ("slug", "title", "tasks", "year", "status", "inputs", "licence", "weights")


@app.command(epilog=examples("he2st models", "he2st models --task regression", "he2st models --json"))
def models(
    task: Annotated[str | None, typer.Option("--task", help="Only systems for this task.")] = None,
    as_json: AsJson = False,
) -> None:
    """List trained predictors and the systems of the zoo."""
    from napari_he2st.zoo import catalogue

    rows = catalogue.models(task)
    if as_json:
        console.print_json(rows)
    else:
        console.print_rows(rows, COLUMNS)
