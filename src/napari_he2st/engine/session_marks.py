"""What a person groups, draws and marks in a session: domains, regions, landmarks, chosen spots."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
from numpy.typing import NDArray
from psygnal import Signal

from napari_he2st.core.errors import He2stError
from napari_he2st.core.geometry import inside_polygon
from napari_he2st.core.types import Domains, Region
from napari_he2st.engine.segment import write_domains
from napari_he2st.engine.session_items import Result

_PAST_REGIONS = 50


class SessionMarks:
    """The part of a :class:`~napari_he2st.engine.session.Session` that is made by hand and can be taken back.

    Attributes
    ----------
    domains
        Of results, by name.
    regions, landmarks
        Of slides, by name; landmarks by side, level-0 pixels (x, y), shape (n, 2).
    spots
        Which spots of the current result are chosen, bool (spots,), or None.
    """

    domains_changed = Signal(str)
    regions_changed = Signal(str)
    landmarks_changed = Signal(str)
    landmarks_restored = Signal(str)
    spots_chosen = Signal()

    def __init__(self) -> None:
        self.results: dict[str, Result] = {}
        self.result: str | None = None
        self.domains: dict[str, Domains] = {}
        self.regions: dict[str, list[Region]] = {}
        self.landmarks: dict[str, dict[str, NDArray[np.float64]]] = {}
        self.spots: NDArray[np.bool_] | None = None
        self._past_domains: dict[str, list[Domains]] = {}
        self._past_regions: dict[str, list[list[Region]]] = {}

    @property
    def current_result(self) -> Result | None:
        """The current result."""
        return self.results.get(self.result) if self.result is not None else None

    def set_domains(self, result: str, domains: Domains) -> None:
        """Keep the tissue domains of a result; :meth:`undo_domains` brings those before back."""
        if result in self.domains:
            self._past_domains.setdefault(result, []).append(self.domains[result])
        self._show_domains(result, domains)

    def undo_domains(self, result: str) -> bool:
        """Bring back the domains that a result had before; False if there were none."""
        past = self._past_domains.get(result)
        if not past:
            return False
        self._show_domains(result, past.pop())
        return True

    def _show_domains(self, result: str, domains: Domains) -> None:
        self.domains[result] = domains
        adata = self.results[result].adata
        if adata is not None:
            write_domains(adata, domains)
        self.domains_changed.emit(result)

    def rename_domain(self, result: str, label: int, name: str) -> None:
        """Give a domain of a result another name.

        Raises
        ------
        He2stError
            The name is empty, or another domain has it.
        """
        domains, name = self.domains[result], name.strip()
        names = domains.titles
        if not name or name == "none" or name in names[:label] + names[label + 1 :]:
            raise He2stError("A domain needs a name of its own", where=name or "empty name", todo="Choose another")
        names[label] = name
        self.set_domains(result, replace(domains, names=tuple(names)))

    def merge_domains(self, result: str, labels: list[int]) -> None:
        """Join domains of a result into the first of them.

        Raises
        ------
        He2stError
            Fewer than two are named.
        """
        if len(set(labels)) < 2:
            raise He2stError("One domain cannot be merged", todo="Choose at least two")
        self.set_domains(result, self.domains[result].merged(labels))

    def split_domain(self, result: str, label: int, colour: str) -> None:
        """Make those spots of a domain that are chosen, or lie in a drawn region, a domain of their own.

        Raises
        ------
        He2stError
            No spots are chosen, or they do not divide the domain.
        """
        spots = self.spots if self.spots is not None and result == self.result else self._spots_in_regions(result)
        if not spots.any():
            raise He2stError("No spots are chosen", todo="Draw a lasso around a part of the domain")
        self.set_domains(result, self.domains[result].split(label, spots, colour))

    def recolour_domains(self, result: str, colours: list[str]) -> None:
        """Give the domains of a result these colours, "#rrggbb" each."""
        self.set_domains(result, replace(self.domains[result], colours=tuple(colours)))

    def set_regions(self, slide: str, regions: list[Region]) -> None:
        """Replace the drawn regions of a slide; they choose the spots of the current result that lie in them.

        :meth:`undo_regions` brings those before back.
        """
        past = self._past_regions.setdefault(slide, [])
        past.append(self.regions.get(slide, []))
        del past[:-_PAST_REGIONS]
        self._show_regions(slide, regions)

    def undo_regions(self, slide: str) -> bool:
        """Bring back the regions that a slide had before; False if nothing was changed."""
        past = self._past_regions.get(slide)
        if not past:
            return False
        self._show_regions(slide, past.pop())
        return True

    def _show_regions(self, slide: str, regions: list[Region]) -> None:
        self.regions[slide] = list(regions)
        self.regions_changed.emit(slide)
        result = self.current_result
        if result is not None and result.slide == slide:
            self.choose_spots(self._spots_in_regions(result.name))

    def set_landmarks(self, slide: str, landmarks: dict[str, NDArray[np.float64]]) -> None:
        """Keep the landmarks of a slide: level-0 pixels (x, y), shape (n, 2), by side; none forgets them."""
        self.landmarks[slide] = dict(landmarks)
        if not landmarks:
            del self.landmarks[slide]
        self.landmarks_changed.emit(slide)

    def restore_landmarks(self, slide: str, landmarks: dict[str, NDArray[np.float64]]) -> None:
        """Keep landmarks that come from elsewhere than the window, which is to show them."""
        self.set_landmarks(slide, landmarks)
        self.landmarks_restored.emit(slide)

    def choose_spots(self, spots: NDArray[np.bool_] | None) -> None:
        """Choose spots of the current result, bool (spots,); None or none of them chooses nothing."""
        self.spots = spots if spots is not None and spots.any() else None
        self.spots_chosen.emit()

    def _spots_in_regions(self, result: str) -> NDArray[np.bool_]:
        """Which spots of a result lie in the regions that are drawn on its slide."""
        found = self.results[result]
        inside = np.zeros(len(found.grid), dtype=bool)
        for region in self.regions.get(found.slide, []):
            inside |= inside_polygon(found.grid.xy, region.polygon)
        return inside
