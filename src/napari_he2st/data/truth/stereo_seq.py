"""Stereo-seq expression files (``gef``) as the vendor's pipeline SAW writes them: square bins, or segmented cells.

Positions are spots of the chip, whose distance (500 nm) the file tells; the registered image has one pixel for each.
Bins are put together from the single spots of ``geneExp/bin1``, block by block, and only the sums stay in memory.
Written after the published layout; no file of the vendor could be tried here.
"""

from __future__ import annotations

from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from napari_he2st.core import keys
from napari_he2st.core.errors import MissingTruthMppError, TruthError
from napari_he2st.core.types import Transform
from napari_he2st.data.truth.assemble import X_SOURCE, Y_SOURCE, Frame, assemble, check_counts, gene_table
from napari_he2st.data.truth.cells import Cells, assemble_cells
from napari_he2st.data.truth.images import images_in, only_image, scale_of
from napari_he2st.data.truth.section import Detection, Section, Source, truth_reader
from napari_he2st.data.truth.tenx import FeatureMatrix, check_memory

if TYPE_CHECKING:
    from collections.abc import Iterator

    import h5py

_CELLS = "cells"
_BINS = {"bin100": 100, "bin50": 50, "bin20": 20}
"""Widths in spots of the chip: 50, 25 and 10 µm."""

_BLOCK = 2**22  # records that are read at once
_OF_CELLS = ("x", "y", "offset", "geneCount", "area")


def _files(path: Path) -> list[Path]:
    """Files of a folder or of the pipeline's output around it; those of tissue and with adjusted cells first."""
    if path.is_file():
        return [path] if path.suffix == ".gef" else []
    folders = (path, path / "feature_expression", path / "outs" / "feature_expression")
    found = next((files for folder in folders if (files := list(folder.glob("*.gef")))), [])
    return sorted(found, key=lambda file: (".tissue." not in file.name, ".adjusted." not in file.name, file.name))


def _parts(path: Path) -> tuple[Path | None, Path | None]:
    """The files of bins and of cells."""
    files = _files(path)
    cells = [file for file in files if ".cellbin." in file.name.lower() or file.name.lower() == "cellbin.gef"]
    return next((file for file in files if file not in cells), None), next(iter(cells), None)


def detect(path: Path) -> Detection | None:
    """Bins and cells by the names of the files."""
    bins, cells = _parts(path)
    if bins is None and cells is None:
        return None
    sections = [*(_BINS if bins is not None else ()), *((_CELLS,) if cells is not None else ())]
    found = [file.name for file in (bins, cells) if file is not None]
    return Detection("stereo_seq", path, sections, found, ["registered image"], sections[0])


@truth_reader(
    "stereo_seq",
    "Stereo-seq: bins or cells of a gef file (not tried on real files)",
    looks_for="*.tissue.gef or *.cellbin.gef",
    detect=detect,
)
def read(detection: Detection, name: str, source: Source) -> Section:
    """Read bins of one size, or the segmented cells."""
    bins, cells = _parts(detection.root)
    file = cells if name == _CELLS else bins
    if file is None:
        raise TruthError("The file is not there any more", where=detection.root)
    missing: list[str] = []
    images = [path for path in images_in(file.parent) if "regist" in path.name and "mask" not in path.name]
    image = source.image or only_image(images, missing, "registered image")
    scale = scale_of(source)
    with _opened(file) as stored:
        spot_um = _spot_um(stored)
        mpp = source.mpp or (None if spot_um is None else spot_um / scale)
        if mpp is None or spot_um is None:
            todo = "Give the pixel size (mpp) of the registered image in micrometres"
            raise MissingTruthMppError("The file does not tell the distance of its spots", where=file, todo=todo)
        said = "given" if source.mpp else "resolution of the gef file"
        make = _cells if name == _CELLS else _bins
        adata, notes = make(stored, name, source, (mpp, said, spot_um), scale, file)
    found = [file.name, *([image.name] if image is not None else []), *notes]
    return Section(name, adata, image, detection.layout, None, found, missing)


