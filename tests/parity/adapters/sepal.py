"""SEPAL: graph networks, image encoder, and what is done to the expression."""

from __future__ import annotations

import re

import numpy as np
import torch
from tests.parity.fill import corner, fill_model, inputs_of

from napari_he2st.zoo.regression.sepal import SEPAL, ImageEncoder, fill_zeros, log2_tpm, position_table

OPERATORS = {"GCNConv": "gcn", "GraphConv": "graphconv"}


def run(case: dict) -> dict:
    x = inputs_of(case)
    if "gene_length" in x:
        return _expression(case, x)
    return _graph(case, x) if "embeddings" in x else _image(case, x)


def _widths(sizes: list[int]) -> list[int]:
    """Upstream's [in, …, out] without its input; [-1] means no layer."""
    return [] if sizes[0] == -1 else sizes[1:]


def _graph(case: dict, x: dict) -> dict:
    config = case["config"]
    head = config["h_pred_head"][0] != -1
    graph = _widths(config["h_graph"])
    model = SEPAL(
        x["predictions"].shape[1],
        dim=x["embeddings"].shape[1],
        depth=1,
        preprocess=_widths(config["h_preprocess"]),
        graph=graph if head else graph[:-1],
        head=head,
        operator=OPERATORS[config["graph_operator"]],
        add_positions=config["sum_positions"],
    ).eval()
    fill_model(model.correction, case)
    graphs, first = [name for name in case["inputs"] if name.startswith("dpos_")], 0
    corrected, centres = [], []
    for name in graphs:
        steps = x[name].flip(-1)
        adjacency = ((steps[:, None] - steps).abs().amax(-1) == 1).float()
        nodes = model.with_positions(x["embeddings"][first : first + len(steps)], steps)
        exists = torch.ones(1, len(steps), dtype=torch.bool)
        corrected.append(model.correction(nodes[None], adjacency[None], exists)[0])
        centres.append(x["predictions"][first])
        first += len(steps)
    gnn = torch.stack(corrected)
    delta = gnn + torch.stack(centres)
    out = {"gnn": gnn, "delta": delta, "final": delta + x["used_mean"]}
    out["pos_table"] = position_table(1, x["embeddings"].shape[1])[..., ::96]
    out |= {"gnn_mean": gnn.mean(), "gnn_std": gnn.std(correction=0)}
    return {name: corner(value, case["outputs"][name]) for name, value in out.items() if name in case["outputs"]}


def _image(case: dict, x: dict) -> dict:
    (image,) = (value for value in x.values() if value.ndim == 4)
    shapes = {key: shape for key, shape, _ in case["state"]}
    n_genes, dim = shapes["encoder.heads.head.weight"]
    depth = len([key for key in shapes if key.endswith(".self_attention.in_proj_weight")])
    model = ImageEncoder(n_genes, dim=dim, depth=depth, heads=12, tile_px=image.shape[-1]).eval()
    fill_model(model, case)
    feature, pred = model(image)
    out = {}
    for name, like in case["outputs"].items():
        value = feature if re.search("emb|feat", name) else pred
        if like.ndim == 0:
            out[name] = value.std(correction=0) if name.endswith("std") else value.mean()
        else:
            out[name] = corner(value, like)
    return out


def _expression(case: dict, x: dict) -> dict:
    x = {name: value.numpy() for name, value in x.items()}
    given = np.where(x["drop"] < 0.6, 0, x["log1p"])
    denoised = fill_zeros(given, x["pos"], case["config"]["n_dist_max"])
    n_train = int(re.search(r"first (\d+) rows", case["call"])[1])
    mean = denoised[:n_train].mean(0)
    return {
        "input": given,
        "denoised": denoised,
        "mean": mean,
        "deltas": denoised - mean,
        "tpm_log2": log2_tpm(x["count"], x["gene_length"]),
    }
