"""Alignment files: the 3 × 3 matrix and the keypoints that 10x's Xenium Explorer exports, and ours of the same form."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from napari_he2st.core.atomic import atomic_write
from napari_he2st.core.errors import TruthError
from napari_he2st.core.types import Transform
from napari_he2st.data.truth.tables import decode, numbers, read_bytes, read_columns

_KEYPOINTS = (
    ("fixedX", "fixedY", "alignmentX", "alignmentY"),  # Xenium Explorer: morphology image, then the image laid on it
    ("spots_x", "spots_y", "slide_x", "slide_y"),
)


def read_matrix_csv(path: str | Path) -> Transform:
    """The affine map in a file of three lines of three numbers, separated by commas, tabs or spaces.

    10x writes the map from pixels of the H&E image to pixels of the morphology image, Vizgen that from
    micrometres to pixels of the mosaic.

    Raises
    ------
    TruthError
        There are not nine numbers, or they are no invertible affine map.
    """
    path = Path(path)
    lines = [line.replace(",", " ").split() for line in decode(read_bytes(path), path).splitlines() if line.strip()]
    try:
        matrix = np.array([[float(cell) for cell in line] for line in lines])
    except ValueError as error:
        raise TruthError(f"The alignment is no matrix ({error})", where=path, todo="Give 3 × 3 numbers") from error
    if matrix.shape != (3, 3) or not np.isfinite(matrix).all() or not np.allclose(matrix[2], [0, 0, 1]):
        raise TruthError("The alignment is no affine 3 × 3 matrix", where=path, todo="The last line has to be 0,0,1")
    if not abs(np.linalg.det(matrix)) > 1e-12:
        raise TruthError("The alignment maps everything onto a line", where=path)
    return Transform(matrix)


def leads_to_morphology(path: Path) -> bool:
    """Whether a matrix is named as Xenium names those that lead from the H&E image to the morphology image."""
    stem = path.stem.lower()
    return "imagealignment" in stem or stem.endswith("_image_matrix") or path.parent.name.endswith("_alignment_files")


def holds_keypoints(path: str | Path) -> bool:
    """Whether a file begins as a table of keypoints does."""
    path = Path(path)
    first = decode(read_bytes(path), path).lstrip().partition("\n")[0]
    names = {name.strip().strip('"') for name in first.split(",")}
    return any(names.issuperset(columns) for columns in _KEYPOINTS)


def read_keypoints_csv(path: str | Path) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Pairs of positions (x, y), each float64 (n, 2): pixels of the spots, and of the slide.

    Read are the keypoints of Xenium Explorer, whose spots lie in pixels of the morphology image, and the landmarks
    that the window saves.

    Raises
    ------
    TruthError
        The columns are missing, or a position is no number.
    """
    path = Path(path)
    first = decode(read_bytes(path), path)
    columns = next((names for names in _KEYPOINTS if names[0] in first), _KEYPOINTS[0])
    table = read_columns(path, columns, separator=",")
    xy = np.stack([numbers(table, column, path) for column in columns], axis=1)
    if not np.isfinite(xy).all():
        raise TruthError("A keypoint is not a finite number", where=path)
    return xy[:, :2], xy[:, 2:]


def write_matrix_csv(transform: Transform, path: str | Path, *, force: bool = False) -> None:
    """Write an affine map in the same form.

    Raises
    ------
    OutputError
        The file exists and is not to be replaced, or cannot be written.
    """
    text = "\n".join(",".join(f"{value:.10g}" for value in row) for row in transform.matrix)
    with atomic_write(path, force=force) as aside:
        aside.write_text(f"{text}\n", encoding="utf-8")
