"""Polygons as GeoJSON, the way QuPath reads and writes them: in level-0 pixels (x, y)."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from napari_he2st.core.errors import TruthError

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
    """

    polygon: NDArray[np.float64]
    name: str
    kind: str
    measurements: Mapping[str, float] = field(default_factory=dict)


def write_features(path: Path, features: Iterable[Feature]) -> None:
    """Write objects as QuPath's detections, one per line; numbers that are not finite are left out."""
    with path.open("w", encoding="utf-8") as file:
        file.write('{"type": "FeatureCollection", "features": [')
        for number, feature in enumerate(features):
            file.write(("," if number else "") + "\n" + json.dumps(_record(feature), separators=(",", ":")))
        file.write("\n]}\n")


def _record(feature: Feature) -> dict[str, Any]:
    ring = np.round(np.concatenate([feature.polygon, feature.polygon[:1]]), 2).tolist()
    measured = {name: float(f"{value:.6g}") for name, value in feature.measurements.items() if np.isfinite(value)}
    return {
        "type": "Feature",
        "geometry": {"type": "Polygon", "coordinates": [ring]},
        "properties": {
            "objectType": "detection",
            "name": feature.name,
            "classification": {"name": feature.kind},
            "measurements": measured,
        },
    }


def read_polygons(path: Path) -> list[NDArray[np.float64]]:
    """Outer rings of all polygons of a file; of QuPath's cells that of the nucleus.

    Raises
    ------
    TruthError
        The file is no GeoJSON, too large, or holds no polygon.
    """
    if path.stat().st_size > _MAX_BYTES:
        raise TruthError(f"The file is larger than {_MAX_BYTES / 2**30:.0f} GiB", where=path)
    try:
        found = json.loads(path.read_bytes())
        rings = [_ring(ring) for feature in _features(found) for ring in _rings(feature)]
    except (ValueError, KeyError, IndexError, TypeError, AttributeError, RecursionError) as error:
        raise TruthError(f"This is no GeoJSON of polygons ({error})", where=path) from error
    if not rings:
        raise TruthError("The file holds no polygon", where=path)
    return rings


def _features(found: Any) -> Sequence[Mapping[str, Any]]:
    if isinstance(found, list):
        return found
    return found["features"] if found["type"] == "FeatureCollection" else [found]


def _rings(feature: Mapping[str, Any]) -> list[Any]:
    geometry = feature.get("nucleusGeometry") or feature["geometry"]
    if geometry["type"] not in _KINDS:
        return []
    parts = geometry["coordinates"] if geometry["type"] == "MultiPolygon" else [geometry["coordinates"]]
    return [part[0] for part in parts]


def _ring(corners: Any) -> NDArray[np.float64]:
    ring = np.asarray(corners, dtype=np.float64)[:, :2]
    if not np.isfinite(ring).all():
        message = "a corner is no number"
        raise ValueError(message)
    return ring[:-1] if len(ring) > 1 and (ring[0] == ring[-1]).all() else ring
