"""BrST-Net: both heads, pooled feature, and the mean correlation."""

from __future__ import annotations

from tests.parity.fill import corner, fill_model, inputs_of

from napari_he2st.analysis.metrics import METRICS
from napari_he2st.zoo.regression.brstnet import BrSTNet


def run(case: dict) -> dict:
    x, config = inputs_of(case), case["config"]
    if "true" in x:
        return {"acc": METRICS["pcc"].function(x["pred"].numpy(), x["true"].numpy()).mean()}
    model = BrSTNet(config["gene_filter"], n_aux=config["aux_nums"]).eval()
    fill_model(model, case)
    wanted = case["outputs"]
    main, aux = model(x["img"])
    return {
        "main": corner(main, wanted["main"]),
        "aux": corner(aux, wanted["aux"]),
        "feature": corner(model.features(x["img"]), wanted["feature"]),
        "main_mean": main.mean(),
        "main_std": main.std(correction=0),
        "aux_mean": aux.mean(),
        "aux_std": aux.std(correction=0),
    }
