"""RedeHist: network, loss, gene scores and crops."""

from __future__ import annotations

import numpy as np
import torch
from tests.parity.fill import corner, fill_model, inputs_of
from torch import Tensor
from torch.nn import functional as F

from napari_he2st.zoo.cells.redehist import RedeHist, gene_scores, nucleus_crops

_TYPES = "bacaba"


def run(case: dict) -> dict:
    x = inputs_of(case)
    if "img" in x:
        return _preprocess(x)
    config = case["config"]
    kinds = sorted(set(_TYPES))
    model = RedeHist(
        config["n_genes"], n_reference=config["n_cells_ref"], n_types=len(kinds), mode=config["mode"]
    ).eval()
    fill_model(model, case)
    model.sc_data.copy_(x["sc"] / x["sc"].sum(dim=1, keepdim=True) * config["n_genes"])
    numbers = torch.tensor([kinds.index(kind) for kind in _TYPES[: len(x["sc"])]])
    model.anno_class.copy_(F.one_hot(numbers, len(kinds)).float())
    masks = _painted(x["boxes"], (len(x["patch"]), config["max_cell"], *x["patch"].shape[2:]))
    found = model(x["patch"], masks)
    spot = model._scaled(found["cell"].unflatten(0, (len(masks), -1)).sum(dim=1))
    terms = model.objective(found, spot, x["exp"])
    out = {
        "pixel": found["pixel"][:, ::8, ::8, :32],
        "cell_feature": found["cell_feature"],
        "abundance": found["abundance"],
        "spot": spot,
        "cell_type": found["soft"] @ model.anno_class,
        "loss": terms["loss"],
        "entropy1": terms["entropy1"],
        "loss_trans": terms["reference"],
    }
    return {name: corner(out[name], like) for name, like in case["outputs"].items()}


def _painted(boxes: Tensor, shape: tuple[int, ...]) -> Tensor:
    masks = torch.zeros(shape)
    for tile, slot, r0, r1, c0, c1 in boxes.tolist():
        masks[tile, slot, r0:r1, c0:c1] = 1
    return masks


def _preprocess(x: dict) -> dict:
    base, noise = x["base"].double().numpy(), x["lam"].double().numpy()
    counts = np.floor(20 * base**3 * (-np.log(noise + 1e-6)))
    counts[:, 0] += 1
    labels, px = np.zeros(x["img"].shape[:2], dtype=np.int64), 32
    for number, r0, r1, c0, c1 in x["boxes"].tolist():
        labels[r0:r1, c0:c1] = number
    centres, starts = nucleus_crops(labels, px)
    crops = [(slice(r, r + px), slice(c, c + px)) for r, c in starts.tolist()]
    image = x["img"].numpy()
    return {
        "score": gene_scores(counts),
        "centers": centres,
        "crop_mean": np.array([image[crop].mean() for crop in crops]),
        "crop_first": np.array([image[crop][0, 0] for crop in crops]),
        "mask_sum": np.array([(labels[crop] == n).sum() for crop, n in zip(crops, centres[:, 0], strict=True)]),
    }
