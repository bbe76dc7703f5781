"""The H&E under the spots, in the form that scanpy and squidpy draw."""

from __future__ import annotations

from typing import TYPE_CHECKING

from napari_he2st.core import keys
from napari_he2st.core.schema import facts_of

if TYPE_CHECKING:
    from anndata import AnnData

    from napari_he2st.data.slides import Slide


def attach_image(adata: AnnData, slide: Slide, *, max_px: int = 2000) -> None:
    """Put a small picture of the slide into ``uns["spatial"]``, as scanpy's ``hires``.

    Parameters
    ----------
    adata
        Expression in our schema whose spots lie on ``slide``; changed in place.
    slide
        The slide.
    max_px
        Longer side of the picture in pixels.

    Raises
    ------
    SlideError
        The slide cannot be read.
    """
    facts = facts_of(adata)
    picture = slide.thumbnail(max_px)
    entry = adata.uns.get(keys.SPATIAL, {}).get(facts["library"], {})
    adata.uns[keys.SPATIAL] = {
        facts["library"]: {
            "images": {**entry.get("images", {}), "hires": picture},
            "scalefactors": {
                "spot_diameter_fullres": facts["spot_um"] / facts["mpp"],
                **entry.get("scalefactors", {}),
                "tissue_hires_scalef": picture.shape[1] / slide.size[0],
            },
        }
    }
