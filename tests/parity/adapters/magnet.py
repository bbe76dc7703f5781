"""MagNet: graph of bins and the three levels."""

from __future__ import annotations

import re

from tests.parity.fill import fill_model, inputs_of

from napari_he2st.zoo.blocks.graph import nearest_graph
from napari_he2st.zoo.regression.magnet import N_NEIGHBOURS, MagNet


def run(case: dict) -> dict:
    x = inputs_of(case)
    n_genes, dim = next(shape for key, shape, _ in case["state"] if key == "gene_head_250.1.weight")
    model = MagNet(n_genes, dim=dim, faithful=True, encoder="efficientnet-lite0").eval()
    fill_model(model, case)
    k = re.search(r"calcADJ\(coord, ?k=(\d+)\)", case["call"])
    adjacency = nearest_graph(x["coord"], int(k[1]) if k else N_NEIGHBOURS)
    rest = (x[name] for name in ("f512", "f224", "g512", "g224", "a512", "a224"))
    bins, regions, tiles = model(x["x"], adjacency, *rest)
    return {"adj": adjacency, "out_112": bins, "out_512": regions, "out_224": tiles}
