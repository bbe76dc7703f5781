"""Options that several commands share, and how their text becomes values."""

from __future__ import annotations

import json
import zipfile
from pathlib import Path
from typing import Annotated, Any, Literal

import typer

from napari_he2st.core.errors import GeneError, WeightsError
from napari_he2st.core.types import GeneSet, Region, Transform

Output = Annotated[Path, typer.Option("--output", "-o", help="File to write.", show_default=False)]
Force = Annotated[bool, typer.Option("--force", help="Replace the output if it exists.")]
AsJson = Annotated[bool, typer.Option("--json", help="Print JSON instead of a table.")]
Device = Annotated[str, typer.Option("--device", help="auto, cpu, openvino, cuda, cuda:1 or mps.")]
Seed = Annotated[int, typer.Option("--seed", help="Fixes every random choice.")]
Stain = Literal["macenko", "reinhard", "as-stored"]
Mpp = Annotated[
    float | None, typer.Option("--mpp", help="Micrometres per pixel at full resolution, if the file does not say.")
]
Options = Annotated[
    list[str] | None, typer.Option("--option", metavar="NAME=VALUE", help="An option of the method; repeatable.")
]

Nuclei = Annotated[
    Path | None,
    typer.Option("--nuclei", help="Nuclei: a label image as wide as the slide (TIFF, PNG, NPY) or GeoJSON."),
]
Cells = Annotated[
    Path | None,
    typer.Option("--cells", help="Single cells with known types and raw counts (h5ad)."),
]
Measured = Annotated[
    str | None,
    typer.Option("--measured", metavar="SECTION", help="Spots measured on the slide."),
]
Samples = Annotated[
    int | None,
    typer.Option("--samples", min=1, help="Draws of predictors that draw at random; by default as many as published."),
]

Epochs = Annotated[int | None, typer.Option("--epochs", min=1, help="Instead of the published number.")]
Variant = Annotated[
    str | None, typer.Option("--variant", help="A variant of its card, such as tiny; --argument departs from it.")
]
Arguments = Annotated[
    list[str] | None, typer.Option("--argument", metavar="NAME=VALUE", help="An argument of the system; repeatable.")
]
Departures = Annotated[
    list[str] | None,
    typer.Option("--recipe", metavar="NAME=VALUE", help="Departs from the published recipe: lr=1e-3; repeatable."),
]

# What a new bundle says of itself.
Name = Annotated[str | None, typer.Option("--name", help="What the bundle is called, without spaces.")]
Title = Annotated[str | None, typer.Option("--title", help="What people read.")]
Organs = Annotated[list[str] | None, typer.Option("--organ", help="Of the training data; repeatable.")]
Species = Annotated[list[str] | None, typer.Option("--species", help="Of the training data; repeatable.")]
Licence = Annotated[str, typer.Option("--licence", help="Of the bundle.")]
Notes = Annotated[str, typer.Option("--notes", help="What it must not be used for; goes into its card.")]


def examples(*lines: str) -> str:
    """The epilogue of a command's help: one example per line."""
    return "\n\n".join(["Examples:", *lines])


def read_pairs(pairs: list[str] | None) -> dict[str, Any]:
    """Values of ``NAME=VALUE`` texts: numbers, true, false, null and lists as in JSON, else the text itself.

    Raises
    ------
    typer.BadParameter
        A pair has no name or no equals sign.
    """
    values: dict[str, Any] = {}
    for pair in pairs or []:
        name, equals, text = pair.partition("=")
        if not equals or not name.isidentifier():
            message = f"{pair!r} is not of the form NAME=VALUE"
            raise typer.BadParameter(message)
        try:
            values[name] = json.loads(text)
        except json.JSONDecodeError:
            values[name] = text
    return values


def read_values(path: Path) -> Any:
    """Numbers of a file: JSON, one array (``.npy``) or several by name (``.npz``).

    Raises
    ------
    WeightsError
        There is no such file, or it holds something else.
    """
    import numpy as np

    try:
        if path.suffix == ".json":
            return json.loads(path.read_text(encoding="utf-8"))
        content = np.load(path, allow_pickle=False)
        return dict(content) if path.suffix == ".npz" else content
    except (OSError, ValueError, EOFError, zipfile.BadZipFile) as error:
        raise WeightsError(f"The file cannot be read as numbers ({error})", where=path) from error


def read_transform(path: Path) -> Transform:
    """The affine map of a file that holds its matrix, 3 × 3; raises WeightsError where it holds something else."""
    import numpy as np

    matrix = np.asarray(read_values(path), dtype=np.float64)
    if matrix.shape != (3, 3) or not np.isfinite(matrix).all() or not np.array_equal(matrix[2], [0, 0, 1]):
        message = f"The file holds an array of shape {matrix.shape}, not an affine 3 × 3 matrix"
        raise WeightsError(message, where=path, todo="Its last row is 0, 0, 1")
    return Transform(matrix)


def read_box(text: str | None) -> Region | None:
    """The region of a text ``X,Y,W,H`` in level-0 pixels.

    Raises
    ------
    typer.BadParameter
        The text does not hold four numbers, or width or height is not above zero.
    """
    if text is None:
        return None
    try:
        x, y, width, height = (float(part) for part in text.split(","))
    except ValueError:
        message = f"{text!r} is not of the form X,Y,W,H (level-0 pixels)"
        raise typer.BadParameter(message) from None
    if not (width > 0 and height > 0):
        message = f"The region {text!r} has no area"
        raise typer.BadParameter(message)
    return Region.box(x, y, width, height)


def read_genes(path: Path) -> GeneSet:
    """The panel in a text file with a gene per line; lines that start with # are comments.

    Raises
    ------
    GeneError
        The file cannot be read, is empty, or names a gene twice.
    """
    try:
        lines = [line.split("#")[0].strip() for line in path.read_text(encoding="utf-8").splitlines()]
    except (OSError, UnicodeDecodeError) as error:
        raise GeneError(f"The gene list cannot be read ({error})", where=path, todo="Give a text file") from error
    genes = tuple(line for line in lines if line)
    if not genes:
        raise GeneError("The gene list is empty", where=path, todo="Write a gene symbol per line")
    return GeneSet(genes, name=path.name, source=path.name)
