"""GIST: graph, network with both tile branches, losses, matching of clusters to classes."""

from __future__ import annotations

import numpy as np
import torch
from tests.parity.fill import fill_model, inputs_of
from torch.nn import functional as F

from napari_he2st.analysis.metrics.labels import matched_groups
from napari_he2st.zoo.blocks.sparse import edges_in
from napari_he2st.zoo.domains.gist import Network, apart, reconstruction_loss


def run(case: dict) -> dict:
    config, x = case["config"], inputs_of(case)
    edges = edges_in(apart(x["xy"].numpy(), config["rad_cutoff"]))
    model = Network(*config["hidden_dims"]).eval()
    fill_model(model, case)
    gz, iz, cz, gout, iout, cout = model(x["gene"], x["img"], edges)
    other = Network(*config["hidden_dims"], rebuild_features=True).eval()
    width = config["hidden_dims"][1]
    shapes = {key: [width, *shape[1:]] for key, shape, _ in case["state"] if key.startswith("imgconv4")}
    fill_model(other, {**case, "state": [[key, shapes.get(key, shape), dtype] for key, shape, dtype in case["state"]]})
    return {
        "edge_sorted": np.array(sorted(edges.tolist())),
        "gz": gz,
        "iz": iz,
        "cz": cz,
        "gout": gout,
        "iout": iout,
        "cout": cout,
        "iout_imgloss": other(x["gene"], x["img"], edges)[4],
        "losses": torch.stack([F.mse_loss(out, x["gene"]) for out in (gout, iout, cout)]),
        "loss": reconstruction_loss(gout, iout, cout, x["gene"]),
        "match": np.array(matched_groups(x["pred"].numpy(), x["gt"].numpy())),
    }