def _bins(
    stored: h5py.File, name: str, source: Source, sizes: tuple[float, str, float], scale: float, where: Path
) -> tuple[Any, list[str]]:
    import pandas as pd
    from scipy.sparse import coo_matrix

    group, width = stored["geneExp/bin1"], _BINS[name]
    symbols, ids, kept = _genes(group["gene"], source, where)
    n = group["gene"]["count"].astype(np.int64)
    first = group["gene"]["offset"].astype(np.int64)
    expression = group["expression"]
    if (first < 0).any() or (first + n > len(expression)).any() or (np.diff(first) < 0).any():
        raise TruthError("The table of genes does not fit the records", where=where, todo="Copy the file again")
    found: list[pd.Series] = [pd.Series(dtype=np.int64)]  # records are sorted by gene: blocks share but one
    for start in range(0, len(expression), _BLOCK):
        block = expression[start : start + _BLOCK]
        gene = np.searchsorted(first, np.arange(start, start + len(block)), side="right") - 1
        known = (gene >= 0) & kept[gene]
        x, y = (block[axis].astype(np.int64)[known] // width for axis in ("x", "y"))
        if len(x) and (min(x.min(), y.min()) < 0 or max(x.max(), y.max()) >= 2**20):
            raise TruthError("Spots lie outside the chip", where=where, todo="Copy the file again")
        key = (y << 40) + (x << 20) + gene[known]
        found.append(pd.Series(block["count"].astype(np.int64)[known]).groupby(key).sum())
        check_memory(sum(map(len, found)), where)
    sums = pd.concat(found)
    key = sums.index.to_numpy(dtype=np.int64)
    at, row = np.unique(key >> 20, return_inverse=True)
    columns = np.cumsum(kept) - 1
    values = sums.to_numpy(dtype=np.float32)
    shape = len(at), int(kept.sum())
    counts = coo_matrix((values, (row, columns[key & (2**20 - 1)])), shape=shape).tocsr()
    check_counts(counts, where)
    genes, notes = gene_table(symbols, ids, where)
    column, line = at & (2**20 - 1), at >> 20
    spots = pd.DataFrame({keys.ARRAY_ROW: line, keys.ARRAY_COL: column, keys.IN_TISSUE: True})
    spots[X_SOURCE], spots[Y_SOURCE] = (column + 0.5) * width, (line + 0.5) * width
    spots.index = pd.Index([f"{x}_{y}" for x, y in zip(column * width, line * width, strict=True)], dtype=object)
    mpp, said, spot_um = sizes
    frame = Frame(mpp, said, width * spot_um, width * spot_um, "square", Transform.scale(scale))
    return assemble(counts, spots, genes, frame, library=name, layout="stereo_seq"), notes


def _cells(
    stored: h5py.File, name: str, source: Source, sizes: tuple[float, str, float], scale: float, where: Path
) -> tuple[Any, list[str]]:
    from scipy.sparse import csr_matrix

    group = stored["cellBin"]
    symbols, ids, kept = _genes(group["gene"], source, where)
    table = {field: group["cell"][field].astype(np.int64) for field in _OF_CELLS}
    records = group["cellExp"]
    check_memory(len(records), where)
    ends = np.append(table["offset"], table["offset"][-1:] + table["geneCount"][-1:])
    gene, value = records["geneID"].astype(np.int64), records["count"].astype(np.float32)
    whole = len(ends) > 1 and ends[0] == 0 and ends[-1] == len(gene) and (np.diff(ends) == table["geneCount"]).all()
    if not whole or (gene >= len(kept)).any():
        raise TruthError("The table of cells does not fit the records", where=where, todo="Copy the file again")
    counts = csr_matrix((value, gene, ends), shape=(len(ends) - 1, len(kept)))[:, np.flatnonzero(kept)]
    check_counts(counts, where)
    names = [f"cell_{number}" for number in group["cell"]["id"].tolist()]
    matrix = FeatureMatrix(counts, names, symbols, ids, [], names)
    mpp, said, spot_um = sizes
    xy = np.stack([table["x"], table["y"]], axis=1).astype(np.float64)
    cells = Cells(names, xy, table["area"] * spot_um**2)
    facts: dict[str, Any] = {"mpp": mpp, "mpp_source": said, "to_slide": scale, "where": where}
    adata, notes = assemble_cells(matrix, cells, library=name, layout="stereo_seq", **facts)
    return adata, notes


def _genes(table: h5py.Dataset, source: Source, where: Path) -> tuple[list[str], list[str] | None, NDArray[np.bool_]]:
    """Symbols and identifiers of the wanted genes, and which of all these are."""
    fields = table.dtype.names or ()
    name = next((field for field in ("geneName", "gene", "geneID") if field in fields), None)
    if name is None or len(table) >= 2**20:
        raise TruthError("The table of genes has no names", where=where, todo="Copy the file again")
    symbols = [_text(value) for value in table[name]]
    ids = [_text(value) for value in table["geneID"]] if "geneID" in fields and name != "geneID" else None
    wanted = source.genes
    named = zip(symbols, ids or symbols, strict=True)
    kept = np.array([bool(s) and (wanted is None or s in wanted or i in wanted) for s, i in named], dtype=bool)
    at = np.flatnonzero(kept)
    return [symbols[i] for i in at], None if ids is None else [ids[i] for i in at], kept


def _text(value: Any) -> str:
    return value.decode("utf-8", "replace").rstrip("\0") if isinstance(value, bytes) else str(value)


def _spot_um(stored: h5py.File) -> float | None:
    """Distance of spots; the file keeps it in nanometres."""
    places = (stored, stored.get("geneExp/bin1/expression"), stored.get("cellBin/cell"))
    for place in places:
        if place is not None and "resolution" in place.attrs:
            nm = float(np.ravel(place.attrs["resolution"])[0])
            return nm / 1000 if 0 < nm < np.inf else None
    return None


@contextmanager
def _opened(path: Path) -> Iterator[h5py.File]:
    """An HDF5 file; what is damaged or missing in it is said as such.

    Raises
    ------
    TruthError
        The file cannot be read, or is no gef file.
    """
    import h5py

    try:
        with h5py.File(path, "r") as stored:
            yield stored
    except (OSError, KeyError, RuntimeError, ValueError, TypeError, AttributeError, IndexError) as error:
        message = f"The gef file is damaged or has another layout ({error})"
        raise TruthError(message, where=path, todo="Copy it again, or export h5ad with Stereopy") from error
