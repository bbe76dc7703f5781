"""Output of Vizgen MERSCOPE and of its post-processing tool: cells with positions in micrometres.

``micron_to_mosaic_pixel_transform.csv`` leads to the pixels of the mosaic images; without it a pixel is one
micrometre.
"""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np

from napari_he2st.core.errors import TruthError
from napari_he2st.core.types import Transform
from napari_he2st.data.truth.alignment import read_matrix_csv
from napari_he2st.data.truth.assemble import check_counts
from napari_he2st.data.truth.cells import Cells, assemble_cells
from napari_he2st.data.truth.images import scale_of
from napari_he2st.data.truth.section import Detection, Section, Source, truth_reader
from napari_he2st.data.truth.tables import count_table, numbers, read_columns
from napari_he2st.data.truth.tenx import FeatureMatrix

_COUNTS, _CELLS, _MOSAIC = "cell_by_gene.csv", "cell_metadata.csv", "micron_to_mosaic_pixel_transform.csv"
_BLANK = re.compile(r"blank-?\d*", re.IGNORECASE)


def _named(folder: Path, end: str) -> dict[str, Path]:
    files = [*folder.glob(f"*{end}"), *folder.glob(f"*{end}.gz")]
    return {path.name.removesuffix(".gz").removesuffix(end).strip("_-"): path for path in sorted(files)}


def _mosaic(folder: Path) -> Path | None:
    return next((path for path in (folder / "images" / _MOSAIC, folder / _MOSAIC) if path.is_file()), None)


def detect(path: Path) -> Detection | None:
    """Samples by the names of their files."""
    folder = path.parent if path.is_file() or path.name == "images" else path
    if not folder.is_dir():
        return None
    counts, cells = _named(folder, _COUNTS), _named(folder, _CELLS)
    if not counts and not cells:
        return None
    both = sorted(counts.keys() & cells.keys())
    mosaic = _mosaic(folder)
    found = [path.name for path in (*counts.values(), *cells.values(), mosaic) if path is not None]
    missing = [f"{_CELLS} of {name or folder.name}" for name in sorted(counts.keys() - cells.keys())]
    missing += [f"{_COUNTS} of {name or folder.name}" for name in sorted(cells.keys() - counts.keys())]
    missing += [f"images/{_MOSAIC} (a pixel is taken to be 1 µm)"] if mosaic is None else []
    return Detection("merscope", folder, [_section(folder, name) for name in both], found, [*missing, "H&E image"])


def _section(folder: Path, prefix: str) -> str:
    return prefix or folder.resolve().name


@truth_reader(
    "merscope",
    "MERSCOPE: cells",
    looks_for=f"{_COUNTS} and {_CELLS}",
    detect=detect,
)
def read(detection: Detection, name: str, source: Source) -> Section:
    """Read the cells of one sample; blank barcodes are left out."""
    folder = detection.root
    prefix = next((prefix for prefix in _named(folder, _COUNTS) if _section(folder, prefix) == name), "")
    counts_path, cells_path = _named(folder, _COUNTS)[prefix], _named(folder, _CELLS)[prefix]
    keys, genes, counts = count_table(counts_path, 1)
    blank = np.array([_BLANK.fullmatch(gene) is not None for gene in genes])
    counts = counts[:, np.flatnonzero(~blank)]
    check_counts(counts, counts_path)
    symbols = [gene for gene, off in zip(genes, blank, strict=True) if not off]
    notes = [f"{int(blank.sum())} blank barcodes left out"] if blank.any() else []
    barcodes = [str(cell) for cell in keys.iloc[:, 0]]
    matrix = FeatureMatrix(counts, barcodes, symbols, None, notes, barcodes)

    table = read_columns(cells_path, ["center_x", "center_y"], separator=",")
    xy_um = np.stack([numbers(table, column, cells_path) for column in ("center_x", "center_y")], axis=1)
    columns = {name: table[name].to_numpy() for name in ("fov",) if name in table}
    cells = Cells([str(cell) for cell in table.iloc[:, 0]], xy_um, None, columns)
    mosaic = _mosaic(folder)
    to_mosaic = Transform.scale(1.0) if mosaic is None else read_matrix_csv(mosaic)
    scale = scale_of(source)
    zoom = float(np.sqrt(abs(np.linalg.det(to_mosaic.matrix[:2, :2])))) * scale
    if not 0 < zoom < np.inf:
        raise TruthError("The transform to the mosaic has no scale", where=mosaic)
    said = "given" if source.mpp else _MOSAIC if mosaic is not None else "positions are micrometres"
    adata, left_out = assemble_cells(
        matrix, cells, mpp=source.mpp or 1 / zoom, mpp_source=said,
        to_slide=Transform(Transform.scale(scale).matrix @ to_mosaic.matrix), library=name,
        layout=detection.layout, where=cells_path,
    )  # fmt: skip
    missing = [what for what in detection.missing if source.image is None or what != "H&E image"]
    return Section(name, adata, source.image, detection.layout, None, [*detection.found, *notes, *left_out], missing)
