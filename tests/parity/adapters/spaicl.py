"""SpaICL: graph, evaluation, losses with given draws, attention, compactness, refinement."""

from __future__ import annotations

import numpy as np
import torch
from tests.parity.fill import corner, fill_model, inputs_of

from napari_he2st.analysis.domains.continuity import chaos, pas
from napari_he2st.analysis.domains.refine import majority
from napari_he2st.analysis.graphs import knn_graph
from napari_he2st.zoo.blocks.sparse import edges_in, graph_balance, propagation
from napari_he2st.zoo.domains.spaicl import Draws, Network

FIRST = "encoder.encoder_L1.0.weight"


def run(case: dict) -> dict:
    config, x = case["config"], inputs_of(case)
    n, xy, labels = len(x["x"]), x["xy"].numpy(), x["lab"].numpy()
    edges = edges_in(knn_graph(xy, int(case.get("k", config.get("k", 6)))))
    graph = propagation(edges, n)
    edges = torch.cat([edges, torch.arange(n).repeat(2, 1).T])
    adjacency = torch.zeros(n, n)
    adjacency[edges[:, 1], edges[:, 0]] = 1
    model = Network(
        config["input_dim"],
        config["img_dim"],
        dim=config["feat_hidden1"],
        code_dim=config["feat_hidden2"],
        graph_dim=config["gcn_hidden"],
        latent_dim=config["latent_dim"],
        projection_dim=config["project_dim"],
    ).eval()
    fill_model(model, case)
    latent, recon = model(x["x"], x["img"], graph, edges)
    online = model.exp_model.online_encoder(x["x"], graph)
    out = {
        "adj_label": adjacency,
        "adj_norm": graph.to_dense(),
        "norm_value": graph_balance(n, len(edges)),
        "latent": latent,
        "recon": recon,
        "enc_online": online,
        "img_rep": model.img_model(x["img"], graph),
        "cross": model.att(x["q"], online),
    }
    negatives = torch.stack([x["neg_x"], x["neg_y"]])
    draws = Draws.of(x["perm"], x["perm_mask"], x["perm_noise"], negatives, config["mask_rate"], config["replace_rate"])
    kept = edges[x["u"][edges[:, 0], edges[:, 1]] > 1 - 0.5]
    match, rebuild = model.losses(x["x"], x["img"], graph, kept, draws)
    like = case["outputs"]["target_after"]
    out |= {"match_loss": match, "rec_loss": rebuild, "total": 0.5 * rebuild + match}
    out["target_after"] = corner(model.exp_model.target_encoder.state_dict()[FIRST], like)
    out["online_same"] = corner(model.exp_model.online_encoder.state_dict()[FIRST], like)
    refined = np.asarray(majority(labels, xy, 30))
    return out | {"chaos": chaos(labels, xy), "pas": pas(labels, xy), "refined30": refined}
