"""OME-Zarr 0.4 and 0.5: a folder or an address of chunked arrays, one per level."""

from __future__ import annotations

import hashlib
import json
import os
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np
from numpy.typing import NDArray

from napari_he2st.core.errors import SlideError
from napari_he2st.data.slides.pixel_size import PixelSize
from napari_he2st.data.slides.source import (
    MAX_TILE_BYTES,
    PARSE_ERRORS,
    DamagedSlideError,
    Facts,
    OtherFormatError,
    Source,
    TileError,
    TileLevel,
    downsample_of,
    laid_on_white,
    slide_reader,
)

_BLOCK_PX = 512  # small chunks are read several at a time
_UNIT_UM = {
    "angstrom": 1e-4, "nanometer": 1e-3, "micrometer": 1.0, "millimeter": 1e3, "centimeter": 1e4, "meter": 1e6,
}  # fmt: skip


def holds_ome_zarr(path: Path) -> bool:
    """Whether a folder is an OME-Zarr image or the output of bioformats2raw."""
    for file in (path / "zarr.json", path / ".zattrs"):
        if file.is_file():
            text = _own_attributes(file.read_text(encoding="utf-8", errors="replace"))
            return '"multiscales"' in text or '"bioformats2raw.layout"' in text
    return False


def _own_attributes(text: str) -> str:
    """Attributes of a group without those of its members, as consolidated metadata repeat them; all if damaged."""
    try:
        found = json.loads(text)
        return json.dumps(found.get("attributes", {}) if "zarr_format" in found else found)
    except (ValueError, TypeError, AttributeError, RecursionError):
        return text


@slide_reader(
    "ome-zarr",
    "OME-Zarr 0.4 and 0.5, in folders and at addresses (https, s3 …)",
    order=5,
    folders=holds_ome_zarr,
    urls=True,
    formats={"OME-Zarr 0.4": "generated file", "OME-Zarr 0.5": "generated file"},
)
def read_ome_zarr(path: Path | str) -> Source:
    """Open an OME-Zarr image of 8-bit grey or RGB pixels.

    Raises
    ------
    SlideError
        It is no such image, or its address cannot be reached.
    DamagedSlideError
        Its metadata contradict its arrays.
    """
    if isinstance(path, Path) and not path.is_dir():
        raise OtherFormatError("not a folder")
    import zarr

    try:
        group = zarr.open_group(path if isinstance(path, Path) else _remote(path), mode="r")
        if "bioformats2raw.layout" in _ome(group):
            group = group["0"]
        return OmeZarrSource(group)
    except SlideError:
        raise
    except ImportError as error:
        raise SlideError(f"{error}", todo="pip install 'napari-he2st[slides]'") from error
    except PARSE_ERRORS as error:
        raise SlideError(f"not a readable OME-Zarr image ({error})") from error


