"""AnnData files: our own schema, scanpy's and squidpy's Visium form, and any other with ``obsm["spatial"]``."""

from __future__ import annotations

import hashlib
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from napari_he2st.core import keys
from napari_he2st.core.atomic import atomic_write
from napari_he2st.core.errors import MissingTruthMppError, TruthError
from napari_he2st.core.paths import cache_folder
from napari_he2st.core.schema import check_expression
from napari_he2st.core.types import Transform
from napari_he2st.core.wkt import corners_of
from napari_he2st.data.truth import lattice
from napari_he2st.data.truth.assemble import (
    X_SOURCE,
    Y_SOURCE,
    Frame,
    assemble,
    check_counts,
    check_unique,
    gene_table,
)
from napari_he2st.data.truth.cells import nearest
from napari_he2st.data.truth.genes import without_version
from napari_he2st.data.truth.images import is_blank, scale_of
from napari_he2st.data.truth.section import Detection, Section, Source, truth_reader

if TYPE_CHECKING:
    from anndata import AnnData
    from pandas import DataFrame

_IDENTIFIERS = (keys.ENSEMBL, "gene_ids", "gene_id", "ensembl_id")
_SYMBOLS = ("feature_name", "gene_symbols", "gene_symbol", "gene_name", "symbol")


def detect(path: Path) -> Detection | None:
    """The file itself; folders of AnnData files are not searched."""
    if path.suffix != ".h5ad" or not path.is_file():
        return None
    return Detection("h5ad", path, [path.stem], [path.name], ["slide image"])


@truth_reader(
    "h5ad",
    "AnnData with positions: ours, scanpy's, squidpy's, Stereo-seq cell bins, or any other",
    looks_for='a file NAME.h5ad with obsm["spatial"]',
    detect=detect,
    order=90,
)
def read(detection: Detection, name: str, source: Source) -> Section:
    """Read one file; without raw counts the values are kept as they are, and that is said."""
    return read_file(detection, name, source)


def read_file(detection: Detection, name: str, source: Source, *, mpp_source: str = "given") -> Section:
    """Read the file that is a detection's root.

    Parameters
    ----------
    detection, name, source
        As for every reader.
    mpp_source
        Where the pixel size of ``source`` comes from.
    """
    return section_of(_open(detection.root), detection, name, source, mpp_source=mpp_source)


def section_of(adata: AnnData, detection: Detection, name: str, source: Source, *, mpp_source: str) -> Section:
    """Bring an AnnData object into our schema.

    Parameters
    ----------
    adata
        With positions in ``obsm["spatial"]`` or in columns of ``obs``.
    detection, name, source
        As for every reader.
    mpp_source
        Where the pixel size of ``source`` comes from.

    Raises
    ------
    TruthError
        There are no positions, no values, or they cannot be what they should be.
    """
    path = detection.root
    missing = [] if source.image is not None else ["slide image"]
    if keys.UNS in adata.uns:
        check_expression(adata)
        if keys.POLYGON in adata.obs:
            corners_of(map(str, adata.obs[keys.POLYGON]))  # says what is wrong now rather than when they are drawn
        if source.image_scale is not None:
            todo = "Leave the image scale out; positions in our own files are those of the slide"
            raise TruthError("The file's positions have no other scale", where=path, todo=todo)
        if source.mpp is not None:
            adata.uns[keys.UNS] |= {"mpp": source.mpp, "mpp_source": "given"}
        library = str(adata.uns[keys.UNS]["library"])
        return Section(library, adata, source.image, detection.layout, None, detection.found, missing)

    check_unique(adata.obs_names, "spots", path)
    notes = []
    if keys.IN_TISSUE in adata.obs:
        in_tissue = adata.obs[keys.IN_TISSUE].to_numpy() == 1
        notes += [f"{int((~in_tissue).sum())} spots beside the tissue left out"] if not in_tissue.all() else []
        adata = adata[in_tissue]
    if 0 in adata.shape or (adata.X is None and keys.COUNTS not in adata.layers):
        raise TruthError("There are no spots, no genes, or no values", where=path)
    library, pictures = _library(adata, name, path)
    xy = _positions(adata, path)
    if source.stand_in and source.image is None:
        source, missing = _on_its_picture(source, pictures, path)
    frame = _frame(adata, xy, pictures, source, mpp_source, path)
    values, var, is_counts, where_from = _expression(adata)
    if is_counts:
        check_counts(values, path)
    elif np.isinf(values.data).any():
        raise TruthError("Expression is infinite in places", where=path)
    symbols, ids = _names(var)
    genes, gene_notes = gene_table(symbols, ids, path)
    spots = adata.obs.copy()
    if keys.IN_TISSUE in spots:
        spots[keys.IN_TISSUE] = True
    spots[X_SOURCE], spots[Y_SOURCE] = xy[:, 0], xy[:, 1]
    result = assemble(
        values if is_counts else None,
        spots,
        genes,
        frame,
        library=library,
        layout=detection.layout,
        stored=None if is_counts else values,
    )
    _add_pictures(result, library, pictures, scale_of(source))
    missing += [] if is_counts else ["raw counts (values are kept as stored, in a scale the file does not tell)"]
    found = [*detection.found, where_from, *gene_notes, *notes]
    return Section(library, result, source.image, detection.layout, None, found, missing)


