"""Nuclei in files: label images of a whole slide, and GeoJSON; and their outlines."""

from __future__ import annotations

import struct
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from napari_he2st.core.errors import OutputError, TruthError
from napari_he2st.core.geometry import polygon_pixels
from napari_he2st.core.types import Nuclei
from napari_he2st.data.geojson import Feature, read_polygons, write_features

if TYPE_CHECKING:
    from napari_he2st.data.slides import Slide

_GEOJSON, _TIFF = (".geojson", ".json"), (".tif", ".tiff")
NUCLEI_FILES = (*_TIFF, *_GEOJSON)
"""Endings of files that nuclei are written as."""
_MAX_PIXELS = 4 * 10**9
_DRAWN_MPP = 0.5
"""Pixel size at which polygons become a label image, unless the slide is coarser."""


def outlines(nuclei: Nuclei, numbers: NDArray[np.intp] | None = None) -> list[NDArray[np.float64]]:
    """Outline of nuclei along the edges of their pixels; of one in parts, that of the largest.

    Parameters
    ----------
    nuclei
        The nuclei.
    numbers
        Which of them, in this order; by default all.

    Returns
    -------
    list of NDArray[np.float64]
        Corners (x, y), shape (m, 2), in pixels of the label image.
    """
    import cv2
    from scipy.ndimage import find_objects

    boxes = find_objects(nuclei.labels, nuclei.largest)
    found = []
    for number in nuclei.numbers if numbers is None else numbers:
        rows, columns = boxes[number - 1]
        own = (nuclei.labels[rows, columns] == number).astype(np.uint8)
        # Of pixels doubled, an even corner lies at the near edge of its pixel and an odd one at the far edge.
        doubled = own.repeat(2, axis=0).repeat(2, axis=1)
        parts, _ = cv2.findContours(doubled, cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_SIMPLE)
        corners = max(parts, key=cv2.contourArea)[:, 0].astype(np.int64)
        found.append((corners + 1) // 2 + np.array([columns.start, rows.start], dtype=np.float64))
    return found


def read_nuclei(path: str | Path, slide: Slide) -> Nuclei:
    """Nuclei of a slide from a file.

    Parameters
    ----------
    path
        A label image that shows the whole slide at whatever size (TIFF, PNG, NPY), or GeoJSON of polygons in level-0
        pixels, as QuPath writes it.
    slide
        The slide.

    Raises
    ------
    TruthError
        The file cannot be read, or does not fit the slide.
    SchemaError
        It shows no nuclei.
    """
    path = Path(path)
    if not path.is_file():
        raise TruthError("There is no such file", where=path)
    if path.suffix.lower() in _GEOJSON:
        return drawn(read_polygons(path), slide)
    labels = _read_labels(path)
    if labels.ndim != 2:
        raise TruthError(f"A label image has one value per pixel; this has shape {labels.shape}", where=path)
    mpp = [size * slide.mpp / side for size, side in zip(slide.size, labels.shape[::-1], strict=True)]
    if abs(mpp[0] - mpp[1]) > 0.01 * mpp[0]:
        message = f"The label image ({labels.shape[1]} × {labels.shape[0]}) has not the shape of the slide"
        raise TruthError(message, where=path, todo=f"Give one of {slide.size[0]} × {slide.size[1]} or a fraction of it")
    return Nuclei.of(_renumbered(labels), mpp[0])


def _read_labels(path: Path) -> NDArray:
    import tifffile
    from skimage.io import imread

    try:
        if path.suffix.lower() == ".npy":
            return np.asarray(np.load(path, allow_pickle=False, mmap_mode="r"))
        if path.suffix.lower() not in _TIFF:
            return np.asarray(imread(path))
        with tifffile.TiffFile(path) as file:
            page = file.pages[0]
            if page.size > _MAX_PIXELS:
                raise TruthError(f"The label image is too large ({page.shape})", where=path)
            return np.asarray(page.asarray())
    except (OSError, ValueError, struct.error, KeyError, IndexError, RuntimeError) as error:
        raise TruthError(f"The label image cannot be read ({error})", where=path) from error


def _renumbered(labels: NDArray) -> NDArray:
    """As they are, or counted through where the largest number is beyond all reason for the size of the image."""
    if not np.issubdtype(labels.dtype, np.integer) or not labels.size or int(labels.max()) <= labels.size:
        return labels
    return np.unique(labels, return_inverse=True)[1].reshape(labels.shape).astype(np.int32)


def drawn(polygons: list[NDArray[np.float64]], slide: Slide) -> Nuclei:
    """Nuclei whose outlines are polygons in level-0 pixels; where they overlap, the later one lies on top."""
    scale = max(1.0, _DRAWN_MPP / slide.mpp)
    width, height = (max(1, round(side / scale)) for side in slide.size)
    labels = np.zeros((height, width), dtype=np.int32)
    rings = [np.concatenate([corners, corners[:1]]) for corners in polygons]
    owner = np.repeat(np.arange(len(rings)), [len(ring) for ring in rings])
    pixels, of = polygon_pixels(np.concatenate(rings) * (width / slide.size[0]), owner, labels.shape)
    labels.reshape(-1)[pixels] = of + 1
    return Nuclei.of(labels, slide.size[0] * slide.mpp / width)


def write_nuclei(nuclei: Nuclei, path: Path, slide_mpp: float) -> None:
    """Write nuclei as a label image (``.tif``), or as GeoJSON that QuPath opens (``.geojson``).

    Raises
    ------
    OutputError
        The name ends otherwise.
    """
    if path.suffix.lower() in _GEOJSON:
        scale, area = nuclei.mpp / slide_mpp, np.bincount(nuclei.labels.ravel(), minlength=nuclei.largest + 1)
        shapes = zip(nuclei.numbers, outlines(nuclei), strict=True)
        write_features(
            path,
            (
                Feature(shape * scale, f"nucleus{n}", "Nucleus", {"Area µm^2": float(area[n] * nuclei.mpp**2)})
                for n, shape in shapes
            ),
        )
        return
    if path.suffix.lower() not in _TIFF:
        raise OutputError("Nuclei are written as .tif or .geojson", where=path, todo="Choose one of these endings")
    import tifffile

    tifffile.imwrite(path, nuclei.labels, compression="zlib", compressionargs={"level": 1}, tile=(512, 512))
