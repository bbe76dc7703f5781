"""Registration of two images by mutual information with elastix, refined from coarse to fine."""

from __future__ import annotations

from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from napari_he2st.analysis.alignment import alignment_method
from napari_he2st.analysis.alignment.phase import phase
from napari_he2st.core.errors import He2stError, MissingExtraError
from napari_he2st.core.types import Transform

Image = NDArray[np.float64]


@alignment_method("elastix", "Rigid or affine registration of grey values by mutual information, by elastix")
def elastix(
    moving: Image,
    fixed: Image,
    *,
    mpp: float,
    transform: Literal["rigid", "affine"] = "affine",
    iterations: int = 256,
    mirror: bool = False,
) -> Transform:
    """Refine what phase correlation finds.

    Parameters
    ----------
    moving, fixed
        RGB in 0 … 1, (height, width, 3), of the same pixel size.
    mpp
        Micrometres per pixel.
    transform
        What is refined: rotation and shift, or also scale and shear.
    iterations
        Steps at each of four resolutions.
    mirror
        Whether the section may have been turned over.

    Returns
    -------
    Transform
        From pixels of ``moving`` to pixels of ``fixed``; ``info`` is that of the start.

    Raises
    ------
    MissingExtraError
        itk-elastix is not installed.
    He2stError
        One of the images holds no tissue, or elastix gives up.
    """
    try:
        import itk
    except ImportError as error:
        raise MissingExtraError(
            "Registration by elastix needs itk-elastix", todo="pip install 'napari-he2st[elastix]'"
        ) from error
    import cv2

    start = phase(moving, fixed, mpp=mpp, mirror=mirror)
    size = fixed.shape[1], fixed.shape[0]
    border = np.median(moving[[0, -1]].reshape(-1, 3), axis=0).tolist()
    placed = cv2.warpAffine(
        moving.astype(np.float32), start.matrix[:2], size, borderMode=cv2.BORDER_CONSTANT, borderValue=border
    )
    settings = itk.ParameterObject.New()
    chosen = settings.GetDefaultParameterMap(transform, 4)
    chosen["MaximumNumberOfIterations"] = [str(iterations)]
    chosen["WriteResultImage"] = ["false"]
    settings.AddParameterMap(chosen)
    images = [itk.image_view_from_array(np.ascontiguousarray(_grey(image))) for image in (fixed, placed)]
    try:
        _, found = itk.elastix_registration_method(*images, parameter_object=settings, log_to_console=False)
    except RuntimeError as error:
        message = "elastix could not register the images"
        raise He2stError(message, where=str(error).strip().splitlines()[-1], todo="Use phase or features") from error
    # elastix says where in the moving image a position of the fixed one is found.
    return Transform(np.linalg.inv(_matrix(found.GetParameterMap(0))) @ start.matrix, start.info)


def _grey(image: NDArray) -> NDArray[np.float32]:
    grey: NDArray[np.float32] = np.asarray(image, dtype=np.float32).mean(axis=2)
    return grey


def _matrix(found: Any) -> NDArray[np.float64]:
    """The map of an elastix result as a matrix of positions (x, y)."""
    numbers = np.array([float(value) for value in found["TransformParameters"]])
    centre = np.array([float(value) for value in found["CenterOfRotationPoint"]])
    if len(numbers) == 3:
        angle = numbers[0]
        linear = np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
    else:
        linear = numbers[:4].reshape(2, 2)
    result = np.eye(3)
    result[:2, :2], result[:2, 2] = linear, centre + numbers[-2:] - linear @ centre
    return result
