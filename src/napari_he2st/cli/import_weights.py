"""``he2st import-weights``: a bundle from a published checkpoint."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from napari_he2st.cli import console
from napari_he2st.cli.options import Force, Output, examples, read_genes, read_pairs, read_values

app = typer.Typer()


@app.command(
    "import-weights",
    epilog=examples(
        "he2st import-weights histogene fold5.ckpt --genes her2_785.txt --mpp 0.69 --pitch 200 -o histogene-her2",
        "he2st import-weights stpath hf:tlhuang/STPath/stpath.pkl --genes stpath.txt --mpp 0.5 --pitch 100 -o stpath",
    ),
)
def import_weights(
    system: Annotated[str, typer.Argument(metavar="SYSTEM", help="A system of he2st models.", show_default=False)],
    checkpoint: Annotated[
        str,
        typer.Argument(
            metavar="CHECKPOINT", help="safetensors, .pt, .pth or .ckpt; or hf:OWNER/REPO/FILE.", show_default=False
        ),
    ],
    genes: Annotated[
        Path, typer.Option("--genes", help="File with the symbols of the outputs, one per line.", show_default=False)
    ],
    mpp: Annotated[float, typer.Option("--mpp", help="Pixel size of its training tiles, µm.", show_default=False)],
    pitch: Annotated[float, typer.Option("--pitch", help="Distance of its spots, µm.", show_default=False)],
    output: Output,
    argument: Annotated[
        list[str] | None,
        typer.Option("--argument", metavar="NAME=VALUE", help="An argument of the network; repeatable."),
    ] = None,
    beside: Annotated[
        list[str] | None,
        typer.Option("--beside", metavar="NAME=FILE", help="What the system asks for: .json, .npy, .npz; repeatable."),
    ] = None,
    name: Annotated[str | None, typer.Option("--name", help="What the bundle is called, without spaces.")] = None,
    organ: Annotated[list[str] | None, typer.Option("--organ", help="Of the training data; repeatable.")] = None,
    species: Annotated[list[str] | None, typer.Option("--species", help="Of the training data; repeatable.")] = None,
    licence: Annotated[str, typer.Option("--licence", help="Of the weights.")] = "",
    force: Force = False,
) -> None:
    """Make a bundle of a published checkpoint.

    Checkpoints do not know their genes: give them with --genes, in the order of the outputs. Some systems need more
    that is not in the checkpoint, such as statistics of the training pixels: they ask for it by name.
    """
    from napari_he2st.core.atomic import check_output
    from napari_he2st.engine.import_weights import import_weights as load
    from napari_he2st.engine.trained import About

    files = {key: Path(str(file)) for key, file in read_pairs(beside).items()}
    own = () if checkpoint.startswith("hf:") else (Path(checkpoint),)
    check_output(output, force=force, inputs=(genes, *own, *files.values()))
    about = About(name=name, organs=tuple(organ or ()), species=tuple(species or ()), licence=licence)
    panel = read_genes(genes).symbols
    bundle = load(
        system,
        checkpoint,
        panel,
        mpp=mpp,
        pitch_um=pitch,
        arguments=read_pairs(argument),
        beside={key: read_values(file) for key, file in files.items()},
        about=about,
    )
    bundle.save(output, force=force)
    console.note(f"{output}: {system} for {len(bundle.genes)} genes, from {checkpoint}.")
