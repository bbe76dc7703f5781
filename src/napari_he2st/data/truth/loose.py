"""Counts of 10x's form beside a free table of positions: what is left of a section that somebody has converted."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from napari_he2st.core.errors import MissingTruthMppError, TruthError
from napari_he2st.data.truth.cells import Cells, assemble_cells
from napari_he2st.data.truth.images import images_in, only_image, scale_of
from napari_he2st.data.truth.section import Detection, Section, Source, truth_reader
from napari_he2st.data.truth.tables import numbers, read_columns
from napari_he2st.data.truth.tenx import mex_parts, read_feature_matrix

_NAMES = ("barcode", "cell_id", "cell", "spot", "")
_PAIRS = (
    ("px_x", "px_y"), ("pixel_x", "pixel_y"), ("x_pixel", "y_pixel"), ("pxl_col_in_fullres", "pxl_row_in_fullres"),
    ("imagecol", "imagerow"), ("x_centroid", "y_centroid"), ("x", "y"), ("X", "Y"),
)  # fmt: skip
_TABLES = ("spots", "positions", "coordinates", "coords", "cells", "locations")


def _table(folder: Path) -> Path | None:
    return next((path for stem in _TABLES if (path := folder / f"{stem}.csv").is_file()), None)


def _matrix(folder: Path) -> Path | None:
    candidates = [folder, folder / "matrix", *sorted(folder.glob("*matrix*.h5"))]
    return next((path for path in candidates if path.is_file() or "matrix" in mex_parts(path)), None)


def detect(path: Path) -> Detection | None:
    """A folder with both."""
    folder = path.parent if path.is_file() or path.name == "matrix" else path
    table = _table(folder) if folder.is_dir() else None
    matrix = None if table is None else _matrix(folder)
    if table is None or matrix is None:
        return None
    missing = [] if images_in(folder) else ["image"]
    return Detection("loose", folder, [folder.resolve().name], [matrix.name, table.name], missing)


@truth_reader(
    "loose",
    "Counts of 10x's form beside a table of positions in pixels",
    looks_for="matrix/ (or a .h5 file) and spots.csv with barcode and px_x, px_y",
    detect=detect,
    order=80,
)
def read(detection: Detection, name: str, source: Source) -> Section:
    """Read the section; the pixel size has to be given."""
    folder = detection.root
    table_path, matrix_path = _table(folder), _matrix(folder)
    if table_path is None or matrix_path is None:
        raise TruthError("The section is incomplete", where=folder)
    table = read_columns(table_path, [], separator=",")
    columns = list(map(str, table.columns))
    pair = next((pair for pair in _PAIRS if set(pair) <= set(columns)), None)
    key = next((key for key in columns if key.lower() in _NAMES or key.startswith("Unnamed")), None)
    if pair is None or key is None:
        message = f"The positions have no columns such as barcode, px_x and px_y; there are {', '.join(columns[:8])}"
        raise TruthError(message, where=table_path, todo="Cells have to be separated by commas")
    if source.mpp is None:
        todo = "Give the pixel size (mpp) in micrometres"
        raise MissingTruthMppError("The files do not say how large a pixel is", where=folder, todo=todo)
    matrix = read_feature_matrix(matrix_path, genes=source.genes)
    xy = np.stack([numbers(table, axis, table_path) for axis in pair], axis=1)
    missing: list[str] = []
    image = source.image or only_image(images_in(folder), missing)
    adata, notes = assemble_cells(
        matrix, Cells(list(table[key]), xy), mpp=source.mpp, mpp_source="given", to_slide=scale_of(source),
        library=name, layout=detection.layout, where=table_path,
    )  # fmt: skip
    found = [*detection.found, *([image.name] if image is not None else []), *matrix.notes, *notes]
    return Section(name, adata, image, detection.layout, None, found, missing)
