"""Entry point of ``he2st``: the commands, and how errors and interrupts become exit codes.

Exit codes: 0 done, 1 an error the user can act on, 2 wrong usage, 130 stopped with Ctrl-C.
"""

from __future__ import annotations

from typing import Annotated

import typer

from napari_he2st._version import __version__
from napari_he2st.cli import (
    align,
    benchmark,
    cache,
    compare,
    console,
    datasets,
    doctor,
    domains,
    encoders,
    export,
    hub,
    import_weights,
    impute,
    info,
    models,
    nuclei,
    predict,
    run,
    spatial_genes,
    train,
    train_encoder,
    train_slides,
)
from napari_he2st.cli.options import examples
from napari_he2st.core.errors import He2stError

app = typer.Typer(
    name="he2st",
    help="Turn routine H&E slides into spatial transcriptomics: predict, compare, segment, export.",
    epilog=examples(
        "he2st info slide.svs",
        "he2st predict slide.svs --model starter -o slide.h5ad",
        "he2st compare slide.h5ad visium_folder --report report.html -o genes.csv",
        "Measured sections are named PATH, or PATH:NAME where a folder holds several (her2st:C5).",
    ),
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)
_MODULES = (
    info,
    models,
    encoders,
    nuclei,
    predict,
    impute,
    train,
    train_slides,
    train_encoder,
    benchmark,
    hub,
    import_weights,
    domains,
    spatial_genes,
    align,
    compare,
    export,
    run,
    doctor,
)
for _module in _MODULES:
    app.add_typer(_module.app)
app.add_typer(datasets.app, name="datasets")
app.add_typer(cache.app, name="cache")


def _show_version(wanted: bool) -> None:
    if wanted:
        console.out.print(f"he2st {__version__}", highlight=False)
        raise typer.Exit


@app.callback()
def _root(
    version: Annotated[
        bool, typer.Option("--version", callback=_show_version, is_eager=True, help="Show the version and stop.")
    ] = False,
) -> None:
    pass


def main(arguments: list[str] | None = None) -> None:
    """Run the command line; ``arguments`` are those of the process unless given.

    Raises
    ------
    SystemExit
        Always; its code says how it went.
    """
    try:
        app(arguments, prog_name="he2st")
    except He2stError as error:
        console.fail(error)
        raise SystemExit(1) from None
