"""What the user says of a training: genes, expression, field, encoder, changes to tiles, split and recipe."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from qtpy.QtCore import Signal
from qtpy.QtWidgets import (
    QCheckBox,
    QDoubleSpinBox,
    QFileDialog,
    QFormLayout,
    QHBoxLayout,
    QLabel,
    QPushButton,
    QSpinBox,
    QWidget,
)
from superqt import QCollapsible

from napari_he2st.gui.widgets.combo import Combo

if TYPE_CHECKING:
    from napari_he2st.data.truth import Section
    from napari_he2st.engine.folds import Kind
    from napari_he2st.engine.train_fit import Departures

LIST = "list"
RANDOM_WARNING = (
    "Random spots lie between spots that were learned and look like them: these scores are far higher than on "
    "another slide."
)


@dataclass
class Choices:
    """All that the form says, as :func:`~napari_he2st.engine.train.train` takes it."""

    arguments: dict[str, Any]
    panel: str | list[str] | None
    folds: list[Kind]
    recipe: dict[str, Any]
    seed: int
    device: str
    start: str | None = None
    frozen: bool = False
    scale: str | None = None
    smooth: int | None = None
    augment: tuple[str, ...] = field(default=())
    trusted_pcc: float = 0.2

    def told(self, roles: dict[str, list[Section]]) -> dict[str, Any]:
        """What a plan and the training itself are told alike, beside the system and the sections to learn."""
        shared = ("folds", "arguments", "panel", "recipe", "device")
        return {name: roles[name] for name in ("holdout", "validate")} | {name: getattr(self, name) for name in shared}

    def departures(self) -> Departures:
        """With the bundle that training goes on from; to be called off the GUI thread."""
        from napari_he2st.engine.train_fit import Departures
        from napari_he2st.zoo.catalogue import load

        start = None if self.start is None else load(self.start)
        return Departures(start, self.frozen, self.scale, self.smooth, self.augment)


class TrainForm(QWidget):
    """The form.

    Attributes
    ----------
    changed
        Emitted when anything changes.
    """

    changed = Signal()

    def __init__(self, parent: QWidget | None = None) -> None:
        super().__init__(parent)
        self._genes: list[str] = []
        self._parameters: dict[str, Any] = {}
        self.variant = Combo("Size and settings that the system's card names; 'default' is as published")
        self.panel = Combo("Which genes are learned; they have to be measured in all training sections")
        for text, data, tip in (
            ("as published", "", "The system's own rule"),
            ("most variable", "hvg", "Largest variance of log1p CP10k in the training sections"),
            ("most expressed", "mean", "Highest mean count"),
            ("smoothest maps", "moran", "Highest Moran's I"),
            ("all measured", "all", "Every gene that all sections measure"),
            ("a list…", LIST, "A text file with a gene per line"),
        ):
            self.panel.add(text, data=data, tip=tip)
        self.n_genes = QSpinBox(minimum=1, maximum=50_000, value=250, suffix=" genes")
        self.split = Combo("What is left out in turn to score the result honestly")
        for text, data, tip in (
            ("held-out sections only", "", "Scores come from the sections with the role 'score'"),
            ("each patient", "patient", "The hardest and most honest: a new patient each time"),
            ("each section", "section", "Serial sections of one patient look alike: scores are higher"),
            ("spatial blocks", "block", "Quarters of each section, with a margin: for a single section"),
            ("random spots (not honest)", "spot", RANDOM_WARNING),
        ):
            self.split.add(text, data=data, tip=tip)
        self.note = QLabel(wordWrap=True)
        self.epochs = QSpinBox(minimum=0, maximum=100_000, specialValueText="as published")
        self.epochs.setToolTip("How often all spots are seen")
        self.start = Combo("Fresh weights as published, or those of a predictor of this system that is trained already")
        self.frozen = QCheckBox("keep its encoder frozen")
        self.frozen.setToolTip("Only the layers as wide as there are genes learn")
        browse = QPushButton("Open…")
        browse.setToolTip("The folder of a trained predictor of this system")
        browse.clicked.connect(lambda *_: self._ask_start())
        self.scale = Combo("Unit of expression that is learned")
        self.smooth = QSpinBox(minimum=1, maximum=50, specialValueText="as published", suffix=" spots")
        self.smooth.setToolTip("Learn the mean over the nearest spots, the spot itself included")
        self.tile_px = QSpinBox(minimum=0, maximum=2048, specialValueText="as published", suffix=" px")
        self.tile_px.setToolTip("Width of the tile around a spot; 0 is the published field")
        self.encoder = Combo("Network that describes tiles, for systems that take features")
        self.stain, self.flips = QCheckBox("stain jitter"), QCheckBox("flips and turns")
        self.stain.setToolTip("Change the optical density of each channel by up to 30 % each time a tile is seen")
        self.flips.setToolTip("Each tile under one of the square's eight symmetries")
        self.lr = QDoubleSpinBox(minimum=0, maximum=10, decimals=6, singleStep=1e-4, specialValueText="as published")
        self.lr.setToolTip("Learning rate")
        self.batch = QSpinBox(minimum=0, maximum=65_536, specialValueText="as published")
        self.batch.setToolTip("Units per batch")
        self.accumulate = QSpinBox(minimum=1, maximum=1024, value=1)
        self.accumulate.setToolTip("Batches whose gradients make one step")
        self.mixed = QCheckBox("mixed precision on the GPU")
        self.mixed.setToolTip("Compute in bfloat16 where the card has it")
        self.seed = QSpinBox(minimum=0, maximum=2**31 - 1)
        self.seed.setToolTip("Fixes every random choice: the same seed gives the same result on the same machine")
        self.trust = QDoubleSpinBox(minimum=-1, maximum=1, value=0.2, singleStep=0.05)
        self.trust.setToolTip("Genes whose held-out correlation is lower are marked wherever the predictor is used")
        self.device = Combo("Where to compute")
        self.device.addItems(["auto", "cpu", "cuda", "mps"])
        form = QFormLayout(self)
        form.setContentsMargins(0, 0, 0, 0)
        form.addRow("Variant", self.variant)
        form.addRow("Genes", _beside(self.panel, self.n_genes))
        form.addRow("Leave out", self.split)
        form.addRow(self.note)
        form.addRow("Epochs", self.epochs)
        form.addRow("Start from", _beside(self.start, browse))
        form.addRow("", self.frozen)
        more = QCollapsible("More settings")
        rest = QWidget()
        inner = QFormLayout(rest)
        for label, widget in (
            ("Expression", self.scale),
            ("Smooth over", self.smooth),
            ("Tile width", self.tile_px),
            ("Encoder", self.encoder),
            ("Change tiles", _beside(self.stain, self.flips)),
            ("Learning rate", self.lr),
            ("Batch size", self.batch),
            ("Accumulate", self.accumulate),
            ("", self.mixed),
            ("Seed", self.seed),
            ("Trust genes above", self.trust),
            ("Compute on", self.device),
        ):
            inner.addRow(label, widget)
        more.addWidget(rest)
        form.addRow(more)
        self.panel.currentIndexChanged.connect(self._panel_chosen)
        self.panel.currentIndexChanged.connect(lambda _: self._show())
        for combo in (self.variant, self.panel, self.split, self.start, self.scale, self.encoder, self.device):
            combo.currentIndexChanged.connect(lambda _: self._show())
        for spin in (self.n_genes, self.epochs, self.smooth, self.tile_px, self.batch, self.accumulate, self.seed):
            spin.valueChanged.connect(lambda _: self.changed.emit())
        for box in (self.stain, self.flips, self.mixed, self.frozen):
            box.toggled.connect(lambda _: self.changed.emit())
        self._show()

    def show_system(self, facts: dict[str, Any], bundles: dict[str, str]) -> None:
        """Offer what a system has: see :func:`system_facts`; ``bundles`` are its trained predictors, path by title."""
        self._parameters = facts["parameters"]
        for combo, items in (
            (self.variant, facts["variants"]),
            (self.scale, [("as published", ""), *facts["scales"]]),
            (self.encoder, [("as published", ""), *facts["encoders"]]),
            (self.start, [("its published start", ""), *bundles.items()]),
        ):
            combo.blockSignals(True)
            combo.clear()
            for text, data in items:
                combo.addItem(text, data)
            combo.blockSignals(False)
        self.variant.setCurrentIndex(max(self.variant.findData("default"), 0))
        self.tile_px.setEnabled("tile_px" in self._parameters)
        self.encoder.setEnabled("encoder" in self._parameters and "feature_dim" in self._parameters)
        self.stain.setEnabled(facts["tiles"])
        self.flips.setEnabled(facts["tiles"])
        self._show()

    def choices(self, slug: str) -> Choices:
        """What the form says of a system."""
        from napari_he2st.zoo.catalogue import variant_arguments

        start = self.start.currentData() or None
        arguments = {} if start else dict(variant_arguments(slug, self.variant.currentData()))
        if not start and self.tile_px.isEnabled() and self.tile_px.value():
            arguments["tile_px"] = self.tile_px.value()
        if not start and self.encoder.isEnabled() and self.encoder.currentData():
            name, width = self.encoder.currentData()
            arguments.update(encoder=name, feature_dim=width)
        recipe: dict[str, Any] = {}
        for name, spin in (("epochs", self.epochs), ("lr", self.lr), ("batch_size", self.batch)):
            if spin.value():
                recipe[name] = spin.value()
        if self.accumulate.value() > 1:
            recipe["accumulate"] = self.accumulate.value()
        if self.mixed.isChecked():
            recipe["mixed"] = True
        boxes = {"stain": self.stain, "flips": self.flips}
        return Choices(
            arguments,
            self._rule(),
            [self.split.currentData()] if self.split.currentData() else [],
            recipe,
            self.seed.value(),
            self.device.currentText(),
            start,
            bool(start) and self.frozen.isChecked(),
            self.scale.currentData() or None,
            self.smooth.value() if self.smooth.value() > 1 else None,
            tuple(name for name, box in boxes.items() if box.isEnabled() and box.isChecked()),
            self.trust.value(),
        )

    def _rule(self) -> str | list[str] | None:
        kind = self.panel.currentData()
        if kind == LIST:
            return self._genes
        return None if not kind else kind if kind == "all" else f"{kind}:{self.n_genes.value()}"

    def _show(self) -> None:
        self.n_genes.setEnabled(self.panel.currentData() in ("hvg", "mean", "moran"))
        self.note.setText(RANDOM_WARNING if self.split.currentData() == "spot" else "")
        self.note.setVisible(bool(self.note.text()))
        going_on = bool(self.start.currentData())
        self.frozen.setVisible(going_on)
        for widget in (self.variant, self.panel, self.scale):
            widget.setEnabled(not going_on)
        self.changed.emit()

    def _panel_chosen(self, _: int) -> None:
        if self.panel.currentData() != LIST:
            return
        path, _ = QFileDialog.getOpenFileName(self, "Genes, one per line", filter="Text (*.txt *.csv *.tsv);;All (*)")
        if path:
            self.read_genes(Path(path))
        else:
            self.panel.setCurrentIndex(0)

    def read_genes(self, path: Path) -> None:
        """Take the genes of a text file."""
        lines = path.read_text(encoding="utf-8", errors="replace").splitlines()
        self._genes = list(dict.fromkeys(line.split("#")[0].strip() for line in lines if line.split("#")[0].strip()))
        self.panel.setItemText(self.panel.findData(LIST), f"{path.name}: {len(self._genes):,} genes")

    def _ask_start(self) -> None:
        folder = QFileDialog.getExistingDirectory(self, "Open a trained predictor")
        if folder:
            self.start.addItem(Path(folder).name, folder)
            self.start.setCurrentIndex(self.start.count() - 1)


def system_facts(slug: str) -> dict[str, Any]:
    """What the form offers of a system: variants, constructor parameters, scales, encoders, whether it sees tiles."""
    import inspect

    from napari_he2st.zoo.base import Expression
    from napari_he2st.zoo.catalogue import card_of, system
    from napari_he2st.zoo.encoders.table import encoders
    from napari_he2st.zoo.inputs import Tiles
    from napari_he2st.zoo.scale import SCALES

    cls: Any = system(slug)  # its guard comes before anything that imports torch
    import torch

    with torch.device("meta"):  # specs may be set in __init__; no memory is taken for weights
        blank = cls(**({"n_genes": 2} if "n_genes" in inspect.signature(cls.__init__).parameters else {}))
    target = blank.targets.get("expression")
    own = target.scale if isinstance(target, Expression) else ""
    free = own.startswith("log1p")
    return {
        "variants": [(name, name) for name in card_of(slug).variants],
        "parameters": dict(inspect.signature(cls.__init__).parameters),
        "scales": [(name, name) for name in SCALES if name.startswith("log1p") and name != own] if free else [],
        "encoders": [(name, (name, spec.dim)) for name, spec in encoders().items()],
        "tiles": any(isinstance(spec, Tiles) for spec in blank.inputs.values()),
    }


def _beside(*widgets: QWidget) -> QHBoxLayout:
    row = QHBoxLayout()
    for number, widget in enumerate(widgets):
        row.addWidget(widget, 0 if number else 1)
    return row
