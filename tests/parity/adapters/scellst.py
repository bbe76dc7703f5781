"""sCellST: cells, bags and both losses."""

from __future__ import annotations

from tests.parity.fill import fill_model, inputs_of
from torch.nn import functional as F

from napari_he2st.zoo.blocks.graph import scatter_mean
from napari_he2st.zoo.cells.scellst import SCellST

_TASKS = {"nb_mean_regression": "nb", "nb_total_regression": "nb-total"}


def run(case: dict) -> dict:
    x, config = inputs_of(case), case["config"]
    likelihood = _TASKS.get(config.get("task_type", ""))
    model = SCellST(
        config["output_dim"],
        feature_dim=config["input_dim"],
        dims=tuple(config["hidden_dim"]),
        dropout=config["dropout_rate"],
        likelihood=likelihood,
    ).eval()
    fill_model(model, case)
    cell = model(x["x"])
    bag = scatter_mean(cell, x["ptr"], len(x["y"]))
    out = {"cell": cell, "bag": bag}
    if likelihood is None:
        return out | {"loss": F.mse_loss(bag, x["y"])}
    mean, _ = model.distribution(bag, x["sf"])
    return out | {"loss": model.negative_log_likelihood(bag, x["y"].float(), x["sf"]), "nb_mean": mean}
