"""conST: graph, network with and without tiles, losses of both stages."""

from __future__ import annotations

import torch
from tests.parity.fill import fill_model, inputs_of
from torch.nn import functional as F

from napari_he2st.analysis.graphs import knn_graph
from napari_he2st.zoo.blocks.sparse import divergence, edges_in, graph_balance, info_nce, propagation, sharpened
from napari_he2st.zoo.domains import const


def run(case: dict) -> dict:
    config, x = case["config"], inputs_of(case)
    edges = edges_in(knn_graph(x["xy"].numpy(), config["k"]))
    n = len(x["xy"])
    graph, balance = propagation(edges, n), graph_balance(n, len(edges))
    adjacency = torch.eye(n)
    adjacency[edges[:, 1], edges[:, 0]] = 1
    widths = {
        "dim": config["feat_hidden1"],
        "latent_dim": config["feat_hidden2"],
        "graph_dim": config["gcn_hidden1"],
        "graph_latent_dim": config["gcn_hidden2"],
        "n_centres": config["dec_cluster_n"],
    }
    model = const.Network(config["input_dim"], **widths).eval()
    fill_model(model, case)
    found, other = model(x["x"], graph), model(x["x2"], graph)
    p, h, shuffled = sharpened(found["q"]), found["feat"], other["feat"]
    out = {
        "adj_label": adjacency,
        "adj_norm": graph.to_dense(),
        "norm_value": balance,
        "z": found["z"],
        "mu": found["mu"],
        "logvar": found["logvar"],
        "de_feat": found["rebuilt"],
        "q": found["q"],
        "feat_x": h,
        "p": p,
        "loss_gcn": const.graph_loss(found["z"], adjacency, found["mu"], found["logvar"], balance),
        "loss_rec": F.mse_loss(found["rebuilt"], x["x"]),
        "loss_kl": divergence(p, found["q"]),
        "proj": model.projection(h),
        "l2l": info_nce(model.project(h), model.project(shuffled), config["tau"]),
    }
    context, _ = const.context_logits(h, shuffled, x["cl_init"])
    section = const.section_logits(model.disc, h, shuffled)
    out |= {"l2l_batched": out["l2l"], "l2c_logits": context[None], "l2g_logits": section}
    out |= {"l2c": const.paired_loss(context), "l2g": const.paired_loss(section)}
    if "state_img" in case:
        seeing = const.Network(config["input_dim"], **widths, n_image=x["img"].shape[1]).eval()
        fill_model(seeing, case, state="state_img")
        found = seeing(x["x"], graph, x["img"])
        out |= {"z_img": found["z"], "mu_img": found["mu"], "q_img": found["q"]}
        out |= {"de_feat_img_gene": found["rebuilt"], "de_feat_img_img": found["image_rebuilt"]}
    return out