def _open(path: Path) -> AnnData:
    import anndata
    import h5py
    import psutil

    try:
        with h5py.File(path, "r") as file:
            declared = [0]  # a file can declare far more than it holds

            def add(_: str, item: Any) -> None:
                declared[0] += item.nbytes if isinstance(item, h5py.Dataset) else 0

            file.visititems(add)
        if declared[0] > psutil.virtual_memory().available:
            message = f"The file declares {declared[0] / 1024**3:.0f} GiB, more than the free memory"
            raise TruthError(message, where=path, todo="Write a subset of its genes or cells")
        return anndata.read_h5ad(path)
    except (OSError, KeyError, ValueError, TypeError, AttributeError, IndexError, RuntimeError) as error:
        message = f"The file is no readable AnnData ({type(error).__name__})"
        raise TruthError(message, where=path, todo="It may be truncated; copy or write it again") from error


def _library(adata: AnnData, name: str, path: Path) -> tuple[str, dict[str, Any]]:
    """Name of the section and its entry of ``uns["spatial"]``."""
    libraries = dict(adata.uns.get(keys.SPATIAL, {}))
    if len(libraries) > 1:
        message = f"The file mixes {len(libraries)} sections: {', '.join(libraries)}"
        raise TruthError(message, where=path, todo="Write each into a file of its own")
    return next(iter(libraries.items())) if libraries else (name, {})


_OBS_XY = (
    ("x_pixel", "y_pixel"), ("pxl_col_in_fullres", "pxl_row_in_fullres"), ("imagecol", "imagerow"),
    ("x_centroid", "y_centroid"), ("center_x", "center_y"), ("x", "y"),
)  # fmt: skip
"""Columns of ``obs`` that hold positions (x, y) in files without ``obsm["spatial"]``."""


def _on_its_picture(source: Source, pictures: dict[str, Any], path: Path) -> tuple[Source, list[str]]:
    """The source with the largest picture inside the file as its image, written into the cache; and what is missing."""
    from PIL import Image

    factors = pictures.get("scalefactors", {})
    for key in ("hires", "downscaled_fullres", "lowres"):
        picture = np.asarray(pictures.get("images", {}).get(key, ()))
        factor = factors.get(f"tissue_{key}_scalef")
        if factor is None or picture.ndim != 3 or picture.shape[2] not in (3, 4):
            continue
        pixels = picture[:, :, :3] if picture.dtype == np.uint8 else np.clip(picture[:, :, :3] * 255, 0, 255)
        rgb = np.ascontiguousarray(pixels, dtype=np.uint8)
        if is_blank(rgb):
            continue
        folder = cache_folder() / "pictures"
        folder.mkdir(exist_ok=True)
        place = folder / f"{path.stem}-{key}-{hashlib.sha256(rgb.tobytes()).hexdigest()[:12]}.png"
        with atomic_write(place, force=True) as aside:
            Image.fromarray(rgb).save(aside, format="PNG")
        mpp = None if source.mpp is None else source.mpp / float(factor)  # stated for full resolution
        scaled = replace(source, image=place, image_scale=float(factor), mpp=mpp)
        return scaled, [f"slide image (the {key} picture in the file stands in)"]
    return source, ["slide image"]


def _positions(adata: AnnData, path: Path) -> NDArray[np.float64]:
    """Spot positions (x, y) in the pixels of the file."""
    key = next((key for key in (keys.SPATIAL, "X_spatial") if key in adata.obsm), None)
    if key is not None:
        xy = np.asarray(adata.obsm[key], dtype=np.float64)
        if xy.ndim != 2 or xy.shape[1] < 2:
            raise TruthError(f"Spot positions have shape {xy.shape}, not (spots, 2)", where=path)
        return xy[:, :2]  # Stereo-seq and MERFISH files add a height
    pair = next((pair for pair in _OBS_XY if set(pair) <= set(adata.obs)), None)
    if pair is None:
        there = ", ".join(adata.obsm) or "nothing"
        todo = 'Put the spot centres, full-resolution pixels (x, y), into obsm["spatial"]'
        raise TruthError(f'There are no spot positions obsm["spatial"] (obsm holds {there})', where=path, todo=todo)
    return np.stack([adata.obs[name].to_numpy(dtype=np.float64) for name in pair], axis=1)


