"""HisToSGE: the network, on single spots and on runs of them."""

from __future__ import annotations

from tests.parity.fill import corner, fill_model, inputs_of

from napari_he2st.zoo.superres.histosge import HisToSGE


def run(case: dict) -> dict:
    config, x = case["config"], inputs_of(case)
    model = HisToSGE(
        config["n_genes"],
        feature_dim=config["in_features"],
        depth=config["depth"],
        heads=config["heads"],
        dropout=config["dropout"],
    ).eval()
    fill_model(model, case)
    h, pred = model(x["x"], x["c"])
    out = {"h": h, "pred": pred}
    moments = {"mean": pred.mean(), "std": pred.std()}
    return {name: corner(out[name], like) for name, like in case["outputs"].items() if name in out} | moments
