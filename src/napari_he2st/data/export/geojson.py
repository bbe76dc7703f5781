"""Cells and spots as objects of QuPath."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from napari_he2st.core import keys
from napari_he2st.core.expression import unit_of
from napari_he2st.core.schema import facts_of
from napari_he2st.core.wkt import from_wkt
from napari_he2st.data.export.columns import block_of, columns_of, variance_of
from napari_he2st.data.export.registry import exporter
from napari_he2st.data.geojson import Feature, write_features

if TYPE_CHECKING:
    from anndata import AnnData

    from napari_he2st.data.slides import Slide

_ROWS = 4096
_MOST = 20
"""Genes that are written unless they are named."""


@exporter("geojson", "Cells or spots as QuPath's detections, with a measurement per gene", suffix=".geojson")
def write_geojson(adata: AnnData, path: Path, slide: Slide | None, *, genes: str | list[str] | None = None) -> None:
    """Write an object per cell or spot, classified by its domain where that is known.

    Parameters
    ----------
    adata, path, slide
        See :func:`~napari_he2st.data.export.registry.exporter`; the slide is not used.
    genes
        Symbols or Ensembl identifiers to write, as a list or separated by commas; by default the 20 that vary most.

    Raises
    ------
    GeneError
        A gene is not in the data.
    """
    columns = np.argsort(-variance_of(adata), kind="stable")[:_MOST] if genes is None else columns_of(adata, genes)
    write_features(path, _objects(adata, columns))


def _objects(adata: AnnData, columns: NDArray[np.intp]) -> Iterator[Feature]:
    facts = facts_of(adata)
    unit = f"{facts['kind']}, {unit_of(facts['scale'])}"
    names = [f"{gene} ({unit})" for gene in adata.var_names[columns]]
    cells = keys.POLYGON in adata.obs
    kinds = ["Cell" if cells else "Spot"] * adata.n_obs
    if keys.DOMAIN in adata.obs:
        kinds = [str(domain) for domain in adata.obs[keys.DOMAIN]]
    xy = np.asarray(adata.obsm[keys.SPATIAL], dtype=np.float64)
    around = _outline(facts)
    for start in range(0, adata.n_obs, _ROWS):
        block = block_of(adata, slice(start, start + _ROWS), columns)
        for row, values in enumerate(block.tolist(), start=start):
            polygon = from_wkt(adata.obs[keys.POLYGON].iloc[row]) if cells else xy[row] + around
            yield Feature(polygon, str(adata.obs_names[row]), kinds[row], dict(zip(names, values, strict=True)))


def _outline(facts: dict) -> NDArray[np.float64]:
    """Around the centre of a spot: its square on a square lattice, else its disc."""
    if facts["lattice"] == "square":
        side, corners = facts["pitch_um"], np.array([(-1.0, -1.0), (1, -1), (1, 1), (-1, 1)])
    else:
        angle = np.linspace(0, 2 * np.pi, 16, endpoint=False)
        side, corners = facts["spot_um"], np.stack([np.cos(angle), np.sin(angle)], axis=1)
    return np.asarray(side / facts["mpp"] / 2 * corners, dtype=np.float64)
