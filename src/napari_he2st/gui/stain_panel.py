"""The choice of a stain normalisation, with the current slide drawn in it while it is previewed."""

from __future__ import annotations

from typing import TYPE_CHECKING

from napari_he2st.gui.prediction import stained
from napari_he2st.gui.widgets.stain_choice import StainChoice

if TYPE_CHECKING:
    from napari_he2st.data.slides import Slide
    from napari_he2st.gui.docks.base import Dock


class StainPanel(StainChoice):
    """Draws slides as the choice says.

    Parameters
    ----------
    dock
        Runs the work; its layers show the slide.
    """

    def __init__(self, dock: Dock) -> None:
        super().__init__()
        self._dock = dock
        self._drawn: tuple[str, str, str] | None = None  # slide, its own colours, method
        self.changed.connect(self.draw)

    def draw(self) -> None:
        """Draw the current slide in the chosen stain if that is previewed, and every other one as it is."""
        item, method = self._dock.session.current_slide, self.shown
        wanted = None if item is None or method is None else (item.name, item.slide.colours, method)
        if wanted == self._drawn:
            return
        if self._drawn is not None:
            self._dock.layers.show_colours(self._drawn[0])
        self._drawn = wanted
        if item is None or method is None:
            return

        def show(slide: Slide) -> None:
            if self._drawn == wanted:
                self._dock.layers.show_colours(item.name, slide)

        self._dock.run(stained, item.slide, method, name="Normalising the stain", on_done=show)
