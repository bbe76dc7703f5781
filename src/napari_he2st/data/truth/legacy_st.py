"""Spatial Transcriptomics arrays of 1,007 spots, as published with her2st (Andersson et al. 2021).

Either sorted by kind, ``ST-cnts/NAME.tsv.gz``, ``ST-spotfiles/NAME_selection.tsv``, an image below
``ST-imgs/…/NAME/`` and perhaps ``ST-pat/lbl/NAME_labeled_coordinates.tsv``, or all in one folder.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from napari_he2st.core import keys
from napari_he2st.core.errors import TruthError
from napari_he2st.core.types import Transform
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
from napari_he2st.data.truth.images import images_in, only_image, scale_of
from napari_he2st.data.truth.section import Detection, Section, Source, truth_reader
from napari_he2st.data.truth.tables import numbers, read_columns, read_matrix

if TYPE_CHECKING:
    from pandas import Categorical, DataFrame

_COUNTS, _SPOTS, _IMAGES, _LABELS = "ST-cnts", "ST-spotfiles", "ST-imgs", "ST-pat/lbl"
_SELECTION, _LABELLED = "_selection.tsv", "_labeled_coordinates.tsv"


def _named(folder: Path, suffix: str) -> dict[str, Path]:
    """Files ``NAME`` + ``suffix`` (also gzipped) of a folder by NAME."""
    files = [*folder.glob(f"*{suffix}"), *folder.glob(f"*{suffix}.gz")] if folder.is_dir() else []
    return {path.name.removesuffix(".gz").removesuffix(suffix): path for path in sorted(files)}


def _counts(root: Path) -> dict[str, Path]:
    folder = root / _COUNTS if (root / _COUNTS).is_dir() else root
    tables = _named(folder, ".tsv")
    return {name: path for name, path in tables.items() if not f"{name}.tsv".endswith((_SELECTION, _LABELLED))}


def _spots(root: Path) -> dict[str, Path]:
    return _named(root / _SPOTS if (root / _SPOTS).is_dir() else root, _SELECTION)


def _labels(root: Path) -> dict[str, Path]:
    return _named(root / _LABELS if (root / _LABELS).is_dir() else root, _LABELLED)


def _images(root: Path, name: str) -> list[Path]:
    if (root / _IMAGES).is_dir():
        return [image for folder in sorted((root / _IMAGES).rglob(name)) for image in images_in(folder)]
    images = images_in(root)
    own = [image for image in images if re.match(rf"{re.escape(name)}(?![0-9A-Za-z])", image.name)]
    return own or (images if len(_spots(root)) == 1 else [])


def detect(path: Path) -> Detection | None:
    """Sections by their names; the path may be the folder, its parent, or one of its subfolders."""
    if not path.is_dir():
        return None
    levels = (path, path / "data", path.parent if path.name.startswith("ST-") else path)
    root = next((folder for folder in levels if (folder / _SPOTS).is_dir()), path)
    counts, spots = _counts(root), _spots(root)
    if not spots:
        return None
    complete = sorted(counts.keys() & spots.keys())
    labels = _labels(root).keys() & set(complete)
    found = [f"{len(complete)} sections with counts and spots"]
    found += [f"labels of {', '.join(sorted(labels))}"] if labels else []
    missing = [f"counts of {name}" for name in sorted(spots.keys() - counts.keys())]
    if (root / _COUNTS).is_dir():
        missing += [f"spot file of {name}" for name in sorted(counts.keys() - spots.keys())]
    missing += [f"image of {name}" for name in complete if not _images(root, name)]
    return Detection("legacy_st", root, complete, found, missing)


@truth_reader(
    "legacy_st",
    "Spatial Transcriptomics arrays (1,007 spots): counts and spot tables",
    looks_for="NAME.tsv(.gz) and NAME_selection.tsv, in one folder or in ST-cnts/ and ST-spotfiles/",
    detect=detect,
)
def read(detection: Detection, name: str, source: Source) -> Section:
    """Read one section; counts and spots are joined by their key ``{x}x{y}``."""
    from scipy.sparse import csr_matrix

    root = detection.root
    counts_path, spots_path, labels_path = _counts(root)[name], _spots(root)[name], _labels(root).get(name)
    rows, columns, dense = read_matrix(counts_path)
    check_unique(rows, "spots", counts_path)
    counts = csr_matrix(dense)
    check_counts(counts, counts_path)
    genes, notes = gene_table(columns, None, counts_path)
    spots, counts, left_out = join(_read_spots(spots_path), counts, rows, spots_path)
    notes += left_out
    frame = _frame(spots, source, spots_path)
    spots = spots.drop(columns=["new_x", "new_y"])
    if labels_path is not None:
        spots[keys.LABEL], label_notes = _read_labels(labels_path, spots)
        notes += label_notes
    missing: list[str] = []
    image = source.image or only_image(_images(root, name), missing)
    adata = assemble(counts, spots, genes, frame, library=name, layout=detection.layout)
    patient = re.fullmatch(r"([A-Za-z]+)\d+", name)
    found = [path.name for path in (counts_path, spots_path, labels_path, image) if path is not None]
    return Section(name, adata, image, detection.layout, patient[1] if patient else None, [*found, *notes], missing)


def _read_spots(path: Path) -> DataFrame:
    import pandas as pd

    table = read_columns(path, ["x", "y", "pixel_x", "pixel_y"], separator="\t")
    x, y = numbers(table, "x", path), numbers(table, "y", path)
    if not (np.isfinite(x).all() and np.isfinite(y).all()):
        raise TruthError("A spot has no array position", where=path, todo="Complete columns x and y")
    column, row = np.rint(x).astype(int), np.rint(y).astype(int)
    exact = {name: numbers(table, name, path) if name in table else fallback
             for name, fallback in (("new_x", x), ("new_y", y))}  # fmt: skip
    spots = pd.DataFrame(
        {
            keys.ARRAY_ROW: row,
            keys.ARRAY_COL: column,
            keys.IN_TISSUE: True,
            X_SOURCE: numbers(table, "pixel_x", path),
            Y_SOURCE: numbers(table, "pixel_y", path),
            **exact,
        },
        index=pd.Index([f"{a}x{b}" for a, b in zip(column, row, strict=True)], dtype=object),
    )
    if "selected" in table:  # 0 marks spots beside the tissue, which have background counts
        spots = spots[numbers(table, "selected", path) != 0]
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
    array_um = spots[["new_x", "new_y"]].to_numpy(dtype=float) * lattice.LEGACY_PITCH_UM
    fit = lattice.fit_lattice(array_um[known], xy_px[known])
    if source.mpp is not None:
        mpp, said = source.mpp, "given"
    elif fit is not None:
        mpp, said = 1 / (fit.px_per_um * scale), f"estimated from the spot pitch of {lattice.LEGACY_PITCH_UM:g} µm"
    else:
        todo = "Give the pixel size (mpp) in micrometres"
        raise TruthError("The spots are too few to tell the pixel size", where=path, todo=todo)
    return Frame(mpp, said, lattice.LEGACY_PITCH_UM, lattice.LEGACY_SPOT_UM, "square", Transform.scale(scale))
