"""Hist2ST: network, likelihoods, distillation, graphs of spots."""

from __future__ import annotations

from tests.parity.fill import corner, fill_model, grid_graph, inputs_of, upsampled
from torch import Tensor

from napari_he2st.zoo.blocks.graph import nearest_graph
from napari_he2st.zoo.blocks.self_distilled import distil, nb_loss, zinb_loss
from napari_he2st.zoo.regression.hist2st import Hist2ST


def run(case: dict) -> dict:
    x = inputs_of(case)
    if "coord" in x:
        return {name: _graph(x["coord"], name) for name in case["outputs"]}
    return _network(case, x) if "patches" in x else _losses(x)


def _graph(positions: Tensor, name: str) -> Tensor:
    """``na_k4``, ``std_k4``, ``grid_k8``: what is pruned, and how many neighbours there are (0: all)."""
    tag, k = name.split("_k")
    return nearest_graph(positions, int(k) or len(positions), within={"na": None, "std": "std", "grid": 2.0}[tag])


def _network(case: dict, x: dict) -> dict:
    config = case["config"]
    likelihood = None if not config["zinb"] else "nb" if config["nb"] else "zinb"
    model = Hist2ST(
        config["n_genes"],
        tile_px=config["fig_size"],
        patch_px=config["patch_size"],
        channels=config["channel"],
        kernel=config["kernel_size"],
        conv_depth=config["depth1"],
        depth=config["depth2"],
        graph_depth=config["depth3"],
        heads=config["heads"],
        dropout=config["dropout"],
        bins=config.get("n_pos", 64),
        likelihood=likelihood,
        n_views=config["bake"],
        policy=config["policy"],
        faithful=True,
    ).eval()
    fill_model(model, case)
    slide = {
        "patches": upsampled(x["patches"], config["fig_size"]),
        "centers": x["centers"],
        "adj": grid_graph(x["loc"]),
    }
    pred, counts, hidden = model(**slide)
    out = {"pred": pred, "hidden": hidden}
    if likelihood == "zinb":
        out |= dict(zip(("mean", "disp", "pi"), counts, strict=True))
    elif likelihood == "nb":
        out |= dict(zip(("hr", "hp"), counts, strict=True)) | dict(zip(("r", "p"), counts, strict=True))
    if config["bake"]:
        out["coef"] = model(**slide, aug=True)[2]
    whole = {f"{name}_mean": out[name].mean() for name in ("pred", "hidden")}
    whole |= {f"{name}_std": out[name].std(correction=0) for name in ("pred", "hidden")}
    return {name: corner(out[name], like) for name, like in case["outputs"].items() if name in out} | whole


def _losses(x: dict) -> dict:
    return {
        "zinb": zinb_loss(x["count"], x["mean"], x["disp"], x["pi"], x["sf"]),
        "nb": nb_loss(x["count"], x["r"], x["p"]),
        "distilled": distil(x["bake_x"], x["bake_coef"]),
    }
