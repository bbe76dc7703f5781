"""``he2st benchmark``: which system to trust on one's own sections."""

from __future__ import annotations

import tomllib
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any

import typer

from napari_he2st.cli import console
from napari_he2st.cli.inputs import open_section, warn_of_misfit
from napari_he2st.cli.options import Device, Epochs, Mpp, Seed, examples, read_genes
from napari_he2st.cli.train import SpreadingCommand
from napari_he2st.core.errors import ModelError

app = typer.Typer()


class Folds(StrEnum):
    """What is left out in turn."""

    patient = "patient"
    section = "section"
    block = "block"


@app.command(
    cls=SpreadingCommand,
    epilog=examples(
        "he2st benchmark --systems stnet:tiny bleep:tiny --data her2st:B4 her2st:C4 her2st:C5 -o trust",
        "he2st benchmark --systems deeppt --data her2st:C3 her2st:C4 --folds section --budget 30 -o trust",
        "he2st benchmark --systems hist2st:tiny --data her2st:C5 --folds block -o trust",
        "he2st benchmark --hest-bench bench_data --encoders efficientnet-lite0 -o hest",
    ),
)
def benchmark(
    output: Annotated[
        Path, typer.Option("--output", "-o", help="Folder of the results; what is there is not done again.")
    ],
    systems: Annotated[
        list[str] | None,
        typer.Option(
            "--systems",
            metavar="SYSTEM…",
            help="Systems of he2st models, each alone or with a variant of its card (stnet:tiny).",
        ),
    ] = None,
    data: Annotated[
        list[str] | None, typer.Option("--data", metavar="SECTION…", help="Measured sections with images.")
    ] = None,
    hest_folder: Annotated[
        Path | None,
        typer.Option(
            "--hest-bench", metavar="FOLDER", help="Instead: score encoders on the tasks of HEST-bench that lie there."
        ),
    ] = None,
    encoders: Annotated[
        list[str] | None,
        typer.Option("--encoders", metavar="ENCODER…", help="With --hest-bench: rows of he2st encoders."),
    ] = None,
    tasks: Annotated[
        list[str] | None, typer.Option("--tasks", metavar="TASK…", help="With --hest-bench: only some of them.")
    ] = None,
    jobs: Annotated[int, typer.Option("--jobs", min=1, help="Fits that run side by side, each in its process.")] = 1,
    folds: Annotated[Folds, typer.Option("--folds", help="What is left out in turn and scored.")] = Folds.patient,
    budget: Annotated[
        float | None, typer.Option("--budget", metavar="MINUTES", min=0, help="Begin no fit after that.")
    ] = None,
    panel: Annotated[
        str, typer.Option("--panel", help="Genes to learn: hvg:250, mean:250, or a file with one per line.")
    ] = "hvg:250",
    settings: Annotated[
        Path | None,
        typer.Option("--settings", help="TOML: a table per system with variant, arguments and recipe."),
    ] = None,
    epochs: Epochs = None,
    mpp: Mpp = None,
    device: Device = "auto",
    seed: Seed = 0,
) -> None:
    """Train systems on the same spots, score them on what was left out, and report which one to trust.

    The training mean and ridge regression take part in any case. A stopped run goes on where it was.
    """
    from napari_he2st.engine.benchmark import Contestant
    from napari_he2st.engine.benchmark import benchmark as run
    from napari_he2st.engine.benchmark_report import short_rows, summarise, write_report

    if hest_folder is not None:
        _hest_bench(hest_folder, encoders or ["efficientnet-lite0"], tasks, output, device)
        return
    if not systems or not data:
        raise ModelError("A benchmark needs systems and sections", todo="Name them with --systems and --data")
    given = _read_settings(settings)
    extra = {} if epochs is None else {"epochs": epochs}
    contestants = []
    for name in systems:
        own = given.get(name, {})
        contestants.append(Contestant.parse(name, {**own, "recipe": {**own.get("recipe", {}), **extra}}))
    sections = [open_section(text, mpp=mpp) for text in data]
    for section in sections:
        warn_of_misfit(section)
    with console.Bar() as bar:
        result = run(
            contestants,
            sections,
            output,
            kind=folds.value,
            panel=read_genes(Path(panel)).symbols if Path(panel).is_file() else panel,
            budget_minutes=budget,
            seed=seed,
            device=device,
            jobs=jobs,
            control=bar,
        )
    for text in result.warnings:
        console.warn(text)
    for system, fold in result.missing:
        console.warn(f"Not done, for the budget was spent: {system} without {fold}. Run it again to go on.")
    report = write_report(result, output / "report.html", force=True)
    console.print_rows(*short_rows(summarise(result)))
    console.note(f"{report}: {len(result.systems)} systems over {len(result.folds)} folds.")
    if result.failed:
        todo = "The warnings above say why; run it again when that is mended"
        raise ModelError(f"{len(result.failed)} fits failed", where=output, todo=todo)


def _hest_bench(folder: Path, encoders: list[str], tasks: list[str] | None, output: Path, device: str) -> None:
    from napari_he2st.core.atomic import atomic_write
    from napari_he2st.engine.hest_bench import hest_bench, summarise

    with console.Bar() as bar:
        scores = hest_bench(folder, encoders, tasks=tasks, device=device, control=bar)
    output.mkdir(parents=True, exist_ok=True)
    with atomic_write(output / "hest_bench.parquet", force=True) as aside:
        scores.to_parquet(aside, index=False)
    console.print_rows(*summarise(scores))
    n_folds = len(scores.groupby(["task", "fold"]))
    console.note(f"{output}: {len(encoders)} encoders, {scores['task'].nunique()} tasks, {n_folds} folds.")


def _read_settings(path: Path | None) -> dict[str, Any]:
    if path is None:
        return {}
    try:
        return tomllib.loads(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        raise ModelError(f"The settings cannot be read ({error})", where=path, todo="Give a TOML file") from error
