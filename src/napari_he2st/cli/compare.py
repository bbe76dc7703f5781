"""``he2st compare``: predicted against measured expression, gene by gene."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from napari_he2st.cli import console
from napari_he2st.cli.inputs import read_expression
from napari_he2st.cli.options import AsJson, Force, Output, examples

app = typer.Typer()


@app.command(
    epilog=examples(
        "he2st compare C5.h5ad her2st:C5 -o genes.csv",
        "he2st compare C5.h5ad her2st:C5 --report report.html -o genes.csv",
        "he2st compare predicted.h5ad measured.h5ad --json -o genes.csv",
    )
)
def compare(
    predicted: Annotated[Path, typer.Argument(metavar="PREDICTED.h5ad", help="A prediction.", show_default=False)],
    measured: Annotated[
        str, typer.Argument(metavar="MEASURED", help="A section (PATH or PATH:NAME) or an h5ad.", show_default=False)
    ],
    output: Output,
    report: Annotated[Path | None, typer.Option("--report", help="Also write an HTML report.")] = None,
    as_json: AsJson = False,
    force: Force = False,
) -> None:
    """Score a prediction against measured expression, gene by gene."""
    from napari_he2st.core.atomic import check_output
    from napari_he2st.engine.compare import compare as compare_results
    from napari_he2st.engine.report import write_report, write_table

    check_output(output, force=force, inputs=(predicted, measured))
    if report is not None:
        check_output(report, force=force, inputs=(predicted, measured))
    comparison = compare_results(read_expression(str(predicted)), read_expression(measured))
    write_table(comparison, output, force=force)
    if report is not None:
        write_report(comparison, report, force=force)
    for warning in comparison.warnings:
        console.note(warning)
    if as_json:
        console.print_json(comparison.summary)
    else:
        console.print_fields(comparison.summary)
