"""The layout of STimage-1K4M: ``gene_exp/NAME_count.csv``, ``coord/NAME_coord.csv`` and ``image/NAME.png``.

Coordinates are pixels of the image; the column ``r`` is the radius of a spot in pixels, which tells the scale
where the technology is known.
"""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np

from napari_he2st.core.errors import MissingTruthMppError
from napari_he2st.data.truth import lattice
from napari_he2st.data.truth.assemble import check_counts
from napari_he2st.data.truth.cells import Cells, assemble_cells
from napari_he2st.data.truth.images import images_in, only_image, scale_of
from napari_he2st.data.truth.section import Detection, Section, Source, truth_reader
from napari_he2st.data.truth.tables import count_table, numbers, read_columns
from napari_he2st.data.truth.tenx import FeatureMatrix

_COUNTS, _COORDS = "_count.csv", "_coord.csv"
_SPOT_UM = {"ST": lattice.LEGACY_SPOT_UM, "Visium": lattice.VISIUM_SPOT_UM}


def _folder(root: Path, name: str) -> Path:
    return root / name if (root / name).is_dir() else root


def _named(folder: Path, end: str) -> dict[str, Path]:
    files = [*folder.glob(f"*{end}"), *folder.glob(f"*{end}.gz")] if folder.is_dir() else []
    return {path.name.removesuffix(".gz").removesuffix(end): path for path in sorted(files)}


def _roots(path: Path) -> list[Path]:
    """Folders of one technology each: the path, the one above, or those below."""
    here = path.parent if path.is_file() else path
    here = here.parent if here.name in ("gene_exp", "coord", "image") else here
    return [here, *(here / name for name in ("ST", "Visium", "VisiumHD"))]


def _sections(path: Path) -> dict[str, Path]:
    """Folder of each section that has counts and coordinates."""
    found: dict[str, Path] = {}
    for root in _roots(path):
        counts, coords = _named(_folder(root, "gene_exp"), _COUNTS), _named(_folder(root, "coord"), _COORDS)
        found |= dict.fromkeys(counts.keys() & coords.keys(), root)
    return dict(sorted(found.items()))


def _images(root: Path, name: str) -> list[Path]:
    return [image for image in images_in(_folder(root, "image")) if image.stem == name]


def detect(path: Path) -> Detection | None:
    """Sections by the names of their tables."""
    sections = _sections(path)
    here = _roots(path)[0]
    if not sections:
        halves = _named(_folder(here, "coord"), _COORDS) or _named(_folder(here, "gene_exp"), _COUNTS)
        if not halves:
            return None
        return Detection("stimage", here, [], [path.name for path in halves.values()][:5], ["the other table"])
    missing = [f"image of {name}" for name, root in sections.items() if not _images(root, name)]
    return Detection("stimage", here, list(sections), [f"{len(sections)} sections with counts and spots"], missing)


@truth_reader(
    "stimage",
    "STimage-1K4M: tables of counts and coordinates with an image",
    looks_for="gene_exp/NAME_count.csv, coord/NAME_coord.csv and image/NAME.png",
    detect=detect,
)
def read(detection: Detection, name: str, source: Source) -> Section:
    """Read one section; the spots keep the coordinates of the image."""
    root = _sections(detection.root)[name]
    counts_path = _named(_folder(root, "gene_exp"), _COUNTS)[name]
    coords_path = _named(_folder(root, "coord"), _COORDS)[name]
    keys, genes, counts = count_table(counts_path, 1)
    check_counts(counts, counts_path)
    barcodes = [str(key) for key in keys.iloc[:, 0]]
    table = read_columns(coords_path, ["xaxis", "yaxis", "r"], separator=",")
    xy = np.stack([numbers(table, axis, coords_path) for axis in ("xaxis", "yaxis")], axis=1)
    radius_px = float(np.nanmedian(numbers(table, "r", coords_path)))
    scale = scale_of(source)
    spot_um = _spot_um(root, name)
    if source.mpp is not None:
        mpp, said = source.mpp, "given"
    elif spot_um is not None and radius_px > 0:
        mpp, said = spot_um / (2 * radius_px * scale), f"radius of the spots of {spot_um:g} µm"
    else:
        todo = "Give the pixel size (mpp) in micrometres"
        raise MissingTruthMppError("The technology does not tell the pixel size", where=root, todo=todo)
    area = np.full(len(table), np.pi * (radius_px * scale * mpp) ** 2)
    matrix = FeatureMatrix(counts, barcodes, genes, None, [], barcodes)
    adata, notes = assemble_cells(
        matrix, Cells([str(key) for key in table.iloc[:, 0]], xy, area), mpp=mpp, mpp_source=said, to_slide=scale,
        library=name, layout=detection.layout, where=coords_path,
    )  # fmt: skip
    missing: list[str] = []
    image = source.image or only_image(_images(root, name), missing)
    found = [part.name for part in (counts_path, coords_path, image) if part is not None]
    return Section(name, adata, image, detection.layout, None, [*found, *notes], missing)


def _spot_um(root: Path, name: str) -> float | None:
    """Diameter of a spot by technology: that of the folder, or the word in the section's name."""
    words = [root.name, *re.split("_", name)]
    return next((_SPOT_UM[word] for word in words if word in _SPOT_UM), None)
