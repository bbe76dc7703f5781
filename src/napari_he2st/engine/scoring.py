"""Predictions for training sections whose inputs are resolved already."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray

from napari_he2st.engine.device import auto_batch_size
from napari_he2st.engine.regions import pool_by_owner
from napari_he2st.engine.run import pool_of
from napari_he2st.engine.sampling import Draws, Sampler, join
from napari_he2st.engine.training_data import Resolved, take, to_device
from napari_he2st.zoo.base import Pixels, Predictor, Regions, Spots

_CELLS = 4096  # cells of a lattice that go through a model together


def predict_resolved(
    members: Sequence[Predictor], resolved: Resolved, n_spots: int, device: torch.device
) -> NDArray[np.float32]:
    """Prediction of an ensemble for all spots of a section: float32 (spots, genes), NaN where nothing is known."""
    return sample_resolved(members, resolved, n_spots, device)[0]


def sample_resolved(
    members: Sequence[Predictor], resolved: Resolved, n_spots: int, device: torch.device
) -> tuple[NDArray[np.float32], NDArray[np.float32] | None]:
    """The prediction, and its standard deviation over members and draws: None of a single one, or of pooled cells."""
    model = members[0]
    sample = Sampler(members, torch.arange(len(model.genes), device=device))
    pixels, regions = isinstance(model.unit, Pixels), isinstance(model.unit, Regions)
    n = len(resolved.ok)
    size = _CELLS if pixels else 1 if regions else auto_batch_size(device) if isinstance(model.unit, Spots) else n

    def part(piece: slice) -> Draws:
        rows = np.arange(piece.start, piece.stop)
        inputs = {
            name: to_device(value if not pixels and model.inputs[name].per == "slide" else take(value, piece), device)
            for name, value in resolved.inputs.items()
        }
        shape: tuple[int, ...] = (len(rows),)
        if resolved.members is not None:
            shape = (len(resolved.members[piece.start]),)
        elif regions and resolved.owner is not None:
            shape = resolved.owner[piece].shape
        return sample([inputs] * len(members) if pixels else sample.prepare(inputs), rows, shape)

    mean, std = join([part(slice(i, min(i + size, n))) for i in range(0, n, size)])
    found = mean.cpu().numpy()
    if resolved.owner is None:
        found[~resolved.ok] = np.nan
        return found, None if std is None else std.cpu().numpy()
    owner, ok = resolved.owner, resolved.ok
    if resolved.members is not None:
        owner, ok = owner[np.concatenate(resolved.members)], np.repeat(ok, list(map(len, resolved.members)))
    owner = np.where(ok[:, None] if owner.ndim > 1 else ok, owner, -1).reshape(-1)
    rows = found.reshape(-1, found.shape[-1])[owner >= 0]
    return pool_by_owner(rows, owner[owner >= 0], n_spots, pool_of(model)), None
