"""Output folders of 10x Space Ranger: Visium v1, v2, CytAssist, and the bins of Visium HD.

Space Ranger 1 wrote ``tissue_positions_list.csv`` without header, 2 ``tissue_positions.csv`` with one, and
Visium HD ``tissue_positions.parquet``.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from napari_he2st.core import keys
from napari_he2st.core.errors import TruthError
from napari_he2st.core.types import Lattice, Transform
from napari_he2st.data.truth import lattice
from napari_he2st.data.truth.assemble import X_SOURCE, Y_SOURCE, Frame, assemble, check_unique, gene_table, join
from napari_he2st.data.truth.images import images_in, only_image, read_picture, scale_of
from napari_he2st.data.truth.section import Detection, Section, Source, truth_reader
from napari_he2st.data.truth.tables import decode, numbers, read_bytes, read_columns
from napari_he2st.data.truth.tenx import mex_parts, read_feature_matrix

if TYPE_CHECKING:
    from anndata import AnnData
    from pandas import DataFrame

_COLUMNS = ["barcode", "in_tissue", "array_row", "array_col", "pxl_row_in_fullres", "pxl_col_in_fullres"]
_NOT_A_SLIDE = ("tissue_hires", "tissue_lowres", "aligned_", "detected_tissue", "cytassist")
_PICTURES = {"hires": "tissue_hires_image", "lowres": "tissue_lowres_image"}


@dataclass(frozen=True)
class Files:
    """Where the parts of one section lie; None where a part is missing."""

    root: Path
    matrix: Path | None
    positions: Path | None
    scalefactors: Path | None
    pictures: dict[str, Path]
    images: list[Path]
    mixed: list[str]

    @property
    def complete(self) -> bool:
        """Whether the section can be read."""
        return self.matrix is not None and self.positions is not None and not self.mixed

    def needed(self) -> tuple[Path, Path]:
        """Counts and positions; :class:`TruthError` where the section is not complete."""
        if self.matrix is None or self.positions is None:
            raise TruthError(f"The section lacks {', '.join(self.missing())}", where=self.root)
        return self.matrix, self.positions

    @property
    def is_raw(self) -> bool:
        """Whether only the unfiltered matrix is there."""
        return self.matrix is not None and "raw_feature_bc_matrix" in self.matrix.name

    def found(self) -> list[str]:
        """Names of the parts that are there."""
        parts = [self.matrix, self.positions, self.scalefactors, *self.pictures.values()]
        return [part.name for part in parts if part is not None]

    def missing(self) -> list[str]:
        """Parts that are not there, in words."""
        said = {
            "filtered_feature_bc_matrix (.h5 or folder)": self.matrix is not None,
            "filtered_feature_bc_matrix (the raw one is used, in-tissue spots only)": not self.is_raw,
            "spatial/tissue_positions (.csv or .parquet)": self.positions is not None,
            "spatial/scalefactors_json.json": self.scalefactors is not None,
            "spatial/tissue_hires_image.png": "hires" in self.pictures,
            "spatial/tissue_lowres_image.png": "lowres" in self.pictures,
        }
        mixed = [f"a folder for each section (this one mixes {' and '.join(self.mixed[:4])})"] if self.mixed else []
        return [what for what, there in said.items() if not there] + mixed


def _locate(root: Path) -> Files:
    spatial = root / "spatial" if (root / "spatial").is_dir() else root
    pictures = {key: file for key, stem in _PICTURES.items() for file in images_in(spatial) if file.stem.endswith(stem)}
    positions = [path for end in ("parquet", "csv*") for path in sorted(spatial.glob(f"*tissue_positions*.{end}"))]
    matrices = list(_matrices(root))
    folders = (root, root.parent) if root.name == "outs" else (root,)
    return Files(
        root,
        matrices[0] if matrices else None,
        positions[0] if positions else None,
        next(spatial.glob("*scalefactors_json.json"), None),
        pictures,
        [image for folder in folders for image in images_in(folder) if not _is_small(image)],
        [*_prefixes(positions, "tissue_positions"), *_prefixes(matrices, "_feature_bc_matrix")],
    )


def _prefixes(files: list[Path], stem: str) -> list[str]:
    """Names of files that belong to several sections; barcodes are the same in all, so a wrong pair goes unnoticed."""
    of_section = {path.name.partition(stem)[0].removesuffix("filtered").removesuffix("raw"): path for path in files}
    return [path.name for path in of_section.values()] if len(of_section) > 1 else []


def _is_small(image: Path) -> bool:
    return any(part in image.name for part in _NOT_A_SLIDE)


def _matrices(root: Path) -> Iterator[Path]:
    """Count matrices in order of preference."""
    for kind in ("filtered", "raw"):
        yield from sorted(root.glob(f"*{kind}_feature_bc_matrix.h5"))
        yield from (path for path in sorted(root.glob(f"*{kind}_feature_bc_matrix")) if "matrix" in mex_parts(path))
    if "matrix" in mex_parts(root):
        yield root


def _sections(path: Path) -> dict[str, Files]:
    """Complete sections by name, at the level of ``path`` or the nearest one where there are any."""
    is_part = path.is_file() or path.name == "spatial" or path.name.endswith("_feature_bc_matrix")
    here = path.parent if is_part else path
    levels = [[here], [here / "outs"]]
    for folder in (here, here / "outs", here / "binned_outputs", here / "outs" / "binned_outputs"):
        children = sorted(child for child in folder.iterdir() if child.is_dir()) if folder.is_dir() else []
        levels.append([level for child in children for level in (child, child / "outs")])
    for level in levels:
        files = [_locate(folder) for folder in level if folder.is_dir()]
        complete = {_name(part.root): part for part in files if part.complete}
        if complete:
            return complete
    return {}


def _name(root: Path) -> str:
    root = root.resolve()
    return root.parent.name if root.name == "outs" else root.name


def detect(path: Path) -> Detection | None:
    """Sections by file names; the path may be the folder, one above, or a part of it."""
    sections = _sections(path)
    if len(sections) == 1:
        name, files = next(iter(sections.items()))
        return Detection("visium", path, [name], files.found(), files.missing())
    if sections:
        missing = [f"{what} of {name}" for name, files in sections.items() for what in files.missing()]
        return Detection("visium", path, sorted(sections), [f"{len(sections)} sections"], missing)
    files = _locate(path.parent if path.is_file() else path)
    if files.positions is None and files.matrix is None:
        return None
    return Detection("visium", path, [], files.found(), files.missing())


@truth_reader(
    "visium",
    "Visium of every Space Ranger generation, and bins of Visium HD",
    looks_for="filtered_feature_bc_matrix (.h5 or folder) and spatial/tissue_positions (.csv or .parquet)",
    detect=detect,
)
def read(detection: Detection, name: str, source: Source) -> Section:
    """Read one section; only spots in tissue are kept."""
    files = _sections(detection.root)[name]
    matrix_path, positions_path = files.needed()
    matrix = read_feature_matrix(matrix_path)
    spots, scalefactors = _read_positions(positions_path), _read_scalefactors(files.scalefactors)
    genes, notes = gene_table(matrix.symbols, matrix.ids, matrix_path)
    image_missing: list[str] = []
    image = source.image or only_image(files.images, image_missing, what="full-resolution image")
    picture = next((key for key, path in files.pictures.items() if image is not None and path.name == image.name), None)
    scale = scale_of(source, scalefactors.get(f"tissue_{picture}_scalef"))
    frame = _frame(spots, scalefactors, source, scale, positions_path)

    spots, counts, left_out = join(spots[spots[keys.IN_TISSUE]], matrix.counts, matrix.barcodes, positions_path)
    adata = assemble(counts, spots, genes, frame, library=name, layout=detection.layout)
    _add_pictures(adata, files, scalefactors, scale)
    found = files.found() + ([image.name] if image is not None else [])
    found += [*notes, *matrix.notes, *left_out]
    return Section(name, adata, image, detection.layout, None, found, files.missing() + image_missing)


def _read_positions(path: Path) -> DataFrame:
    import pandas as pd

    if path.suffix == ".parquet":
        try:
            table = pd.read_parquet(path, columns=_COLUMNS)
        except (OSError, ValueError) as error:
            raise TruthError(f"The position file is damaged ({error})", where=path) from error
        columns = {name: table[name].to_numpy(dtype=np.float64) for name in _COLUMNS[1:]}
    else:
        first = decode(read_bytes(path), path).splitlines()[0].split(",")
        has_header = first[0].strip() == "barcode"
        if not has_header and len(first) != len(_COLUMNS):
            message = f"The position file has {len(first)} columns, not {len(_COLUMNS)}"
            raise TruthError(message, where=path, todo="Cells have to be separated by commas")
        table = read_columns(path, _COLUMNS, separator=",", header=has_header)
        columns = {name: numbers(table, name, path) for name in _COLUMNS[1:]}
    if not len(table):
        raise TruthError("The position file lists no spots", where=path)
    check_unique(table["barcode"], "barcodes", path)
    whole = np.stack([columns[name] for name in ("in_tissue", "array_row", "array_col")], axis=1)
    if not np.isfinite(whole).all():
        raise TruthError("A spot has no array position", where=path, todo="Complete array_row and array_col")
    return pd.DataFrame(
        {
            keys.ARRAY_ROW: columns["array_row"].astype(int),
            keys.ARRAY_COL: columns["array_col"].astype(int),
            keys.IN_TISSUE: columns["in_tissue"] == 1,
            X_SOURCE: columns["pxl_col_in_fullres"],
            Y_SOURCE: columns["pxl_row_in_fullres"],
        },
        index=pd.Index(table["barcode"], dtype=object, name=None),
    )


def _read_scalefactors(path: Path | None) -> dict[str, float]:
    if path is None:
        return {}
    try:
        content = json.loads(decode(read_bytes(path), path))
        factors = {str(name): float(value) for name, value in content.items()}
    except (ValueError, TypeError, AttributeError) as error:
        raise TruthError(f"The scale factors are damaged ({error})", where=path) from error
    wrong = [name for name, value in factors.items() if not 0 < value < float("inf")]
    if wrong:
        raise TruthError(f"Scale factor {wrong[0]} is {factors[wrong[0]]}, not above zero", where=path)
    return factors


def _frame(spots: DataFrame, scalefactors: dict[str, float], source: Source, scale: float, path: Path) -> Frame:
    bin_um = scalefactors.get("bin_size_um")
    pitch_um, spot_um = (lattice.VISIUM_PITCH_UM, lattice.VISIUM_SPOT_UM) if bin_um is None else (bin_um, bin_um)
    kind: Lattice = "hexagonal" if bin_um is None else "square"
    if source.mpp is not None:
        mpp, said = source.mpp, "given"
    elif "microns_per_pixel" in scalefactors:
        mpp, said = scalefactors["microns_per_pixel"] / scale, "scale factors (microns_per_pixel)"
    else:
        row, column = spots[keys.ARRAY_ROW].to_numpy(), spots[keys.ARRAY_COL].to_numpy()
        plane = lattice.hexagonal_um(row, column, pitch_um) if bin_um is None else np.stack([column, row], 1) * bin_um
        xy_px = spots[[X_SOURCE, Y_SOURCE]].to_numpy()
        known = np.isfinite(xy_px).all(axis=1)
        fit = lattice.fit_lattice(plane[known], xy_px[known])
        if fit is None:
            todo = "Give the pixel size (mpp) in micrometres"
            raise TruthError("The spots are too few to tell the pixel size", where=path, todo=todo)
        mpp = 1 / (fit.px_per_um * scale)
        said = f"estimated from the spot pitch of {pitch_um:g} µm (centre to centre)"
    return Frame(mpp, said, pitch_um, spot_um, kind, Transform.scale(scale))


def _add_pictures(adata: AnnData, files: Files, scalefactors: dict[str, float], scale: float) -> None:
    """Put Space Ranger's pictures and factors in scanpy's place, with factors that apply to ``obsm["spatial"]``."""
    library: dict[str, Any] = adata.uns[keys.SPATIAL][adata.uns[keys.UNS]["library"]]
    for key, path in files.pictures.items():
        name = f"tissue_{key}_scalef"
        if name in scalefactors:
            library["images"][key] = read_picture(path)
            library["scalefactors"][name] = scalefactors[name] / scale
    for name in ("spot_diameter_fullres", "fiducial_diameter_fullres"):
        if name in scalefactors:
            library["scalefactors"][name] = scalefactors[name] * scale
