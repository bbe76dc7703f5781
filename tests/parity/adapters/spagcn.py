"""SpaGCN: places and weights of spots, network, training, refinement."""

from __future__ import annotations

import numpy as np
import torch
from tests.parity.fill import fill_model, inputs_of

from napari_he2st.analysis.domains.refine import outvoted
from napari_he2st.zoo.blocks.sparse import sharpened
from napari_he2st.zoo.domains import spagcn
from napari_he2st.zoo.domains.spagcn import Network, SpaGCN, clustering_loss

INFERENCE = False


def _relative(ours: np.ndarray, theirs: np.ndarray) -> str | None:
    """Distances of float32 positions."""
    return None if np.allclose(ours, theirs, rtol=2e-6, atol=1e-4) else f"{np.abs(ours - theirs).max()}"


COMPARE = {"adj|adj_b.*|adj_xy": _relative}


def run(case: dict) -> dict:
    x = inputs_of(case)
    if "image" in x:
        return _graph(case, x)
    if "pred" in x:
        labels, xy = x["pred"].numpy(), x["xy"].numpy()
        return {"hexagon": outvoted(labels, xy, 6), "square": outvoted(labels, xy, 4)}
    return _network(case, x)


def _colours(x: dict, field: int) -> np.ndarray:
    half = round(field / 2)
    image, rows, columns = x["image"].numpy(), x["x_pixel"].numpy(), x["y_pixel"].numpy()
    windows = (
        image[max(r - half, 0) : r + half + 1, max(c - half, 0) : c + half + 1]
        for r, c in zip(rows, columns, strict=True)
    )
    return np.array([window.mean(axis=(0, 1), dtype=np.float64) for window in windows])


def _graph(case: dict, x: dict) -> dict:
    config = case["config"]
    xy = np.stack([x["x_pixel"].numpy(), x["y_pixel"].numpy()], axis=1)
    colours = _colours(x, config["b"])
    distance = spagcn.distances(spagcn.places(xy, colours, config["s"]))
    length = spagcn.length_scale(distance, config["p"])
    out = {
        "colour": spagcn.colour_depth(colours),
        "adj": distance,
        "adj_xy": spagcn.distances(spagcn.places(xy, None, 1)),
        "l": length,
        "p_at_l": spagcn.share_at(distance, length),
        "adj_exp": spagcn.gaussian(distance, length),
    }
    for name in case["outputs"]:
        if name.startswith("adj_b"):
            field, weight = name.removeprefix("adj_b").split("_s")
            out[name] = spagcn.distances(spagcn.places(xy, _colours(x, int(field)), float(weight)))
    return out


def _network(case: dict, x: dict) -> dict:
    config = case["config"]
    size = config["nfeat"], config["nhid"], config["n_clusters"]
    model = Network(*size, alpha=config["alpha"])
    fill_model(model, case)
    z, q = model(x["x"], x["adj"])
    p = sharpened(q)
    loss = clustering_loss(p, q)
    loss.backward()
    trained = Network(*size, alpha=config["alpha"])
    fill_model(trained, case)
    labels, fit_q = SpaGCN(lr=0.05, epochs=30, tolerance=0.0).fit(trained, x["x"], x["adj"], x["init_label"])
    with torch.no_grad():
        out = {"z": z, "q": q, "p": p, "loss": loss, "grad_gc_weight": model.gc.weight.grad}
        out |= {"fit_mu": trained.mu, "fit_weight": trained.gc.weight, "fit_bias": trained.gc.bias}
        out |= {"fit_q": fit_q, "fit_label": torch.from_numpy(labels)}
        return {name: value.detach().numpy() for name, value in out.items()}
