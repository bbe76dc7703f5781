"""Labels that a person gave to tissue: a table of spots, or outlines drawn in another program."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from napari_he2st.core import keys
from napari_he2st.core.errors import TruthError
from napari_he2st.core.geometry import inside_polygon
from napari_he2st.core.schema import facts_of
from napari_he2st.core.types import Region

if TYPE_CHECKING:
    import pandas as pd
    from anndata import AnnData

NONE = "none"
"""Label of spots that have none."""

_LARGEST = 1 << 28  # bytes of a file of outlines


def read_labels(path: str | Path, adata: AnnData) -> NDArray[np.object_]:
    """Label of each spot of a section, from a file.

    Parameters
    ----------
    path
        A CSV or TSV with a column ``label`` (else its last one) and, to know the spots by, ``x`` and ``y`` in level-0
        pixels, else their names in the first column. Or a GeoJSON of classified outlines in level-0 pixels, as QuPath
        exports them; of outlines that overlap, the later one counts.
    adata
        The section.

    Returns
    -------
    array
        Text, (spots,); ``"none"`` where a spot has no label.

    Raises
    ------
    TruthError
        The file cannot be read, or labels none of the spots.
    """
    path = Path(path)
    found = _of_outlines(path, adata) if path.suffix.lower() in (".geojson", ".json") else _of_table(path, adata)
    if (found == NONE).all():
        todo = "Give spot names as in the section, or positions in level-0 pixels of its slide"
        raise TruthError(f"None of the {adata.n_obs:,} spots has a label there", where=path, todo=todo)
    return found


def labels_in_regions(xy: NDArray, regions: Iterable[Region]) -> NDArray[np.object_]:
    """Class, else name, of the region that each position (x, y) lies in, the last of several; else ``"none"``."""
    found = np.full(len(xy), NONE, dtype=object)
    for region in regions:
        found[inside_polygon(xy, region.polygon)] = region.kind or region.name
    return found


def _of_table(path: Path, adata: AnnData) -> NDArray[np.object_]:
    import pandas as pd

    try:
        table = pd.read_csv(path, sep="\t" if path.suffix.lower() in (".tsv", ".txt") else ",")
    except (OSError, ValueError, pd.errors.ParserError) as error:
        todo = "Give a CSV with a column label"
        raise TruthError(f"The labels cannot be read ({error})", where=path, todo=todo) from error
    if len(table.columns) < 2:
        raise TruthError("There is only one column", where=path, todo="Give spot names, or x and y, and labels")
    column = "label" if "label" in table else table.columns[-1]
    given = table[column].where(table[column].notna(), NONE).astype(str)
    if {"x", "y"} <= set(table.columns):
        return _at_positions(table, given.to_numpy(dtype=object), adata)
    by_name = dict(zip(table.iloc[:, 0].astype(str), given, strict=True))
    return np.array([by_name.get(str(name), NONE) for name in adata.obs_names], dtype=object)


def _at_positions(table: pd.DataFrame, given: NDArray[np.object_], adata: AnnData) -> NDArray[np.object_]:
    """Labels of the nearest positions within half a pitch."""
    from scipy.spatial import KDTree

    at = table[["x", "y"]].to_numpy(dtype=np.float64)
    given, at = given[np.isfinite(at).all(axis=1)], at[np.isfinite(at).all(axis=1)]
    facts = facts_of(adata)
    reach = facts["pitch_um"] / facts["mpp"] / 2
    row = KDTree(at).query(np.asarray(adata.obsm[keys.SPATIAL]), distance_upper_bound=reach)[1]
    return np.asarray(np.append(given, NONE)[np.minimum(row, len(given))])


def _of_outlines(path: Path, adata: AnnData) -> NDArray[np.object_]:
    try:
        if path.stat().st_size > _LARGEST:
            raise TruthError("The file of outlines is too large", where=path, todo="Export fewer outlines")
        content = json.loads(path.read_text(encoding="utf-8"))
        features = content["features"] if isinstance(content, dict) else content
        xy, found = np.asarray(adata.obsm[keys.SPATIAL]), np.full(adata.n_obs, NONE, dtype=object)
        for feature in features:
            properties = feature.get("properties") or {}
            name = (properties.get("classification") or {}).get("name") or properties.get("name")
            if name:
                found[_inside(feature["geometry"], xy)] = str(name)
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        message = f"The outlines cannot be read ({type(error).__name__}: {error})"
        raise TruthError(message, where=path, todo="Export annotations as GeoJSON from QuPath") from error
    return found


def _inside(geometry: dict[str, Any], xy: NDArray) -> NDArray[np.bool_]:
    """Which positions lie in a polygon or several, but not in their holes."""
    inside = np.zeros(len(xy), dtype=bool)
    for rings in _polygons(geometry):
        here = np.zeros(len(xy), dtype=bool)
        for ring in rings:
            here ^= inside_polygon(xy, np.asarray(ring, dtype=np.float64)[:, :2])
        inside |= here
    return inside


def _polygons(geometry: dict[str, Any]) -> Iterator[list[Any]]:
    if geometry["type"] == "Polygon":
        yield geometry["coordinates"]
    elif geometry["type"] == "MultiPolygon":
        yield from geometry["coordinates"]
