"""THItoGene: network with either form of the graph, dynamic convolution and capsules."""

from __future__ import annotations

import torch
from tests.parity.fill import corner, fill_model, grid_graph, inputs_of, upsampled

from napari_he2st.zoo.regression.thitogene import THItoGene


def run(case: dict) -> dict:
    config, x = case["config"], inputs_of(case)
    model = THItoGene(
        config["n_genes"],
        n_capsules=config["caps"],
        capsule_dim=config["route_dim"],
        depth=config["n_layers"],
        heads=config["heads"][0],
        graph_heads=config["heads"][1],
        faithful=True,
    ).eval()
    fill_model(model, case)
    patches, graph = upsampled(x["patches"], 112), grid_graph(x["loc"])
    pred = model(patches, x["centers"], graph[None])
    odconv = torch.relu(model.odconv2d(patches[0]))
    caps = model.caps_layer(odconv)
    probes = {
        "pred": pred[0],
        "pred_adj2d": model(patches, x["centers"], graph),
        "odconv": odconv,
        "caps": caps,
    }
    whole = {f"{name}_mean": value.mean() for name, value in {"pred": pred, "caps": caps}.items()}
    whole |= {f"{name}_std": value.std(correction=0) for name, value in {"pred": pred, "caps": caps}.items()}
    return {name: corner(probes[name], like) for name, like in case["outputs"].items() if name in probes} | whole
