"""Where 10x Space Ranger puts the parts of a section, and how its position and scale files read.

Space Ranger 1 wrote ``tissue_positions_list.csv`` without header, 2 and later ``tissue_positions.csv`` with one,
and Visium HD ``tissue_positions.parquet``. Archives put the sample's name before each file.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from napari_he2st.core import keys
from napari_he2st.core.errors import TruthError
from napari_he2st.data.truth.assemble import X_SOURCE, Y_SOURCE, check_unique
from napari_he2st.data.truth.images import images_in, is_blank, only_image, read_picture, scale_of
from napari_he2st.data.truth.tables import decode, numbers, read_bytes, read_columns

if TYPE_CHECKING:
    from anndata import AnnData
    from pandas import DataFrame

    from napari_he2st.data.truth.section import Source

_COLUMNS = ["barcode", "in_tissue", "array_row", "array_col", "pxl_row_in_fullres", "pxl_col_in_fullres"]
_PICTURES = {"hires": "tissue_hires_image", "lowres": "tissue_lowres_image"}
_NOT_A_SLIDE = ("tissue_hires", "tissue_lowres", "aligned_", "detected_tissue", "cytassist")
_PARTS = {
    "matrix": r"(?:filtered|raw)_feature_(?:bc|cell)_matrix(?:\.h5)?|matrix\.mtx(?:\.gz)?",
    "positions": r"tissue_positions(?:_list)?\.(?:parquet|(?:csv|txt)(?:\.gz)?)",
    "scalefactors": r"scalefactors_json\.json(?:\.gz)?",
    "hires": r"tissue_hires_image\.\w+",
    "lowres": r"tissue_lowres_image\.\w+",
}
_FOREIGN = 0.05  # a larger share of barcodes that have no place is no accident


@dataclass(frozen=True)
class Files:
    """Where the parts of one section lie; None where a part is missing."""

    root: Path
    matrix: Path | None = None
    positions: Path | None = None
    scalefactors: Path | None = None
    pictures: dict[str, Path] = field(default_factory=dict)
    images: list[Path] = field(default_factory=list)

    @property
    def complete(self) -> bool:
        """Whether the section can be read."""
        return self.matrix is not None and self.positions is not None

    def needed(self) -> tuple[Path, Path]:
        """Counts and positions; :class:`TruthError` where the section is not complete."""
        if self.matrix is None or self.positions is None:
            raise TruthError(f"The section lacks {', '.join(self.missing())}", where=self.root)
        return self.matrix, self.positions

    @property
    def is_raw(self) -> bool:
        """Whether only the unfiltered matrix is there."""
        return self.matrix is not None and "raw_feature_" in self.matrix.name

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
        return [what for what, there in said.items() if not there]


def locate(root: Path) -> dict[str, Files]:
    """Parts of the sections whose files lie in ``root`` and ``root/spatial``, by the prefix of their names.

    One section gets the prefix ``""`` and all there is, whatever its files are called. Barcodes are the same in
    all sections, so a wrong pair would go unnoticed: where there are several, prefixes have to agree.
    """
    spatial = root / "spatial"
    found: dict[str, dict[str, Path]] = {kind: {} for kind in _PARTS}
    for folder in (root, spatial):
        for path in sorted(folder.iterdir()) if folder.is_dir() else []:
            for kind, pattern in _PARTS.items():
                match = re.fullmatch(rf"(?P<prefix>.*?)(?:{pattern})", path.name)
                if match is not None and _usable(kind, path):
                    known = found[kind].get(match["prefix"])
                    if known is None or _rank(path) < _rank(known):
                        found[kind][match["prefix"]] = path
    images = [path for folder in _image_folders(root) for path in images_in(folder) if not _is_small(path)]
    several = max(len(found["matrix"]), len(found["positions"])) > 1
    prefixes = sorted(found["matrix"].keys() | found["positions"].keys()) if several else [""]
    return {prefix: _files(root, prefix if several else None, found, images) for prefix in prefixes}


def _files(root: Path, prefix: str | None, found: dict[str, dict[str, Path]], images: list[Path]) -> Files:
    def part(kind: str) -> Path | None:
        return next(iter(found[kind].values()), None) if prefix is None else found[kind].get(prefix)

    own = [image for image in images if prefix and image.name.startswith(prefix.rstrip("_-."))]
    pictures = {key: path for key in _PICTURES if (path := part(key)) is not None}
    return Files(root, part("matrix"), part("positions"), part("scalefactors"), pictures, own if prefix else images)


def _usable(kind: str, path: Path) -> bool:
    if kind == "matrix" and path.is_dir():
        return any(path.glob("*matrix.mtx*"))
    return path.is_file() and not (kind in _PICTURES and path not in images_in(path.parent))


def _rank(path: Path) -> tuple[bool, bool, bool]:
    """Filtered before raw, one file before a folder, parquet before text."""
    return "raw_feature_" in path.name, path.suffix != ".h5", path.suffix != ".parquet"


def _image_folders(root: Path) -> Iterable[Path]:
    return (root, root.parent) if root.name == "outs" else (root,)


def _is_small(image: Path) -> bool:
    return any(part in image.name for part in _NOT_A_SLIDE)


def levels_below(path: Path) -> list[list[Path]]:
    """Folders in which sections may lie, in groups from the nearest on: a wrong folder level is found too."""
    is_part = path.is_file() or path.name == "spatial" or path.name.endswith(("_bc_matrix", "_cell_matrix"))
    here = path.parent if is_part else path
    children = sorted(child for child in here.iterdir() if child.is_dir()) if here.is_dir() else []
    return [[here], [here / "outs"], [level for child in children for level in (child, child / "outs")]]


def is_bin(folder: Path) -> bool:
    """Whether a folder holds one bin size of Visium HD, told by its name or by its scale factors."""
    if re.fullmatch(r"square_\d{3}um", folder.name):
        return folder.is_dir()
    if not any(folder.glob("tissue_positions.parquet")) and not (folder / "spatial/tissue_positions.parquet").exists():
        return False
    try:
        return "bin_size_um" in read_scalefactors(locate(folder)[""].scalefactors)
    except TruthError:  # the reader will say so
        return False


def section_name(root: Path, prefix: str = "") -> str:
    """Name of a section: the prefix of its files, else its folder, or the one above ``outs``."""
    root = root.resolve()
    return prefix.strip("_-.") or (root.parent.name if root.name == "outs" else root.name)


def read_positions(path: Path) -> DataFrame:
    """All spots: index barcodes, columns array position, ``in_tissue`` and the vendor's pixels.

    Raises
    ------
    TruthError
        The file is damaged, empty, or lacks an array position.
    """
    import pandas as pd

    if path.suffix == ".parquet":
        barcodes, columns = _parquet_positions(path)
    else:
        first = decode(read_bytes(path), path).splitlines()[0].split(",")
        has_header = first[0].strip() == "barcode"
        if not has_header and len(first) != len(_COLUMNS):
            message = f"The position file has {len(first)} columns, not {len(_COLUMNS)}"
            raise TruthError(message, where=path, todo="Cells have to be separated by commas")
        table = read_columns(path, _COLUMNS, separator=",", header=has_header)
        barcodes, columns = table["barcode"], {name: numbers(table, name, path) for name in _COLUMNS[1:]}
    if not len(barcodes):
        raise TruthError("The position file lists no spots", where=path)
    check_unique(barcodes, "barcodes", path)
    whole = np.stack([columns[name] for name in ("in_tissue", "array_row", "array_col")], axis=1)
    if not np.isfinite(whole).all() or (np.abs(whole) > 2**31).any():
        raise TruthError("A spot has no array position", where=path, todo="Complete array_row and array_col")
    return pd.DataFrame(
        {
            keys.ARRAY_ROW: columns["array_row"].astype(int),
            keys.ARRAY_COL: columns["array_col"].astype(int),
            keys.IN_TISSUE: columns["in_tissue"] == 1,
            X_SOURCE: columns["pxl_col_in_fullres"],
            Y_SOURCE: columns["pxl_row_in_fullres"],
        },
        index=pd.Index(barcodes, dtype=object, name=None),
    )


def _parquet_positions(path: Path) -> tuple[Any, dict[str, Any]]:
    import pandas as pd
    from pyarrow import ArrowException

    try:
        table = pd.read_parquet(path, columns=_COLUMNS)
        columns = {name: table[name].to_numpy(dtype=np.float64) for name in _COLUMNS[1:]}
    except (OSError, ValueError, TypeError, KeyError, ArrowException) as error:
        raise TruthError(f"The position file is damaged ({error})", where=path) from error
    return table["barcode"], columns


def read_scalefactors(path: Path | None) -> dict[str, float]:
    """Scale factors by name; empty where there is no file.

    Raises
    ------
    TruthError
        The file is damaged, or a factor is not above zero.
    """
    if path is None:
        return {}
    try:
        content = json.loads(decode(read_bytes(path), path))
        factors = {str(name): float(value) for name, value in content.items()}
    except (ValueError, TypeError, AttributeError, RecursionError) as error:
        raise TruthError(f"The scale factors are damaged ({error})", where=path) from error
    wrong = [name for name, value in factors.items() if not 0 < value < float("inf")]
    if wrong:
        raise TruthError(f"Scale factor {wrong[0]} is {factors[wrong[0]]}, not above zero", where=path)
    return factors


def add_pictures(adata: AnnData, files: Files, scalefactors: dict[str, float], scale: float) -> None:
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


def choose_image(
    files: Files, scalefactors: dict[str, float], source: Source, images: list[Path], missing: list[str]
) -> tuple[Path | None, float]:
    """The image that the section lies on, and its pixels per full-resolution pixel.

    It is the one that the user names, else the only one of ``images``, else, if the user agrees, the largest of
    Space Ranger's pictures on which something is seen. What is not there is added to ``missing``.
    """
    image = source.image or only_image(images, missing, what="full-resolution image")
    if image is None and source.stand_in:
        known = [path for key, path in files.pictures.items() if f"tissue_{key}_scalef" in scalefactors]
        image = next((path for path in known if not is_blank(read_picture(path))), None) or next(iter(known), None)
        if image is not None:
            missing[-1] += f" ({image.name} stands in)"
    key = next((key for key, path in files.pictures.items() if image is not None and path.name == image.name), None)
    return image, scale_of(source, scalefactors.get(f"tissue_{key}_scalef"))


def mismatches(barcodes: list[str], spots: DataFrame, *, filtered: bool, prefix: str | None = None) -> list[str]:
    """Why counts and positions may not be of one section, in words for the user.

    Parameters
    ----------
    barcodes
        Barcodes of the counts.
    spots
        All spots of the position file.
    filtered
        Whether the counts should hold spots in tissue alone.
    prefix
        What barcodes of this kind start with, or None.
    """
    import pandas as pd

    said, names = [], pd.Index(barcodes)
    known = names.isin(spots.index)
    if (~known).mean() > _FOREIGN:
        said.append(
            f"{int((~known).sum()):,} of the {len(names):,} barcodes of the counts are not in the position file: "
            "they may be of another slide or bin size."
        )
    elif filtered:
        beside = int((~names.isin(spots.index[spots[keys.IN_TISSUE]])).sum())
        if beside > _FOREIGN * len(names):
            said.append(f"{beside:,} of the {len(names):,} barcodes of the filtered counts lie beside the tissue.")
    foreign = 0 if prefix is None else int((~names.str.startswith(prefix)).sum())
    if foreign:
        said.append(f"{foreign:,} barcodes, such as {barcodes[0]}, do not start with {prefix} as those of this layout.")
    return said
