"""iStar: network, vision transformers, geometry, shifts, small components."""

from __future__ import annotations

import math

import numpy as np
import torch
from tests.parity.fill import corner, fill_model, inputs_of
from torch import Tensor
from torch.nn import functional as F

from napari_he2st.analysis.components import relabel_small
from napari_he2st.zoo.blocks.hipt import HIPT
from napari_he2st.zoo.blocks.losses import nan_mse
from napari_he2st.zoo.blocks.rasters import box_mean, disc_cells, disc_mask, gaussian_mean, shifted_mean
from napari_he2st.zoo.scale import scale_of
from napari_he2st.zoo.superres.istar import IStar

SUBSET = torch.tensor([3, 7, 11])
PATCH_CENTRES, PATCH_RADIUS = torch.tensor([[5, 6], [9, 4], [12, 12]]), 1.72


def run(case: dict) -> dict:
    x = inputs_of(case)
    for name, part in (("image", _hipt), ("chan", _geometry), ("labels", _relabel), ("img", _shift)):
        if name in x:
            return part(case, x)
    return _network(case, x)


def _network(case: dict, x: dict) -> dict:
    model = IStar(case["config"]["n_out"], feature_dim=case["config"]["n_inp"]).eval()
    fill_model(model, case)
    z, y = model.latent(x["x"]), model(x["x"])
    full = {"latent": z, "y": y, "y_subset": model.expression(z, SUBSET)}
    out = {name: corner(value, case["outputs"][name]) for name, value in full.items() if name in case["outputs"]}
    moments = {"latent_mean": z.mean(), "latent_std": z.std(), "y_mean": y.mean(), "y_std": y.std()}
    return out | moments | {"loss": nan_mse(y.mean(1), x["y_mean"])}


def _hipt(case: dict, x: dict) -> dict:
    model = HIPT().eval()
    fill_model(model, case)
    classes, cells = model.patches(x["image"])
    region, within = model.region(classes)
    return {
        "cls256": classes[: len(case["outputs"]["cls256"])],
        "sub256": cells[: len(case["outputs"]["sub256"]), :, :, ::4, ::4],
        "cls4k": region,
        "sub4k": within,
    } | {f"{name}_{how}": getattr(value, how)() for name, value in _all(classes, cells) for how in ("mean", "std")}


def _all(classes: Tensor, cells: Tensor) -> tuple[tuple[str, Tensor], ...]:
    return ("cls256", classes), ("sub256", cells)


def _geometry(case: dict, x: dict) -> dict:
    scale, counts = scale_of("minmax"), x["cnts"].numpy()
    fitted = scale.fit(counts)
    out = {
        "patches": disc_cells(x["img"], PATCH_CENTRES, PATCH_RADIUS),
        "cnts_scaled": scale.transform(counts, fitted),
        "cnts_min": fitted["low"],
        "cnts_max": counts.max(0),
    }
    for name in case["outputs"]:
        if name.startswith("disk_"):
            out[name] = disc_mask(float(name.removeprefix("disk_")))
        elif name.startswith("smooth"):
            out[name] = box_mean(x["chan"], int(name.removeprefix("smooth")))
        elif name.startswith("gauss"):
            out[name] = gaussian_mean(x["chan"], float(name.removeprefix("gauss")))
    return out


def _shift(case: dict, x: dict) -> dict:
    image = (x["img"] * 255).to(torch.uint8).permute(2, 0, 1).float()
    red, green, blue = shifted_mean(lambda crop: F.avg_pool2d(crop, 16), image)
    return {"cls0": red, "cls5": blue, "sub0": green}


def _relabel(case: dict, x: dict) -> dict:
    side = math.isqrt(case["outputs"]["relabel"].size // x["labels"].numel())
    labels = np.kron(x["labels"].numpy(), np.ones((side, side), dtype=int))
    return {"relabel": relabel_small(labels, 20)}
