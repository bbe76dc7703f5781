"""SpatialData stores (zarr), read with the package ``spatialdata`` of the extra ``spatial``."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from napari_he2st.core import keys
from napari_he2st.core.errors import MissingExtraError, TruthError
from napari_he2st.data.truth.h5ad import section_of
from napari_he2st.data.truth.images import scale_of
from napari_he2st.data.truth.section import Detection, Section, Source, truth_reader

if TYPE_CHECKING:
    from anndata import AnnData

_KINDS = ("tables", "table", "images", "labels", "shapes", "points")
_ATTRS = "spatialdata_attrs"
_POLYGONS = ("Polygon", "MultiPolygon")


def _names(store: Path, kind: str) -> list[str]:
    folder = store / kind
    children = sorted(folder.iterdir()) if folder.is_dir() else []
    return [child.name for child in children if child.is_dir()]


def detect(path: Path) -> Detection | None:
    """One section for each table of the store."""
    if not path.is_dir() or not any((path / name).is_file() for name in ("zarr.json", ".zgroup")):
        return None
    elements = {kind: _names(path, kind) for kind in _KINDS}
    if not any(elements.values()):
        return None
    tables = elements["tables"] or elements["table"]
    found = [f"{kind}: {', '.join(names)}" for kind, names in elements.items() if names]
    missing = [] if tables else ["a table of counts (tables/)"]
    missing += [] if elements["images"] else ["an image (images/)"]
    return Detection("spatialdata", path, tables, found, missing)


@truth_reader(
    "spatialdata",
    "SpatialData: a table with the shapes or labels that it annotates",
    looks_for="a folder NAME.zarr with tables/, and shapes/ or labels/",
    detect=detect,
    order=20,
)
def read(detection: Detection, name: str, source: Source) -> Section:
    """Read one table; positions are the centroids of its elements, in pixels of the image they share a space with."""
    path = detection.root
    try:
        import spatialdata
    except ImportError as error:
        todo = 'Install it with: pip install "napari-he2st[spatial]"'
        raise MissingExtraError("SpatialData stores need the package spatialdata", where=path, todo=todo) from error
    try:
        store = spatialdata.read_zarr(path)
        table = store.tables[name]
        regions = _regions(table, path)
        image, system = _image(store, regions)
        own = keys.UNS in table.uns
        # Ours are in level-0 pixels of the slide, and have a small picture of it.
        to_pixels = _to_pixels(store, system, None if own and source.image is not None else image)
        xy = _centroids(store, table, regions, system, to_pixels)
        scale = np.diag([scale_of(source), scale_of(source), 1.0])
        outlines = _outlines(store, table, regions, system, scale @ to_pixels)
    except (KeyError, ValueError, TypeError, OSError, AttributeError) as error:
        message = f"The store cannot be read ({type(error).__name__}: {error})"
        raise TruthError(message, where=path, todo="Check it with spatialdata.read_zarr") from error
    if outlines is not None:
        table.obs[keys.POLYGON] = outlines
    table = table[np.isfinite(xy).all(axis=1)].copy()
    lost = len(xy) - table.n_obs
    table.obsm[keys.SPATIAL] = xy[np.isfinite(xy).all(axis=1)]
    slide = source.image or (None if image is None else path / "images" / image)
    if own and source.mpp is None:
        source = replace(source, mpp=float(table.uns[keys.UNS]["mpp"]) / float(to_pixels[0, 0]))
    section = section_of(table, detection, name, replace(source, image=slide), mpp_source="given")
    notes = [f"{lost} rows without an element left out"] if lost else []
    return replace(section, name=name, found=[*section.found, *notes])


def _regions(table: AnnData, path: Path) -> list[str]:
    attrs = table.uns.get(_ATTRS)
    if attrs is None:
        raise TruthError("The table does not say which shapes it annotates", where=path)
    region = attrs["region"]
    return [str(region)] if isinstance(region, str) else list(map(str, np.atleast_1d(region)))


def _image(store: Any, regions: list[str]) -> tuple[str | None, str]:
    """The only colour image in the coordinate system of the regions, and that system."""
    from spatialdata.transformations import get_transformation

    systems = [set(get_transformation(store[region], get_all=True)) for region in regions]
    shared = sorted(set.intersection(*systems)) if systems else []
    if not shared:
        message = f"the elements {', '.join(regions)} share no coordinate system"
        raise ValueError(message)
    fitting = [
        (name, system)
        for name, image in store.images.items()
        for system in shared
        if _n_channels(image) in (3, 4) and system in get_transformation(image, get_all=True)
    ]
    names = {name for name, _ in fitting}
    return fitting[0] if len(names) == 1 else (None, shared[0])


def _n_channels(image: Any) -> int:
    from spatialdata.models import get_channel_names

    return len(get_channel_names(image))


def _to_pixels(store: Any, system: str, image: str | None) -> NDArray[np.float64]:
    """From a coordinate system to the pixels (x, y) of an image, (3, 3); as it is where there is none."""
    from spatialdata.transformations import get_transformation

    if image is None:
        return np.eye(3)
    to_system = get_transformation(store.images[image], system).to_affine_matrix(("x", "y"), ("x", "y"))
    return np.asarray(np.linalg.inv(to_system))


def _rows_in(table: AnnData, regions: list[str], elements: Mapping[str, Any]) -> Iterator[tuple[str, Any, Any]]:
    """Of each region the rows of the table that it has an element for, and the places of these elements."""
    import pandas as pd

    attrs = table.uns[_ATTRS]
    of_region = table.obs[attrs["region_key"]].astype(str).to_numpy()
    instance = table.obs[attrs["instance_key"]]
    for region in regions:
        rows = np.flatnonzero(of_region == region)
        at = pd.Index(elements[region].index).get_indexer(pd.Index(instance.iloc[rows]))
        yield region, rows[at >= 0], at[at >= 0]


def _centroids(
    store: Any, table: AnnData, regions: list[str], system: str, to_pixels: NDArray[np.float64]
) -> NDArray[np.float64]:
    """Position (x, y) of each row of the table; NaN where its element is not there."""
    from spatialdata import get_centroids

    points = {region: get_centroids(store[region], coordinate_system=system).compute() for region in regions}
    xy = np.full((table.n_obs, 2), np.nan)
    for region, rows, at in _rows_in(table, regions, points):
        xy[rows] = points[region][["x", "y"]].to_numpy()[at]
    return xy @ to_pixels[:2, :2].T + to_pixels[:2, 2]


def _outlines(
    store: Any, table: AnnData, regions: list[str], system: str, to_pixels: NDArray[np.float64]
) -> NDArray[np.object_] | None:
    """Outer ring of each row's polygon, of its largest one, as text; None unless all elements are polygons."""
    import shapely
    from spatialdata import transform

    shapes = {region: store.shapes[region] for region in regions if region in store.shapes}
    if len(shapes) < len(regions) or any(set(found.geom_type) - set(_POLYGONS) for found in shapes.values()):
        return None
    matrix = [*to_pixels[:2, :2].ravel(), *to_pixels[:2, 2]]
    parts = {}
    for region, found in shapes.items():
        each = transform(found, to_coordinate_system=system).geometry.affine_transform(matrix).explode()
        each = each.iloc[np.argsort(each.area, kind="stable")]
        parts[region] = each[~each.index.duplicated(keep="last")]
    texts = np.full(table.n_obs, "", dtype=object)
    for region, rows, at in _rows_in(table, regions, parts):
        rings = shapely.polygons(shapely.get_exterior_ring(parts[region].to_numpy()[at]))
        texts[rows] = shapely.to_wkt(rings, rounding_precision=2)
    return texts
