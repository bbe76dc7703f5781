"""Slides in formats that need more than tifffile: OME-Zarr, CZI, and vendors' TIFF files that OpenSlide knows."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Literal

import numpy as np
import tifffile
import zarr
from tests.tiny.slides import halved


def write_ome_zarr(
    path: Path | str,
    image: np.ndarray,
    *,
    version: Literal["0.4", "0.5"] = "0.5",
    levels: int = 3,
    chunk: int = 64,
    mpp: float | None = 0.5,
    axes: str = "tczyx",
    nested: bool = False,
) -> Path | str:
    """Write an OME-Zarr image of the given axes; ``nested`` as bioformats2raw lays it out."""
    root = group = zarr.open_group(path, mode="w", zarr_format=2 if version == "0.4" else 3)
    if nested:
        group = root.create_group("0")
        _state(root, version, {"bioformats2raw.layout": 3})
    datasets = []
    for level in range(levels):
        shape = {"x": image.shape[1], "y": image.shape[0], "c": 3}
        pixels = image.transpose([("yxc").index(a) for a in axes if a in "yxc"])
        pixels = pixels.reshape([shape.get(a, 1) for a in axes])
        chunks = tuple(chunk if a in "xy" else 1 for a in axes)
        array = group.create_array(str(level), shape=pixels.shape, chunks=chunks, dtype="uint8")
        array[:] = pixels
        scale = [(mpp or 1) * 2**level if a in "xy" else 1.0 for a in axes]
        datasets.append({"path": str(level), "coordinateTransformations": [{"type": "scale", "scale": scale}]})
        image = halved(image)
    kinds = {"t": "time", "c": "channel"}
    described: list[dict[str, str]] = [{"name": a, "type": kinds.get(a, "space")} for a in axes]
    for axis in described:
        if axis["name"] in "xy" and mpp is not None:
            axis["unit"] = "micrometer"
    image_facts: dict[str, Any] = {"axes": described, "datasets": datasets, "name": "image"}
    _state(group, version, {"multiscales": [image_facts | ({"version": "0.4"} if version == "0.4" else {})]})
    return path


def _state(group: zarr.Group, version: str, facts: dict[str, Any]) -> None:
    group.attrs.update(facts if version == "0.4" else {"ome": {"version": "0.5", **facts}})


def write_czi(path: Path, image: np.ndarray, *, mpp: float | None = 0.5, corner: tuple[int, int] = (0, 0)) -> Path:
    """Write a CZI of one scene whose upper left pixel lies at ``corner``."""
    from pylibCZIrw import czi

    with czi.create_czi(str(path)) as file:
        file.write(np.ascontiguousarray(image[:, :, ::-1]), location=corner)
        if mpp is not None:
            file.write_metadata("slide", scale_x=mpp * 1e-6, scale_y=mpp * 1e-6)
    return path


def write_vendor(path: Path, image: np.ndarray, vendor: str, *, mpp: float = 0.5, tile: int = 64) -> Path:
    """Write a slide that OpenSlide takes for one of a vendor: ``philips``, ``leica``, ``trestle``, ``hamamatsu``."""
    height, width = image.shape[:2]
    tiled: dict[str, Any] = {"tile": (tile, tile), "compression": "jpeg", "photometric": "rgb", "metadata": None}
    if vendor == "philips":
        whole = [side // tile * tile for side in (height, width)]  # Philips pads levels to whole tiles
        levels = [image[: whole[0], : whole[1]]]
        with tifffile.TiffWriter(path, bigtiff=True) as tif:
            tif.write(levels[0], software="Philips DP v1.0", description=_philips(levels, mpp), **tiled)
    elif vendor == "leica":
        with tifffile.TiffWriter(path, bigtiff=True) as tif:
            size = {"resolution": (1e4 / mpp, 1e4 / mpp), "resolutionunit": "CENTIMETER"}
            tif.write(image, description=_leica(width, height, mpp), **tiled, **size)
    elif vendor == "trestle":
        with tifffile.TiffWriter(path) as tif:
            for level, pixels in enumerate((image, halved(image))):
                facts = {"software": "MedScan", "description": "Objective Power=20;OverlapsXY= 0 0 0 0"}
                size = {"resolution": (mpp * 2**level, mpp * 2**level)}  # µm per pixel, whatever TIFF means by it
                tif.write(pixels, **tiled, **size, **(facts if level == 0 else {}))
    else:
        _write_ndpi(path, image, mpp)
    return path


def _philips(levels: list[np.ndarray], mpp: float) -> str:
    spacing = f'"{mpp / 1000}" "{mpp / 1000}"'.replace('"', "&quot;")

    def attribute(name: str, kind: str, value: str) -> str:
        return f'<Attribute Name="{name}" Group="0x0028" Element="0x0030" PMSVR="{kind}">{value}</Attribute>'

    def representation(number: int, pixels: np.ndarray) -> str:
        return (
            '<DataObject ObjectType="PixelDataRepresentation">'
            + attribute("DICOM_PIXEL_SPACING", "IDoubleArray", spacing)
            + attribute("PIIM_PIXEL_DATA_REPRESENTATION_NUMBER", "IUInt16", str(number))
            + attribute("PIIM_PIXEL_DATA_REPRESENTATION_COLUMNS", "IUInt32", str(pixels.shape[1]))
            + attribute("PIIM_PIXEL_DATA_REPRESENTATION_ROWS", "IUInt32", str(pixels.shape[0]))
            + "</DataObject>"
        )

    array = (
        '<Attribute Name="{}" Group="0x301D" Element="0x1003" PMSVR="IDataObjectArray"><Array>{}</Array></Attribute>'
    )
    parts = "".join(representation(i, pixels) for i, pixels in enumerate(levels))
    image = (
        '<DataObject ObjectType="DPScannedImage">'
        + attribute("PIM_DP_IMAGE_TYPE", "IString", "WSI")
        + attribute("DICOM_PIXEL_SPACING", "IDoubleArray", spacing)
        + array.format("PIIM_PIXEL_DATA_REPRESENTATION_SEQUENCE", parts)
        + "</DataObject>"
    )
    maker = attribute("DICOM_MANUFACTURER", "IString", "PHILIPS")
    return (
        '<?xml version="1.0" encoding="UTF-8" ?><DataObject ObjectType="DPUfsImport">'
        + maker
        + array.format("PIM_DP_SCANNED_IMAGES", image)
        + "</DataObject>"
    )


def _leica(width: int, height: int, mpp: float) -> str:
    nm = round(mpp * 1000)
    size = f'sizeX="{width * nm}" sizeY="{height * nm}"'
    whole = f'sizeX="{2 * width * nm}" sizeY="{height * nm}"'  # what fills the whole glass counts as the macro image
    return (
        '<?xml version="1.0"?><scn xmlns="http://www.leica-microsystems.com/scn/2010/10/01">'
        f'<collection name="Slide" uuid="x" {whole} sizeZ="0"><image name="image" uuid="y">'
        f'<creationDate>2020-01-01</creationDate><device model="Leica SCN400" version="1"/>'
        f'<pixels sizeX="{width}" sizeY="{height}"><dimension sizeX="{width}" sizeY="{height}" r="0" ifd="0"/></pixels>'
        f'<view {size} offsetX="0" offsetY="0" spacingZ="0"/>'
        "<scanSettings><objectiveSettings><objective>20</objective></objectiveSettings>"
        "<illuminationSettings><numericalAperture>0.4</numericalAperture>"
        "<illuminationSource>brightfield</illuminationSource></illuminationSettings></scanSettings>"
        "</image></collection></scn>"
    )


def _write_ndpi(path: Path, image: np.ndarray, mpp: float) -> None:
    """One JPEG strip with Hamamatsu's private tags; levels are told apart by the source lens."""
    with tifffile.TiffWriter(path) as tif:
        for level, pixels in enumerate((image, halved(image))):
            tags = [(65420, 4, 1, 1, True), (65421, 11, 1, 20.0 / 2**level, True), (65424, 9, 1, 0, True)]
            tif.write(
                pixels,
                photometric="rgb",
                compression="jpeg",
                rowsperstrip=pixels.shape[0],
                resolution=(1e4 / mpp / 2**level, 1e4 / mpp / 2**level),
                resolutionunit="CENTIMETER",
                software="NDP.scan",
                metadata=None,
                extratags=tags,
            )
