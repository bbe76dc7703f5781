"""What a prediction becomes: AnnData with its provenance, and what a window shows of it meanwhile."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from napari_he2st.core import keys
from napari_he2st.core.schema import provenance
from napari_he2st.core.types import Grid, Nuclei
from napari_he2st.core.wkt import to_wkt
from napari_he2st.data.nuclei import outlines

if TYPE_CHECKING:
    from anndata import AnnData

    from napari_he2st.data.slides import Slide
    from napari_he2st.zoo.bundle import Bundle


def to_adata(
    bundle: Bundle,
    slide: Slide,
    grid: Grid,
    values: NDArray[np.float32],
    *,
    genes: Sequence[str] | None = None,
    std: NDArray[np.float32] | None = None,
    seed: int = 0,
    device: str = "cpu",
    scale: str | None = None,
    notes: Sequence[str] = (),
    nuclei: Nuclei | None = None,
) -> AnnData:
    """Predicted values, float32 (spots, genes), as AnnData with provenance.

    Parameters
    ----------
    bundle, slide, grid, values, genes, std, seed, device
        What was predicted, with what, where.
    scale
        Of the values, if not the bundle's.
    notes
        What was said of the run.
    nuclei
        Where they are the spots, by the number in ``grid.index``: each has its outline in ``obs["polygon"]``.
    """
    import anndata as ad
    import pandas as pd

    genes = list(bundle.genes if genes is None else genes)
    names = grid.names or tuple(f"spot{i}" for i in range(len(grid)))
    obs = pd.DataFrame(
        {keys.ARRAY_ROW: grid.index[:, 0], keys.ARRAY_COL: grid.index[:, 1], keys.IN_TISSUE: grid.in_tissue},
        index=pd.Index(names),
    )
    if nuclei is not None:
        shapes = outlines(nuclei, grid.index[:, 0])
        obs[keys.POLYGON] = [to_wkt(shape * (nuclei.mpp / slide.mpp)) for shape in shapes]
    ensembl = dict(zip(bundle.genes, bundle.manifest.ensembl or [None] * len(bundle.genes), strict=True))
    var = pd.DataFrame(
        {
            keys.ENSEMBL: [ensembl.get(g) or "" for g in genes],
            keys.HELD_OUT_PCC: [bundle.scores.get(g, np.nan) for g in genes],
        },
        index=pd.Index(genes),
    )
    adata = ad.AnnData(X=values, obs=obs, var=var)
    if std is not None:
        adata.layers[keys.STD] = std
    adata.obsm[keys.SPATIAL] = grid.xy.astype(np.float64)
    adata.uns[keys.UNS] = provenance(
        "predicted",
        mpp=slide.mpp,
        scale=scale or bundle.manifest.scale,
        pitch_um=grid.pitch_um,
        spot_um=grid.spot_um,
        lattice=grid.lattice,
        library=slide.name,
        bundle=bundle.id,
        bundle_title=bundle.manifest.title,
        bundle_sha256=bundle.sha256,
        system=bundle.manifest.system,
        slide_fingerprint=slide.fingerprint,
        mpp_source=slide.mpp_source,
        colours=slide.colours,
        **({"tissue": dict(grid.tissue)} if grid.tissue else {}),
        training_slides=[
            str(section["fingerprint"]) for section in bundle.manifest.training if section.get("fingerprint")
        ],
        tile_px=bundle.manifest.tile_px,
        tile_mpp=bundle.manifest.mpp,
        seed=seed,
        device=device,
        notes=np.asarray(notes, dtype=object).astype(str) if len(notes) else None,
    )
    spot_px = grid.spot_um / slide.mpp
    adata.uns[keys.SPATIAL] = {
        slide.name: {"images": {}, "scalefactors": {"spot_diameter_fullres": spot_px, "tissue_hires_scalef": 1.0}}
    }
    return adata


def result_facts(bundle: Bundle, genes: Sequence[str] | None = None) -> dict[str, Any]:
    """What a result of a session has of its bundle, scale and held-out scores among it."""
    kept = list(bundle.genes if genes is None else genes)
    return {
        "bundle": bundle,
        "scale": bundle.manifest.scale,
        "scores": np.asarray([bundle.scores.get(g, np.nan) for g in kept], dtype=np.float32),
    }
