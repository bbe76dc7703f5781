"""``he2st spatial-genes``: genes ranked by how their expression lies in the tissue."""

from __future__ import annotations

from typing import Annotated

import typer

from napari_he2st.cli import console
from napari_he2st.cli.inputs import read_expression
from napari_he2st.cli.options import Force, Output, examples

app = typer.Typer()


@app.command(
    "spatial-genes",
    epilog=examples(
        "he2st spatial-genes her2st:C2 -o genes.csv",
        "he2st spatial-genes domains.h5ad --domain D2 -o markers.csv",
    ),
)
def spatial_genes(
    source: Annotated[str, typer.Argument(metavar="IN", help="A section or an h5ad.", show_default=False)],
    output: Output,
    domain: Annotated[
        str | None,
        typer.Option("--domain", help="Instead, genes of this domain of he2st domains against those around (SpaGCN)."),
    ] = None,
    force: Force = False,
) -> None:
    """Rank all genes by Moran's I, with Geary's C; or find the genes of one domain."""
    from napari_he2st.core.atomic import atomic_write, check_output
    from napari_he2st.engine.segment import neighbour_markers, pattern_table, read_domains

    check_output(output, force=force, inputs=(source,))
    adata = read_expression(source)
    if domain is None:
        table = pattern_table(adata)
    else:
        domains = read_domains(adata)
        table = neighbour_markers(adata, domains, domains.label_of(domain))
    with atomic_write(output, force=force) as aside:
        table.to_csv(aside, index=False)
    console.note(f"{output}: {len(table):,} genes, first {', '.join(table['gene'].head(5)) or 'none'}.")
