"""``he2st export``: results in other programs' formats."""

from __future__ import annotations

from typing import Annotated

import typer

from napari_he2st.cli import console
from napari_he2st.cli.inputs import read_expression
from napari_he2st.cli.options import Force, Options, Output, examples, read_pairs

app = typer.Typer()


@app.command(
    epilog=examples(
        "he2st export slide.h5ad --to csv -o slide.csv",
        "he2st export slide.h5ad --to png --option gene=ERBB2 -o ERBB2.png",
    )
)
def export(
    source: Annotated[
        str, typer.Argument(metavar="IN.h5ad", help="Expression: an h5ad or a section.", show_default=False)
    ],
    to: Annotated[str, typer.Option("--to", help="Format; a wrong name lists all.", show_default=False)],
    output: Output,
    option: Options = None,
    force: Force = False,
) -> None:
    """Write a result in another format."""
    from napari_he2st.core.atomic import check_output
    from napari_he2st.data.export import export as write

    options = read_pairs(option)
    check_output(output, force=force, inputs=(source,))
    written = write(read_expression(source), to, output, force=force, **options)
    console.note(f"{written}")
