"""SpatialData stores: shapes with their table, and the image under them."""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from napari_he2st.core import keys
from napari_he2st.core.errors import MissingExtraError
from napari_he2st.core.schema import facts_of
from napari_he2st.core.wkt import from_wkt
from napari_he2st.data.export.h5ad import sharing
from napari_he2st.data.export.registry import exporter

if TYPE_CHECKING:
    from anndata import AnnData

    from napari_he2st.data.slides import Slide

_IMAGE_PX = 4000
_IMAGE = "he"


@exporter("spatialdata", "SpatialData: cells or spots as shapes, their table, the image", suffix=".zarr")
def write_spatialdata(adata: AnnData, path: Path, slide: Slide | None) -> None:
    """Write ``cells`` (polygons) or ``spots`` (circles), the table ``table`` that annotates them, and the image ``he``.

    The coordinate system ``global`` is the slide's level-0 pixels.

    Parameters
    ----------
    adata, path, slide
        See :func:`~napari_he2st.data.export.registry.exporter`; without a slide the image is the picture in
        ``uns["spatial"]``, if there is one.

    Raises
    ------
    MissingExtraError
        The package spatialdata is not installed.
    """
    try:
        from spatialdata import SpatialData
        from spatialdata.models import TableModel
    except ImportError as error:
        todo = "Run pip install 'napari-he2st[spatial]'"
        raise MissingExtraError("The package spatialdata is not installed", todo=todo) from error

    name = "cells" if keys.POLYGON in adata.obs else "spots"
    table = sharing(adata)
    table.uns.pop(keys.SPATIAL, None)
    table.obs = adata.obs.drop(columns=keys.POLYGON, errors="ignore").assign(region=name, instance_id=adata.obs_names)
    table.obs["region"] = table.obs["region"].astype("category")
    parsed = TableModel.parse(table, region=name, region_key="region", instance_key="instance_id")
    found = SpatialData(images=_images(adata, slide), shapes={name: _shapes(adata)}, tables={"table": parsed})
    with warnings.catch_warnings():  # of anndata's, on a default to come; it changes nothing in what is written
        warnings.filterwarnings("ignore", message="zarr v3 autosharding", category=UserWarning)
        found.write(path)


def _shapes(adata: AnnData) -> Any:
    from geopandas import GeoDataFrame
    from shapely import Point, Polygon
    from spatialdata.models import ShapesModel

    facts = facts_of(adata)
    if keys.POLYGON in adata.obs:
        shapes = GeoDataFrame(geometry=[Polygon(from_wkt(text)) for text in adata.obs[keys.POLYGON]])
    else:
        shapes = GeoDataFrame(geometry=[Point(xy) for xy in np.asarray(adata.obsm[keys.SPATIAL])])
        shapes["radius"] = facts["spot_um"] / facts["mpp"] / 2
    shapes.index = adata.obs_names.astype(str)
    return ShapesModel.parse(shapes)


def _images(adata: AnnData, slide: Slide | None) -> dict[str, Any]:
    from spatialdata.models import Image2DModel
    from spatialdata.transformations import Scale

    if slide is not None:
        picture = slide.thumbnail(_IMAGE_PX)
        factor = slide.size[0] / picture.shape[1]
    else:
        entry = adata.uns.get(keys.SPATIAL, {}).get(facts_of(adata)["library"], {})
        if "hires" not in entry.get("images", {}):
            return {}
        picture = np.asarray(entry["images"]["hires"])
        factor = 1 / float(entry["scalefactors"]["tissue_hires_scalef"])
    placed = {"global": Scale([factor, factor], axes=("x", "y"))}
    return {_IMAGE: Image2DModel.parse(np.moveaxis(picture, -1, 0), dims=("c", "y", "x"), transformations=placed)}
