"""spaMGCN: graph, both forms of the network, losses, log ratios of proteins."""

from __future__ import annotations

import torch
from tests.parity.fill import corner, fill_model, inputs_of
from torch.nn import functional as F

from napari_he2st.analysis.graphs import knn_graph
from napari_he2st.zoo.blocks.sparse import edges_in, propagation
from napari_he2st.zoo.domains import spamgcn


def run(case: dict) -> dict:
    config, x = case["config"], inputs_of(case)
    n, views = len(x["xy"]), [x["x1"], x["x2"]]
    graph = propagation(edges_in(knn_graph(x["xy"].numpy(), config.get("k", 3))), n)
    near = graph.to_dense()
    widths = tuple(config[f"ae_n_enc_{i}"] for i in (1, 2, 3))
    options = {"sigma": config["sigma"], "n_clusters": config["n_clusters"]}
    model = spamgcn.Network([config["n_input"], config["n_input1"]], widths, **options).eval()
    fill_model(model, case)
    found = model(views, graph)
    code = torch.cat([view["code"] for view in found], 1)
    edges = [spamgcn.rebuilt_edges(view) for view in found]
    plain, spread, agree = spamgcn.reconstruction_losses(found, views, graph)
    edge_error = sum(F.mse_loss(rebuilt, near) for rebuilt in edges)
    out = {"adj_norm": near, "fea": code, "nce": spamgcn.neighbour_noise(code, near)}
    out |= {"bce_adj": F.binary_cross_entropy_with_logits(code @ code.T, near)}
    out |= {"losses": torch.stack([plain, spread, edge_error, agree])}
    out |= {"clr": spamgcn.centred_log_ratio(x["x2"].abs().numpy())}
    out |= {"layer_gnn1": model.gae.encoder["gnn_1"](x["x1"], graph)}
    names = {"x_hat": "rebuilt", "z_hat": "rebuilt_spread", "z_ae": "plain", "z_igae": "spread"}
    for number, view in enumerate(found):
        out |= {f"{name}{number or ''}": view[ours] for name, ours in names.items()}
        out[f"adj_hat{number or ''}"] = edges[number]
    single = spamgcn.Network([config["n_input"]], widths, n_orders=2, **options).eval()
    fill_model(single, case, state="state_single")
    out["single_last"] = single([x["x1"]], graph)[0]["code"]
    return {name: corner(out[name], like) for name, like in case["outputs"].items()}
