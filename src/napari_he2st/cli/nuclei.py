"""``he2st nuclei``: nuclei of a slide as a label image."""

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
        "he2st nuclei slide.svs --option sensitivity=1.2 -o nuclei.tif",
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
    """Find nuclei and write them as a TIFF label image that shows the whole slide.

    It is what --nuclei of he2st predict and he2st train takes.
    """
    import tifffile

    from napari_he2st.core.atomic import atomic_write, check_output
    from napari_he2st.engine.nuclei import find_nuclei

    check_output(output, force=force)
    area = read_box(region)
    with open_slide(slide, mpp=mpp) as image, console.Bar() as bar:
        found = find_nuclei(image, method, mpp=at, region=area, options=read_pairs(option), control=bar)
    with atomic_write(output, force=force) as aside:
        tifffile.imwrite(aside, found.labels, compression="zlib", tile=(512, 512))
    console.note(f"{output}: {len(found.numbers):,} nuclei at {found.mpp:.3g} µm/px.")
