"""``he2st impute``: expression of a section from measured ones beside it."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from napari_he2st.cli import console
from napari_he2st.cli.inputs import open_section, open_slide
from napari_he2st.cli.options import Device, Force, Mpp, Output, Seed, examples, read_transform
from napari_he2st.core import keys

app = typer.Typer()


@app.command(
    epilog=examples(
        "he2st train asign --argument volume=true --data her2st:C2 her2st:C3 her2st:C4 -o volume.he2st",
        "he2st impute her2st:C5 --spots her2st:C5 --beside her2st:C4 --model volume.he2st -o C5.h5ad",
        "he2st impute slide.svs --beside visium_1 --transform to_slide.json --model volume.he2st -o slide.h5ad",
    )
)
def impute(
    slide: Annotated[
        str, typer.Argument(metavar="SLIDE", help="A slide, or a section (its image is taken).", show_default=False)
    ],
    model: Annotated[str, typer.Option("--model", "-m", help="A bundle of a system that imputes.", show_default=False)],
    beside: Annotated[
        list[str],
        typer.Option("--beside", metavar="SECTION", help="A measured serial section; repeatable.", show_default=False),
    ],
    output: Output,
    transform: Annotated[
        list[Path] | None,
        typer.Option(
            "--transform",
            metavar="FILE",
            help="Matrix (3 × 3, .json or .npy) from a section's level-0 pixels to the slide's; one for each --beside.",
        ),
    ] = None,
    spots: Annotated[
        str | None, typer.Option("--spots", metavar="SECTION", help="Predict at the spots of this measured section.")
    ] = None,
    mpp: Mpp = None,
    device: Device = "auto",
    seed: Seed = 0,
    force: Force = False,
) -> None:
    """Predict a slide from its image and from measured serial sections beside it.

    Without --transform, spots of different sections are joined by the likeness of their images alone.
    """
    from napari_he2st.core.atomic import check_output
    from napari_he2st.core.schema import facts_of, grid_of
    from napari_he2st.data.export import export
    from napari_he2st.engine.impute import impute as impute_slide
    from napari_he2st.zoo.catalogue import load

    check_output(output, force=force, inputs=tuple(transform or ()))
    section = None if spots is None else open_section(spots, mpp=mpp)
    if section is not None and mpp is None:  # the spots' positions are in pixels of this size
        mpp = facts_of(section.adata)["mpp"]
    with open_slide(slide, mpp=mpp) as image, console.Bar() as bar:
        adata = impute_slide(
            load(model),
            image,
            [open_section(text) for text in beside],
            grid=None if section is None else grid_of(section.adata),
            transforms=None if transform is None else [read_transform(file) for file in transform],
            device=device,
            seed=seed,
            control=bar,
        )
        export(adata, "h5ad", output, force=force, slide=image)
    console.note(f"{output}: {adata.n_obs} spots × {adata.n_vars} genes. {keys.RESEARCH_USE}")
