"""``he2st nuclei``: nuclei of a slide as a label image or as polygons."""

from __future__ import annotations

from typing import Annotated

import typer

from napari_he2st.cli import console
from napari_he2st.cli.inputs import open_slide
from napari_he2st.cli.options import Force, Mpp, Options, Output, examples, read_box, read_pairs

app = typer.Typer()


@app.command(
    epilog=examples(
        "he2st nuclei slide.svs -o nuclei.tif",
        "he2st nuclei slide.svs --option sensitivity=1.2 -o nuclei.geojson",
        "he2st predict slide.svs --model cells.he2st --nuclei nuclei.tif -o cells.h5ad",
    )
)
def nuclei(
    slide: Annotated[str, typer.Argument(metavar="SLIDE", help="A slide.", show_default=False)],
    output: Output,
    method: Annotated[str, typer.Option("--method", help="haematoxylin, instanseg or cellpose.")] = "haematoxylin",
    at: Annotated[float, typer.Option("--at", help="Pixel size at which nuclei are found, µm.")] = 0.5,
    region: Annotated[str | None, typer.Option("--region", metavar="X,Y,W,H", help="Level-0 pixels.")] = None,
    option: Options = None,
    mpp: Mpp = None,
    force: Force = False,
) -> None:
    """Find nuclei and write them: .tif is a label image of the whole slide, .geojson has polygons for QuPath.

    Either is what --nuclei of he2st predict and he2st train takes.
    """
    from napari_he2st.core.atomic import atomic_write, check_output
    from napari_he2st.data.nuclei import NUCLEI_FILES, write_nuclei
    from napari_he2st.engine.nuclei import find_nuclei

    check_output(output, force=force)
    if output.suffix.lower() not in NUCLEI_FILES:
        message = f"Nuclei are written as {' or '.join(NUCLEI_FILES)}, not {output.suffix or 'without an ending'}"
        raise typer.BadParameter(message)
    area = read_box(region)
    regions = None if area is None else [area]
    with open_slide(slide, mpp=mpp) as image, console.Bar() as bar:
        found = find_nuclei(image, method, mpp=at, regions=regions, options=read_pairs(option), control=bar)
        with atomic_write(output, force=force) as aside:
            write_nuclei(found, aside, image.mpp)
    console.note(f"{output}: {len(found.numbers):,} nuclei at {found.mpp:.3g} µm/px.")
