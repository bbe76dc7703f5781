"""M2ORT: network and image pyramid."""

from __future__ import annotations

from tests.parity.fill import corner, fill_model, inputs_of

from napari_he2st.zoo.regression.m2ort import M2ORT


def run(case: dict) -> dict:
    config, x = case["config"], inputs_of(case)
    model = M2ORT(
        config["num_classes"],
        dim=config["dim"],
        depth=config["depth"],
        heads=config["heads"],
        dim_head=config.get("dim_head", 64),
        mlp_dim=config["mlp_dim"],
        pool=config.get("pool", "cls"),
        tile_px=x["img"].shape[-1] if "img" in x else 224,
    ).eval()
    fill_model(model, case)
    out, wanted = {}, case["outputs"]
    if "img" in x:
        pred = model(x["img"], x["img2"], x["img3"])
        out |= {"pred": corner(pred, wanted["pred"]), "pred_mean": pred.mean(), "pred_std": pred.std(correction=0)}
    if "patch" in x:
        levels = model.prepare(tiles=x["patch"].permute(2, 0, 1)[None])
        out |= {
            "pred_from_patch": corner(model(**levels), wanted["pred_from_patch"]),
            "img2_probe": levels["half"][0, :, :4, :4],
            "img3_probe": levels["quarter"][0, :, :4, :4],
        }
    return out
