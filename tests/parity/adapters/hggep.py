"""HGGEP: network, its image features, and the hypergraph by itself."""

from __future__ import annotations

import numpy as np
from tests.parity.fill import corner, fill_model, grid_graph, inputs_of, upsampled

from napari_he2st.zoo.regression.hggep import HGGEP, hyperedges


def _rounding(ours: np.ndarray, theirs: np.ndarray) -> str | None:
    """The case enlarges one branch 200 times, and with it rounding.

    In float64 this network is 4e-5 away from the stored predictions, as far as it is in float32.
    """
    worst = np.abs(ours - theirs).max()
    allowed = 5e-5 * max(1, np.abs(theirs).max())
    return None if ours.shape == theirs.shape and worst <= allowed else f"differs by {worst:.2e}"


COMPARE = {"pred|hidden|mean|down5": _rounding}


def run(case: dict) -> dict:
    config, x = case["config"], inputs_of(case)
    likelihood = None if not config["zinb"] else "nb" if config["nb"] else "zinb"
    model = HGGEP(
        config["n_genes"],
        dropout=config["dropout"],
        bins=config["n_pos"],
        likelihood=likelihood,
        n_views=config["bake"],
        faithful=True,
    ).eval()
    fill_model(model, case)
    graph = grid_graph(x["loc"])
    slide = {"patches": upsampled(x["patches"], 112), "centers": x["centers"], "adj": graph}
    pred, counts, hidden = model(**slide)
    incidence, score = hyperedges(x["feat"], graph, faithful=True)
    probes = {
        "pred": pred,
        "hidden": hidden,
        "hyper_index": incidence.T,
        "hyper_weight": score,
        "hyper_out": model.hgnn(x["feat"], incidence, score),
        "gem": model.conv0(slide["patches"][0]),
    }
    probes |= dict(zip(("down4", "down5", "down6"), model.scales(slide["patches"][0]), strict=True))
    if likelihood == "zinb":
        probes |= dict(zip(("mean", "disp", "pi"), counts, strict=True))
    elif likelihood == "nb":
        probes |= dict(zip(("hr", "hp"), counts, strict=True)) | dict(zip(("r", "p"), counts, strict=True))
    if config["bake"]:
        probes["coef"] = model(**slide, aug=True)[2]
    whole = {f"{name}_mean": probes[name].mean() for name in ("pred", "hidden")}
    whole |= {f"{name}_std": probes[name].std(correction=0) for name in ("pred", "hidden")}
    return {name: corner(probes[name], like) for name, like in case["outputs"].items() if name in probes} | whole
