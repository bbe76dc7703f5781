"""Nuclei by published networks, where their packages are installed."""

from __future__ import annotations

import os
import ssl
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from importlib.util import find_spec
from typing import Any

import numpy as np
from numpy.typing import NDArray

from napari_he2st.analysis.nuclei import nuclei_method
from napari_he2st.core.errors import MissingExtraError
from napari_he2st.core.paths import cache_folder


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
        The package is not installed, or its weights cannot be had.
    """
    _need("instanseg", "instanseg-torch")
    found: Any = _instanseg().eval_small_image(image, mpp, return_image_tensor=False)
    return np.asarray(found.cpu()).squeeze().astype(np.int32)


@cache
def _instanseg() -> Any:
    from instanseg import InstanSeg

    # Its own choice lies within the installed package, where users may not be allowed to write.
    os.environ.setdefault("INSTANSEG_BIOIMAGEIO_PATH", str(cache_folder() / "instanseg"))
    with _downloading("instanseg"):
        return InstanSeg("brightfield_nuclei", verbosity=0)


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
        The package is not installed, or its weights cannot be had.
    """
    _need("cellpose", "cellpose")
    found: Any = _cellpose().eval(image, diameter=diameter_um / mpp)
    return np.asarray(found[0], dtype=np.int32)


@cache
def _cellpose() -> Any:
    from cellpose.models import CellposeModel

    with _downloading("cellpose"):
        return CellposeModel(gpu=True)  # where there is one


@contextmanager
def _downloading(package: str) -> Iterator[None]:
    context = ssl._create_default_https_context
    try:
        yield
    except OSError as error:
        todo = "Go online once, or take the method haematoxylin"
        raise MissingExtraError(
            f"The weights of {package} cannot be had ({error})", where=package, todo=todo
        ) from error
    finally:  # Cellpose's download switches the checks of certificates off for the whole process
        ssl._create_default_https_context = context


def _need(module: str, package: str) -> None:
    if find_spec(module) is None:
        todo = f"Run pip install {package} (both come with napari-he2st[nuclei]), or take the method haematoxylin"
        raise MissingExtraError(f"The method {module} is not installed", where=package, todo=todo)
