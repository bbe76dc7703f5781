"""iSCALE: network and merged captures."""

from __future__ import annotations

from tests.parity.fill import corner, fill_model, inputs_of
from torch import tensor

from napari_he2st.zoo.blocks.losses import nan_mse
from napari_he2st.zoo.scale import scale_of
from napari_he2st.zoo.superres.iscale import IScale, merge_spots

SLIDE_PX, CELLS, RADIUS = (600, 400), (30, 40), 2.3


def run(case: dict) -> dict:
    x = inputs_of(case)
    if "locs" in x:
        counts, scale = x["cnts"].numpy(), scale_of("minmax")
        cells, values = merge_spots(
            (x["locs"] * tensor(SLIDE_PX)).numpy(),
            scale.transform(counts, scale.fit(counts)),
            distance_px=float(x["dist"]),
            radius=case["config"].get("radius", RADIUS),
            shape=CELLS,
        )
        return {"cnts": values, "locs": cells}
    model = IScale(case["config"]["n_out"], feature_dim=case["config"]["n_inp"]).eval()
    fill_model(model, case)
    y = model(x["x"])
    loss = nan_mse(y.mean(1), x["y_mean"])
    return {"y": corner(y, case["outputs"]["y"]), "y_mean": y.mean(), "y_std": y.std(), "loss": loss}
