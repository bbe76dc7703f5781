"""``he2st datasets``: the public data sets of the field, and how they come onto this machine."""

from __future__ import annotations

from typing import Annotated, Any

import typer
from rich.markup import escape
from rich.table import Table

from napari_he2st.cli import console
from napari_he2st.cli.options import AsJson, examples

app = typer.Typer(
    help="List, describe and download public data sets.",
    invoke_without_command=True,
    epilog=examples("he2st datasets", "he2st datasets show HER2", "he2st datasets get HER2 --only '*C5*'"),
)
_Name = Annotated[str, typer.Argument(metavar="NAME", help="Name of the data set.", show_default=False)]


@app.callback()
def datasets(context: typer.Context, as_json: AsJson = False) -> None:
    """List the public data sets."""
    if context.invoked_subcommand is not None:
        return
    from napari_he2st.data.truth.catalogue import catalogue

    rows = [_facts(name) for name in catalogue()]
    if as_json:
        console.print_json(rows)
        return
    table = Table(box=None, padding=(0, 2, 0, 0))
    columns = ("name", "organ", "technology", "slides", "spots", "licence", "download", "here")
    for column in columns:
        table.add_column(column, justify="right" if column in ("slides", "spots") else "left")
    for row in rows:
        table.add_row(*(escape(_text(row[column])) for column in columns))
    console.out.print(table)


@app.command()
def show(name: _Name, as_json: AsJson = False) -> None:
    """Say what is known of a data set, and where its files have to lie."""
    facts = _facts(name)
    if as_json:
        console.print_json(facts)
        return
    console.print_fields({key: _text(value) for key, value in facts.items()})


@app.command()
def get(
    name: _Name,
    only: Annotated[str, typer.Option("--only", help="Pattern of the files to download.")] = "*",
) -> None:
    """Download a data set; what is here already is not downloaded again."""
    from napari_he2st.data.truth.catalogue import dataset

    chosen = dataset(name)
    with console.Bar() as bar:
        files = chosen.fetch(bar, only=only)
    console.note(f"{len(files)} files in {chosen.folder}. Cite: {chosen.citation}")
    console.note(f"See it with: he2st info {chosen.folder}")


def _facts(name: str) -> dict[str, Any]:
    """What is known of a data set, for people and for scripts."""
    from dataclasses import asdict

    from napari_he2st.data.truth.catalogue import dataset

    chosen = dataset(name)
    facts = asdict(chosen)
    n_files = len(facts.pop("files"))
    facts["download"] = f"{n_files} files, {(chosen.bytes or 0) / 1e6:.0f} MB" if n_files else None
    facts["folder"] = str(chosen.folder)
    facts["here"] = chosen.folder.is_dir()
    return facts


def _text(value: Any) -> str:
    """A fact as a person reads it; what is not known is said."""
    if value is None:
        return "unknown"
    return f"{value:,}" if isinstance(value, int) and not isinstance(value, bool) else console.as_text(value)
