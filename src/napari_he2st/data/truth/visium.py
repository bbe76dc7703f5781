"""Output folders of 10x Space Ranger for Visium slides of 55 µm spots: v1, v2 and CytAssist."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from napari_he2st.core import keys
from napari_he2st.core.errors import MissingTruthMppError
from napari_he2st.core.types import Transform
from napari_he2st.data.truth import lattice
from napari_he2st.data.truth.assemble import X_SOURCE, Y_SOURCE, Frame, assemble, gene_table, join
from napari_he2st.data.truth.section import Detection, Section, Source, truth_reader
from napari_he2st.data.truth.space_ranger import (
    Files,
    add_pictures,
    choose_image,
    is_bin,
    levels_below,
    locate,
    mismatches,
    read_positions,
    read_scalefactors,
    section_name,
)
from napari_he2st.data.truth.tenx import read_feature_matrix

if TYPE_CHECKING:
    from pandas import DataFrame


def _sections(path: Path) -> dict[str, Files]:
    """Complete sections by name, at the level of ``path`` or the nearest one where there are any."""
    for level in levels_below(path):
        located = {
            section_name(folder, prefix): files
            for folder in level
            if folder.is_dir() and not is_bin(folder)
            for prefix, files in locate(folder).items()
        }
        complete = {name: files for name, files in located.items() if files.complete}
        if complete:
            return complete
    return {}


def detect(path: Path) -> Detection | None:
    """Sections by file names; the path may be the folder, one above, or a part of it."""
    sections = _sections(path)
    if len(sections) == 1:
        name, files = next(iter(sections.items()))
        return Detection("visium", path, [name], files.found(), files.missing())
    if sections:
        missing = [f"{what} of {name}" for name, files in sections.items() for what in files.missing()]
        return Detection("visium", path, sorted(sections), [f"{len(sections)} sections"], missing)
    here = path.parent if path.is_file() or path.name == "spatial" else path
    parts = [] if is_bin(here) else [*locate(here).values()]
    parts = [files for files in parts if files.positions is not None or files.matrix is not None]
    if not parts:
        return None
    found = [name for files in parts for name in files.found()]
    return Detection("visium", path, [], found, parts[0].missing())


@truth_reader(
    "visium",
    "Visium of every Space Ranger generation",
    looks_for="filtered_feature_bc_matrix (.h5 or folder) and spatial/tissue_positions (.csv)",
    detect=detect,
)
def read(detection: Detection, name: str, source: Source) -> Section:
    """Read one section; only spots in tissue are kept."""
    files = _sections(detection.root)[name]
    matrix_path, positions_path = files.needed()
    matrix = read_feature_matrix(matrix_path)
    spots, scalefactors = read_positions(positions_path), read_scalefactors(files.scalefactors)
    genes, notes = gene_table(matrix.symbols, matrix.ids, matrix_path)
    missing = files.missing()
    image, scale = choose_image(files, scalefactors, source, files.images, missing)
    frame = _frame(spots, source, scale, positions_path)
    warnings = mismatches(matrix.barcodes, spots, filtered=not files.is_raw)

    spots, counts, left_out = join(spots[spots[keys.IN_TISSUE]], matrix.counts, matrix.barcodes, positions_path)
    adata = assemble(counts, spots, genes, frame, library=name, layout=detection.layout)
    add_pictures(adata, files, scalefactors, scale)
    found = files.found() + ([image.name] if image is not None else [])
    found += [*notes, *matrix.notes, *left_out]
    return Section(name, adata, image, detection.layout, None, found, missing, warnings)


def _frame(spots: DataFrame, source: Source, scale: float, path: Path) -> Frame:
    """Scale from the pitch; ``spot_diameter_fullres`` corresponds to about 65 µm, so it is no scale."""
    if source.mpp is not None:
        mpp, said = source.mpp, "given"
    else:
        plane = lattice.hexagonal_um(spots[keys.ARRAY_ROW].to_numpy(), spots[keys.ARRAY_COL].to_numpy())
        xy_px = spots[[X_SOURCE, Y_SOURCE]].to_numpy()
        known = np.isfinite(xy_px).all(axis=1)
        fit = lattice.fit_lattice(plane[known], xy_px[known])
        if fit is None:
            todo = "Give the pixel size (mpp) in micrometres"
            raise MissingTruthMppError("The spots are too few to tell the pixel size", where=path, todo=todo)
        mpp = 1 / (fit.px_per_um * scale)
        said = f"estimated from the spot pitch of {lattice.VISIUM_PITCH_UM:g} µm (centre to centre)"
    return Frame(mpp, said, lattice.VISIUM_PITCH_UM, lattice.VISIUM_SPOT_UM, "hexagonal", Transform.scale(scale))
