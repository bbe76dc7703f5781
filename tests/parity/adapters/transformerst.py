"""TransformerST: graph, network, losses, super-resolution, colours, vision transformer."""

from __future__ import annotations

import numpy as np
import torch
from tests.parity.fill import fill_model, inputs_of
from torch import Tensor, nn
from torch.nn import functional as F

from napari_he2st.analysis.graphs import knn_graph
from napari_he2st.zoo.blocks.sparse import graph_balance, sharpened
from napari_he2st.zoo.blocks.vit import Transformer
from napari_he2st.zoo.superres.transformerst import (
    SpotGraph,
    TransformerST,
    graph_loss,
    weigh_nearest,
)

GREY_REACH = 10


def _same_edges(ours: np.ndarray, theirs: np.ndarray) -> str | None:
    return None if set(zip(*ours.tolist(), strict=True)) == set(zip(*theirs.tolist(), strict=True)) else "other edges"


COMPARE = {"edges": _same_edges}


def run(case: dict) -> dict:
    x, config = inputs_of(case), case["config"]
    graph = knn_graph(x["xyz"].numpy(), config["k"])
    adjacency = torch.from_numpy(graph.toarray()).float()
    edges = torch.from_numpy(case["outputs"]["edges"])  # their order says which are kept
    kept = edges[:, x["keep"][: edges.shape[1]] == 1]
    model = SpotGraph(
        config["input_dim"],
        encoder_dim=config["feat_hidden1"],
        feature_dim=config["feat_hidden2"],
        graph_dim=config["gcn_hidden1"],
        embed_dim=config["gcn_hidden2"],
        n_domains=config["dec_cluster_n"],
    ).eval()
    fill_model(model, case)
    found = model(x["x"], edges, kept)
    return {
        "adj_label": (adjacency + torch.eye(len(adjacency))).numpy(),
        "norm_value": np.asarray(graph_balance(len(adjacency), float(adjacency.sum()))),
        "prune_equals_full": np.array(True),  # there is one graph
        "edges": np.stack(graph.nonzero()),
        "edges_kept": kept,
        "z": found["z"],
        "de_feat": found["decoded"],
        "q": found["q"],
        "feat_x": found["features"],
        "code": found["code"],
        "vq_loss": model.quantisation_loss(found["features"], found["code"]),
        "loss_gcn": graph_loss(found["z"], adjacency),
        "loss_rec": F.mse_loss(found["decoded"], x["x"]),
        "loss_kl": F.kl_div(found["q"].log(), sharpened(found["q"]), reduction="none").mean(),
        "vit": _vit(case, x["tok"]),
        "super": weigh_nearest(x["dis"], x["x"].abs()),
        "grey": _grey(x),
    }


def _vit(case: dict, tokens: Tensor) -> Tensor:
    config = dict(case["config"]["vit"])
    model = nn.ModuleDict({"transformer": Transformer(config.pop("dim"), **config)}).eval()
    fill_model(model, case, state="state_vit")
    return model["transformer"](tokens)


def _grey(x: dict) -> Tensor:
    model, values = TransformerST(1, window_px=2 * GREY_REACH + 1), []
    for row, column in zip(x["px"].tolist(), x["py"].tolist(), strict=True):
        around = (slice(max(0, place - GREY_REACH), place + GREY_REACH + 1) for place in (row, column))
        window = x["img"][tuple(around)].permute(2, 0, 1)[None]
        values.append(model.prepare(tiles=window, um=torch.zeros(1, 2))["colour"])
    return torch.cat(values)
