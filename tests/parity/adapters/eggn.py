"""EGGN: network, and one block between exemplars and spots."""

from __future__ import annotations

from tests.parity.fill import corner, fill_model, inputs_of

from napari_he2st.zoo.regression.eggn import EGGN


def run(case: dict) -> dict:
    config, x = case["config"], inputs_of(case)
    width = x["window"].shape[1]
    n_genes, dim = next(shape for key, shape, _ in case["state"] if key == "lin.weight")
    model = EGGN(n_genes, feature_dim=width, dim=dim, depth=config["num_layers"], faithful=True).eval()
    fill_model(model, case)
    pred = model(x["window"], x["example"], x["near"], x["refer"], x["close"])
    bridge = model.convs[0].convs["example__refer__window"]
    src, dst = bridge(x["example"][:, :dim], x["window"], x["example"][:, -dim:], x["refer"])
    values = {
        "pred": pred,
        "egb_src": src,
        "egb_dst": dst,
        "pred_mean": pred.mean(),
        "pred_std": pred.std(correction=0),
    }
    return {name: corner(values[name], like) for name, like in case["outputs"].items()}
