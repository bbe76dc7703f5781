"""PathoRiCH: bag network and embedder."""

from __future__ import annotations

from tests.parity.fill import corner, fill_model, inputs_of

from napari_he2st.zoo.slide_level.pathorich import PathoRiCH, TileEmbedder, slide_probability


def run(case: dict) -> dict:
    config, x = case["config"], inputs_of(case)["x"]
    if "backbone" in config:
        network = TileEmbedder(config["output_class"]).eval()
        fill_model(network, case)
        return dict(zip(("features", "classes"), network(x), strict=True))
    model = PathoRiCH(config["out_size"], feature_dim=config["in_size"], dropout=config["dropout_v"]).eval()
    fill_model(model, case)
    instance, bag, attention, slide, raw = model(x)
    return {
        "instance": instance,
        "bag": bag,
        "A": attention,
        "B": corner(slide[0], case["outputs"]["B"]),
        "A_raw": raw,
        "prob": slide_probability(instance, bag),
    }
