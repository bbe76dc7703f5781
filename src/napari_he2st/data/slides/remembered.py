"""Pixel sizes that the user has stated, remembered per slide in the user's configuration folder."""

from __future__ import annotations

import json
import math
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path

from napari_he2st.core.atomic import atomic_write
from napari_he2st.core.paths import config_folder
from napari_he2st.data.slides.pixel_size import check_mpp


@dataclass(frozen=True)
class Remembered:
    """A pixel size that was stated before.

    Attributes
    ----------
    mpp
        Micrometres per level-0 pixel.
    source
        Where it came from, such as ``"two points 100 µm apart"``.
    date
        When it was stated, such as ``"2026-05-01"``.
    """

    mpp: float
    source: str
    date: str


def remember_mpp(fingerprint: str, mpp: float, source: str) -> None:
    """Remember what the user says of the slide with this fingerprint.

    Raises
    ------
    SlideError
        The pixel size is not above zero.
    """
    entry = Remembered(check_mpp(mpp), source, datetime.now(UTC).date().isoformat())
    file = _file(fingerprint)
    file.parent.mkdir(parents=True, exist_ok=True)
    with atomic_write(file, force=True) as aside:
        aside.write_text(json.dumps(asdict(entry)), encoding="utf-8")


def remembered_mpp(fingerprint: str) -> Remembered | None:
    """What was remembered of the slide with this fingerprint; None also where the entry is damaged."""
    try:
        entry = Remembered(**json.loads(_file(fingerprint).read_text(encoding="utf-8")))
        usable = math.isfinite(entry.mpp) and entry.mpp > 0
    except (OSError, TypeError, ValueError):
        return None
    return entry if usable else None


def forget_mpp(fingerprint: str) -> None:
    """Forget it, so that the file's own statement counts again."""
    _file(fingerprint).unlink(missing_ok=True)


def _file(fingerprint: str) -> Path:
    return config_folder() / "pixel_sizes" / f"{fingerprint}.json"
