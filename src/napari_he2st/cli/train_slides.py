"""``he2st train-slides``: a bundle from slides that have one label each."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from napari_he2st.cli import console
from napari_he2st.cli.options import (
    Arguments,
    Departures,
    Device,
    Epochs,
    Force,
    Licence,
    Mpp,
    Name,
    Notes,
    Organs,
    Output,
    Seed,
    Species,
    Stain,
    Title,
    Variant,
    examples,
    read_pairs,
)

app = typer.Typer()


@app.command(
    "train-slides",
    epilog=examples(
        "he2st train-slides clam cohort.csv --label mutated -o mutated.he2st",
        "he2st train-slides sequoia cohort.csv --label GATA3 --label ESR1 --folds 10 -o bulk.he2st",
    ),
)
def train_slides(
    system: Annotated[str, typer.Argument(metavar="SYSTEM", help="A system for whole slides.", show_default=False)],
    table: Annotated[
        Path,
        typer.Argument(metavar="TABLE", help="CSV: slide, patient, labels.", show_default=False),
    ],
    label: Annotated[
        list[str], typer.Option("--label", metavar="COLUMN", help="What to learn; repeatable.", show_default=False)
    ],
    output: Output,
    folds: Annotated[int, typer.Option("--folds", min=0, help="Groups of patients left out in turn and scored.")] = 5,
    epochs: Epochs = None,
    variant: Variant = None,
    argument: Arguments = None,
    recipe: Departures = None,
    name: Name = None,
    title: Title = None,
    organ: Organs = None,
    species: Species = None,
    licence: Licence = "",
    notes: Notes = "",
    stain: Annotated[
        Stain | None, typer.Option("--stain", help="Normalise the stain of every slide, here and in predictions.")
    ] = None,
    mpp: Mpp = None,
    device: Device = "auto",
    seed: Seed = 0,
    force: Force = False,
) -> None:
    """Train a system on whole slides and their labels and write it as a bundle.

    Patients are kept together: those of a fold are never seen by the model that is scored on them.
    """
    from napari_he2st.core.atomic import check_output
    from napari_he2st.engine.train_slides import read_table
    from napari_he2st.engine.train_slides import train_slides as train
    from napari_he2st.engine.trained import About
    from napari_he2st.zoo.catalogue import variant_arguments

    check_output(output, force=force, inputs=(table,))
    departures = read_pairs(recipe) | ({} if epochs is None else {"epochs": epochs})
    about = About(name, title, tuple(organ or ()), tuple(species or ()), licence, notes)
    with console.Bar() as bar:
        bundle = train(
            system,
            read_table(table),
            label,
            folds=folds,
            arguments={**variant_arguments(system, variant), **read_pairs(argument)},
            recipe=departures,
            mpp=mpp,
            seed=seed,
            device=device,
            about=about,
            stain=stain,
            control=bar,
        )
    bundle.save(output, force=force)
    for metric, values in bundle.manifest.scores.items():
        figures = ", ".join(
            f"{result} {'unknown' if value is None else format(value, '.3f')}"
            for result, value in zip(bundle.genes, values, strict=True)
        )
        console.note(f"{metric.upper()} on patients left out: {figures}")
    console.note(f"{output}: {system} for {', '.join(bundle.genes[:5])}{' …' if len(bundle.genes) > 5 else ''}.")
