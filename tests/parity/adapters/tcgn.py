"""TCGN: network, graphs and their layers."""

from __future__ import annotations

import torch
from tests.parity.fill import corner, fill_model, inputs_of

from napari_he2st.zoo.regression.tcgn import TCGN, strongest_edges

NAMES = {
    "embed_dims": "dims",
    "depths": "depths",
    "num_heads": "heads",
    "sr_ratios": "reductions",
    "stem_channel": "stem_dim",
    "fc_dim": "fc_dim",
}


def run(case: dict) -> dict:
    config, image, wanted = case["config"], inputs_of(case)["img"], case["outputs"]
    ratio = config.get("mlp_ratios", 3.6)
    model = TCGN(
        config["num_classes"],
        **{ours: config[theirs] for theirs, ours in NAMES.items() if theirs in config},
        mlp_ratio=ratio[0] if isinstance(ratio, list) else ratio,
        image_px=image.shape[-1],
        faithful=True,
    ).eval()
    fill_model(model, case)
    seen = {}
    for name in ("gnn_block0", "gnn_block1", "gnn_block0.censnet", "gnn_block0.MHSA"):
        model.get_submodule(name).register_forward_hook(lambda _m, _i, out, name=name: seen.update({name: out}))
    predicted = model(image)
    nodes, edges, _ = seen["gnn_block0.censnet"]
    graph = seen["gnn_block0.MHSA"][0]
    n = graph.shape[-1]
    ends = strongest_edges(graph.mean(1), 4 * n, extend_ties=True)
    kept = torch.zeros(len(graph), n, n)
    kept[torch.arange(len(graph))[:, None], ends[..., 0], ends[..., 1]] = 1
    whole = {
        "pred": predicted,
        "gnn0": seen["gnn_block0"],
        "gnn1": seen["gnn_block1"],
        "censnet_nodes": nodes,
        "censnet_edges": edges,
        "mhsa_graph": graph * kept[:, None],
    }
    return {name: corner(value, wanted[name]) for name, value in whole.items() if name in wanted} | {
        "pred_mean": predicted.mean(),
        "pred_std": predicted.std(correction=0),
        "gnn0_mean": seen["gnn_block0"].mean(),
        "gnn0_std": seen["gnn_block0"].std(correction=0),
    }
