"""A one-look check of whether spots lie on tissue."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from napari_he2st.core import keys
from napari_he2st.core.errors import TruthError

if TYPE_CHECKING:
    from anndata import AnnData

    from napari_he2st.data.slides.tissue import TissueMask

ENOUGH = 0.8
"""Below this share of spots on tissue, measured expression and image probably do not fit."""


@dataclass(frozen=True)
class Fit:
    """How well measured spots fit the image.

    Attributes
    ----------
    on_tissue
        Share of the spots whose centre lies on tissue.
    n
        Number of spots.
    message
        A warning for the user, or None where all is well.
    """

    on_tissue: float
    n: int
    message: str | None = None


def check_fit(adata: AnnData, mask: TissueMask) -> Fit:
    """Count the spots on tissue; a share below 80 % gives a warning.

    Parameters
    ----------
    adata
        Measured expression in our schema.
    mask
        Tissue of the slide that the spots refer to.

    Raises
    ------
    TruthError
        There are no spots.
    """
    if adata.n_obs == 0:
        raise TruthError("There are no spots to check against the tissue")
    xy = np.asarray(adata.obsm[keys.SPATIAL], dtype=np.float64)
    share = float(np.mean(mask.contains(xy)))
    height, width = (side * mask.downsample for side in mask.mask.shape)
    outside = float(np.mean((xy < 0).any(axis=1) | (xy[:, 0] >= width) | (xy[:, 1] >= height)))
    if share >= ENOUGH:
        return Fit(share, adata.n_obs)
    message = f"Only {share:.0%} of {adata.n_obs} spots lie on tissue"
    swapped = float(np.mean(mask.contains(xy[:, ::-1])))
    if swapped >= ENOUGH:
        message += f" ({swapped:.0%} would with x and y exchanged)"
    elif outside > 0:
        message += f", and {outside:.0%} outside the image: it may be another image, or one of another size"
    return Fit(share, adata.n_obs, f"{message}. Check image, positions and tissue mask before comparing.")
