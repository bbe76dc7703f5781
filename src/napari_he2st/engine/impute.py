"""Expression of a section from measured ones beside it, with a system that joins serial sections."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol, cast, runtime_checkable

import numpy as np
import torch
from torch import Tensor

from napari_he2st.core import keys
from napari_he2st.core.errors import GeneError, ModelError
from napari_he2st.core.progress import Control
from napari_he2st.core.types import Grid, Transform
from napari_he2st.engine.device import choose_device
from napari_he2st.engine.features import Scene
from napari_he2st.engine.inputs import Supply
from napari_he2st.engine.predict import tissue_grid
from napari_he2st.engine.results import to_adata
from napari_he2st.engine.run import in_its_stain
from napari_he2st.engine.training_data import TrainingSection, expression_target
from napari_he2st.engine.windows import windows
from napari_he2st.zoo.base import Expression, Predictor
from napari_he2st.zoo.catalogue import load

if TYPE_CHECKING:
    from anndata import AnnData

    from napari_he2st.data.slides import Slide
    from napari_he2st.data.truth import Section
    from napari_he2st.zoo.bundle import Bundle


@runtime_checkable
class Imputer(Protocol):
    """A predictor that also knows measured sections beside the one it predicts."""

    volume: bool

    def predict_beside(
        self, measured: Sequence[Any], expression: Sequence[Tensor], section: Any, places: Sequence[Tensor] | None
    ) -> Tensor:
        """Expression of a section, float32 (spots, genes)."""


def impute(
    bundle: Bundle | str | Path,
    slide: Slide,
    measured: Sequence[Section],
    *,
    grid: Grid | None = None,
    transforms: Sequence[Transform] | None = None,
    seed: int = 0,
    device: str = "auto",
    control: Control | None = None,
) -> AnnData:
    """Predict a slide from its image and from measured serial sections of the same tissue.

    Parameters
    ----------
    bundle
        A bundle of a system with the task ``"imputation"``, or its name or path.
    slide
        The section without measured expression.
    measured
        The sections beside it, with image and counts of all the bundle's genes.
    grid
        Spots to predict; by default a square lattice over the tissue, at the bundle's pitch.
    transforms
        For each measured section, the map from its level-0 pixels to those of ``slide``. Without them, spots of
        different sections are joined by the likeness of their images alone, not also by their overlap.
    seed, device
        As for :func:`~napari_he2st.engine.predict.predict`.
    control
        Progress and cancel, from another thread.

    Returns
    -------
    AnnData
        In the schema of :mod:`napari_he2st.core.schema`; ``uns["he2st"]["imputed_from"]`` names the sections.

    Raises
    ------
    ModelError
        The bundle's system imputes nothing, no section is given, or there is not one transform for each.
    GeneError
        A section lacks genes of the bundle.
    """
    bundle = load(bundle) if isinstance(bundle, str | Path) else bundle
    member = _imputer(bundle)
    if not measured:
        raise ModelError("There is no measured section to impute from", todo="Name at least one with --beside")
    if transforms is not None and len(transforms) != len(measured):
        message = f"There are {len(transforms)} transforms for {len(measured)} measured sections"
        raise ModelError(message, todo="Give one for each, in the same order")
    control, where = control or Control(), choose_device(device)
    model = cast("Predictor", member).to(where).eval()
    grid = tissue_grid(bundle, slide) if grid is None else grid
    slide = in_its_stain(bundle, slide, None)
    unit_um = bundle.manifest.pitch_um
    prepared, expression, places = [], [], []
    for i, section in enumerate(measured):
        opened = TrainingSection.open(section, stain=bundle.manifest.stain)
        try:
            expression.append(_expression_of(opened, bundle, model).to(where))
            scene = Scene(opened.slide, opened.grid, bundle.manifest.mpp, where, unit_um)
            prepared.append(_prepare(model, scene, np.arange(len(opened.grid), dtype=np.intp)))
        finally:
            opened.slide.original.close()
        xy = opened.grid.xy if transforms is None else transforms[i](opened.grid.xy)
        places.append(torch.from_numpy(xy * slide.mpp / unit_um).float().to(where))
    values = np.full((len(grid), len(bundle.genes)), np.nan, dtype=np.float32)
    control.start(len(grid), "Imputing")
    scene = Scene(slide, grid, bundle.manifest.mpp, where, unit_um)
    for window in windows(grid, np.arange(len(grid), dtype=np.intp), model.max_spots, None):
        here = torch.from_numpy(grid.xy[window.rows] * slide.mpp / unit_um).float().to(where)
        with torch.inference_mode():
            section_input = _prepare(model, scene, window.rows)
            frame = None if transforms is None else [*places, here]
            predicted = member.predict_beside(prepared, expression, section_input, frame)
        values[window.kept] = predicted.cpu().numpy()[window.core]
        control.advance(len(window.kept))
    adata = to_adata(bundle, slide, grid, values, seed=seed, device=str(where))
    adata.uns[keys.UNS]["imputed_from"] = [section.name for section in measured]
    return adata


def _imputer(bundle: Bundle) -> Imputer:
    member = bundle.members[0]
    if not isinstance(member, Imputer) or not member.volume:
        message = f"{bundle.manifest.title} does not impute from sections beside"
        todo = "he2st models --task imputation lists systems that do; train with --argument volume=true"
        raise ModelError(message, where=bundle.manifest.system, todo=todo)
    return member


def _expression_of(section: TrainingSection, bundle: Bundle, model: Predictor) -> Tensor:
    """Measured expression of the bundle's panel in its scale, float32 (spots, genes)."""
    missing = [gene for gene in bundle.genes if gene not in section.adata.var_names]
    if missing:
        message = f"The section lacks {len(missing)} of the bundle's genes, such as {', '.join(missing[:3])}"
        raise GeneError(message, where=section.name, todo="Measured sections have to hold the whole panel")
    spec = model.targets["expression"]
    assert isinstance(spec, Expression)
    return expression_target(section, bundle.genes, spec, model.extras.get("scale", {}))


@torch.inference_mode()
def _prepare(model: Predictor, scene: Scene, rows: np.ndarray) -> dict[str, Any]:
    """Prepared inputs of spots that see each other."""
    ((_, values, _),) = Supply(model.inputs, scene, [rows], together=True)
    return model.prepare(**values)
