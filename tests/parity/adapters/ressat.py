"""ResSAT: network before and after attention, loss and score."""

from __future__ import annotations

import numpy as np
from tests.parity.fill import corner, fill_model, inputs_of

from napari_he2st.analysis.metrics import METRICS
from napari_he2st.zoo.blocks.losses import nan_mse
from napari_he2st.zoo.regression.ressat import ResSAT


def _correlation(ours: np.ndarray, theirs: np.ndarray) -> str | None:
    """After attention the predictions of a gene differ by 1e-4 at values near 1, some hundred steps of float32.

    The stored correlations carry that rounding: in float64 the same network gives values 4e-4 away.
    """
    worst = np.abs(ours - theirs).max()
    return None if ours.shape == theirs.shape and worst < 2e-3 else f"differs by {worst:.2e}"


COMPARE = {"corr": _correlation}
TRUNKS = {
    ("BasicBlock", 1, 1, 1, 1): "resnet10",
    ("BasicBlock", 2, 2, 2, 2): "resnet18",
    ("BasicBlock", 3, 4, 6, 3): "resnet34",
    ("Bottleneck", 3, 4, 6, 3): "resnet50",
    ("Bottleneck", 3, 4, 23, 3): "resnet101",
    ("Bottleneck", 3, 8, 36, 3): "resnet152",
}


def run(case: dict) -> dict:
    config, x = case["config"], inputs_of(case)
    model = ResSAT(config["output_dim"], trunk=TRUNKS[config["block"], *config["n_blocks"]]).eval()
    fill_model(model, case)
    feature, pred = model.features(x["x"]), model(x["x"])
    n, wanted = len(pred), case["outputs"]
    return {
        "pred_resnet": model.fc(feature),
        "feature": corner(feature, wanted["feature"]),
        "pred": pred,
        "loss": nan_mse(pred, x["y"]),
        "corr": np.nan_to_num(METRICS["pcc"].function(pred.numpy(), x["y"].numpy()))[: len(wanted["corr"])]
        * (n - 1)
        / n,
    }
