"""Nuclei by published networks, where their packages are installed."""

from __future__ import annotations

from importlib.util import find_spec
from typing import Any

import numpy as np
from numpy.typing import NDArray

from napari_he2st.analysis.nuclei import nuclei_method
from napari_he2st.core.errors import MissingExtraError


@nuclei_method("instanseg", "InstanSeg's brightfield nuclei; needs the package instanseg-torch and its weights")
def instanseg(image: NDArray[np.uint8], mpp: float) -> NDArray[np.int32]:
    """Label image by InstanSeg, which downloads its weights when first used.

    Parameters
    ----------
    image
        uint8 RGB, shape (height, width, 3).
    mpp
        Its pixel size in micrometres.

    Raises
    ------
    MissingExtraError
        The package is not installed.
    """
    _need("instanseg", "instanseg-torch")
    from instanseg import InstanSeg

    found: Any = InstanSeg("brightfield_nuclei", verbosity=0).eval_small_image(image, mpp, return_image_tensor=False)
    return np.asarray(found).squeeze().astype(np.int32)


@nuclei_method("cellpose", "Cellpose's nuclei; needs the package cellpose and its weights")
def cellpose(image: NDArray[np.uint8], mpp: float, *, diameter_um: float = 7.5) -> NDArray[np.int32]:
    """Label image by Cellpose, which downloads its weights when first used.

    Parameters
    ----------
    image
        uint8 RGB, shape (height, width, 3).
    mpp
        Its pixel size in micrometres.
    diameter_um
        Of a typical nucleus.

    Raises
    ------
    MissingExtraError
        The package is not installed.
    """
    _need("cellpose", "cellpose")
    from cellpose.models import CellposeModel

    found: Any = CellposeModel(gpu=False).eval(image, diameter=diameter_um / mpp)
    return np.asarray(found[0], dtype=np.int32)


def _need(module: str, package: str) -> None:
    if find_spec(module) is None:
        todo = f"Run pip install {package}, or take the method haematoxylin"
        raise MissingExtraError(f"The method {module} is not installed", where=package, todo=todo)
