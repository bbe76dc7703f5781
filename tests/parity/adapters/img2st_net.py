"""Img2ST-Net: network, contrastive term, structural similarity and metrics."""

from __future__ import annotations

import math

import numpy as np
import torch
from tests.parity.fill import corner, fill_model, inputs_of

from napari_he2st.analysis.metrics import METRICS
from napari_he2st.zoo.blocks.image_quality import joint_range, structural_similarity
from napari_he2st.zoo.superres.img2st_net import ContrastiveProjector, Img2STNet, as_maps, ssim_loss


def run(case: dict) -> dict:
    x = inputs_of(case)
    if "gt" in x:
        return _metrics(x)
    return _contrast(case, x) if "feat" in x else _network(case, x)


def _network(case: dict, x: dict) -> dict:
    config = case["config"]
    bins = math.isqrt(config["bin_num"])
    model = Img2STNet(config["pred_dim"], trunk=config["backbone"], bins=bins).eval()
    fill_model(model, case)
    pred, feat = model(x["x"])
    return {
        "pred": corner(pred[0], case["outputs"]["pred"]),
        "feat": corner(feat[0, ::8], case["outputs"]["feat"]),
        "pred_mean": pred.mean(),
        "pred_std": pred.std(),
    }


def _contrast(case: dict, x: dict) -> dict:
    config = case["config"]
    model = ContrastiveProjector(config["img_dim"], config["expr_dim"], config["proj_dim"], config["temperature"])
    fill_model(model, case)
    return {"loss": model(x["feat"], x["expr"])}


def _metrics(x: dict) -> dict:
    pred = x["pred"]
    gt = 0.7 * pred + 0.3 * x["gt"]
    gt[..., 5] = 0
    flat = (pred.flatten(0, 1).numpy(), gt.flatten(0, 1).numpy())

    def ssim(**options: object) -> torch.Tensor:
        pairs = zip(as_maps(pred), as_maps(gt), strict=True)
        return torch.stack(
            [structural_similarity(p, g, data_range=joint_range(p, g), **options).mean() for p, g in pairs]
        )

    return {
        "ssim_loss": ssim_loss(pred, gt),
        "pcc": np.nan_to_num(METRICS["pcc"].function(*flat)),
        "rvd_first5": METRICS["rvd"].function(*flat)[:5].mean(),
        "ssim_val": ssim(k=(0.02, 0.05)),
        "ssim_eval": ssim(),
    }
