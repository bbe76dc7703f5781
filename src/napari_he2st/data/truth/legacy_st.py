"""Spatial Transcriptomics arrays (Ståhl et al., Science 353:78, 2016), in every layout they were published in.

:mod:`~napari_he2st.data.truth.legacy_files` knows the names of the files.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import TYPE_CHECKING, cast

import numpy as np
from numpy.typing import NDArray

from napari_he2st.core import keys
from napari_he2st.core.errors import MissingTruthMppError, TruthError
from napari_he2st.core.types import Lattice, Transform
from napari_he2st.data.truth import lattice
from napari_he2st.data.truth.assemble import (
    X_SOURCE,
    Y_SOURCE,
    Frame,
    assemble,
    check_counts,
    check_unique,
    gene_table,
    join,
)
from napari_he2st.data.truth.genes import without_version
from napari_he2st.data.truth.images import only_image, scale_of
from napari_he2st.data.truth.legacy_files import counts_without_spots, find, gene_names, root_of
from napari_he2st.data.truth.section import Detection, Section, Source, truth_reader
from napari_he2st.data.truth.tables import decode, numbers, read_bytes, read_columns, read_matrix

if TYPE_CHECKING:
    from pandas import Categorical, DataFrame

_LABELLED = "_labeled_coordinates.tsv"


def detect(path: Path) -> Detection | None:
    """Sections by their names; the path may be the folder, its parent, or one of its subfolders."""
    root = root_of(path)
    sections = find(root) if root.is_dir() else {}
    if not sections:
        return None
    complete = [name for name, parts in sections.items() if parts.complete]
    if path.is_file():
        complete = [name for name in complete if path in (sections[name].counts, sections[name].spots)]
    labelled = [name for name in complete if sections[name].labels is not None]
    found = [f"{len(complete)} sections with counts and spots"]
    found += [f"labels of {', '.join(labelled)}"] if labelled else []
    missing = [f"counts of {name}" for name, parts in sections.items() if parts.counts is None]
    missing += [f"spot file of {name}" for name in counts_without_spots(root)]
    missing += [f"image of {name}" for name in complete if not sections[name].images]
    return Detection("legacy_st", root, complete, found, missing)


@truth_reader(
    "legacy_st",
    "Spatial Transcriptomics arrays: her2st, Breast-ST (ST-Net), cSCC, mouse olfactory bulb",
    looks_for="NAME.tsv(.gz) and NAME_selection.tsv, in one folder or in ST-cnts/ and ST-spotfiles/, or "
    "NAME_stdata.tsv with spots_NAME.csv or spot_data-selection-NAME.tsv",
    detect=detect,
)
def read(detection: Detection, name: str, source: Source) -> Section:
    """Read one section; counts and spots are joined by their key ``{x}x{y}``."""
    from scipy.sparse import csr_matrix

    root, parts = detection.root, find(detection.root)[name]
    if parts.counts is None or parts.spots is None:
        raise TruthError("The section is incomplete", where=root)
    rows, columns, dense = read_matrix(parts.counts)
    if parts.spots.suffix == ".txt":
        spots = _transformed(rows, parts.spots, parts.counts)
        rows = [_key(*position) for position in map(_array_position, rows)]
    else:
        spots = _read_spots(parts.spots)
    check_unique(rows, "spots", parts.counts)
    counts = csr_matrix(dense)
    check_counts(counts, parts.counts)
    symbols, ids = _names(columns, gene_names(root))
    genes, notes = gene_table(symbols, ids, parts.counts)
    spots, counts, left_out = join(spots, counts, rows, parts.spots)
    notes += left_out
    frame = _frame(spots, source, parts.spots)
    spots = spots.drop(columns=["new_x", "new_y"])
    if parts.labels is not None and parts.labels.name.removesuffix(".gz").endswith(_LABELLED):
        spots[keys.LABEL], label_notes = _read_labels(parts.labels, spots)
        notes += label_notes
    missing: list[str] = []
    image = source.image or only_image(parts.images, missing)
    adata = assemble(counts, spots, genes, frame, library=name, layout=detection.layout)
    files = [parts.counts, parts.spots, parts.labels, image]
    found = [path.name for path in files if path is not None]
    return Section(name, adata, image, detection.layout, _patient(name), [*found, *notes], missing)


def _patient(name: str) -> str | None:
    """Whom a section is from: the letter of her2st, the first word of ``P2_ST_rep1`` or ``BC23209_C1``."""
    match = re.fullmatch(r"([A-Z])\d+|((?:P|BC|BT)\d+)_.+", name)
    return None if match is None else match[1] or match[2]


def _names(columns: list[str], table: Path | None) -> tuple[list[str], list[str] | None]:
    """Symbols and identifiers of the columns; identifiers become symbols where a table beside the counts knows them."""
    if table is None or not all(map(without_version, columns)):
        return columns, None
    rows = read_columns(table, ["gene_id", "gene_name"], separator="\t")
    known = {without_version(gene): name for gene, name in zip(rows["gene_id"], rows["gene_name"], strict=True)}
    return [known.get(without_version(gene)) or gene for gene in columns], columns


def _array_position(name: str) -> tuple[float, float]:
    """Position of a spot on the array from a key such as ``12x7`` or ``12.02x6.98``."""
    x, cross, y = name.partition("x")
    try:
        return float(x), float(y if cross else "nan")
    except ValueError:
        return float("nan"), float("nan")


def _key(x: float, y: float) -> str:
    return f"{x:.0f}x{y:.0f}" if np.isfinite([x, y]).all() else ""


def _transformed(names: list[str], path: Path, counts: Path) -> DataFrame:
    """Spots whose pixels follow from their array position by a published 3 × 3 matrix."""
    at = np.array([_array_position(name) for name in names]).reshape(-1, 2)
    if not np.isfinite(at).all():
        raise TruthError("A row is not named by its array position, as in 12x7", where=counts)
    try:
        matrix = np.array(decode(read_bytes(path), path).replace(",", " ").split(), dtype=np.float64).reshape(3, 3)
    except ValueError as error:
        raise TruthError("The transformation is not nine numbers", where=path) from error
    if np.allclose(matrix[:, 2], [0, 0, 1]):  # written for row vectors
        matrix = matrix.T
    xy = at @ matrix[:2, :2].T + matrix[:2, 2]
    return _spot_table(at[:, 0], at[:, 1], xy[:, 0], xy[:, 1], path)


def _read_spots(path: Path) -> DataFrame:
    """Positions on the array and in the image; 0 in ``selected`` marks spots beside the tissue, with background."""
    separator = "," if path.name.removesuffix(".gz").endswith(".csv") else "\t"
    table = read_columns(path, [], separator=separator)
    if separator == ",":  # ST-Net: the key, X and Y
        table = read_columns(path, ["X", "Y"], separator=separator)
        at = np.array([_array_position(str(name)) for name in table.iloc[:, 0]]).reshape(-1, 2)
        return _spot_table(at[:, 0], at[:, 1], numbers(table, "X", path), numbers(table, "Y", path), path)
    table = read_columns(path, ["x", "y", "pixel_x", "pixel_y"], separator=separator)
    x, y, pixel_x, pixel_y = (numbers(table, name, path) for name in ("x", "y", "pixel_x", "pixel_y"))
    new = [numbers(table, name, path) if name in table else old for name, old in (("new_x", x), ("new_y", y))]
    spots = _spot_table(x, y, pixel_x, pixel_y, path, *new)
    return spots[numbers(table, "selected", path) != 0] if "selected" in table else spots


def _spot_table(x: NDArray, y: NDArray, pixel_x: NDArray, pixel_y: NDArray, path: Path, *new: NDArray) -> DataFrame:
    """Spots by their key; ``new`` is the measured array position, where it is known."""
    import pandas as pd

    if not (np.isfinite(x).all() and np.isfinite(y).all()) or (np.abs([x, y]) > 1e6).any():
        raise TruthError("A spot has no array position", where=path, todo="Complete columns x and y")
    column, row = np.rint(x).astype(int), np.rint(y).astype(int)
    new_x, new_y = new or (x, y)
    spots = pd.DataFrame(
        {
            keys.ARRAY_ROW: row,
            keys.ARRAY_COL: column,
            keys.IN_TISSUE: True,
            X_SOURCE: pixel_x,
            Y_SOURCE: pixel_y,
            "new_x": new_x,
            "new_y": new_y,
        },
        index=pd.Index([_key(a, b) for a, b in zip(column, row, strict=True)], dtype=object),
    )
    check_unique(spots.index, "spots", path)
    return spots


def _read_labels(path: Path, spots: DataFrame) -> tuple[Categorical, list[str]]:
    """Labels of the spots by rounded array position: pixel columns are of another image size."""
    import pandas as pd

    table = read_columns(path, ["x", "y", "label"], separator="\t")
    x, y = numbers(table, "x", path), numbers(table, "y", path)
    placed = np.isfinite(x) & np.isfinite(y)
    names = [f"{a:.0f}x{b:.0f}" for a, b in zip(np.rint(x[placed]), np.rint(y[placed]), strict=True)]
    labels = pd.Series(table["label"].to_numpy()[placed], index=names, dtype=object)
    labels = labels[~labels.index.duplicated()]
    undecided = labels.str.strip().str.lower().isin(["undetermined", ""])
    left_out = {
        "label rows without position": int((~placed).sum()),
        "labels without spot": int((~labels.index.isin(spots.index)).sum()),
        "undetermined labels": int(undecided.sum()),
    }
    chosen = labels[~undecided].reindex(spots.index)
    return pd.Categorical(chosen), [f"{n} {what} left out" for what, n in left_out.items() if n]


def _frame(spots: DataFrame, source: Source, path: Path) -> Frame:
    scale = scale_of(source)
    xy_px = spots[[X_SOURCE, Y_SOURCE]].to_numpy(dtype=float)
    known = np.isfinite(xy_px).all(axis=1)
    row, column = spots[keys.ARRAY_ROW].to_numpy(), spots[keys.ARRAY_COL].to_numpy()
    staggered = len(spots) > 8 and lattice.is_hexagonal(row, column)
    unit_um, pitch_um, kind = lattice.LEGACY_PITCH_UM, lattice.LEGACY_PITCH_UM, "square"
    if staggered:
        unit_um, pitch_um, kind = lattice.STAGGERED_UNIT_UM, lattice.STAGGERED_PITCH_UM, "irregular"
    array_um = spots[["new_x", "new_y"]].to_numpy(dtype=float) * unit_um
    fit = lattice.fit_lattice(array_um[known], xy_px[known])
    if source.mpp is not None:
        mpp, said = source.mpp, "given"
    elif fit is not None:
        mpp, said = 1 / (fit.px_per_um * scale), f"estimated from the spot pitch of {pitch_um:.0f} µm"
    else:
        todo = "Give the pixel size (mpp) in micrometres"
        raise MissingTruthMppError("The spots are too few to tell the pixel size", where=path, todo=todo)
    return Frame(mpp, said, pitch_um, lattice.LEGACY_SPOT_UM, cast("Lattice", kind), Transform.scale(scale))
