"""Output folders of 10x Xenium: cells, with the H&E image where it was aligned.

Positions are micrometres of the morphology image, whose pixel size ``experiment.xenium`` tells. The alignment
csv maps pixels of the H&E image onto pixels of that image.
"""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np

from napari_he2st.core.errors import MissingTruthMppError, TruthError
from napari_he2st.core.types import Transform
from napari_he2st.data.truth.alignment import read_matrix_csv
from napari_he2st.data.truth.cells import Cells, assemble_cells
from napari_he2st.data.truth.images import images_in, scale_of
from napari_he2st.data.truth.section import Detection, Section, Source, truth_reader
from napari_he2st.data.truth.tables import decode, numbers, read_bytes, table_chunks
from napari_he2st.data.truth.tenx import FeatureMatrix, mex_parts, read_feature_matrix
from napari_he2st.data.truth.transcripts import Columns, count_transcripts

_MATRIX, _CELLS, _TRANSCRIPTS = "cell_feature_matrix", "cells", "transcripts"
_QUALITY = 20  # 10x's own threshold of the Phred-scaled quality of a transcript
_CONTROLS = r"^(?:NegControl|antisense|BLANK|Unassigned|Deprecated|Intergenic)"
_AREA = "cell_area"


def _table(folder: Path, stem: str) -> Path | None:
    """The newest form of a table: parquet, gzipped or plain csv; archives put the sample's name before it."""
    for end in (".parquet", ".csv.gz", ".csv"):
        found = sorted(path for path in folder.glob(f"*{stem}{end}") if path.name.removesuffix(end).endswith(stem))
        if found:
            return found[0]
    return None


def _matrix(folder: Path) -> Path | None:
    files = sorted(folder.glob(f"*{_MATRIX}.h5"))
    folders = [path for path in sorted(folder.glob(f"*{_MATRIX}")) if "matrix" in mex_parts(path)]
    return next(iter([*files, *folders]), None)


def _experiment(folder: Path) -> Path | None:
    return next(iter(sorted(folder.glob("*experiment.xenium"))), None)


def _aligned(folder: Path) -> tuple[Path | None, Path | None]:
    """The H&E image and its alignment."""
    images = [path for path in images_in(folder) if "he_image" in path.name.lower()]
    csv = [path for path in sorted(folder.glob("*.csv")) if "alignment" in path.name.lower()]
    csv = [path for path in csv if "if_image" not in path.name.lower()]
    image = next((path for path in images if ".ome" in path.name), images[0] if images else None)
    return image, csv[0] if csv else None


def detect(path: Path) -> Detection | None:
    """One folder is one section; its parts are told by their names."""
    folder = path.parent if path.is_file() or path.name.endswith(_MATRIX) else path
    if not folder.is_dir():
        return None
    experiment, matrix, cells = _experiment(folder), _matrix(folder), _table(folder, _CELLS)
    transcripts = _table(folder, _TRANSCRIPTS)
    if experiment is None and matrix is None:
        return None
    image, alignment = _aligned(folder)
    parts = [matrix, cells, transcripts if matrix is None or cells is None else None, experiment, image, alignment]
    found = [part.name for part in parts if part is not None]
    said = {
        "cell_feature_matrix (.h5 or folder)": matrix is not None,
        "cells (.parquet or .csv.gz)": cells is not None,
        "experiment.xenium": experiment is not None,
        "H&E image (he_image.ome.tif)": image is not None,
        "H&E alignment (he_imagealignment.csv)": alignment is not None,
    }
    missing = [what for what, there in said.items() if not there]
    complete = (matrix is not None and cells is not None) or transcripts is not None
    return Detection("xenium", folder, [folder.resolve().name] if complete else [], found, missing)


@truth_reader(
    "xenium",
    "Xenium: cells, from the cell-feature matrix or from transcripts",
    looks_for="cell_feature_matrix.h5 and cells.parquet (or transcripts.parquet), and experiment.xenium",
    detect=detect,
)
def read(detection: Detection, name: str, source: Source) -> Section:
    """Read the cells; without an aligned H&E image they lie in the pixels of the morphology image."""
    folder = detection.root
    pixel_um = _pixel_um(_experiment(folder))
    matrix, cells, where = _read_cells(folder, source)
    image, csv = _aligned(folder)
    image = source.image or (image if csv is not None else None)
    to_morphology = Transform.scale(1.0) if csv is None or image is None else read_matrix_csv(csv)
    if pixel_um is None and source.mpp is None:
        todo = "Add experiment.xenium, or give the pixel size (mpp); it is 0.2125 µm for the morphology image"
        raise MissingTruthMppError("The size of a pixel is not known", where=folder, todo=todo)
    morphology_um = pixel_um or source.mpp or 1.0
    zoom = float(np.sqrt(abs(np.linalg.det(to_morphology.matrix[:2, :2]))))
    scale = scale_of(source)
    to_slide = Transform(Transform.scale(scale).matrix @ to_morphology.inverse().matrix)
    cells = Cells(cells.names, cells.xy_px / morphology_um, cells.area_um2, cells.columns)
    said = "given" if source.mpp is not None else "experiment.xenium" + (" and H&E alignment" if zoom != 1 else "")
    adata, notes = assemble_cells(
        matrix, cells, mpp=source.mpp or morphology_um * zoom / scale, mpp_source=said, to_slide=to_slide,
        library=name, layout=detection.layout, where=where,
    )  # fmt: skip
    return Section(name, adata, image, detection.layout, None, [*detection.found, *matrix.notes, *notes],
                   detection.missing)  # fmt: skip


def _pixel_um(path: Path | None) -> float | None:
    if path is None:
        return None
    try:
        value = float(json.loads(decode(read_bytes(path), path))["pixel_size"])
    except (ValueError, TypeError, KeyError, RecursionError) as error:
        raise TruthError("The experiment file tells no pixel size", where=path) from error
    if not 0 < value < 100:
        raise TruthError(f"The experiment file tells a pixel size of {value} µm", where=path)
    return value


def _read_cells(folder: Path, source: Source) -> tuple[FeatureMatrix, Cells, Path]:
    """Counts and positions in micrometres."""
    import pandas as pd

    matrix, table = _matrix(folder), _table(folder, _CELLS)
    if matrix is not None and table is not None:
        rows = pd.concat(table_chunks(table, ["cell_id", "x_centroid", "y_centroid"], optional=[_AREA]))
        xy = np.stack([numbers(rows, column, table) for column in ("x_centroid", "y_centroid")], axis=1)
        area = numbers(rows, _AREA, table) if _AREA in rows else None
        return (
            read_feature_matrix(matrix, genes=source.genes),
            Cells(list(rows["cell_id"].astype(str)), xy, area),
            table,
        )
    transcripts = _table(folder, _TRANSCRIPTS)
    if transcripts is None:
        raise TruthError("The folder has neither cells nor transcripts", where=folder)
    columns = Columns("cell_id", "feature_name", "x_location", "y_location")
    chunks = table_chunks(transcripts, ["cell_id", "feature_name", "x_location", "y_location"], optional=["qv"])

    def good(rows: pd.DataFrame) -> pd.Series:
        in_cell = ~rows["cell_id"].astype(str).isin(["-1", "UNASSIGNED", "", "nan"])
        gene = ~rows["feature_name"].astype(str).str.match(_CONTROLS)
        return in_cell & gene & (numbers(rows, "qv", transcripts) >= _QUALITY if "qv" in rows else True)

    return *count_transcripts(chunks, columns, good, transcripts), transcripts
