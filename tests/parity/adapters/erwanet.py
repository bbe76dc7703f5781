"""ErwaNet: network without the slide's vector, and a layer that is given one."""

from __future__ import annotations

from tests.parity.fill import corner, fill_model, inputs_of

from napari_he2st.zoo.regression.erwanet import ErwaNet


def run(case: dict) -> dict:
    config, x = case["config"], inputs_of(case)
    n_genes, dim = next(shape for key, shape, _ in case["state"] if key == "lin.weight")
    model = ErwaNet(
        n_genes, feature_dim=config["mdim"], dim=dim, depth=config["num_layers"], pool_heads=0, faithful=True
    ).eval()
    fill_model(model, case)
    edges = tuple(x[kind] for kind in ("near", "close", "sim"))
    pred = model(x["window"], x["pos"], *edges)
    state = model.post_plot_transform(model.pretransform_win(x["window"]))
    values = {
        "pred": pred,
        "layer0_with_global": model.plot_convs[0](state, x["pos"], edges, x["gvec"]),
        "pred_mean": pred.mean(),
        "pred_std": pred.std(correction=0),
    }
    return {name: corner(values[name], like) for name, like in case["outputs"].items()}
