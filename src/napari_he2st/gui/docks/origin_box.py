"""The part of the Predict dock that says where a slide comes from, and what does not fit a predictor."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from qtpy.QtWidgets import QFormLayout, QGroupBox, QLabel

from napari_he2st.gui import prediction
from napari_he2st.gui.widgets.combo import Combo, SearchCombo

if TYPE_CHECKING:
    from napari_he2st.engine.session import Session
    from napari_he2st.zoo.bundle import Bundle

_SPECIES = ("human", "mouse", "rat", "zebrafish")
_UNKNOWN = "not stated"


class OriginBox(QGroupBox):
    """Organ and species of the current slide.

    Parameters
    ----------
    session
        Knows the slide.
    bundle
        The predictor that is chosen, or None.
    """

    def __init__(self, session: Session, bundle: Callable[[], Bundle | None]) -> None:
        super().__init__("This slide")
        self._session, self._bundle = session, bundle
        self.organ = SearchCombo("Organ or tissue of the slide; a predictor trained on another one is pointed out")
        self.species = Combo("Species of the slide; a predictor trained on another one is pointed out")
        self.organ.addItem(_UNKNOWN)
        self.species.addItems([_UNKNOWN, *_SPECIES])
        self.doubt = QLabel()
        self.doubt.setWordWrap(True)
        self.doubt.hide()
        for combo in (self.organ, self.species):
            combo.currentIndexChanged.connect(lambda _: self.show_doubts())
        form = QFormLayout(self)
        form.addRow("Organ", self.organ)
        form.addRow("Species", self.species)
        form.addRow(self.doubt)

    def doubts(self) -> list[str]:
        """Why the predictor may not be trusted on this slide."""
        item, bundle = self._session.current_slide, self._bundle()
        if bundle is None or item is None:
            return []
        return prediction.doubts(bundle.manifest, item.slide, _stated(self.organ), _stated(self.species))

    def show_doubts(self) -> None:
        """Say them."""
        doubts = self.doubts()
        self.doubt.setText("⚠ " + " ".join(doubts) if doubts else "")
        self.doubt.setVisible(bool(doubts))


def _stated(combo: Combo) -> str:
    return combo.currentText() if combo.currentIndex() > 0 else ""
