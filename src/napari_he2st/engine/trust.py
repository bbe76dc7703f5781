"""Can a prediction be trusted here? How far the tiles of a slide are from those a predictor was trained on."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from numpy.typing import NDArray

from napari_he2st.analysis.novelty import FeatureSummary
from napari_he2st.core.errors import ModelError
from napari_he2st.core.types import Grid
from napari_he2st.engine.device import choose_device
from napari_he2st.engine.features import ENCODED, Scene
from napari_he2st.engine.inputs import Supply
from napari_he2st.engine.run import in_its_stain
from napari_he2st.zoo import inputs as kinds
from napari_he2st.zoo.base import Predictor

if TYPE_CHECKING:
    from napari_he2st.core.progress import Progress
    from napari_he2st.data.slides import Slide
    from napari_he2st.engine.training_data import TrainingSection
    from napari_he2st.zoo.bundle import Bundle

SUMMARY = "training_features"
"""Key of the first member's ``extras`` under which a bundle keeps the summary of its training tiles."""

_PLAIN = kinds.Features(encoder="colour-texture", px=224)
"""What is compared for predictors that have no encoder: it needs no weights and little time."""

_MOST_TRAINING = 500
"""Tiles of a section that are summarised at most."""

_MOST_TILES = 4000
"""Tiles of a slide that are compared at most; a spot between them takes the nearest."""


def trained_on(
    model: Predictor, sections: Sequence[TrainingSection], mpp: float, device: torch.device
) -> dict[str, Any]:
    """The summary of a predictor's training tiles, for its ``extras``.

    Parameters
    ----------
    model
        Its first encoder says which features are compared; colour and texture where it has none.
    sections
        What it was trained on.
    mpp
        Pixel size of its tiles.
    device
        Where features are computed.

    Returns
    -------
    dict
        :data:`SUMMARY` with ``encoder``, ``px`` and ``mpp`` of the tiles, and the fields of
        :class:`~napari_he2st.analysis.novelty.FeatureSummary`; empty where too few tiles can be read.
    """
    spec = _spec_of(model)
    parts = []
    for section in sections:
        rows = _even(len(section.grid), _MOST_TRAINING)
        parts.append(_features(section.slide, section.grid, rows, spec, mpp, device))
    features = np.concatenate(parts)
    features = features[np.isfinite(features).all(axis=1)]
    if len(features) < 3:
        return {}
    facts = {"encoder": spec.encoder, "px": spec.px, "mpp": mpp if spec.mpp is None else spec.mpp}
    return {SUMMARY: {**facts, **FeatureSummary.of(features).as_dict()}}


def knows_its_training(bundle: Bundle) -> bool:
    """Whether a bundle keeps a summary of its training tiles."""
    return bool(bundle.members[0].extras.get(SUMMARY))


def distance_to_training(
    bundle: Bundle, slide: Slide, grid: Grid, *, device: str = "auto", control: Progress | None = None
) -> NDArray[np.float32]:
    """How far the tiles of a slide are from the training tiles of a predictor.

    Parameters
    ----------
    bundle
        The predictor.
    slide, grid
        The slide and its spots; of more than 4,000 an even sample is compared.
    device, control
        As for :func:`~napari_he2st.engine.predict.predict`.

    Returns
    -------
    array
        Shape (spots,); 1 is the edge of the training tiles, within which 99 % of them lie. NaN where a tile cannot be
        read.

    Raises
    ------
    ModelError
        The bundle keeps no summary of its training tiles.
    """
    stored = bundle.members[0].extras.get(SUMMARY)
    if not stored:
        raise ModelError(
            "This predictor keeps no summary of its training tiles",
            where=bundle.id,
            todo="Train it anew with this version, or look at its organ, species and scores",
        )
    summary = FeatureSummary.from_dict(stored)
    spec = kinds.Features(encoder=stored["encoder"], px=int(stored["px"]), mpp=float(stored["mpp"]))
    slide = in_its_stain(bundle, slide, None)
    rows = _even(len(grid), _MOST_TILES)
    features = _features(slide, grid, rows, spec, float(stored["mpp"]), choose_device(device), control)
    distance = summary.distance(features)
    if len(rows) == len(grid):
        return distance
    from scipy.spatial import KDTree

    nearest = KDTree(grid.xy[rows]).query(grid.xy)[1]
    return distance[nearest]


def _spec_of(model: Predictor) -> kinds.Features:
    specs = (spec for spec in model.inputs.values() if isinstance(spec, kinds.Features))
    spec = next(specs, _PLAIN)
    return kinds.Features(encoder=spec.encoder, px=spec.px, mpp=None if spec.mpp == "native" else spec.mpp)


def _even(n: int, most: int) -> NDArray[np.intp]:
    """At most ``most`` rows of ``n``, spread evenly."""
    return np.unique(np.linspace(0, n - 1, min(n, most)).astype(np.intp)) if n else np.empty(0, dtype=np.intp)


def _features(
    slide: Slide,
    grid: Grid,
    rows: NDArray[np.intp],
    spec: kinds.Features,
    mpp: float,
    device: torch.device,
    control: Progress | None = None,
) -> NDArray[np.float32]:
    """Features of the tiles around some spots, float32 (rows, dim); NaN where a tile cannot be read."""
    part = grid.take(rows)
    batches = np.split(np.arange(len(rows), dtype=np.intp), range(ENCODED, len(rows), ENCODED))
    if control is not None:
        control.start(len(rows), "Comparing tiles")
    parts = []
    for done, values, ok in Supply({"tile": spec}, Scene(slide, part, mpp, device), batches):
        found = values["tile"].cpu().numpy().astype(np.float32)
        found[~ok] = np.nan
        parts.append(found)
        if control is not None:
            control.advance(len(done))
    return np.concatenate(parts)
