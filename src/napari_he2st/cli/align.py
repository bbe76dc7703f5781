"""``he2st align``: serial sections into one stack."""

from __future__ import annotations

from typing import Annotated

import typer

from napari_he2st.cli import console
from napari_he2st.cli.inputs import open_section
from napari_he2st.cli.options import Device, Force, Options, Output, Seed, examples, read_pairs

app = typer.Typer()


@app.command(
    epilog=examples(
        "he2st align her2st:C2 her2st:C3 her2st:C4 --method paste --spacing 48 -o stack.h5ad",
        "he2st align a.h5ad b.h5ad --method paste2 --option overlap=0.6 --spacing 10 -o stack.h5ad",
    )
)
def align(
    sections: Annotated[list[str], typer.Argument(metavar="SECTION...", help="Measured sections or h5ad, in order.")],
    output: Output,
    spacing: Annotated[float, typer.Option("--spacing", help="Distance of neighbouring sections, micrometres.")],
    method: Annotated[str, typer.Option("--method", help="How to align; a wrong name lists all.")] = "paste",
    variant: Annotated[str, typer.Option("--variant", help="Named settings of a published method.")] = "default",
    option: Options = None,
    seed: Seed = 0,
    device: Device = "auto",
    force: Force = False,
) -> None:
    """Bring serial sections into register; writes one h5ad with positions in three dimensions."""
    from napari_he2st.core.atomic import atomic_write, check_output
    from napari_he2st.core.schema import facts_of
    from napari_he2st.data.slides import Slide
    from napari_he2st.engine.align import align as bring_together
    from napari_he2st.engine.align import quality, stack

    options = read_pairs(option)
    check_output(output, force=force, inputs=tuple(sections))
    read = [open_section(text) for text in sections]
    slides = [None if s.slide_path is None else Slide.open(s.slide_path, mpp=facts_of(s.adata)["mpp"]) for s in read]
    adatas = [s.adata for s in read]
    found = bring_together(adatas, method, slides=slides, variant=variant, seed=seed, device=device, **options)
    how = {"method": method, "variant": variant, "seed": seed, **options}
    result = stack(adatas, found, spacing, how=how)
    with atomic_write(output, force=force) as aside:
        result.write_h5ad(aside)
    for row in quality(adatas, found).itertuples():
        console.note(
            f"{row.pair}: overlap {row.overlap_before:.0%} → {row.overlap:.0%}, "
            f"gene correlation {row.gene_correlation_before:.2f} → {row.gene_correlation:.2f}, "
            f"residual {row.residual_um:.0f} µm"
        )
    console.note(f"{output}: {len(adatas)} sections, {result.n_obs:,} spots ({method}).")
