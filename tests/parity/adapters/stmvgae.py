"""STMVGAE: expression of similar spots, graphs, network, losses, consensus."""

from __future__ import annotations

import torch
from tests.parity.fill import fill_model, inputs_of

from napari_he2st.analysis.domains.consensus import average_linkage, co_membership
from napari_he2st.zoo.blocks.sparse import divergence, graph_balance, propagation, sharpened
from napari_he2st.zoo.domains import stmvgae

VIEWS = {"Radius": "radius", "KNN": "knn", "Genes": "cosine", "Spearmanr": "spearman"}


def run(case: dict) -> dict:
    config, x = case["config"], inputs_of(case)
    n, xy = len(x["x"]), x["xy"].numpy()
    adjacent = stmvgae.similar_mean(x["x"].numpy(), x["img"].numpy())
    out = {"adjacent": adjacent, "augmented": x["x"].numpy() + 0.2 * adjacent}
    graph, truth, balance = torch.empty(0), torch.empty(0), 0.0
    for name, options in config.items():
        if not isinstance(options, dict) or name.split("_")[0] not in VIEWS:
            continue
        view = VIEWS[name.split("_")[0]]
        edges = stmvgae.view_edges(
            view,
            xy,
            xy,
            k=options.get("k_cutoff", 12),
            reach=options.get("rad_cutoff", 0.0),
            at_most=options.get("max_neigh", 50),
        )
        near = stmvgae.undirected(edges, n)
        graph, truth, balance = propagation(edges, n), near.to_dense(), graph_balance(n, near._nnz() - n)
        out |= {f"edges_{name}": edges, f"adj_label_{name}": truth, f"norm_{name}": balance}
    model = stmvgae.Network(
        config["input_dim"],
        encoder_dims=config["encoder_hidden"],
        graph_dims=config["conv_hidden"],
        decoder_dims=config["decoder_hidden"],
        n_clusters=config["dec_cluster_n"],
        alpha=config["alpha"],
    ).eval()
    fill_model(model, case)
    found = model(x["x"], graph, x["eps"])
    p, rebuilt = sharpened(found["q"]), stmvgae.rebuilt_graph(found["z"])
    clusters = divergence(p, found["q"])
    terms = stmvgae.loss_terms(found, x["x"], rebuilt, truth, balance)
    before = stmvgae.pretraining_loss(found, x["x"], rebuilt, truth, balance)
    out |= {name: found[name] for name in ("h", "conv", "mu", "logvar", "z", "q")}
    out |= {"rec_adj": rebuilt, "rec_x": found["rebuilt"], "p": p}
    out |= {"losses": torch.stack([*terms, clusters]), "loss_pre": before, "loss_fit": before + clusters}
    together = co_membership(x["labels"].numpy())
    return out | {"consensus": together, "linkage": average_linkage(together)}
