"""Polygons as GeoJSON, the way QuPath reads and writes them: in level-0 pixels (x, y)."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray

from napari_he2st.core.atomic import atomic_write
from napari_he2st.core.errors import TruthError
from napari_he2st.core.geometry import signed_area
from napari_he2st.core.types import Region

T = TypeVar("T")

_MAX_BYTES = 2 * 2**30
_KINDS = ("Polygon", "MultiPolygon")


@dataclass(frozen=True)
class Feature:
    """One object.

    Attributes
    ----------
    polygon
        Corners (x, y), float64 (m, 2), the first one not repeated.
    name
        What it is called.
    kind
        QuPath's classification, such as ``"Nucleus"``.
    measurements
        Numbers by name.
    colour
        Of its classification, ``"#rrggbb"``; None leaves it to QuPath.
    annotation
        Whether it was drawn, an annotation, rather than detected.
    """

    polygon: NDArray[np.float64]
    name: str
    kind: str
    measurements: Mapping[str, float] = field(default_factory=dict)
    colour: str | None = None
    annotation: bool = False


def write_features(path: Path, features: Iterable[Feature]) -> None:
    """Write objects for QuPath, one per line; numbers that are not finite are left out."""
    with path.open("w", encoding="utf-8") as file:
        file.write('{"type": "FeatureCollection", "features": [')
        for number, feature in enumerate(features):
            file.write(("," if number else "") + "\n" + json.dumps(_record(feature), separators=(",", ":")))
        file.write("\n]}\n")


def _record(feature: Feature) -> dict[str, Any]:
    ring = np.round(np.concatenate([feature.polygon, feature.polygon[:1]]), 2).tolist()
    properties: dict[str, Any] = {
        "objectType": "annotation" if feature.annotation else "detection",
        "name": feature.name,
    }
    if feature.kind:
        properties["classification"] = {"name": feature.kind}
        if feature.colour is not None:
            properties["classification"]["color"] = list(bytes.fromhex(feature.colour.removeprefix("#")))
    measured = {name: float(f"{value:.6g}") for name, value in feature.measurements.items() if np.isfinite(value)}
    if measured or not feature.annotation:
        properties["measurements"] = measured
    return {
        "type": "Feature",
        "geometry": {"type": "Polygon", "coordinates": [ring]},
        "properties": properties,
    }


def read_polygons(path: Path) -> list[NDArray[np.float64]]:
    """Outer rings of all polygons of a file; of QuPath's cells that of the nucleus.

    Raises
    ------
    TruthError
        The file is no GeoJSON, too large, or holds no polygon.
    """
    return _read(path, lambda feature: [_ring(part[0]) for part in _parts(feature)])


def write_regions(path: str | Path, regions: Iterable[Region], *, force: bool = False) -> None:
    """Write regions as QuPath's annotations, with name, class and colour.

    Raises
    ------
    OutputError
        The file exists and is not to be replaced, or cannot be written.
    """
    features = [Feature(each.polygon, each.name, each.kind, {}, each.colour, annotation=True) for each in regions]
    with atomic_write(path, force=force) as target:
        write_features(target, features)


def read_regions(path: str | Path) -> list[Region]:
    """Regions of a GeoJSON of polygons in level-0 pixels, with the names, classes and colours that QuPath gives.

    Of several polygons that are one object each is a region. A hole is part of the one outline, which leads to it
    and back on the same line: by the even-odd rule nothing in it is inside.

    Raises
    ------
    TruthError
        The file cannot be read, is no GeoJSON, too large, or holds no polygon.
    """
    return _read(Path(path), _regions)


def _read(path: Path, take: Callable[[Mapping[str, Any]], list[T]]) -> list[T]:
    """What ``take`` finds in the objects of a file; there must be something."""
    try:
        if path.stat().st_size > _MAX_BYTES:
            raise TruthError(f"The file is larger than {_MAX_BYTES / 2**30:.0f} GiB", where=path)
        found = json.loads(path.read_bytes())
        taken = [each for feature in _features(found) for each in take(feature)]
    except (OSError, ValueError, KeyError, IndexError, TypeError, AttributeError, RecursionError) as error:
        raise TruthError(f"This is no GeoJSON of polygons ({error})", where=path) from error
    if not taken:
        raise TruthError("The file holds no polygon", where=path)
    return taken


def _regions(feature: Mapping[str, Any]) -> list[Region]:
    properties = feature.get("properties") or {}
    kind = properties.get("classification") or {}
    name, class_name = str(properties.get("name") or ""), str(kind.get("name") or "")
    colour = kind.get("color")
    hexed = None if colour is None else "#" + bytes(int(value) for value in colour[:3]).hex()
    return [
        Region(_with_holes([_ring(ring) for ring in part]), name or class_name or "region", class_name, hexed)
        for part in _parts(feature)
    ]


def _with_holes(rings: list[NDArray[np.float64]]) -> NDArray[np.float64]:
    """One outline of an outer ring and its holes, whose area is what is left."""
    outer, *holes = rings
    if any(len(ring) < 3 for ring in rings):
        message = "a polygon has fewer than three corners"
        raise ValueError(message)
    outline = [outer]
    for hole in holes:
        against = hole[::-1] if (signed_area(hole) > 0) == (signed_area(outer) > 0) else hole
        outline += [outer[:1], against, against[:1]]
    return np.concatenate([*outline, outer[:1]] if holes else outline)


def _features(found: Any) -> Sequence[Mapping[str, Any]]:
    if isinstance(found, list):
        return found
    return found["features"] if found["type"] == "FeatureCollection" else [found]


def _parts(feature: Mapping[str, Any]) -> list[Any]:
    """Polygons of an object, each a list of rings: the outer one and its holes."""
    geometry = feature.get("nucleusGeometry") or feature["geometry"]
    if geometry["type"] not in _KINDS:
        return []
    return geometry["coordinates"] if geometry["type"] == "MultiPolygon" else [geometry["coordinates"]]


def _ring(corners: Any) -> NDArray[np.float64]:
    ring = np.asarray(corners, dtype=np.float64)[:, :2]
    if not np.isfinite(ring).all():
        message = "a corner is no number"
        raise ValueError(message)
    return ring[:-1] if len(ring) > 1 and (ring[0] == ring[-1]).all() else ring
