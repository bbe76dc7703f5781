"""Segmented cells of 10x Visium HD, as Space Ranger 4 writes them into ``segmented_outputs``."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from napari_he2st.core.errors import MissingTruthMppError, TruthError
from napari_he2st.data.truth.cells import Cells, assemble_cells
from napari_he2st.data.truth.images import images_in
from napari_he2st.data.truth.section import Detection, Section, Source, truth_reader
from napari_he2st.data.truth.space_ranger import add_pictures, choose_image, locate, read_scalefactors
from napari_he2st.data.truth.tables import decode, read_bytes
from napari_he2st.data.truth.tenx import read_feature_matrix

_OUTLINES = "cell_segmentations.geojson"


def _folder(path: Path) -> Path | None:
    """The folder of the outlines, at, above or below a path."""
    here = path.parent if path.is_file() or path.name == "spatial" else path
    levels = (here, here / "segmented_outputs", here / "outs" / "segmented_outputs")
    return next((folder for folder in levels if _outlines(folder) is not None), None)


def _outlines(folder: Path) -> Path | None:
    found = sorted(folder.glob(f"*{_OUTLINES}")) if folder.is_dir() else []
    return next((path for path in found if "annotated" not in path.name), None)


def detect(path: Path) -> Detection | None:
    """Cells by file names."""
    folder = _folder(path)
    if folder is None or "binned_outputs" in path.parts:
        return None
    files = locate(folder)[""]
    found = [_OUTLINES, *files.found()]
    if files.matrix is None:
        return Detection("visium_hd_cells", folder, [], found, ["filtered_feature_cell_matrix (.h5 or folder)"])
    missing = [] if files.scalefactors is not None else ["spatial/scalefactors_json.json"]
    return Detection("visium_hd_cells", folder, ["cells"], found, missing)


@truth_reader(
    "visium_hd_cells",
    "Visium HD: segmented cells of Space Ranger 4",
    looks_for=f"segmented_outputs with filtered_feature_cell_matrix.h5 and {_OUTLINES}",
    detect=detect,
    order=45,
)
def read(detection: Detection, name: str, source: Source) -> Section:
    """Read the cells; their positions are the centroids of their outlines, in full-resolution pixels."""
    folder = detection.root
    files, outlines = locate(folder)[""], _outlines(folder)
    if files.matrix is None or outlines is None:
        raise TruthError(f"The cells lack {' and '.join(detection.missing)}", where=folder)
    matrix = read_feature_matrix(files.matrix, genes=source.genes)
    scalefactors = read_scalefactors(files.scalefactors)
    centres, areas = _centroids(outlines)
    missing = list(detection.missing)
    images = next((slides for at in (folder, *folder.parents[:2]) if (slides := _slides(at))), [])
    image, scale = choose_image(files, scalefactors, source, images, missing)
    mpp = source.mpp or (scalefactors["microns_per_pixel"] / scale if "microns_per_pixel" in scalefactors else None)
    if mpp is None:
        todo = "Give the pixel size (mpp) in micrometres"
        raise MissingTruthMppError("The cells do not say how large a pixel is", where=folder, todo=todo)
    barcodes = [f"cellid_{number:09d}-1" for number in centres]
    cells = Cells(barcodes, np.array([*centres.values()]).reshape(-1, 2), areas * (mpp * scale) ** 2)
    adata, notes = assemble_cells(
        matrix, cells, mpp=mpp, mpp_source="given" if source.mpp else "scale factors (microns_per_pixel)",
        to_slide=scale, library=name, layout=detection.layout, where=outlines,
    )  # fmt: skip
    add_pictures(adata, files, scalefactors, scale)
    found = [*detection.found, *([image.name] if image is not None else []), *matrix.notes, *notes]
    return Section(name, adata, image, detection.layout, None, found, missing)


def _slides(folder: Path) -> list[Path]:
    return [path for path in images_in(folder) if "tissue_" not in path.name and "cytassist" not in path.name]


def _centroids(path: Path) -> tuple[dict[int, NDArray[np.float64]], NDArray[np.float64]]:
    """Centroid (x, y) of each cell by its number, and the areas in square pixels."""
    try:
        features = json.loads(decode(read_bytes(path), path))["features"]
        rings = {int(f["properties"]["cell_id"]): _ring(f["geometry"]) for f in features}
    except (ValueError, TypeError, KeyError, IndexError, AttributeError, RecursionError) as error:
        message = f"The outlines of the cells are damaged ({type(error).__name__}: {error})"
        raise TruthError(message, where=path, todo="Download or copy the file again") from error
    found = {number: _moments(ring) for number, ring in rings.items()}
    return {number: centre for number, (centre, _) in found.items()}, np.array([area for _, area in found.values()])


def _ring(geometry: dict) -> NDArray[np.float64]:
    """Outer ring of a polygon, or of the first part of several."""
    rings = geometry["coordinates"] if geometry["type"] == "Polygon" else geometry["coordinates"][0]
    ring = np.asarray(rings[0], dtype=np.float64)
    if ring.ndim != 2 or ring.shape[1] < 2:
        message = "an outline has no corners"
        raise ValueError(message)
    return ring[:, :2]


def _moments(ring: NDArray[np.float64]) -> tuple[NDArray[np.float64], float]:
    """Centroid and area by the shoelace formula; the mean of the corners where there is no area."""
    origin = ring.mean(axis=0)
    here, there = ring - origin, np.roll(ring - origin, -1, axis=0)
    cross = here[:, 0] * there[:, 1] - there[:, 0] * here[:, 1]
    area = float(cross.sum() / 2)
    if not abs(area) > 0:
        return origin, 0.0
    return origin + ((here + there) * cross[:, None]).sum(axis=0) / (6 * area), abs(area)
