"""Maps as OME-TIFF: one channel per gene, in register with the slide."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from napari_he2st.core import keys
from napari_he2st.core.errors import OutputError
from napari_he2st.core.expression import unit_of
from napari_he2st.core.schema import facts_of
from napari_he2st.data.export.columns import block_of, columns_of, variance_of
from napari_he2st.data.export.registry import exporter

if TYPE_CHECKING:
    from anndata import AnnData

    from napari_he2st.data.slides import Slide

_PER_SPOT = 4  # pixels across a spot
_MOST_PIXELS = 1 << 30  # of one channel
_TILE_PX = 256
_PIXELS_AT_ONCE = 1 << 22


@exporter(
    "ome-tiff", "Maps of genes as image channels in register with the slide, for QuPath and Fiji", suffix=".ome.tiff"
)
def write_ome_tiff(
    adata: AnnData,
    path: Path,
    slide: Slide | None,
    *,
    genes: str | list[str] | None = None,
    pixel_um: float | None = None,
) -> None:
    """Write one float32 channel per gene that covers the slide from its upper left corner on.

    Pixels outside of all spots are NaN. The physical pixel size is stated, so that programs that know it lay the
    maps over the slide.

    Parameters
    ----------
    adata, path
        See :func:`~napari_he2st.data.export.registry.exporter`.
    slide
        Tells how far the maps reach; without one they end with the last spot.
    genes
        Symbols or Ensembl identifiers, as a list or separated by commas; by default the gene that varies most.
    pixel_um
        Micrometres per pixel of the maps; by default a quarter of a spot.

    Raises
    ------
    GeneError
        A gene is not in the data.
    OutputError
        A channel would have more than 2^30 pixels, or the pixel size is not above zero.
    """
    import tifffile

    facts = facts_of(adata)
    columns = np.array([variance_of(adata).argmax()]) if genes is None else columns_of(adata, genes)
    square = facts["lattice"] == "square"
    reach_um = facts["pitch_um"] if square else facts["spot_um"]
    size_um = reach_um / _PER_SPOT if pixel_um is None else pixel_um
    if not size_um > 0:
        raise OutputError(f"Pixels of {size_um} µm cannot be drawn", todo="Give a pixel size above zero")
    xy_um = np.asarray(adata.obsm[keys.SPATIAL], dtype=np.float64) * facts["mpp"]
    if slide is None:
        extent_um = xy_um.max(axis=0) + reach_um / 2
    else:
        extent_um = np.asarray(slide.size, dtype=np.float64) * slide.mpp
    width, height = (max(1, int(np.ceil(side / size_um))) for side in extent_um)
    if width * height > _MOST_PIXELS:
        message = f"A map of {width:,} × {height:,} pixels is too large"
        raise OutputError(message, todo="Give a larger pixel_um")
    spot = _spot_of_pixels(xy_um, (height, width), size_um, reach_um / 2, square=square)
    kind = "measured" if facts["kind"] == "measured" else "predicted, research use only"
    names = [f"{adata.var_names[column]} ({unit_of(facts['scale'])}, {kind})" for column in columns]
    about = {
        "axes": "CYX",
        "Channel": {"Name": names},
        "PhysicalSizeX": size_um,
        "PhysicalSizeXUnit": "µm",
        "PhysicalSizeY": size_um,
        "PhysicalSizeYUnit": "µm",
        "Description": facts["note"],
    }
    with tifffile.TiffWriter(path, bigtiff=True, ome=True) as writer:
        writer.write(
            _tiles(adata, columns, spot),
            shape=(len(columns), height, width),
            dtype=np.float32,
            tile=(_TILE_PX, _TILE_PX),
            compression="zlib",
            photometric="minisblack",
            metadata=about,
        )


def _spot_of_pixels(
    xy_um: NDArray[np.float64], shape: tuple[int, int], size_um: float, radius_um: float, *, square: bool
) -> NDArray[np.int32]:
    """Which spot covers each pixel's centre, int32 (height, width): the nearest within reach, or −1."""
    from scipy.spatial import cKDTree

    height, width = shape
    tree = cKDTree(xy_um)
    spot = np.full(shape, -1, dtype=np.int32)
    x = (np.arange(width) + 0.5) * size_um
    rows = max(1, _PIXELS_AT_ONCE // width)
    for top in range(0, height, rows):
        y = (np.arange(top, min(top + rows, height)) + 0.5) * size_um
        centres = np.stack(np.meshgrid(x, y), axis=-1).reshape(-1, 2)
        found = tree.query(centres, p=np.inf if square else 2, distance_upper_bound=radius_um * (1 + 1e-9))[1]
        spot[top : top + rows] = np.where(found < len(xy_um), found, -1).reshape(len(y), width)
    return spot


def _tiles(adata: AnnData, columns: NDArray[np.intp], spot: NDArray[np.int32]) -> Iterator[NDArray[np.float32]]:
    """The tiles of all channels, one after the other."""
    height, width = spot.shape
    for column in columns:
        values = np.append(block_of(adata, slice(None), np.array([column])).ravel(), np.float32(np.nan))  # −1 takes it
        for top in range(0, height, _TILE_PX):
            for left in range(0, width, _TILE_PX):
                yield values[spot[top : top + _TILE_PX, left : left + _TILE_PX]]
