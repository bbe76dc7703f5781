"""``he2st predict``: expression of a whole slide, a region, or the spots of a measured section."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from napari_he2st.cli import console
from napari_he2st.cli.inputs import open_section, open_slide
from napari_he2st.cli.options import (
    Device,
    Force,
    Mpp,
    Options,
    Output,
    Seed,
    Stain,
    examples,
    read_box,
    read_genes,
    read_pairs,
)
from napari_he2st.core import keys
from napari_he2st.core.progress import Cancelled

if TYPE_CHECKING:
    from napari_he2st.core.types import Grid
    from napari_he2st.data.slides import Slide
    from napari_he2st.data.truth import Section

app = typer.Typer()


@app.command(
    epilog=examples(
        "he2st predict slide.svs --model starter -o slide.h5ad",
        "he2st predict scan.png --mpp 0.5 --model starter --region 2000,3000,4000,4000 -o corner.h5ad",
        "he2st predict her2st:C5 --spots her2st:C5 --model starter -o C5.h5ad",
        "he2st predict slide.svs --model mine.he2st --genes panel.txt --store run.zarr -o slide.h5ad",
    )
)
def predict(
    slide: Annotated[
        str, typer.Argument(metavar="SLIDE", help="A slide, or a section (its image is taken).", show_default=False)
    ],
    model: Annotated[
        str, typer.Option("--model", "-m", help="A name of he2st models, or a bundle.", show_default=False)
    ],
    output: Output,
    mpp: Mpp = None,
    spots: Annotated[
        str | None, typer.Option("--spots", metavar="SECTION", help="Predict at the spots of this measured section.")
    ] = None,
    region: Annotated[
        str | None, typer.Option("--region", metavar="X,Y,W,H", help="Only this box, in level-0 pixels.")
    ] = None,
    pitch: Annotated[
        float | None, typer.Option("--pitch", help="Distance between spots, µm; by default the predictor's own.")
    ] = None,
    genes: Annotated[
        Path | None, typer.Option("--genes", help="Keep only these genes: a file with one per line.")
    ] = None,
    stain: Annotated[
        Stain | None, typer.Option("--stain", help="Normalise the slide's stain before predicting.")
    ] = None,
    store: Annotated[
        Path | None, typer.Option("--store", help="Folder that keeps the run, so that it can go on after a stop.")
    ] = None,
    measured: Annotated[
        str | None,
        typer.Option("--measured", metavar="SECTION", help="Spots measured on this slide, for models that use some."),
    ] = None,
    samples: Annotated[
        int | None,
        typer.Option("--samples", min=1, help="Draws of models that draw at random; by default as many as published."),
    ] = None,
    device: Device = "auto",
    seed: Seed = 0,
    option: Options = None,
    force: Force = False,
) -> None:
    """Predict gene expression from an H&E slide and write it as h5ad.

    A run that was stopped goes on where it was when the same command is given again.
    """
    from napari_he2st.core.atomic import check_output
    from napari_he2st.core.schema import facts_of
    from napari_he2st.data.export import export
    from napari_he2st.engine.features import Given
    from napari_he2st.engine.predict import predict_slide
    from napari_he2st.zoo.catalogue import load

    area, options = read_box(region), read_pairs(option)
    panel = None if genes is None else read_genes(genes).symbols
    check_output(output, force=force)
    bundle = load(model)
    section = None if spots is None else open_section(spots, mpp=mpp)
    if section is not None and mpp is None:  # the spots' positions are in pixels of this size
        mpp = facts_of(section.adata)["mpp"]
    kept = store or output.with_name(f"{output.name}.partial")
    try:
        with open_slide(slide, mpp=mpp) as image, console.Bar() as bar:
            adata = predict_slide(
                bundle,
                image,
                grid=None if section is None else _spots_of(section, image),
                pitch_um=pitch,
                region=area,
                genes=panel,
                store=kept,
                device=device,
                seed=seed,
                n_samples=samples,
                options=options,
                stain=stain,
                given=Given(None if measured is None else open_section(measured, mpp=mpp).adata),
                control=bar,
            )
            export(adata, "h5ad", output, force=force, slide=image)
    except (KeyboardInterrupt, Cancelled):
        console.note(f"Stopped. What is done is kept in {kept}: the same command goes on from there.")
        raise typer.Exit(130) from None
    if store is None:
        shutil.rmtree(kept)
    console.note(f"{output}: {adata.n_obs} spots × {adata.n_vars} genes. {keys.RESEARCH_USE}")


def _spots_of(section: Section, slide: Slide) -> Grid:
    """The spots of a section; warns when they do not fit the slide."""
    from napari_he2st.core.schema import grid_of
    from napari_he2st.data.slides.tissue import tissue_mask
    from napari_he2st.data.truth.fit import check_fit

    fit = check_fit(section.adata, tissue_mask(slide))
    if fit.message:
        console.warn(fit.message)
    return grid_of(section.adata)
