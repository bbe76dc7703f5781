"""Alignment files: the 3 × 3 matrix that 10x's Xenium Explorer and Loupe export, and ours of the same form."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from napari_he2st.core.atomic import atomic_write
from napari_he2st.core.errors import TruthError
from napari_he2st.core.types import Transform
from napari_he2st.data.truth.tables import decode, read_bytes


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
