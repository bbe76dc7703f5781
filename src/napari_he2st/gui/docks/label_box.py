"""The part of the Domains dock that compares domains with labels a person gave."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from qtpy.QtWidgets import QFileDialog, QFormLayout, QLabel, QWidget

from napari_he2st.analysis.agreement import Agreement, agreement
from napari_he2st.core import keys
from napari_he2st.core.types import Domains
from napari_he2st.data.labels import labels_in_regions, read_labels
from napari_he2st.gui.widgets.combo import Combo

if TYPE_CHECKING:
    from anndata import AnnData

    from napari_he2st.engine.session_items import Result
    from napari_he2st.gui.docks.base import Dock

_DRAWN, _FILE = "drawn regions", "file…"
_MOST_KINDS = 100


class LabelBox(QWidget):
    """Where labels come from, and how far the domains agree with them.

    Parameters
    ----------
    dock
        The Domains dock; its work is run through it.
    """

    def __init__(self, dock: Dock) -> None:
        super().__init__()
        self._dock = dock
        self._result: Result | None = None
        self._domains: Domains | None = None
        self._files: dict[str, Path] = {}
        self.source = Combo("Labels to compare the domains with: a column, regions drawn on the slide, or a file")
        self.source.activated.connect(lambda _: self._chosen())
        self.text = QLabel(wordWrap=True)
        form = QFormLayout(self)
        form.setContentsMargins(0, 0, 0, 0)
        form.addRow("Labels", self.source)
        form.addRow(self.text)
        dock.listen(dock.session.regions_changed, self._regions_changed)

    def show_result(self, result: Result | None, domains: Domains | None) -> None:
        """Compare the domains of a result with the labels that are chosen."""
        if result is not self._result:
            self._result, self._files = result, {}
            self._offer()
        self._domains = domains
        self.setVisible(result is not None and result.adata is not None and domains is not None)
        self.compare()

    def use_file(self, path: Path) -> None:
        """Take labels from a CSV or GeoJSON, see :func:`napari_he2st.data.labels.read_labels`."""
        self._files[path.name] = path
        self._offer()
        self.source.setCurrentText(path.name)
        self.compare()

    def compare(self) -> None:
        """Compare in a thread; says nothing where there are no labels."""
        self._say("")
        result, domains, source = self._result, self._domains, self.source.currentText()
        if result is None or result.adata is None or domains is None or source in ("", _FILE):
            return
        regions = tuple(self._dock.session.regions.get(result.slide, [])) if source == _DRAWN else None
        self._dock.run(
            partial(_compare, result.adata, domains, source, self._files.get(source), regions),
            name="Comparing with labels",
            quiet=True,
            on_done=partial(self._show, domains, source),
        )

    def _offer(self) -> None:
        chosen = self.source.currentText()
        self.source.clear()
        adata = None if self._result is None else self._result.adata
        names = [] if adata is None else _columns(adata)
        for name in (*names, *self._files, _DRAWN, _FILE):
            self.source.add(name, tip="")
        self.source.setCurrentText(chosen if chosen in names else (names or [_DRAWN])[0])

    def _chosen(self) -> None:
        if self.source.currentText() != _FILE:
            self.compare()
            return
        kinds = "Labels (*.csv *.tsv *.txt *.geojson *.json)"
        path, _ = QFileDialog.getOpenFileName(self, "Labels of spots, or outlines", "", kinds)
        if path:
            self.use_file(Path(path))
        else:
            self.source.setCurrentIndex(0)

    def _regions_changed(self, slide: str) -> None:
        if self._result is not None and self._result.slide == slide and self.source.currentText() == _DRAWN:
            self.compare()

    def _show(self, domains: Domains, source: str, found: Agreement) -> None:
        if domains is self._domains and source == self.source.currentText() and found.n:
            scores = f"ARI {found.ari:.2f}, NMI {found.nmi:.2f}, homogeneity {found.homogeneity:.2f}, p = {found.p:.3f}"
            self._say(f"Agreement with {source}: {scores} over {found.n:,} spots.")

    def _say(self, text: str) -> None:
        self.text.setText(text)
        self.text.setVisible(bool(text))


def _columns(adata: AnnData) -> list[str]:
    """Columns that hold labels, the given ones first."""
    names = [str(name) for name in adata.obs.columns if name != keys.DOMAIN and _holds_labels(adata.obs[name])]
    return sorted(names, key=lambda name: name != keys.LABEL)


def _holds_labels(column: Any) -> bool:
    import pandas as pd

    text = isinstance(column.dtype, pd.CategoricalDtype) or pd.api.types.is_object_dtype(column)
    return text and 1 < column.nunique() <= _MOST_KINDS


def _compare(adata: AnnData, domains: Domains, source: str, file: Path | None, regions: Any) -> Agreement:
    if regions is not None:
        given = labels_in_regions(adata.obsm[keys.SPATIAL], regions)
    else:
        given = adata.obs[source] if file is None else read_labels(file, adata)
    return agreement(domains.labels, given)
