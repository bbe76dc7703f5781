"""``he2st domains``: tissue domains of measured or predicted expression."""

from __future__ import annotations

from typing import Annotated

import typer

from napari_he2st.cli import console
from napari_he2st.cli.inputs import read_expression
from napari_he2st.cli.options import Force, Options, Output, Seed, examples, read_pairs

app = typer.Typer()


@app.command(
    epilog=examples(
        "he2st domains slide.h5ad --method leiden -o domains.h5ad",
        "he2st domains slide.h5ad --method kmeans --n 7 -o domains.h5ad",
    )
)
def domains(
    source: Annotated[
        str, typer.Argument(metavar="IN.h5ad", help="Expression: an h5ad or a section.", show_default=False)
    ],
    method: Annotated[str, typer.Option("--method", help="How to group spots; a wrong name lists all.")],
    output: Output,
    n: Annotated[int | None, typer.Option("--n", min=1, help="How many domains, where the method can be told.")] = None,
    option: Options = None,
    seed: Seed = 0,
    force: Force = False,
) -> None:
    """Group spots into tissue domains, written into the h5ad as obs["domain"]."""
    from napari_he2st.core.atomic import check_output
    from napari_he2st.data.export import export
    from napari_he2st.engine.segment import segment

    options = read_pairs(option)
    check_output(output, force=force, inputs=(source,))
    adata = read_expression(source)
    found = segment(adata, method, n_domains=n, seed=seed, **options)
    export(adata, "h5ad", output, force=force)
    console.note(f"{output}: {found.n_domains} domains ({method}).")
