"""Flat files of NanoString / Bruker CosMx SMI: expression matrix, cell metadata, transcripts.

Cells are numbered within each field of view; positions are global pixels of the instrument.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from napari_he2st.core.errors import MissingTruthMppError
from napari_he2st.data.truth.assemble import check_counts
from napari_he2st.data.truth.cells import Cells, assemble_cells
from napari_he2st.data.truth.images import scale_of
from napari_he2st.data.truth.section import Detection, Section, Source, truth_reader
from napari_he2st.data.truth.tables import count_table, numbers, read_columns, table_chunks
from napari_he2st.data.truth.tenx import FeatureMatrix
from napari_he2st.data.truth.transcripts import Columns, count_transcripts

if TYPE_CHECKING:
    from pandas import DataFrame

_PARTS = {
    "counts": "exprMat_file.csv",
    "cells": "metadata_file.csv",
    "transcripts": "tx_file.csv",
    "fields": "fov_positions_file.csv",
}
_CONTROLS = r"^(?:NegPrb|Negative|SystemControl|FalseCode)"


def _parts(folder: Path) -> dict[str, dict[str, Path]]:
    """Files of each sample by kind; the sample is what stands before the kind."""
    samples: dict[str, dict[str, Path]] = {}
    for kind, end in _PARTS.items():
        for path in sorted([*folder.glob(f"*{end}"), *folder.glob(f"*{end}.gz")]):
            name = path.name.removesuffix(".gz").removesuffix(end).strip("_-") or folder.resolve().name
            samples.setdefault(name, {}).setdefault(kind, path)
    return samples


def _has_matrix(parts: dict[str, Path]) -> bool:
    return {"counts", "cells"} <= parts.keys()


def detect(path: Path) -> Detection | None:
    """Samples by the names of their files."""
    folder = path.parent if path.is_file() else path
    samples = _parts(folder) if folder.is_dir() else {}
    if not samples:
        return None
    complete = [
        name for name, parts in samples.items() if {"counts", "cells"} <= parts.keys() or "transcripts" in parts
    ]
    found = [path.name for parts in samples.values() for path in parts.values()]
    said = {kind: f"{end} of {name}" for name, parts in samples.items() for kind, end in _PARTS.items()
            if kind not in parts and kind != "transcripts"}  # fmt: skip
    return Detection("cosmx", folder, complete, found, [*said.values(), "H&E image"])


@truth_reader(
    "cosmx",
    "CosMx SMI: cells, from the expression matrix or from transcripts",
    looks_for="NAME_exprMat_file.csv and NAME_metadata_file.csv (or NAME_tx_file.csv)",
    detect=detect,
)
def read(detection: Detection, name: str, source: Source) -> Section:
    """Read the cells of one sample; rows with cell number 0 are transcripts outside cells."""
    parts = _parts(detection.root)[name]
    matrix, cells, where = _read_matrix(parts) if _has_matrix(parts) else _read_transcripts(parts)
    scale = scale_of(source)
    mpp, said = (source.mpp, "given") if source.mpp else (_mpp(parts.get("fields"), detection.root) / scale, "fields")
    adata, notes = assemble_cells(
        matrix, cells, mpp=mpp, mpp_source=said, to_slide=scale, library=name, layout=detection.layout, where=where,
    )  # fmt: skip
    missing = [what for what in detection.missing if source.image is None or what != "H&E image"]
    return Section(
        name, adata, source.image, detection.layout, None, [*detection.found, *matrix.notes, *notes], missing
    )


def _read_matrix(parts: dict[str, Path]) -> tuple[FeatureMatrix, Cells, Path]:
    counts_path, cells_path = parts["counts"], parts["cells"]
    keys, genes, counts = count_table(counts_path, ["fov", "cell_ID"])
    in_cell = np.flatnonzero((keys["cell_ID"] != "0").to_numpy())
    columns = [i for i, gene in enumerate(genes) if gene not in ("cell", "cell_id")]
    controls = np.array([_is_control(genes[i]) for i in columns])
    columns = list(np.array(columns)[~controls])
    counts = counts[in_cell][:, columns]
    check_counts(counts, counts_path)
    names = _names(keys.iloc[in_cell])
    notes = [f"{len(keys) - len(in_cell)} rows outside cells left out"] if len(in_cell) < len(keys) else []
    notes += [f"{int(controls.sum())} control probes left out"] if controls.any() else []
    table = read_columns(cells_path, ["fov", "cell_ID", "CenterX_global_px", "CenterY_global_px"], separator=",")
    xy = np.stack([numbers(table, f"Center{axis}_global_px", cells_path) for axis in "XY"], axis=1)
    columns_of = {"fov": table["fov"].to_numpy()}
    cells = Cells(_names(table), xy, None, columns_of)
    return FeatureMatrix(counts, names, [genes[i] for i in columns], None, notes, names), cells, cells_path


def _read_transcripts(parts: dict[str, Path]) -> tuple[FeatureMatrix, Cells, Path]:
    path = parts["transcripts"]
    chunks = table_chunks(path, ["fov", "cell_ID", "x_global_px", "y_global_px", "target"])
    named = (chunk.assign(key=_names(chunk)) for chunk in chunks)
    columns = Columns("key", "target", "x_global_px", "y_global_px")

    def good(rows: DataFrame) -> object:
        return (rows["cell_ID"].astype(str) != "0") & ~rows["target"].astype(str).str.match(_CONTROLS)

    return *count_transcripts(named, columns, good, path), path


def _is_control(gene: str) -> bool:
    return re.match(_CONTROLS, gene) is not None


def _names(table: DataFrame) -> list[str]:
    return [f"{fov}_{cell}" for fov, cell in zip(table["fov"], table["cell_ID"], strict=True)]


def _mpp(fields: Path | None, folder: Path) -> float:
    """Micrometres per pixel from fields of view whose corners are given in both units."""
    if fields is not None:
        header = read_columns(fields, [], separator=",")
        names = {str(name).lower(): str(name) for name in header.columns}
        pairs = [(names.get(f"{axis}_global_mm"), names.get(f"{axis}_global_px")) for axis in "xy"]
        for mm, px in pairs:
            if mm is not None and px is not None:
                spans = np.ptp(numbers(header, mm, fields)), np.ptp(numbers(header, px, fields))
                if min(spans) > 0:
                    return float(1000 * spans[0] / spans[1])
    todo = "Give the pixel size (mpp): 0.12028 µm for current instruments, 0.18 µm for the lung data set of 2022"
    raise MissingTruthMppError("The files do not say how large a pixel is", where=folder, todo=todo)
