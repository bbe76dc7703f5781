"""Asking for the pixel size of a slide, on the slide: shown before its scale is known, measured with two clicks."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import numpy as np

from napari_he2st.core.geometry import px_from_um

if TYPE_CHECKING:
    from napari_he2st.core.types import Grid
    from napari_he2st.data.slides import Slide
    from napari_he2st.data.slides.proposals import Proposal
    from napari_he2st.engine.session_items import SlideItem
    from napari_he2st.gui.docks.base import Dock
    from napari_he2st.gui.widgets.pixel_size import PixelSizeForm


class PixelSizeQuestion:
    """Ties the form to a dock: shows the slide, proposes, measures, remembers.

    Parameters
    ----------
    dock
        Runs the work; its viewer shows the slide.
    form
        The form, hidden until something is asked.
    """

    def __init__(self, dock: Dock, form: PixelSizeForm) -> None:
        self._dock, self._form = dock, form
        self._slide: Slide | None = None
        self._preview = False
        self._then: Callable[[float], None] | None = None
        form.hide()
        form.chosen.connect(self._chosen)
        form.measure.connect(self._measure)

    def ask_unknown(self, slide: Slide, then: Callable[[float], None]) -> None:
        """Ask of a slide that does not say it; ``slide`` is open with 1 µm per pixel, and shown so meanwhile."""
        self.withdraw()
        self._preview = True
        self._dock.layers.show_preview(slide)
        self._begin(slide, f"{slide.name} does not say how large its pixels are.", None, None, then)

    def ask_again(self, item: SlideItem, spots: Grid | None, then: Callable[[float], None]) -> None:
        """Ask of an open slide, whose measured spots may tell."""
        self.withdraw()
        now = item.slide.mpp
        self._begin(item.slide, f"Pixel size of {item.name}, now {now:.4g} µm.", now, spots, then)

    def ask_number(self, text: str, then: Callable[[float], None]) -> None:
        """Ask of something that is no open slide, such as a measured section."""
        self.withdraw()
        self._then = then
        self._form.ask(text)
        self._dock.reveal(self._form)

    def withdraw(self) -> None:
        """Ask no more; a slide that was only shown for the question goes."""
        self._form.hide()
        self._dock.layers.ruler.stop()
        if self._preview and self._slide is not None:
            self._dock.layers.show_preview(None)
            self._slide.close()
        self._slide, self._preview, self._then = None, False, None

    def _begin(
        self, slide: Slide, question: str, mpp: float | None, spots: Grid | None, then: Callable[[float], None]
    ) -> None:
        self._slide, self._then = slide, then
        self._form.ask(question, mpp, slide.size)
        self._dock.reveal(self._form)

        def propose(found: list[Proposal]) -> None:
            if self._slide is slide:
                self._form.propose(found)

        name = "Looking what the slide suggests"
        self._dock.run(_proposals, slide, spots, name=name, quiet=True, on_done=propose)

    def _measure(self) -> None:
        slide = self._slide
        if slide is None:
            return

        def measured(start: Any, end: Any) -> None:
            self._form.set_length(float(px_from_um(np.hypot(*(end - start)), slide.mpp)))

        self._dock.say("Click the two ends of the known distance on the slide.")
        self._dock.layers.ruler.start(measured)

    def _chosen(self, mpp: float) -> None:
        slide, then, source = self._slide, self._then, self._form.source
        if then is None:
            return
        if slide is not None and self._form.remember:
            from napari_he2st.data.slides.remembered import remember_mpp

            remember_mpp(slide.fingerprint, mpp, source)
        self.withdraw()
        self._dock.say("")
        then(mpp)


def _proposals(slide: Slide, spots: Grid | None) -> list[Proposal]:
    from napari_he2st.data.slides.proposals import from_spots, proposals

    found = proposals(slide)
    lattice = None if spots is None or spots.lattice == "irregular" else from_spots(spots.xy, spots.pitch_um)
    return found if lattice is None else [lattice, *found]
