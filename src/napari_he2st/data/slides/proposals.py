"""What the pixel size may be where no file states it, and whether a stated one is plausible."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from napari_he2st.core.errors import SlideError
from napari_he2st.data.slides.pixel_size import check_mpp
from napari_he2st.data.slides.slide import Slide

_GLASS_MM = (26.0, 76.0)
"""A microscope slide; no scan is larger (double-width slides are twice as wide)."""


@dataclass(frozen=True)
class Proposal:
    """A pixel size that something suggests.

    Attributes
    ----------
    mpp
        Micrometres per level-0 pixel.
    source
        What suggests it, such as ``"objective 20×"``.
    tolerance
        Relative error that is usual for this way of finding it.
    """

    mpp: float
    source: str
    tolerance: float

    def fits(self, mpp: float) -> bool:
        """Whether a pixel size lies within the tolerance of this one."""
        return 1 / (1 + self.tolerance) <= mpp / self.mpp <= 1 + self.tolerance


def from_objective(power: float) -> Proposal:
    """The usual pixel size of scans through an objective: 0.25 µm at 40×; scanners differ by a tenth or two."""
    if not power > 0:
        raise SlideError(f"The power of an objective has to be above zero, not {power}")
    return Proposal(10 / power, f"objective {power:g}×", 0.2)


def from_distance(distance_um: float, start: ArrayLike, end: ArrayLike) -> Proposal:
    """From two positions in level-0 pixels that are a known distance apart.

    Raises
    ------
    SlideError
        The positions are the same, or the distance is not above zero.
    """
    length_px = float(np.hypot(*(np.asarray(end, dtype=float) - np.asarray(start, dtype=float))))
    if length_px < 1 or not distance_um > 0:
        raise SlideError(f"{distance_um:g} µm over {length_px:.1f} pixels give no pixel size", todo="Measure again")
    return Proposal(check_mpp(distance_um / length_px), f"two points {distance_um:g} µm apart", 0.05)


def from_spots(xy: NDArray[np.float64], pitch_um: float) -> Proposal | None:
    """From measured spots, level-0 pixels (n, 2), whose centres lie ``pitch_um`` apart; None for fewer than three."""
    from scipy.spatial import cKDTree

    if len(xy) < 3:
        return None
    nearest = cKDTree(xy).query(xy, k=2)[0][:, 1]
    spacing_px = float(np.median(nearest))
    return Proposal(pitch_um / spacing_px, f"spots {pitch_um:g} µm apart", 0.03) if spacing_px > 0 else None


def from_nuclei(slide: Slide) -> Proposal | None:
    """From the size of nuclei; None where too few are resolved. The slide's own pixel size plays no part."""
    from napari_he2st.data.slides.nucleus_size import NUCLEUS_UM, nucleus_px

    size_px = nucleus_px(slide)
    return None if size_px is None else Proposal(NUCLEUS_UM / size_px, "size of nuclei", 0.4)


def proposals(slide: Slide) -> list[Proposal]:
    """What the slide alone suggests: its file, its objective, its nuclei; the surest first.

    All are told, none are combined.
    """
    facts = slide.info()
    stated = [Proposal(s.mpp, s.source, 0.02) for s in slide.stated_pixel_sizes if s.problem is None]
    power = facts["objective_power"]
    found = [*stated, None if not power else from_objective(power), from_nuclei(slide)]
    return [proposal for proposal in found if proposal is not None]


def doubts(mpp: float, size: tuple[int, int], others: Iterable[Proposal]) -> list[str]:
    """Why a pixel size is not plausible, one sentence each; empty where nothing speaks against it.

    Parameters
    ----------
    mpp
        The pixel size in question.
    size
        (width, height) of the slide in level-0 pixels.
    others
        What else suggests a pixel size.
    """
    found = []
    mm = sorted(side * mpp / 1000 for side in size)
    if mm[0] > 2 * _GLASS_MM[0] or mm[1] > _GLASS_MM[1]:
        found.append(f"The scan would be {mm[1]:.0f} × {mm[0]:.0f} mm, larger than a microscope slide.")
    if mm[1] < 0.1:
        found.append(f"The scan would be only {mm[1] * 1000:.0f} µm wide.")
    found += [
        f"The {other.source} suggests about {other.mpp:.3g} µm, not {mpp:.3g}."
        for other in others
        if not other.fits(mpp)
    ]
    return found
