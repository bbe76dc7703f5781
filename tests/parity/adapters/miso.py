"""MISO: both stages and the loss of the first."""

from __future__ import annotations

from tests.parity.fill import corner, fill_model, inputs_of

from napari_he2st.zoo.superres.miso import LocalAttention, Miso, _nearest, cosine_loss

PADDED = 2


def run(case: dict) -> dict:
    x = inputs_of(case)
    if "pred" in x:
        both = cosine_loss(x["pred"], x["label"])
        return {"loss": both, "loss3d": cosine_loss(x["pred"][None], x["label"][None])}
    return _spots(case, x) if "coord" in x else _patches(case, x)


def _spots(case: dict, x: dict) -> dict:
    config = case["config"]
    model = LocalAttention(
        config["input_dim"],
        config["output_dim"],
        dim=config["emb_dim"],
        depth=config["depth"],
        heads=config["num_heads"],
        dim_head=config["d_model"] // config["num_heads"],
    ).eval()
    fill_model(model, case)
    near = _nearest(x["coord"], case["outputs"]["neighbors"].shape[1])
    padded = x["x"].clone()
    padded[:, -PADDED:] = 0
    masked = model(padded, near[None], padded.norm(dim=-1, keepdim=True) == 0)
    return {
        "neighbors": near,
        "out": model(x["x"], near[None])[0],
        "out_masked_first7": masked[0, :-PADDED],
        "isnan": masked.isnan().any(),
    }


def _patches(case: dict, x: dict) -> dict:
    config = case["config"]
    model = Miso(
        config["output_dim"], encoder="colour", feature_dim=config["input_dim"], hidden=config["hidden"]
    ).eval()
    fill_model(model, case)
    patch = model.patches(x["x"])[:, ::32]
    return {"out": model(x["x"]), "patch": corner(patch, case["outputs"]["patch"])}
