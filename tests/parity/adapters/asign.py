"""ASIGN: networks for a section and a volume, graphs, losses."""

from __future__ import annotations

import re

from tests.parity.fill import fill_model, inputs_of

from napari_he2st.zoo.blocks.graph import nearest_graph
from napari_he2st.zoo.blocks.losses import nan_mse, spot_pcc_loss
from napari_he2st.zoo.blocks.tile_graphs import N_NEIGHBOURS
from napari_he2st.zoo.regression.asign import ASIGN, most_similar, same_section


def run(case: dict) -> dict:
    x = inputs_of(case)
    if "sim" in x:
        return _graphs(x)
    return _losses(x) if "pred" in x else _network(case, x)


def _network(case: dict, x: dict) -> dict:
    n_genes, dim = next(shape for key, shape, _ in case["state"] if key == "gene_head_250.1.weight")
    volume = any(key == "alpha" for key, _, _ in case["state"])
    model = ASIGN(n_genes, dim=dim, volume=volume, faithful=True, encoder="efficientnet-lite0").eval()
    order = list(model.state_dict())
    fill_model(model, {**case, "state": sorted(case["state"], key=lambda entry: order.index(entry[0]))})
    adjacency = x.get("adj")
    if adjacency is None:
        k = re.search(r"k ?= ?(\d+)\)", case["call"])
        adjacency = nearest_graph(x["coord"], int(k[1]) if k else N_NEIGHBOURS)
    features, nodes, graphs = ((x[f"{kind}512"], x[f"{kind}1024"]) for kind in "fga")
    given = (x.get("x"), adjacency.float(), features, nodes, graphs)
    if volume:
        known = next(value for name, value in x.items() if re.search("known|label", name))
        spots, regions, wider = model.impute(*given, known)
    else:
        spots, regions, wider = model(*given)
    return {"adj": adjacency, "out_224": spots, "out_512": regions, "out_1024": wider}


def _graphs(x: dict) -> dict:
    similarity = (x["sim"] + x["sim"].T) / 2
    similarity[:4, :4] = 0
    similarity[4:, 4:] = 0
    return {
        "knn4": nearest_graph(x["coord"], 4),
        "knn4_std": nearest_graph(x["coord"], 4, within="std"),
        "knn4_grid": nearest_graph(x["coord"], 4, within=2.0),
        "same_layer": same_section(similarity, x["pos"], 2),
        "sim_topk": most_similar(similarity, 3),
    }


def _losses(x: dict) -> dict:
    pcc, mse = spot_pcc_loss(x["pred"], x["target"]), nan_mse(x["pred"], x["target"])
    return {"pcc_loss": pcc, "mse": mse, "combined": 0.5 * pcc + 0.5 * mse, "pcc": 1 - pcc}
