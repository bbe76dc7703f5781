"""What TIFF files say of their pixel size and objective: resolution tags, Aperio descriptions, OME-XML."""

from __future__ import annotations

from typing import Any
from xml.etree import ElementTree

from napari_he2st.data.slides.pixel_size import PixelSize, number

_UNIT_UM = {2: 25_400.0, 3: 10_000.0}  # ResolutionUnit inch, centimetre
_OME_UNIT_UM = {"nm": 1e-3, "µm": 1.0, "um": 1.0, "mm": 1e3, "cm": 1e4, "m": 1e6, "Å": 1e-4, "in": 25_400.0}


def pixel_sizes(tif: Any, page: Any) -> list[PixelSize]:
    """Every statement of the pixel size of ``page`` in an open :class:`tifffile.TiffFile`."""
    found = []
    if tif.is_svs and (mpp := number(_aperio(page).get("MPP"))) is not None:
        found.append(PixelSize("Aperio MPP", mpp, mpp))
    if tif.is_ome:
        pixels = _ome_pixels(_ome_root(tif), page)
        sizes = [number(pixels.get(f"PhysicalSize{axis}")) for axis in "XY"]
        units = [_OME_UNIT_UM.get(pixels.get(f"PhysicalSize{axis}Unit", "µm")) for axis in "XY"]
        x, y = (None if s is None or u is None else s * u for s, u in zip(sizes, units, strict=True))
        if x is not None and y is not None:
            found.append(PixelSize("OME PhysicalSize", x, y))
    unit = _UNIT_UM.get(int(page.resolutionunit or 1))
    if unit is not None and all(value > 0 for value in page.resolution):
        found.append(PixelSize("TIFF resolution tag", *(unit / value for value in page.resolution)))
    return found


def objective_power(tif: Any, page: Any) -> float | None:
    """Magnification of the objective, where it is stated."""
    if tif.is_svs:
        return number(_aperio(page).get("AppMag"))
    if tif.is_ome:
        objectives = _elements(_ome_root(tif), "Objective")
        return next((number(a.get("NominalMagnification")) for a in objectives), None)
    return None


def _aperio(page: Any) -> dict[str, str]:
    """``key = value`` pairs of an Aperio image description."""
    pairs = (part.split("=", 1) for part in page.description.split("|")[1:] if "=" in part)
    return {key.strip(): value.strip() for key, value in pairs}


def _ome_root(tif: Any) -> ElementTree.Element | None:
    xml = tif.ome_metadata or ""
    if "<!DOCTYPE" in xml or "<!ENTITY" in xml:  # no OME-TIFF has them; entities can grow without end
        return None
    try:
        return ElementTree.fromstring(xml)  # noqa: S314 - entities are left out above
    except ElementTree.ParseError:
        return None


def _elements(root: ElementTree.Element | None, name: str) -> list[dict[str, str]]:
    """Attributes of all elements of that name, in whatever version of the OME name space."""
    return [] if root is None else [e.attrib for e in root.iter() if e.tag.rpartition("}")[2] == name]


def _ome_pixels(root: ElementTree.Element | None, page: Any) -> dict[str, str]:
    """Attributes of the ``Pixels`` element that has the size of ``page``."""
    size = str(page.imagewidth), str(page.imagelength)
    return next((a for a in _elements(root, "Pixels") if (a.get("SizeX"), a.get("SizeY")) == size), {})
