"""Bins of 10x Visium HD: squares of 2, 8 and 16 µm, each in a folder ``binned_outputs/square_0NNum``."""

from __future__ import annotations

import re
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from napari_he2st.core import keys
from napari_he2st.core.errors import MissingTruthMppError, TruthError
from napari_he2st.core.types import Transform
from napari_he2st.data.truth import lattice
from napari_he2st.data.truth.assemble import X_SOURCE, Y_SOURCE, Frame, assemble, gene_table, join
from napari_he2st.data.truth.images import images_in
from napari_he2st.data.truth.section import Detection, Section, Source, truth_reader
from napari_he2st.data.truth.space_ranger import (
    Files,
    add_pictures,
    choose_image,
    is_bin,
    locate,
    mismatches,
    read_positions,
    read_scalefactors,
)
from napari_he2st.data.truth.tenx import read_feature_matrix

if TYPE_CHECKING:
    from pandas import DataFrame

_PREFERRED = "square_016um"  # small enough for every machine; the others have 4 and 64 times as many bins


def _bins(path: Path) -> dict[str, Files]:
    """Complete bin sizes by the name of their folder; the path may be any level around them."""
    here = path.parent if path.is_file() or path.name == "spatial" else path
    for folder in (here, here / "outs", here / "binned_outputs", here / "outs" / "binned_outputs", here.parent):
        folders = sorted(folder.iterdir()) if folder.is_dir() and folder != here.parent else [here]
        bins = {child.name: locate(child)[""] for child in folders if is_bin(child)}
        if bins:
            return bins
    return {}


def detect(path: Path) -> Detection | None:
    """Bin sizes by file names, 16 µm preferred."""
    bins = _bins(path)
    complete = {name: files for name, files in bins.items() if files.complete}
    if complete:
        default = _PREFERRED if _PREFERRED in complete else sorted(complete)[-1]
        found = [f"bins {', '.join(sorted(complete))}", *complete[default].found()]
        names = sorted(complete, key=lambda name: (name != default, name))
        return Detection("visium_hd", path, names, found, complete[default].missing(), default)
    lone = next(iter(bins.values()), None)
    if lone is None:
        return None
    return Detection("visium_hd", path, [], lone.found(), lone.missing())


@truth_reader(
    "visium_hd",
    "Visium HD: bins of 2, 8 or 16 µm",
    looks_for="binned_outputs/square_016um with filtered_feature_bc_matrix and spatial/tissue_positions.parquet",
    detect=detect,
    order=40,
)
def read(detection: Detection, name: str, source: Source) -> Section:
    """Read one bin size; counts are streamed, and only bins in tissue are kept."""
    files = _bins(detection.root)[name]
    matrix_path, positions_path = files.needed()
    spots, scalefactors = read_positions(positions_path), read_scalefactors(files.scalefactors)
    in_tissue = spots[spots[keys.IN_TISSUE]]
    matrix = read_feature_matrix(matrix_path, genes=source.genes, barcodes=in_tissue.index)
    genes, notes = gene_table(matrix.symbols, matrix.ids, matrix_path)
    missing = files.missing()
    image, scale = choose_image(files, scalefactors, source, _images(files.root), missing)
    bin_um = scalefactors.get("bin_size_um") or float(re.sub(r"\D", "", name) or 0)
    if not bin_um:
        raise TruthError("The size of the bins is not known", where=files.root, todo="Add scalefactors_json.json")
    frame = _frame(spots, scalefactors, source, scale, bin_um, positions_path)
    warnings = mismatches(matrix.all_barcodes, spots, filtered=not files.is_raw, prefix=f"s_{bin_um:03.0f}um_")

    spots, counts, left_out = join(in_tissue, matrix.counts, matrix.barcodes, positions_path)
    adata = assemble(counts, spots, genes, frame, library=name, layout=detection.layout)
    add_pictures(adata, files, scalefactors, scale)
    found = [*files.found(), *([image.name] if image is not None else []), *notes, *matrix.notes, *left_out]
    return Section(name, adata, image, detection.layout, None, found, missing, warnings)


def _images(root: Path) -> list[Path]:
    """The microscope's image: beside ``binned_outputs``, beside ``outs``, or in the folder of the bins."""
    for folder in (root, root.parent.parent, root.parent.parent.parent):
        images = [image for image in images_in(folder) if "tissue_" not in image.name and "cytassist" not in image.name]
        if images:
            return images
    return []


def _frame(
    spots: DataFrame, scalefactors: dict[str, float], source: Source, scale: float, bin_um: float, path: Path
) -> Frame:
    if source.mpp is not None:
        mpp, said = source.mpp, "given"
    elif "microns_per_pixel" in scalefactors:
        mpp, said = scalefactors["microns_per_pixel"] / scale, "scale factors (microns_per_pixel)"
    else:
        plane = spots[[keys.ARRAY_COL, keys.ARRAY_ROW]].to_numpy() * bin_um
        fit = lattice.fit_lattice(plane, spots[[X_SOURCE, Y_SOURCE]].to_numpy())
        if fit is None or not np.isfinite(fit.px_per_um):
            todo = "Give the pixel size (mpp) in micrometres"
            raise MissingTruthMppError("The bins are too few to tell the pixel size", where=path, todo=todo)
        mpp, said = 1 / (fit.px_per_um * scale), f"estimated from the bin size of {bin_um:g} µm"
    return Frame(mpp, said, bin_um, bin_um, "square", Transform.scale(scale))
