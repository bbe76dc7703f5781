"""Stack dock: serial sections brought into register and shown in three dimensions."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np
from napari.layers import Points
from qtpy.QtWidgets import QCheckBox, QDoubleSpinBox, QFormLayout, QLabel, QTableWidget, QTableWidgetItem

from napari_he2st.core.errors import He2stError
from napari_he2st.core.progress import Control
from napari_he2st.core.types import Transform
from napari_he2st.engine.align import SPATIAL_3D, align, quality, stack
from napari_he2st.gui.colours import domain_colour
from napari_he2st.gui.docks.base import Dock
from napari_he2st.gui.docks.method_box import MethodBox
from napari_he2st.gui.widgets.result_ticks import ResultTicks
from napari_he2st.gui.widgets.save_dialog import Target, ask_where
from napari_he2st.gui.worker import tell

if TYPE_CHECKING:
    import napari.viewer
    import pandas as pd
    from anndata import AnnData
    from napari.layers import Layer

_COLUMNS = {
    "overlap": "Share of spots that have one of the section before within a pitch",
    "gene_correlation": "Mean correlation with the nearest spots of the section before",
    "residual_um": "Mean distance to the nearest spot of the section before, micrometres",
}


class StackDock(Dock):
    """Sections and method above, quality of each pair below."""

    def __init__(self, viewer: napari.viewer.Viewer) -> None:
        super().__init__(viewer)
        self.stacked: AnnData | None = None
        self._flat: list[Layer] = []
        self.note = QLabel("Tick the sections in their order; drag to reorder.", wordWrap=True)
        tip = "Results of several slides; the first ticked one stays where it is"
        self.sections = ResultTicks(self.session, tip, lambda result: result.adata is not None)
        self.method = MethodBox(self, "alignment", "paste", "How sections are brought into register")
        self.spacing = QDoubleSpinBox(minimum=0.1, maximum=10_000, value=16.0, suffix=" µm")
        self.spacing.setToolTip("Distance of neighbouring sections")
        self.by_gene = QCheckBox("Colour by the chosen gene")
        self.by_gene.toggled.connect(lambda _: self._show())
        self.table = QTableWidget(0, 1 + len(_COLUMNS))
        self.table.setHorizontalHeaderLabels(["pair", *(name.replace("_", " ") for name in _COLUMNS)])
        self.table.verticalHeader().hide()
        self.table.setEditTriggers(QTableWidget.EditTrigger.NoEditTriggers)
        for column, tip in enumerate(_COLUMNS.values(), start=1):
            self.table.horizontalHeaderItem(column).setToolTip(tip)
        form = QFormLayout()
        form.addRow("Method", self.method.combo)
        form.addRow("Spacing", self.spacing)
        self.body.addWidget(self.note)
        self.body.addWidget(self.sections)
        self.body.addLayout(form)
        for widget in (self.method.more, self.by_gene, QLabel("Before → after alignment"), self.table):
            self.body.addWidget(widget)
        self.button = self.add_button("Align", "Align the ticked sections and show them in 3D", self._align)
        self.save = self.add_button("Save…", "Write the stack as h5ad", self._save)
        self.save.setEnabled(False)
        self.listen(self.session.result_added, self._refill)
        self.listen(self.session.result_removed, self._refill)
        self.listen(self.session.result_finished, self._refill)
        self.listen(self.session.selection_changed, self._show)
        viewer.dims.events.ndisplay.connect(self._turned)

    def _refill(self, *_: Any) -> None:
        self.sections.refill()

    def _align(self) -> None:
        names = self.sections.ticked
        if len(names) < 2:
            self.warn("Tick at least two sections")
            return
        results = [self.session.results[name] for name in names]
        try:
            options = self.method.options.values()
        except He2stError as error:
            tell(error, "Aligning sections")
            return
        self.button.setEnabled(False)
        self.run(
            _align_and_score,
            [result.adata for result in results],
            [self.session.slides[result.slide].slide for result in results],
            self.method.method.name,
            options,
            self.spacing.value(),
            name="Aligning sections",
            control=Control(),
            on_done=partial(self._aligned, [result.slide for result in results]),
            on_end=lambda: self.button.setEnabled(True),
        )

    def _aligned(self, slides: list[str], found: tuple[AnnData, pd.DataFrame]) -> None:
        self.stacked, table = found
        matrices = list(self.stacked.uns["he2st_stack"]["matrices"].values())
        for slide, matrix in zip(slides[1:], matrices[1:], strict=True):
            if slide != slides[0] and slide in self.session.slides:
                self.session.register_slide(slide, slides[0], Transform(matrix, {"how": "the Stack dock"}))
        self.table.setRowCount(len(table))
        for row, values in enumerate(table.to_dict("records")):
            texts = [str(values["pair"])]
            texts += [f"{values[f'{name}_before']:.2f} → {values[name]:.2f}" for name in _COLUMNS]
            for column, text in enumerate(texts):
                self.table.setItem(row, column, QTableWidgetItem(text))
        self.table.resizeColumnsToContents()
        self.save.setEnabled(True)
        self.viewer.dims.ndisplay = 3
        self._show()
        self.viewer.reset_view()
        self.say(f"{len(table) + 1} sections, {self.stacked.n_obs:,} spots.")

    def _show(self) -> None:
        """Show the stack, in colours of its sections or of the chosen gene."""
        if self.stacked is None:
            return
        adata, gene = self.stacked, self.session.gene
        sections = adata.obs["section"].cat.codes.to_numpy()
        colours: Any = [domain_colour(int(code)) for code in sections]
        if self.by_gene.isChecked() and gene in adata.var_names:
            column = adata[:, [gene]].X
            values = np.asarray(column.toarray() if hasattr(column, "toarray") else column, dtype=np.float32).ravel()
            features, colours = {"value": values}, "value"
        else:
            features = {"section": adata.obs["section"].astype(str).to_numpy()}
        name = "Stack" if colours != "value" else f"Stack — {gene}"
        for layer in self._layers():
            self.viewer.layers.remove(layer)
        options = {"face_colormap": "viridis"} if colours == "value" else {}
        self.viewer.add_layer(
            Points(
                adata.obsm[SPATIAL_3D][:, ::-1],
                features=features,
                face_color=colours,
                size=float(np.median([r.grid.spot_um for r in self.session.results.values()] or [50])),
                border_width=0,
                shading="spherical",
                name=name,
                units=("um", "um", "um"),
                metadata={"he2st": "stack"},
                **options,
            )
        )

        self._turned()

    def _layers(self) -> list[Layer]:
        return [layer for layer in self.viewer.layers if layer.metadata.get("he2st") == "stack"]

    def _turned(self, *_: Any) -> None:
        """In three dimensions the stack alone is seen, in two everything else."""
        stacks = self._layers()
        solid = bool(stacks) and self.viewer.dims.ndisplay == 3
        if solid:
            seen = [layer for layer in self.viewer.layers if layer.visible and layer not in stacks]
            self._flat += [layer for layer in seen if layer not in self._flat]
        for layer in self._flat:
            layer.visible = not solid
        for layer in stacks:
            layer.visible = solid
        if not solid:
            self._flat = []

    def _save(self) -> None:
        if self.stacked is None:
            return
        target = ask_where(self, "Save the stack", name="stack", suffix=".h5ad", kind="AnnData")
        if target is not None:
            done = f"Saved {target.path.name}."
            self.run(_write, self.stacked, target, name="Saving the stack", on_done=lambda _: self.say(done))


def _align_and_score(
    sections: list[Any], slides: list[Any], method: str, options: dict[str, Any], spacing_um: float, *, control: Control
) -> tuple[AnnData, pd.DataFrame]:
    found = align(sections, method, slides=slides, progress=control, **options)
    return stack(sections, found, spacing_um, how={"method": method, **options}), quality(sections, found)


def _write(adata: AnnData, target: Target) -> None:
    from napari_he2st.core.atomic import atomic_write

    with atomic_write(target.path, force=target.force) as aside:
        adata.write_h5ad(aside)
