"""``he2st models``: the zoo, from its cards."""

from __future__ import annotations

from typing import Annotated

import typer
from rich.markup import escape
from rich.table import Table

from napari_he2st.cli import console
from napari_he2st.cli.options import AsJson, examples

app = typer.Typer()


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
        return
    table = Table(box=None, header_style="bold", padding=(0, 2, 0, 0))
    table.add_column("slug", no_wrap=True)
    table.add_column("title, inputs, licence", ratio=1)
    for name in ("tasks", "year", "status", "weights"):
        table.add_column(name, no_wrap=True)
    for row in rows:
        licence = f"; licence: {row['licence']}" if row["licence"] else ""
        about = f"{escape(row['title'])}\n[dim]{escape(row['inputs'] + licence)}[/]"
        table.add_row(
            row["slug"], about, "\n".join(row["tasks"]), str(row["year"] or ""), row["status"], row["weights"]
        )
    console.out.print(table)
