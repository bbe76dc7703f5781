"""AnnData files that scanpy and squidpy open and plot over the H&E."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from napari_he2st.core import keys
from napari_he2st.data.export.image import attach_image
from napari_he2st.data.export.registry import exporter

if TYPE_CHECKING:
    from anndata import AnnData

    from napari_he2st.data.slides import Slide


@exporter("h5ad", "AnnData for scanpy and squidpy, with the image in place", suffix=".h5ad")
def write_h5ad(adata: AnnData, path: Path, slide: Slide | None) -> None:
    """Write our schema with a small picture of the slide.

    Of other programs' entries in ``uns["spatial"]`` only images and scale factors are kept, as the rest may
    hold paths.
    """
    result = sharing(adata)
    if slide is not None:
        attach_image(result, slide)
    result.write_h5ad(path)


def sharing(adata: AnnData) -> AnnData:
    """A new AnnData on the same arrays, so that changing what is beside them copies no expression."""
    from anndata import AnnData

    uns = dict(adata.uns)
    uns[keys.SPATIAL] = {
        library: {kind: dict(entry[kind]) for kind in ("images", "scalefactors") if kind in entry}
        for library, entry in adata.uns.get(keys.SPATIAL, {}).items()
    }
    return AnnData(
        X=_in_chunks(adata.X),
        obs=adata.obs,
        var=adata.var,
        uns=uns,
        obsm=dict(adata.obsm),
        varm=dict(adata.varm),
        layers={name: _in_chunks(adata.layers[name]) for name in adata.layers},
        obsp=dict(adata.obsp),
    )


def _in_chunks(values: Any) -> Any:
    """Arrays that lie on disk as dask arrays, which are written block by block; others as they are."""
    if not hasattr(values, "chunks") or hasattr(values, "dask"):
        return values
    import dask.array

    return dask.array.from_array(values, chunks=(max(1, 16_000_000 // max(values.shape[1], 1)), -1))
