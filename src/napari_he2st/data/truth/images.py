"""Which image a section lies on, and the vendor's small pictures."""

from __future__ import annotations

import re
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from napari_he2st.core.errors import TruthError

if TYPE_CHECKING:
    from napari_he2st.data.truth.section import Source

_SLIDE = re.compile(r"\.(jpe?g|png|tiff?|btf|svs|ndpi|scn|mrxs|vm[su]|svslide|bif|czi|dcm)", re.IGNORECASE)


def images_in(folder: Path) -> list[Path]:
    """Image files directly in a folder, sorted by name."""
    if not folder.is_dir():
        return []
    return sorted(path for path in folder.iterdir() if _SLIDE.fullmatch(path.suffix) and path.is_file())


def only_image(candidates: Iterable[Path], missing: list[str], what: str = "image") -> Path | None:
    """The one image among ``candidates``; None, with a note in ``missing``, where there is none or a choice."""
    images = list(candidates)
    if len(images) == 1:
        return images[0]
    names = ", ".join(image.name for image in images[:4])
    missing.append(f"one {what} ({names} are there; name one with image=)" if images else what)
    return None


def read_picture(path: Path) -> NDArray[np.uint8]:
    """A small picture as RGB, uint8, shape (height, width, 3).

    Raises
    ------
    TruthError
        The file is damaged, or far larger than a small picture.
    """
    from PIL import Image, UnidentifiedImageError

    try:
        with Image.open(path) as picture:
            if picture.width * picture.height > 64_000_000:
                raise TruthError(f"The picture is too large ({picture.width} × {picture.height})", where=path)
            return np.asarray(picture.convert("RGB"), dtype=np.uint8)
    except (OSError, UnidentifiedImageError, SyntaxError, Image.DecompressionBombError) as error:
        raise TruthError(f"The picture cannot be read ({error})", where=path, todo="Remove or replace it") from error


def is_blank(picture: NDArray[np.uint8]) -> bool:
    """Whether a picture shows nothing: hardly a pixel differs from the commonest colour."""
    pixels = picture.reshape(-1, 3).astype(np.int16)
    return bool(np.mean(np.abs(pixels - np.median(pixels, axis=0)).max(axis=1) > 12) < 0.001)


def scale_of(source: Source, known: float | None = None) -> float:
    """Pixels of the slide per pixel of the vendor's positions: as given, else as known, else 1."""
    if source.image_scale is not None:
        return source.image_scale
    return 1.0 if known is None else known
