"""Small slides with known content."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Literal

import cv2
import imagecodecs
import numpy as np
import tifffile

Kind = Literal["tiff", "svs", "ome"]

SCANNER = bytes(
    imagecodecs.cms_profile(
        "rgb", whitepoint=[0.3127, 0.3290, 1.0], primaries=[0.64, 0.33, 1, 0.21, 0.71, 1, 0.15, 0.06, 1], gamma=1.8
    )
)
"""A colour profile that is not sRGB."""


def tissue_image(width: int = 600, height: int = 500, *, seed: int = 0) -> np.ndarray:
    """White glass with one textured, stained ellipse in the middle: uint8 (height, width, 3)."""
    rng = np.random.default_rng(seed)
    noise = cv2.GaussianBlur(rng.normal(size=(height, width)).astype(np.float32), (0, 0), 2)
    tissue = np.array([180, 90, 160]) + np.array([150, 250, 120]) * noise[:, :, None]
    y, x = np.mgrid[:height, :width]
    inside = ((x / width - 0.5) / 0.35) ** 2 + ((y / height - 0.5) / 0.35) ** 2 < 1
    return np.where(inside[:, :, None], np.clip(tissue, 0, 230), 243).astype(np.uint8)


def halved(image: np.ndarray) -> np.ndarray:
    """Means over 2 × 2 pixels; an odd last row or column is dropped, as scanners do."""
    height, width = image.shape[0] // 2 * 2, image.shape[1] // 2 * 2
    blocks = image[:height, :width].astype(np.uint16).reshape(height // 2, 2, width // 2, 2, -1)
    return ((blocks.sum(axis=(1, 3)) + 2) // 4).astype(np.uint8)


def write_slide(
    path: Path,
    image: np.ndarray,
    *,
    kind: Kind = "tiff",
    tile: int = 64,
    levels: int = 3,
    compression: str | int | None = "deflate",
    mpp: float | None = 0.5,
    **options: Any,
) -> Path:
    """Write a tiled pyramid whose level 0 is ``image`` (height, width, 3).

    Parameters
    ----------
    kind
        ``"tiff"`` (pages marked as reduced, pixel size in the resolution tags), ``"svs"`` (Aperio
        description) or ``"ome"`` (SubIFDs, OME-XML).
    tile
        Width and height of a tile.
    levels
        How many levels, each half the size of the one before.
    compression
        As tifffile names it.
    mpp
        Pixel size to state, or None.
    options
        More arguments of :meth:`tifffile.TiffWriter.write`.
    """
    common: dict[str, Any] = {"tile": (tile, tile), "compression": compression, "photometric": "rgb", **options}
    with tifffile.TiffWriter(path, ome=kind == "ome", bigtiff=True) as tif:
        for level in range(levels):
            first = dict(common)
            if kind == "svs" and level == 0:
                stated = "" if mpp is None else f"|AppMag = 20|MPP = {mpp}"
                first["description"] = f"Aperio Image Library v12\n{image.shape[1]}x{image.shape[0]}{stated}"
            elif kind == "ome" and level == 0:
                sizes = {} if mpp is None else {"PhysicalSizeX": mpp, "PhysicalSizeY": mpp}
                first |= {"subifds": levels - 1, "metadata": {"axes": "YXS", **sizes}}
            elif kind == "tiff" and mpp is not None:
                first |= {"resolution": (1e4 / mpp, 1e4 / mpp), "resolutionunit": "CENTIMETER"}
            if kind != "ome":
                first["metadata"] = None
            tif.write(image, subfiletype=0 if level == 0 else 1, **first)
            image = halved(image)
    return path


def write_shared_tables(path: Path, image: np.ndarray, *, tile: int = 64) -> Path:
    """Write JPEG tiles whose tables stand in the JPEGTables tag, as many scanners do; one level."""
    rows, columns = image.shape[0] // tile, image.shape[1] // tile
    cut = image[: rows * tile, : columns * tile]
    streams = [
        imagecodecs.jpeg8_encode(
            np.ascontiguousarray(cut[r * tile : (r + 1) * tile, c * tile : (c + 1) * tile]), level=95, subsampling="444"
        )
        for r in range(rows)
        for c in range(columns)
    ]
    tables, _ = _without_tables(streams[0])
    with tifffile.TiffWriter(path) as tif:
        tif.write(
            iter([_without_tables(stream)[1] for stream in streams]),
            shape=cut.shape,
            dtype=cut.dtype,
            tile=(tile, tile),
            compression="jpeg",
            photometric="ycbcr",
            subsampling=(1, 1),
            resolution=(2e4, 2e4),
            resolutionunit="CENTIMETER",
            metadata=None,
            extratags=[(347, 7, len(tables), tables, True)],
        )
    return path


def _without_tables(stream: bytes) -> tuple[bytes, bytes]:
    """The tables of a JPEG stream as a stream of their own, and the stream without them."""
    tables, rest, at = b"", stream[:2], 2
    while stream[at + 1] != 0xDA:  # start of scan
        end = at + 2 + int.from_bytes(stream[at + 2 : at + 4], "big")
        segment = stream[at:end]
        if segment[1] in {0xDB, 0xC4}:  # quantisation and Huffman tables
            tables += segment
        else:
            rest += segment
        at = end
    return stream[:2] + tables + b"\xff\xd9", rest + stream[at:]
