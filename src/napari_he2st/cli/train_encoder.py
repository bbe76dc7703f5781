"""``he2st train-encoder``: a small encoder from the images alone of the user's own slides."""

from __future__ import annotations

from contextlib import ExitStack
from typing import Annotated

import typer

from napari_he2st.cli import console
from napari_he2st.cli.inputs import open_slide
from napari_he2st.cli.options import Device, Force, Mpp, Output, Seed, examples

app = typer.Typer()


@app.command(
    "train-encoder",
    epilog=examples(
        "he2st train-encoder hipt256-small a.svs b.svs --use -o hipt256-small.safetensors",
        "he2st train-encoder hipt4k-small a.svs b.svs --use -o hipt4k-small.safetensors",
    ),
)
def train_encoder(
    encoder: Annotated[str, typer.Argument(help="hipt256-small, or hipt4k-small on top of it.", show_default=False)],
    slides: Annotated[list[str], typer.Argument(metavar="SLIDE…", help="Slides to learn.", show_default=False)],
    output: Output,
    tiles: Annotated[int, typer.Option("--tiles", min=1, help="Tiles of 128 µm to read in all.")] = 2000,
    epochs: Annotated[int, typer.Option("--epochs", min=1, help="Times that all of them are seen.")] = 20,
    use: Annotated[bool, typer.Option("--use", help="Add the file to the list of weight files.")] = False,
    mpp: Mpp = None,
    device: Device = "auto",
    seed: Seed = 0,
    force: Force = False,
) -> None:
    """Train a small HIPT on slides, without labels or measured genes.

    Both together are the encoder hipt-small of iStar and iSCALE; hipt256-small serves wherever an encoder is named.
    """
    from safetensors.torch import save_file

    from napari_he2st.core.atomic import atomic_write, check_output
    from napari_he2st.engine.train_encoder import train_encoder as train
    from napari_he2st.zoo.weights import name_weights

    check_output(output, force=force)
    with ExitStack() as stack:
        opened = [stack.enter_context(open_slide(slide, mpp=mpp)) for slide in slides]
        bar = stack.enter_context(console.Bar())
        trained = train(encoder, opened, tiles=tiles, epochs=epochs, seed=seed, device=device, control=bar)
    with atomic_write(output, force=force) as aside:
        save_file({key: value.contiguous() for key, value in trained.state.items()}, aside)
    console.note(f"{output}: {encoder}, loss {trained.losses[0]:.3f} → {trained.losses[-1]:.3f}.")
    if use:
        name_weights(encoder, output.resolve())
        console.note(f"{encoder} is now loaded from it wherever it is named.")
