"""The size of a pixel: which of a file's statements to believe."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass

from napari_he2st.core.errors import MissingMppError, SlideError

PLAUSIBLE_TAG_MPP = (0.05, 20.0)
"""Resolution tags of image files are often a printer's dots per inch; outside this range they are ignored."""

TOLERANCE = 0.02
"""Statements that differ by less agree."""


@dataclass(frozen=True)
class PixelSize:
    """One statement of the pixel size.

    Attributes
    ----------
    source
        Where it stands, such as ``"Aperio MPP"``.
    x, y
        Micrometres per pixel.
    """

    source: str
    x: float
    y: float

    @property
    def mpp(self) -> float:
        """Micrometres per pixel, mean of both directions."""
        return (self.x + self.y) / 2

    @property
    def problem(self) -> str | None:
        """Why this statement cannot be used, or None."""
        if not all(math.isfinite(v) and v > 0 for v in (self.x, self.y)):
            return f"{self.source} is not above zero"
        if abs(self.x - self.y) > 0.05 * self.mpp:
            return f"{self.source} states pixels that are not square ({self.x:.4g} × {self.y:.4g} µm)"
        low, high = PLAUSIBLE_TAG_MPP
        if "tag" in self.source and not low <= self.mpp <= high:
            return f"{self.source} is implausible ({self.mpp:.4g} µm per pixel)"
        return None


def check_mpp(mpp: float) -> float:
    """A pixel size that a caller states, checked.

    Raises
    ------
    SlideError
        It is zero, negative or not a number.
    """
    if not math.isfinite(mpp) or mpp <= 0:
        raise SlideError(f"The pixel size has to be above zero, not {mpp}", todo="State micrometres per pixel")
    return float(mpp)


def choose_mpp(statements: Iterable[PixelSize]) -> tuple[PixelSize | None, list[str]]:
    """The first usable statement, and notes on those that were ignored or contradict it."""
    chosen: PixelSize | None = None
    notes: list[str] = []
    for statement in statements:
        if statement.problem is not None:
            notes.append(f"{statement.problem}: ignored")
        elif chosen is None:
            chosen = statement
        elif (note := contradiction(chosen.mpp, chosen.source, statement)) is not None:
            notes.append(note)
    return chosen, notes


def contradiction(mpp: float, source: str, other: PixelSize) -> str | None:
    """The note that ``other`` states something else than ``mpp``, or None where they agree."""
    if other.problem is not None or abs(mpp - other.mpp) <= TOLERANCE * mpp:
        return None
    return f"{source} ({mpp:.4g} µm per pixel) contradicts {other.source} ({other.mpp:.4g})"


def missing_mpp(where: str, objective_power: float | None) -> MissingMppError:
    """The error for a slide that does not state its pixel size, with the ways out."""
    said = "" if objective_power is None else f", only that the objective is {objective_power:g}x"
    return MissingMppError(
        f"The slide does not say how large its pixels are{said}",
        where=where,
        todo="State micrometres per pixel with mpp=… (--mpp): scans at 20x usually have about 0.5, at 40x about 0.25; "
        "or measure a known distance",
    )


def number(text: str | None) -> float | None:
    """The finite number that a metadata field holds, or None."""
    try:
        value = float(text) if text is not None else math.nan
    except ValueError:
        return None
    return value if math.isfinite(value) else None
