"""``he2st predict``: expression of a whole slide, a region, or the spots of a measured section."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from napari_he2st.cli import console
from napari_he2st.cli.inputs import load_or_fit, open_section, open_slide, read_given
from napari_he2st.cli.options import (
    Cells,
    Device,
    Force,
    Measured,
    Mpp,
    Nuclei,
    Options,
    Output,
    Samples,
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
    from anndata import AnnData

    from napari_he2st.core.types import Grid
    from napari_he2st.data.slides import Slide
    from napari_he2st.data.truth import Section

app = typer.Typer()

_SHOWN = 8
"""Results of a whole slide that are said."""


@app.command(
    epilog=examples(
        "he2st predict slide.svs --model starter -o slide.h5ad",
        "he2st predict scan.png --mpp 0.5 --model starter --region 2000,3000,4000,4000 -o corner.h5ad",
        "he2st predict her2st:C5 --spots her2st:C5 --model starter -o C5.h5ad",
        "he2st predict --slides list.csv --model starter --scheduler local -o predictions",
        "he2st predict slide.svs --model mine.he2st --genes panel.txt --store run.zarr -o slide.h5ad",
    )
)
def predict(
    output: Output,
    slide: Annotated[
        str | None,
        typer.Argument(metavar="[SLIDE]", help="A slide, or a section (its image is taken).", show_default=False),
    ] = None,
    model: Annotated[
        str | None, typer.Option("--model", "-m", help="A name of he2st models, or a bundle.", show_default=False)
    ] = None,
    slides: Annotated[
        Path | None,
        typer.Option("--slides", help="In place of SLIDE: a CSV file with a column slide; --output is a folder then."),
    ] = None,
    scheduler: Annotated[
        str | None,
        typer.Option("--scheduler", metavar="ADDRESS", help="With --slides: tcp://… of a dask scheduler, or local."),
    ] = None,
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
        Stain | None, typer.Option("--stain", help="Normalise the slide's stain first; by default as it was trained.")
    ] = None,
    icc: Annotated[
        bool, typer.Option("--icc/--no-icc", help="Convert colours to sRGB where the slide has an ICC profile.")
    ] = True,
    store: Annotated[
        Path | None, typer.Option("--store", help="Folder that keeps the run, so that it can go on after a stop.")
    ] = None,
    precision: Annotated[
        Literal["float32", "float16"], typer.Option("--precision", help="Of the values that are kept while it runs.")
    ] = "float32",
    nuclei: Nuclei = None,
    cells: Cells = None,
    measured: Measured = None,
    samples: Samples = None,
    device: Device = "auto",
    seed: Seed = 0,
    option: Options = None,
    plan: Annotated[bool, typer.Option("--plan", help="Only say what the run would cost.")] = False,
    force: Force = False,
) -> None:
    """Predict gene expression from an H&E slide and write it as h5ad.

    A run that was stopped goes on where it was when the same command is given again. A system that learns the
    slide it predicts is trained on the --measured spots first. With --slides, many slides are predicted at their
    predictors' pitch, on a cluster if there is a --scheduler; columns model, output, mpp and pitch_um are optional.
    """
    from napari_he2st.core.atomic import check_output
    from napari_he2st.core.schema import facts_of
    from napari_he2st.data.export import export
    from napari_he2st.engine.estimate import estimate
    from napari_he2st.engine.predict import predict_slide, tissue_grid
    from napari_he2st.engine.slide_level import sees_bag

    area, options = read_box(region), read_pairs(option)
    panel = None if genes is None else read_genes(genes).symbols
    if slides is not None and slide is None:
        run = {"genes": panel, "device": device, "seed": seed, "options": options, "n_samples": samples}
        run["precision"] = precision
        _predict_many(slides, output, model, scheduler, icc=icc, force=force, run=run)
        return
    if slide is None or slides is not None or model is None:
        message = "Name a SLIDE and its --model, or a list with --slides"
        raise typer.BadParameter(message)
    check_output(output, force=force)
    kept = store or output.with_name(f"{output.name}.partial")
    section = None if spots is None else open_section(spots, mpp=mpp)
    if section is not None and mpp is None:  # the spots' positions are in pixels of this size
        mpp = facts_of(section.adata)["mpp"]
    try:
        with open_slide(slide, mpp=mpp, icc=icc) as image, console.Bar() as bar:
            given = read_given(image, nuclei=nuclei, cells=cells, measured=measured)
            bundle = load_or_fit(model, image, given, measured, seed=seed, device=device)
            if sees_bag(bundle.members[0]):
                if plan:
                    message = "--plan is for predictors of spots; this one gives one result for the slide"
                    raise typer.BadParameter(message)
                adata = predict_slide(
                    bundle,
                    image,
                    grid=None if section is None else _spots_of(section, image),
                    pitch_um=pitch,
                    region=area,
                    genes=panel,
                    store=store,
                    device=device,
                    seed=seed,
                    n_samples=samples,
                    stain=stain,
                    control=bar,
                )
                export(adata, "h5ad", output, force=force, slide=image)
                _say(output, adata)
                return
            grid = tissue_grid(bundle, image, pitch, given) if section is None else _spots_of(section, image)
            if plan:
                how: dict[str, Any] = {"region": area, "device": device, "genes": panel}
                how |= {"n_samples": samples, "options": options, "precision": precision}
                console.print_fields(estimate(bundle, image, grid, given=given, **how).facts())
                return
            adata = predict_slide(
                bundle,
                image,
                grid=grid,
                region=area,
                genes=panel,
                store=kept,
                precision=precision,
                device=device,
                seed=seed,
                n_samples=samples,
                options=options,
                stain=stain,
                given=given,
                control=bar,
            )
            export(adata, "h5ad", output, force=force, slide=image)
    except (KeyboardInterrupt, Cancelled):
        console.note(f"Stopped. What is done is kept in {kept}: the same command goes on from there.")
        raise typer.Exit(130) from None
    if store is None:
        shutil.rmtree(kept)
    _say(output, adata)


def _say(output: Path, adata: AnnData) -> None:
    """What was predicted, and what could not be read."""
    from napari_he2st.core.schema import slide_result

    unreadable, rows = adata.uns[keys.UNS]["unreadable_spots"], "cells" if keys.POLYGON in adata.obs else "spots"
    if unreadable:
        console.warn(f"{unreadable:,} of {adata.n_obs:,} {rows} could not be read; they are unknown in the result.")
    whole = sorted(slide_result(adata).items(), key=lambda entry: -entry[1])
    if whole:
        shown = ", ".join(f"{name} {value:.3g}" for name, value in whole[:_SHOWN])
        console.note(f"The slide: {shown}{' …' if len(whole) > _SHOWN else ''}")
    what = "tiles with what this rests on" if whole else f"{rows} × {adata.n_vars} genes"
    console.note(f"{output}: {adata.n_obs} {what}. {keys.RESEARCH_USE}")


def _spots_of(section: Section, slide: Slide) -> Grid:
    """The spots of a section; warns when they do not fit the slide."""
    from napari_he2st.core.schema import grid_of
    from napari_he2st.data.slides.tissue import tissue_mask
    from napari_he2st.data.truth.fit import check_fit

    fit = check_fit(section.adata, tissue_mask(slide))
    if fit.message:
        console.warn(fit.message)
    return grid_of(section.adata)


def _predict_many(
    table: Path,
    folder: Path,
    model: str | None,
    scheduler: str | None,
    *,
    icc: bool,
    force: bool,
    run: dict[str, Any],
) -> None:
    """Predict the slides of a list, and say of each when it is done."""
    from napari_he2st.core.atomic import check_output
    from napari_he2st.engine.cohort import read_jobs, run_jobs

    jobs = read_jobs(table, folder, model=model, icc=icc)
    for job in jobs:
        check_output(job.output, force=force)
    try:
        with console.Bar() as bar:
            for job, adata in run_jobs(jobs, scheduler=scheduler, control=bar, **run):
                console.note(f"{job.output}: {adata.n_obs} spots × {adata.n_vars} genes. {keys.RESEARCH_USE}")
    except (KeyboardInterrupt, Cancelled):
        console.note(f"Stopped. What is done is kept in {folder}: the same command goes on from there.")
        raise typer.Exit(130) from None
