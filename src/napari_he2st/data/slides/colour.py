"""Colours as they should look: from a scanner's ICC profile to sRGB."""

from __future__ import annotations

import hashlib
import io
from functools import cached_property
from typing import Protocol

import imagecodecs
import numpy as np
from numpy.typing import NDArray
from PIL import ImageCms

_SAME = 1  # a profile that changes no colour by more grey levels is sRGB already


class Recolour(Protocol):
    """A change of colours that depends on the pixel alone."""

    @property
    def key(self) -> str:
        """What identifies it in caches and provenance."""

    def __call__(self, pixels: NDArray[np.uint8]) -> NDArray[np.uint8]:
        """New colours of RGB pixels, uint8, shape (…, 3)."""


class ToSrgb:
    """From the colours of an ICC profile to sRGB, relative colorimetric: white stays white.

    Parameters
    ----------
    icc
        The profile, of RGB pixels.
    """

    def __init__(self, icc: bytes) -> None:
        self._icc = icc

    @property
    def key(self) -> str:
        """``icc-`` and the beginning of the profile's hash."""
        return f"icc-{hashlib.sha256(self._icc).hexdigest()[:12]}"

    @cached_property
    def changes(self) -> bool:
        """Whether any colour changes visibly; most profiles of screens and editors are sRGB itself."""
        steps = np.arange(0, 256, 17, dtype=np.uint8)
        colours = np.stack(np.meshgrid(steps, steps, steps, indexing="ij"), axis=-1)
        return bool(np.abs(self(colours).astype(np.int16) - colours).max() > _SAME)

    def __call__(self, pixels: NDArray[np.uint8]) -> NDArray[np.uint8]:
        """See :class:`Recolour`."""
        if not pixels.size:
            return pixels
        flat = np.ascontiguousarray(pixels).reshape(-1, pixels.shape[-2], 3)
        done = imagecodecs.cms_transform(flat, self._icc, _srgb(), colorspace="rgb", outcolorspace="rgb", intent=1)
        return np.asarray(done).reshape(pixels.shape)


def to_srgb(icc: bytes | None) -> ToSrgb | None:
    """The way to sRGB, or None where there is no usable RGB profile or it already is sRGB."""
    if icc is None or not profile_name(icc):
        return None
    way = ToSrgb(icc)
    try:
        return way if way.changes else None
    except (RuntimeError, ValueError):  # littlecms refuses the profile
        return None


def profile_name(icc: bytes) -> str:
    """Description of an ICC profile; empty where it is damaged or not of RGB pixels."""
    try:
        profile = ImageCms.ImageCmsProfile(io.BytesIO(icc))
        if profile.profile.xcolor_space.strip() != "RGB":
            return ""
        return ImageCms.getProfileDescription(profile).strip() or "RGB profile without a name"
    except (ImageCms.PyCMSError, OSError, TypeError, ValueError):
        return ""


def _srgb() -> bytes:
    return bytes(ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes())
