"""STAIG: graph, dropped edges, network, contrasts, refinement."""

from __future__ import annotations

import numpy as np
import torch
from tests.parity.fill import fill_model, inputs_of

from napari_he2st.analysis.domains.refine import majority
from napari_he2st.analysis.graphs import knn_graph
from napari_he2st.zoo.blocks.sparse import edges_in, info_nce, propagation
from napari_he2st.zoo.domains import staig


def run(case: dict) -> dict:
    config, x = case["config"], inputs_of(case)
    graph = knn_graph(x["xy"].numpy(), config["num_neigh"])
    edges = edges_in(graph).flip(1)
    near, n = torch.from_numpy(graph.toarray()), len(x["xy"])
    drop = {
        kernel: staig.drop_probability(x["img_emb"].numpy(), edges, kernel) for kernel in ("euclidean", "rbf", "cosine")
    }
    dense = {kernel: torch.zeros(n, n, dtype=torch.float64) for kernel in drop}
    for kernel, probability in drop.items():
        dense[kernel][edges[:, 0], edges[:, 1]] = probability
    model = staig.Network(
        config["in_channels"],
        config["num_hidden"],
        config["num_proj_hidden"],
        depth=config["k(num_layers)"],
        activation=config["activation"],
    ).double()
    fill_model(model, case)
    feat, graph = x["feat"].double(), propagation(edges, n).double()
    kept = [staig.drop_edges(edges, drop["euclidean"], x[f"edge_u{i}"]) for i in (1, 2)]
    z1, z2 = (
        model(feat * (1 - x[f"feat_mask{i}"]), propagation(view.T, n).double())
        for i, view in zip((1, 2), kept, strict=True)
    )
    tau = config["tau"]
    together = (x["batch"][:, None] == x["batch"]).double()
    return {
        "adj": near,
        "edge_prob": dense["euclidean"],
        "edge_prob_rbf": dense["rbf"],
        "edge_prob_cosine": dense["cosine"],
        "edge_p_list": drop["euclidean"],
        "enc": model.encoder(feat, graph),
        "emb": model(feat, graph),
        "edges_view1": kept[0],
        "edges_view2": kept[1],
        "z1": z1,
        "z2": z2,
        "loss_bias": staig.neighbour_contrast(z1, z2, near, tau, x["pseudo"]),
        "loss_plain": staig.neighbour_contrast(z1, z2, near, tau),
        "loss_infonce": info_nce(z1, z2, tau),
        "loss_single_masked": staig.neighbour_contrast(z1, z2, near, tau, together=together),
        "refined15": np.asarray(majority(x["pseudo"].numpy(), x["xy"].numpy(), 15)),
    }
