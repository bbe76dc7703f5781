"""EGN: network, retrieval and loss."""

from __future__ import annotations

import torch
from tests.parity.fill import corner, fill_model, inputs_of

from napari_he2st.zoo.blocks.exemplars import nearest_exemplars
from napari_he2st.zoo.blocks.losses import nan_mse, spot_pcc_loss
from napari_he2st.zoo.regression.egn import EGN


def run(case: dict) -> dict:
    x = inputs_of(case)
    return _network(case, x) if "img" in x else _retrieval(case, x)


def _network(case: dict, x: dict) -> dict:
    config = case["config"]
    model = EGN(
        x["op_count"].shape[-1],
        feature_dim=config["mdim"],
        dim=config["dim"],
        depth=config["depth"],
        heads=config["heads"],
        dim_head=config.get("dim_head", 64),
        mlp_dim=config["mlp_dim"],
        bridge_heads=config["bhead"],
        bridge_dim=config["bdim"],
        every=config["bfre"],
        projection_depth=config["player"],
        linear_projection=config["linear_projection"],
        tile_px=config["image_size"],
    ).eval()
    fill_model(model, case)
    given = (x["img"], x["p_feature"], x["op_feature"], x["op_count"])
    pred, feature = model(*given), model.feature(*given)
    like = case["outputs"]
    first = 1000 if feature.shape[1] >= 1064 else 0
    return {
        "pred": corner(pred, like["pred"]),
        "feature": corner(feature[:, first:], like["feature"]),
        "pred_mean": pred.mean(),
        "pred_std": pred.std(correction=0),
        "feature_mean": feature.mean(),
        "feature_std": feature.std(correction=0),
    }


def _retrieval(case: dict, x: dict) -> dict:
    banks = [x[name] for name in sorted(x) if name.startswith("bank")]
    slide = torch.cat([torch.full((len(bank),), number + 1) for number, bank in enumerate(banks)])
    row = torch.cat([torch.arange(len(bank)) for bank in banks])
    bank = {"features": torch.cat(banks).numpy(), "slide": slide.numpy()}
    out = {"corrloss": spot_pcc_loss(x["pred"].T, x["count"].T), "mse": nan_mse(x["pred"], x["count"])}
    for p in (1, 2):
        distance, found = nearest_exemplars(x["query"], bank, case["config"]["numk"], p)
        out |= {f"top_slide_l{p}": slide[found], f"top_spot_l{p}": row[found], f"top_dist_l{p}": distance}
    return out
