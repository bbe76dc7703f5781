"""MuCoST: network with and without weights of edges, contrast, correlated edges, refinement."""

from __future__ import annotations

import numpy as np
import torch
from tests.parity.fill import corner, fill_model, inputs_of
from torch.nn import functional as F

from napari_he2st.analysis.domains.refine import majority
from napari_he2st.zoo.blocks.sparse import propagation
from napari_he2st.zoo.domains import mucost

INFERENCE = False


def run(case: dict) -> dict:
    config, x = case["config"], inputs_of(case)
    n, near, alike = len(x["x"]), x["edge_s"].T, x["edge_f"].T
    given = {"masked": x["x"] * x["feat_keep"], "shuffled": x["x"][x["perm"]]}

    def built() -> mucost.Network:
        model = mucost.Network(config["in_dim"], config["latent_dim"]).eval()
        fill_model(model, case)
        return model

    def loss(rebuilt: torch.Tensor, *views: torch.Tensor) -> torch.Tensor:
        return F.mse_loss(rebuilt, x["x"]) + 0.2 * mucost.contrast(*views, config["temp"])

    model = built()
    graphs = mucost.graphs(near, alike, n)
    hi, h, *views = model(x["x"], *graphs, **given)
    weights = torch.full((len(near),), 0.3), torch.full((len(alike),), 0.7)
    hi_w, h_w, *views_w = model(x["x"], *mucost.graphs(near, alike, n, weights), **given)
    histology = propagation(torch.cat([near, alike]), n, torch.cat([torch.ones(len(near)), x["w_h"]]), loop=2.0)
    hist_hi = model.encoder(x["x"], histology)
    training = built().train()
    _, rebuilt, *views_t = training(x["x"], *graphs, **given)
    loss_train = loss(rebuilt, *views_t)
    loss_train.backward()
    out = {
        "hi": hi,
        "h": h,
        "loss": loss(h, *views),
        "hi_w": hi_w,
        "h_w": h_w,
        "loss_w": loss(h_w, *views_w),
        "loss_train": loss_train,
        "grad_enc": corner(training.encoder.lin.weight.grad, case["outputs"]["grad_enc"]),
        "hist_hi": hist_hi,
        "hist_h": model.decoder(hist_hi, histology),
        "info_nce": mucost.contrast(hi, hi_w, h_w, config["temp"]),
        "keep_corr": mucost.correlated(x["x"], alike, 0.0).int(),
    }
    refined = majority(x["lab"].numpy(), x["xy"].numpy(), 25)
    return {name: value.detach().numpy() for name, value in out.items()} | {"refined25": np.asarray(refined)}
