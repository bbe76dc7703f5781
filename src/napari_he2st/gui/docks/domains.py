"""Domains dock: group the spots of a result, name the groups, see their marker genes."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Any

from qtpy.QtCore import QSignalBlocker
from qtpy.QtGui import QColor
from qtpy.QtWidgets import QCheckBox, QColorDialog, QFormLayout, QGridLayout, QLabel, QPushButton, QSpinBox
from superqt import QCollapsible

from napari_he2st.analysis.domains.consensus import consensus
from napari_he2st.core import keys
from napari_he2st.core.errors import He2stError
from napari_he2st.core.progress import Control
from napari_he2st.core.types import Domains
from napari_he2st.engine.segment import pace, segment
from napari_he2st.engine.segment_sections import segment_sections
from napari_he2st.engine.session_items import Result
from napari_he2st.gui.colours import domain_colour, domain_colours
from napari_he2st.gui.docks.base import Dock
from napari_he2st.gui.docks.domain_views import DomainViews
from napari_he2st.gui.docks.label_box import LabelBox
from napari_he2st.gui.docks.method_box import MethodBox
from napari_he2st.gui.widgets.combo import Combo
from napari_he2st.gui.widgets.domain_legend import DomainLegend
from napari_he2st.gui.widgets.result_chooser import ResultChooser
from napari_he2st.gui.widgets.result_ticks import ResultTicks
from napari_he2st.gui.worker import tell
from napari_he2st.zoo.encoders.table import encoders

if TYPE_CHECKING:
    import napari.viewer

_DEFAULT = "leiden"  # of engine.segment too
_EMPTY = "Nothing to group yet: predict a slide in the Predict dock, or load measured expression in the Slide dock."


class DomainsDock(Dock):
    """Method and options above, legend and marker genes below."""

    def __init__(self, viewer: napari.viewer.Viewer) -> None:
        super().__init__(viewer)
        self._shown_result: str | None = None
        self.chooser = ResultChooser(self.session, "The result whose spots are grouped")
        self.chooser.result_chosen.connect(lambda name: self.session.select(result=name))
        self.note = QLabel(wordWrap=True)
        self.method = MethodBox(self, "domains", _DEFAULT, "How spots are grouped")
        self.on = Combo("What generic methods group by: expression, or features of the tile around each spot")
        for name in ("expression", *encoders()):
            self.on.add(name, data=name, tip="")
        self._tried: dict[str, dict[str, Domains]] = {}
        self.n_domains = QSpinBox(minimum=0, maximum=100, specialValueText="automatic")
        self.n_domains.setToolTip("How many domains; automatic lets the method decide")
        self.seed = QSpinBox(minimum=0, maximum=999_999)
        self.seed.setToolTip("The same seed gives the same domains")
        self.legend = DomainLegend()
        self.legend.renamed.connect(self._rename)
        self.over = QCheckBox("Show domains over the map")
        self.over.setToolTip("A gene that is chosen afterwards is shown without them")
        self.over.toggled.connect(self._show_over)
        self.others = ResultTicks(
            self.session, "Results that share their domains with the one above: methods such as staig", self._can_share
        )
        self.others.setMaximumHeight(90)
        self.together = QCollapsible("With other sections")
        self.together.addWidget(self.others)
        self.labels = LabelBox(self)
        self.views = DomainViews(self)
        self.legend.domain_chosen.connect(self.views.show_domain)
        form = QFormLayout()
        form.addRow("Method", self.method.combo)
        form.addRow("Domains", self.n_domains)
        form.addRow("Seed", self.seed)
        form.addRow("By", self.on)
        self.body.addWidget(self.chooser)
        self.body.addWidget(self.note)
        self.body.addLayout(form)
        edits = QGridLayout()
        for number, (text, tip, slot) in enumerate(_EDITS):
            button = QPushButton(text)
            button.setToolTip(tip)
            button.clicked.connect(partial(self._edit, getattr(self, slot)))
            edits.addWidget(button, *divmod(number, 3))
        for widget in (self.together, self.method.more, self.legend):
            self.body.addWidget(widget)
        self.body.addLayout(edits)
        for widget in (self.over, self.labels):
            self.body.addWidget(widget)
        self.body.addWidget(self.views, 1)
        self.button = self.add_button("Find domains", "Group the spots by their expression", self._find)
        self.method.chosen.connect(lambda: self.on.setEnabled(self.method.method.entry is not None))
        self.listen(self.session.result_added, self._result_added)
        self.listen(self.session.result_removed, self._refill)
        self.listen(self.session.result_finished, self._refresh)
        self.listen(self.session.selection_changed, self._selection_changed)
        self.listen(self.session.domains_changed, self._refresh)
        self._selection_changed()

    # --- what the session says

    def _can_share(self, result: Result) -> bool:
        """Whether a result can be grouped together with the shown one."""
        return result.adata is not None and result.name != self._shown_result

    def _result_added(self, name: str) -> None:
        self.chooser.refill()
        self.others.refill()
        bundle = self.session.results[name].bundle
        if bundle is None:
            return
        from napari_he2st.engine.reference import looks_up

        if looks_up(bundle) and self.on.findText(bundle.id) < 0:
            self.on.add(bundle.id, data=bundle, tip="What tiles look like to this predictor")

    def _refill(self) -> None:
        self.chooser.refill()
        self._selection_changed()

    def _selection_changed(self) -> None:
        self.views.table.choose(self.session.gene)
        if self.session.result is None or self.session.result != self._shown_result:
            self._refresh()
        self._show_whether_over()

    def _refresh(self) -> None:
        result = self.session.current_result
        self._shown_result = None if result is None else result.name
        self.chooser.choose(self._shown_result)
        self.others.refill()
        self.together.setVisible(self.others.count() > 0)
        self.button.setEnabled(result is not None and result.adata is not None)
        self.note.setText(_note(result))
        domains = None if result is None else self.session.domains.get(result.name)
        self.legend.show_domains(domains, None if result is None else result.grid.cell_um2)
        self.labels.show_result(result, domains)
        self.views.show_domains(result, domains)
        self.views.show_domain(self.legend.currentRow())
        self._show_whether_over()

    def _show_whether_over(self) -> None:
        layer = self.layers.domains_layer(self._shown_result or "")
        self.over.setEnabled(layer is not None)
        with QSignalBlocker(self.over):
            self.over.setChecked(layer is not None and layer.visible)

    def _show_over(self, on: bool) -> None:
        layer = self.layers.domains_layer(self._shown_result or "")
        if layer is not None:
            layer.visible = on

    # --- finding

    def _find(self) -> None:
        result = self.session.current_result
        if result is None or result.adata is None:
            return
        try:
            options = self.method.options.values()
        except He2stError as error:
            tell(error, "Finding domains")
            return
        self.button.setEnabled(False)
        chosen = [result, *(self.session.results[name] for name in self.others.ticked)]
        options |= {"n_domains": self.n_domains.value() or None, "seed": self.seed.value()}
        options["on"] = self.on.currentData() if self.on.isEnabled() else "expression"
        self.run(
            partial(_segment, [one.adata for one in chosen], self.method.method.name, **options),
            name="Finding domains",
            control=Control(),
            slides=[item and item.slide for item in (self.session.slides.get(one.slide) for one in chosen)],
            on_done=partial(self._found, [one.name for one in chosen]),
            on_end=lambda: self.button.setEnabled(True),
        )

    def _found(self, results: list[str], found: list[Domains]) -> None:
        for result, domains in zip(results, found, strict=True):
            if result in self.session.results:  # it may have been removed meanwhile
                self._tried.setdefault(result, {})[str(domains.params.get("method"))] = domains
                self.session.set_domains(result, domains)
        titles = [self.session.results[name].title for name in results if name in self.session.results]
        self.say(f"{found[0].n_domains} domains in {', '.join(titles)}{pace(found[0])}.")

    # --- changing them

    def _rename(self, label: int, name: str) -> None:
        try:
            self.session.rename_domain(self._shown_result or "", label, name)
        except He2stError as error:
            tell(error, "Renaming a domain")
            self._refresh()

    def _edit(self, slot: Any, *_: Any) -> None:
        """Change the shown domains, unless there are none or the change makes no sense."""
        name = self._shown_result or ""
        if name not in self.session.domains:
            return
        try:
            slot(name)
        except He2stError as error:
            tell(error, "Changing domains")

    def _merge(self, name: str) -> None:
        self.session.merge_domains(name, self.legend.chosen)

    def _split(self, name: str) -> None:
        self.session.split_domain(name, self.legend.currentRow(), domain_colour(self.session.domains[name].n_domains))

    def _lasso(self, _: str) -> None:
        """Draw on the slide; what lies inside is chosen."""
        result = self.session.current_result
        if result is not None:
            self.layers.draw_regions(result.slide).mode = "add_polygon_lasso"

    def _undo(self, name: str) -> None:
        if not self.session.undo_domains(name):
            raise He2stError("There is nothing to take back")

    def _recolour(self, name: str) -> None:
        colours, label = domain_colours(self.session.domains[name]), self.legend.currentRow()
        chosen = QColorDialog.getColor(QColor(colours[label]), self, "Colour of the domain")
        if chosen.isValid():
            colours[label] = chosen.name()
            self.session.recolour_domains(name, colours)

    def _agree(self, name: str) -> None:
        tried = self._tried.get(name, {})
        if len(tried) < 2:
            raise He2stError("Fewer than two methods were tried on this result", todo="Find domains by another method")
        n = self.n_domains.value() or min(domains.n_domains for domains in tried.values())
        labels = consensus([domains.labels for domains in tried.values()], n)
        self.session.set_domains(name, Domains(labels, {"method": "consensus", "of": "+".join(tried)}))


def _segment(
    sections: list[Any], method: str, *, slides: list[Any], on: Any, control: Control, **options: Any
) -> list[Domains]:
    """Find domains, of several sections those they share, as long as nobody cancels."""
    if len(sections) > 1:
        return segment_sections(sections, method, slides=slides, progress=control, **options)
    return [segment(sections[0], method, slide=slides[0], on=on, progress=control, **options)]


_EDITS = (
    ("Merge", "Join the chosen domains into one", "_merge"),
    ("Lasso", "Draw around spots on the slide: they are ringed among the alike spots, and can be split off", "_lasso"),
    ("Split", "Make the chosen spots of the chosen domain, those inside a lasso, a domain of their own", "_split"),
    ("Colour…", "Choose the colour of the chosen domain", "_recolour"),
    ("Consensus", "Group spots by how often the methods tried so far put them together", "_agree"),
    ("Undo", "Take back the last change of the domains", "_undo"),
)


def _note(result: Result | None) -> str:
    if result is None:
        return _EMPTY
    text = keys.RESEARCH_USE if result.kind == "predicted" else "Measured expression."
    return text if result.adata is not None else f"{text} Domains can be found once the prediction is complete."
