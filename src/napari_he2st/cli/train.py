"""``he2st train``: a bundle from the user's own paired sections."""

from __future__ import annotations

import shutil
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any

import typer
from typer.core import TyperCommand

from napari_he2st.cli import console
from napari_he2st.cli.inputs import open_section, open_slide, read_given, warn_of_misfit
from napari_he2st.cli.options import (
    Arguments,
    Cells,
    Departures,
    Device,
    Epochs,
    Force,
    Licence,
    Mpp,
    Name,
    Notes,
    Nuclei,
    Organs,
    Output,
    Seed,
    Species,
    Stain,
    Title,
    Variant,
    examples,
    read_genes,
    read_pairs,
)

app = typer.Typer()


class Fold(StrEnum):
    """What is left out in turn."""

    section = "section"
    patient = "patient"
    block = "block"
    spot = "spot"


class Augmentation(StrEnum):
    """What changes at random each time a tile is seen."""

    stain = "stain"
    flips = "flips"


class SpreadingCommand(TyperCommand):
    """A command whose options named here take every word up to the next option."""

    spread = ("--data", "--holdout", "--validate", "--systems", "--encoders", "--tasks")

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        """Repeat the option before each of its words, which is the form the parser knows."""
        spread: list[str] = []
        current: str | None = None
        for arg in args:
            if arg.startswith("-"):
                current = arg if arg in self.spread else None
                first = True
            elif current is not None and not first:
                spread.append(current)
            else:
                first = False
            spread.append(arg)
        return super().parse_args(ctx, spread)


@app.command(
    cls=SpreadingCommand,
    epilog=examples(
        "he2st train ridge --data her2st:C3 her2st:C4 her2st:C5 --holdout her2st:C2 -o breast.he2st",
        "he2st train istar --variant efficientnet --data her2st:C5 -o C5-istar.he2st",
        "he2st train ridge --data visium_1 visium_2 --panel hvg:500 -o mine.he2st",
    ),
)
def train(
    system: Annotated[str, typer.Argument(metavar="SYSTEM", help="A system of he2st models.", show_default=False)],
    data: Annotated[
        list[str],
        typer.Option("--data", metavar="SECTION…", help="Measured sections with images to learn.", show_default=False),
    ],
    output: Output,
    holdout: Annotated[
        list[str] | None,
        typer.Option("--holdout", metavar="SECTION…", help="Sections kept aside: their scores go into the bundle."),
    ] = None,
    validate: Annotated[
        list[str] | None,
        typer.Option("--validate", metavar="SECTION…", help="Sections that choose the best epoch; never scored."),
    ] = None,
    epochs: Epochs = None,
    variant: Variant = None,
    argument: Arguments = None,
    recipe: Departures = None,
    panel: Annotated[
        str | None, typer.Option("--panel", help="Genes to learn: hvg:1000, mean:250, or a file with one per line.")
    ] = None,
    fold: Annotated[
        list[Fold] | None,
        typer.Option(
            "--fold",
            help="Also score with each section, patient, quarter (block) or random spots left out; repeatable.",
        ),
    ] = None,
    start: Annotated[
        str | None,
        typer.Option(
            "--start", metavar="BUNDLE", help="Go on from a bundle of the same system: its weights and genes."
        ),
    ] = None,
    freeze: Annotated[bool, typer.Option("--freeze", help="With --start: only the layers of the genes learn.")] = False,
    scale: Annotated[
        str | None, typer.Option("--scale", help="Expression that is learned, in place of the system's own.")
    ] = None,
    smooth: Annotated[
        int | None, typer.Option("--smooth", min=2, help="Learn the mean over that many nearest spots.")
    ] = None,
    augment: Annotated[
        list[Augmentation] | None, typer.Option("--augment", help="Change tiles at random in each epoch; repeatable.")
    ] = None,
    accumulate: Annotated[int | None, typer.Option("--accumulate", min=1, help="Batches that make one step.")] = None,
    mixed: Annotated[bool, typer.Option("--mixed", help="Compute in bfloat16 where the GPU has it.")] = False,
    trust: Annotated[
        float, typer.Option("--trust", min=-1, max=1, help="Genes with a lower held-out correlation are marked.")
    ] = 0.2,
    name: Name = None,
    title: Title = None,
    organ: Organs = None,
    species: Species = None,
    licence: Licence = "",
    notes: Notes = "",
    nuclei: Nuclei = None,
    cells: Cells = None,
    stain: Annotated[
        Stain | None, typer.Option("--stain", help="Normalise the stain of every slide, here and in predictions.")
    ] = None,
    mpp: Mpp = None,
    device: Device = "auto",
    seed: Seed = 0,
    force: Force = False,
) -> None:
    """Train a system on measured sections and write it as a bundle.

    Sections held out are never seen in training; they score the result. Without any, each section is left out in turn.
    A run that was stopped or killed goes on where it was when it is started again, to the same result.
    """
    from napari_he2st.core.atomic import check_output
    from napari_he2st.engine.checkpoints import SUFFIX
    from napari_he2st.engine.features import NOTHING_GIVEN
    from napari_he2st.engine.model_card import model_card
    from napari_he2st.engine.train import train as train_system
    from napari_he2st.engine.train_fit import Departures as Departing
    from napari_he2st.engine.trained import About
    from napari_he2st.zoo.catalogue import load, variant_arguments

    arguments = {**(variant_arguments(system, variant) if start is None else {}), **read_pairs(argument)}
    changes = {
        **read_pairs(recipe),
        **({"accumulate": accumulate} if accumulate else {}),
        **({"mixed": True} if mixed else {}),
    }
    departures = Departing(
        None if start is None else load(start), freeze, scale, smooth, tuple(map(str, augment or ()))
    )
    genes = read_genes(Path(panel)).symbols if panel is not None and Path(panel).is_file() else panel
    folds: list[Any] = [kind.value for kind in fold or []]
    if not holdout and not folds and len(data) > 1:
        folds = ["section"]
    check_output(output, force=force)
    sections = [open_section(text, mpp=mpp) for text in data]
    kept_aside = [open_section(text, mpp=mpp) for text in holdout or []]
    for section in (*sections, *kept_aside):
        warn_of_misfit(section)
    kept = output.with_name(output.name + SUFFIX)
    given = NOTHING_GIVEN
    if nuclei is not None or cells is not None:
        with open_slide(data[0], mpp=mpp) as image:  # a label image is as wide as the one slide it belongs to
            given = read_given(image, nuclei=nuclei, cells=cells, measured=None)
    with console.Bar() as bar:
        bundle = train_system(
            system,
            sections,
            holdout=kept_aside,
            validate=[open_section(text, mpp=mpp) for text in validate or []],
            folds=folds,
            panel=genes,
            about=About(name, title, tuple(organ or ()), tuple(species or ()), licence, notes, trust),
            arguments=arguments,
            recipe=changes,
            epochs=epochs,
            seed=seed,
            device=device,
            given=given,
            stain=stain,
            departures=departures,
            checkpoints=kept,
            control=bar,
        )
        bundle.save(output, force=force, model_card=model_card(bundle))
    shutil.rmtree(kept, ignore_errors=True)
    console.note(f"{output}: {system} for {len(bundle.genes)} genes from {len(sections)} sections.")
