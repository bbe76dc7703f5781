"""``he2st push`` and ``he2st pull``: hand trained predictors on."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from napari_he2st.cli import console
from napari_he2st.cli.options import Force, examples

app = typer.Typer()

Address = Annotated[str, typer.Argument(metavar="WHERE", help="A folder, or hf://OWNER/NAME.", show_default=False)]


@app.command(
    epilog=examples(
        "he2st push mine.he2st hf://my-lab/breast-250", "he2st push mine.he2st /mnt/shared/breast-250.he2st"
    )
)
def push(
    bundle: Annotated[Path, typer.Argument(metavar="BUNDLE", help="A trained predictor.", show_default=False)],
    where: Address,
    force: Force = False,
) -> None:
    """Copy a trained predictor to a folder or upload it to the Hugging Face hub, whole and checked."""
    from napari_he2st.zoo.hub import push as run

    console.note(f"{bundle} lies now at {run(bundle, where, force=force)}.")


@app.command(epilog=examples("he2st pull hf://my-lab/breast-250 -o breast.he2st"))
def pull(
    where: Address,
    output: Annotated[Path, typer.Option("--output", "-o", help="Folder to make.", show_default=False)],
    force: Force = False,
) -> None:
    """Fetch a trained predictor from a folder or the Hugging Face hub, and check every file of it."""
    from napari_he2st.zoo.hub import pull as run

    console.note(f"{run(where, output, force=force)} is whole and ready for he2st predict --model.")