class OmeZarrSource(Source):
    """An OME-Zarr image read in blocks of whole chunks."""

    def __init__(self, group: Any) -> None:
        ome = _ome(group)
        if not ome.get("multiscales"):
            raise SlideError("it holds no image (multiscales)")
        image = ome["multiscales"][0]
        self._axes = "".join(axis if isinstance(axis, str) else axis["name"] for axis in image.get("axes", "tczyx"))
        if not {"y", "x"} <= set(self._axes):
            raise SlideError(f"its axes are {self._axes}: not an image")
        self._arrays = [group[_inside(dataset["path"])] for dataset in image["datasets"]]
        for array in self._arrays:
            self._check(array)
        first = self._arrays[0]
        full = self._side(first, "x"), self._side(first, "y")
        self.levels = tuple(self._level(array, full) for array in self._arrays)
        self.facts = Facts(
            format=f"OME-Zarr {ome.get('version') or image.get('version', '0.4')}",
            compression=_codec(first),
            pixel_sizes=tuple(_pixel_sizes(image, self._axes)),
            identity=self._identity(ome),
        )

    def _side(self, array: Any, axis: str) -> int:
        return int(array.shape[self._axes.index(axis)])

    def _check(self, array: Any) -> None:
        if array.ndim != len(self._axes):
            raise DamagedSlideError(f"A level has {array.ndim} axes, not {self._axes}", todo="Write the image again")
        if array.dtype != np.uint8:
            raise SlideError(f"its pixels are {array.dtype}, not 8 bits per colour")
        others = {axis: n for axis, n in zip(self._axes, array.shape, strict=True) if axis not in "xyc" and n != 1}
        if others or ("c" in self._axes and self._side(array, "c") not in {1, 3, 4}):
            raise SlideError(f"its axes are {self._axes} {array.shape}: not one RGB image")
        if int(np.prod(array.chunks)) > MAX_TILE_BYTES or 0 in array.shape:
            raise DamagedSlideError(f"It declares chunks of {array.chunks}", todo="Check where it comes from")

    def _level(self, array: Any, full: tuple[int, int]) -> TileLevel:
        width, height = self._side(array, "x"), self._side(array, "y")
        chunk = [array.chunks[self._axes.index(axis)] for axis in "xy"]
        tile = [side * max(1, _BLOCK_PX // side) for side in chunk]
        return TileLevel(width, height, tile[0], tile[1], downsample_of(full, (width, height)))

    def _identity(self, ome: dict[str, Any]) -> str:
        """A hash of the metadata and of the coarsest level (its middle, where that is large)."""
        shape, digest = self.levels[-1], hashlib.sha256(json.dumps(ome, sort_keys=True, default=str).encode())
        digest.update(str([array.shape for array in self._arrays]).encode())
        try:
            middle = self.decode_tile(len(self.levels) - 1, shape.columns // 2, shape.rows // 2)
        except TileError:  # a damaged tile is told when it is read
            middle = None
        digest.update(b"" if middle is None else middle.tobytes())
        return digest.hexdigest()

    def decode_tile(
        self, level: int, column: int, row: int, out: NDArray[np.uint8] | None = None
    ) -> NDArray[np.uint8] | None:
        """See :meth:`Source.decode_tile`."""
        shape = self.levels[level]
        x, y = column * shape.tile_width, row * shape.tile_height
        where = {"x": slice(x, min(x + shape.tile_width, shape.width)), "c": slice(None)}
        where["y"] = slice(y, min(y + shape.tile_height, shape.height))
        try:
            pixels = np.asarray(self._arrays[level][tuple(where.get(axis, 0) for axis in self._axes)])
        except PARSE_ERRORS as error:
            message = f"Block at column {column}, row {row} of level {level} is damaged ({error})"
            raise TileError(message, todo="Copy the image again if this happens often") from error
        kept = [axis for axis in self._axes if axis in "yxc"]
        if "c" not in kept:
            pixels, kept = pixels[..., None], [*kept, "c"]
        return laid_on_white(pixels.transpose([kept.index(axis) for axis in "yxc"]))


def _ome(group: Any) -> dict[str, Any]:
    """OME attributes, which 0.5 keeps in a dict of their own."""
    attributes = dict(group.attrs)
    return dict(attributes.get("ome", attributes))


def _inside(path: str) -> str:
    """Path of a level, checked to stay inside its image."""
    if PurePosixPath(path).is_absolute() or ".." in PurePosixPath(path).parts:
        raise DamagedSlideError(f"A level lies outside of the image: {path}", todo="Do not open it; ask who wrote it")
    return path


def _codec(array: Any) -> str:
    names = [type(codec).__name__ for codec in array.compressors]
    return ", ".join(name.removesuffix("Codec") for name in names) or "none"


def _pixel_sizes(image: dict[str, Any], axes: str) -> list[PixelSize]:
    """The scale of the first level; without units it says nothing."""
    steps = [*image["datasets"][0].get("coordinateTransformations", []), *image.get("coordinateTransformations", [])]
    sides = []
    for name in "xy":
        axis = image["axes"][axes.index(name)] if "axes" in image else {}
        unit = _UNIT_UM.get(axis.get("unit", "") if isinstance(axis, dict) else "")
        scale = float(np.prod([step["scale"][axes.index(name)] for step in steps if step.get("type") == "scale"]))
        if unit is None or not steps:
            return []
        sides.append(scale * unit)
    return [PixelSize("OME-Zarr scale", sides[0], sides[1])]


def _remote(address: str) -> Any:
    """A store at an address; buckets are opened without credentials unless the environment has some."""
    from zarr.storage import FsspecStore

    known = any(name in os.environ for name in ("AWS_ACCESS_KEY_ID", "AWS_PROFILE", "AWS_SHARED_CREDENTIALS_FILE"))
    options = {"anon": True} if address.startswith("s3://") and not known else {}
    return FsspecStore.from_url(address, read_only=True, storage_options=options)