def _frame(
    adata: AnnData, xy: NDArray[np.float64], pictures: dict[str, Any], source: Source, mpp_source: str, path: Path
) -> Frame:
    """Pixel size as given, else as the file tells, else from Visium's pitch where rows and columns are Visium's."""
    scale = scale_of(source)
    factors = dict(pictures.get("scalefactors", {}))
    px_per_um = _visium_px_per_um(adata, xy)
    if source.mpp is not None:
        mpp, said = source.mpp, mpp_source
    elif "microns_per_pixel" in factors:
        mpp, said = float(factors["microns_per_pixel"]) / scale, "scale factors (microns_per_pixel)"
    elif {"bin_type", "resolution"} <= set(adata.uns):
        mpp, said = float(adata.uns["resolution"]) / 1000 / scale, "resolution of the Stereo-seq chip"
    elif px_per_um is not None:
        mpp = 1 / (px_per_um * scale)
        said = f"estimated from the spot pitch of {lattice.VISIUM_PITCH_UM:g} µm (centre to centre)"
    else:
        todo = "Give the pixel size (mpp) in micrometres"
        raise MissingTruthMppError("The file does not say how large its pixels are", where=path, todo=todo)
    if not 0 < mpp < np.inf:
        raise TruthError(f"The file tells a pixel size of {mpp} µm", where=path)
    if px_per_um is not None:
        return Frame(mpp, said, lattice.VISIUM_PITCH_UM, lattice.VISIUM_SPOT_UM, "hexagonal", Transform.scale(scale))
    um_per_source_px = mpp * scale
    bin_um = factors.get("bin_size_um")
    pitch_um = float(bin_um) if bin_um else nearest(xy) * um_per_source_px
    if not 0 < pitch_um < np.inf:
        raise TruthError("Spots have no distance from each other", where=path, todo="Check the spot positions")
    diameter = factors.get("spot_diameter_fullres")
    spot_um = pitch_um if diameter is None else float(diameter) * um_per_source_px
    return Frame(mpp, said, pitch_um, spot_um, "irregular", Transform.scale(scale))


def _visium_px_per_um(adata: AnnData, xy: NDArray[np.float64]) -> float | None:
    if not {keys.ARRAY_ROW, keys.ARRAY_COL} <= set(adata.obs):
        return None
    row, column = (adata.obs[key].to_numpy(dtype=float) for key in (keys.ARRAY_ROW, keys.ARRAY_COL))
    known = np.isfinite(xy).all(axis=1) & np.isfinite(row) & np.isfinite(column)
    if not known.all() or not lattice.is_hexagonal(row, column):
        return None
    fit = lattice.fit_lattice(lattice.hexagonal_um(row, column), xy)
    return None if fit is None or fit.anisotropy > 1.05 else fit.px_per_um


def _expression(adata: AnnData) -> tuple[Any, DataFrame, bool, str]:
    """Values (CSR), their genes, whether they are counts, and where they come from."""
    from scipy.sparse import csr_matrix

    if keys.COUNTS in adata.layers:
        return csr_matrix(adata.layers[keys.COUNTS]), adata.var, True, 'counts from layers["counts"]'
    X = csr_matrix(adata.X)
    if _whole(X.data):
        return X, adata.var, True, "counts from X"
    if adata.raw is not None:
        raw = csr_matrix(adata.raw.X)
        if _whole(raw.data):
            return raw, adata.raw.var, True, "counts from raw"
    return X, adata.var, False, "values from X"


def _whole(values: NDArray) -> bool:
    return bool((np.isfinite(values) & (values >= 0) & (values == np.floor(values))).all())


def _names(var: DataFrame) -> tuple[list[str], list[str] | None]:
    """Symbols and identifiers of genes; identifiers in the index give way to a column of symbols."""
    index = list(map(str, var.index))
    if all(map(without_version, index)):
        column = next((name for name in _SYMBOLS if name in var), None)
        return (list(map(str, var[column])) if column is not None else index), index
    column = next((name for name in _IDENTIFIERS if name in var), None)
    return index, None if column is None else list(map(str, var[column]))


def _add_pictures(adata: AnnData, library: str, pictures: dict[str, Any], scale: float) -> None:
    """Take over scanpy's pictures and factors; the rest of the entry may hold paths and is left behind."""
    entry = adata.uns[keys.SPATIAL][library]
    entry["images"] = dict(pictures.get("images", {}))
    for name, value in pictures.get("scalefactors", {}).items():
        entry["scalefactors"][name] = float(value) * (scale if name.endswith("_fullres") else 1 / scale)
