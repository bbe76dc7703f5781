"""ST-Net: network, eight views, targets and loss."""

from __future__ import annotations

import numpy as np
import torch
from anndata import AnnData
from tests.parity.fill import corner, fill_model, inputs_of

from napari_he2st.core import keys
from napari_he2st.engine.panel import choose_panel
from napari_he2st.zoo.blocks.symmetry import eight_symmetries
from napari_he2st.zoo.regression.stnet import STNet, summed_mse
from napari_he2st.zoo.scale import scale_of


def run(case: dict) -> dict:
    return _labels(case) if "count" in case["inputs"] else _network(case)


def _network(case: dict) -> dict:
    config, x = case["config"], inputs_of(case)
    model = STNet(config["outputs"], trunk=config["model"]).eval()
    fill_model(model, case)
    out = {}
    if "patch" in x:
        single = model(x["patch"])
        out |= {"single": single, "single_mean": single.mean(), "single_std": single.std(correction=0)}
    if "image" in x:
        model.extras["pixels"] = {"mean": config["normalize_mean"], "std": config["normalize_std"]}
        patches = model.prepare(tiles=x["image"].permute(2, 0, 1)[None])["patches"]
        views = torch.cat(eight_symmetries(patches))
        each = torch.cat([model(view[None]) for view in views])
        out |= {
            "sym_pred_each": corner(each, case["outputs"]["sym_pred_each"]),
            "sym_pred_mean": model.predict(patches=patches),
            "sym_input_probe": views[:, :, :2, :3],
            "allviews_mean": each.mean(),
            "allviews_std": each.std(correction=0),
        }
    return out


def _labels(case: dict) -> dict:
    x = {name: value.numpy() for name, value in inputs_of(case).items()}
    n = len(x["mean_expression"])
    ranked = AnnData(x["mean_expression"][None], layers={keys.COUNTS: x["mean_expression"][None]})
    panel = choose_panel([ranked], f"mean:{case['config']['gene_n']}")
    kept = np.isin(ranked.var_names, panel.symbols)
    total, counts = x["count"].sum(1), x["count"][:, kept]
    share = scale_of("log_share")
    target = share.transform(counts, share.fit(counts, total, n), total)
    return {
        "gene_filter": kept.astype(int),
        "y_norm_log": target,
        "y_nonorm_log": scale_of("log1p").transform(counts, {}),
        "loss": summed_mse(torch.from_numpy(x["pred"]), torch.from_numpy(target)),
    }
