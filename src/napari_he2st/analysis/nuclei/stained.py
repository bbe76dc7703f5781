"""Nuclei from their stain, without anything learned."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from napari_he2st.analysis.nuclei import nuclei_method

_ADAPTIVE_UM = 30.0


@nuclei_method("haematoxylin", "Haematoxylin by colour deconvolution, split by watershed; nothing learned")
def haematoxylin(
    image: NDArray[np.uint8],
    mpp: float,
    *,
    min_area_um2: float = 12.0,
    max_area_um2: float = 400.0,
    radius_um: float = 3.0,
    sensitivity: float = 1.0,
) -> NDArray[np.int32]:
    """Label image of what takes up more haematoxylin than its surroundings.

    Parameters
    ----------
    image
        uint8 RGB, shape (height, width, 3).
    mpp
        Its pixel size in micrometres.
    min_area_um2, max_area_um2
        Smaller and larger objects are left out.
    radius_um
        Radius of a typical nucleus; centres of neighbours are at least this far apart.
    sensitivity
        Above 1 finds paler nuclei, below 1 only dark ones.

    Returns
    -------
    NDArray[np.int32]
        Shape (height, width); 0 outside of nuclei.
    """
    from scipy import ndimage
    from skimage.color import rgb2hed
    from skimage.feature import peak_local_max
    from skimage.filters import gaussian, threshold_local, threshold_otsu
    from skimage.morphology import remove_small_holes, remove_small_objects
    from skimage.segmentation import watershed

    stain = gaussian(rgb2hed(image)[..., 0], 0.5 * radius_um / mpp / 2)
    if float(np.ptp(stain)) < 1e-6:
        return np.zeros(image.shape[:2], dtype=np.int32)
    block = 2 * int(_ADAPTIVE_UM / mpp / 2) + 1
    local = threshold_local(stain, block, method="gaussian") if min(stain.shape) > 3 else stain
    level = threshold_otsu(stain)
    dark = stain > (0.5 * level + 0.5 * np.maximum(local, 0.5 * level)) / sensitivity
    smallest = max(1, round(min_area_um2 / mpp**2))
    dark = remove_small_holes(ndimage.binary_opening(dark, iterations=1), max_size=smallest)
    dark = remove_small_objects(dark, max_size=smallest)
    depth = gaussian(ndimage.distance_transform_edt(dark), 0.25 * radius_um / mpp)
    regions, _ = ndimage.label(dark)
    peaks = peak_local_max(depth, min_distance=max(1, round(radius_um / mpp)), labels=regions, exclude_border=False)
    seeds = np.zeros(dark.shape, dtype=np.int32)
    seeds[tuple(peaks.T)] = np.arange(1, len(peaks) + 1)
    labels = watershed(-depth, seeds, mask=dark).astype(np.int32)
    area = np.bincount(labels.ravel())
    wrong = (area < smallest) | (area > max_area_um2 / mpp**2)
    wrong[0] = True
    numbers = np.where(wrong, 0, np.cumsum(~wrong)).astype(np.int32)
    return np.asarray(numbers[labels], dtype=np.int32)
