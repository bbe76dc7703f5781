"""STaCker: network, integration, warping, losses, contour."""

from __future__ import annotations

import numpy as np
import torch
from tests.parity.fill import fill_model, inputs_of
from torch.nn import functional as F

from napari_he2st.zoo.alignment import stacker


def _ours(key: str) -> str:
    for theirs, mine in stacker.STATE_NAMES.items():
        key = key.replace(theirs, mine)
    return key


def _last(x: torch.Tensor) -> torch.Tensor:
    return x[0].permute(1, 2, 0)


def run(case: dict) -> dict:
    x = inputs_of(case)
    down = [
        key.split("_")[3] for key, *_ in case["state"] if key.startswith("unet_conv_down") and key.endswith("_0/bias")
    ]
    model = stacker.Network([int(n) for n in down]).eval()
    fill_model(model, case, ours=_ours)
    moving, fixed = (x[name].permute(2, 0, 1)[None] for name in ("moving", "fixed"))
    found = model(moving, fixed)
    names = {
        "moved": "moved",
        "svf": "velocity",
        "deform": "displacement",
        "inv_deform": "inverse",
        "siamese": "joint",
    }
    whole = {theirs: _last(found[mine]) for theirs, mine in names.items()}
    out = {name: value[::4, ::4] for name, value in whole.items()}
    out["stats"] = torch.tensor([[v.mean(), v.std(correction=0)] for v in whole.values()])
    field = stacker.integrated(x["svf"].permute(2, 0, 1)[None])
    out |= {"vecint": _last(field)[::4, ::4], "warp": _last(stacker.warped(moving, field))[::4, ::4]}
    out["grad_loss"] = stacker.unevenness(field)[None]
    n = int(max(x["labels"].max(), x["labels2"].max())) + 1
    out["dice_loss"] = stacker.overlap_loss(*(F.one_hot(x[name], n).float() for name in ("labels", "labels2")))
    labels = np.full((24, 24), 100)
    labels[:, 12:] = 101
    labels[14:, :8] = 102
    return out | {"contour": stacker.contour(labels)}
