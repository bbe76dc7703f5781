"""HE2Gene: both networks and the neighbour loss."""

from __future__ import annotations

from tests.parity.fill import corner, fill_model, inputs_of

from napari_he2st.zoo.regression.he2gene import HE2Gene, spatial_mse


def run(case: dict) -> dict:
    x = inputs_of(case)
    return _loss(x) if "nbr_tumor" in x else _network(case, x)


def _network(case: dict, x: dict) -> dict:
    config = case["config"]
    shapes = {key: shape for key, shape, _ in case["state"]}
    head = "fc_tmr.weight" if "fc_tmr.weight" in shapes else "fc3.weight"
    model = HE2Gene(
        config["num_target_genes"],
        n_aux=config["num_aux_genes"],
        n_annotations=shapes[head][0],
        spatial="Spatial" in case["class"],
    ).eval()
    fill_model(model, case)
    wanted = case["outputs"]
    target, aux, tumour = model(x["img"])
    return {
        "target": corner(target, wanted["target"]),
        "aux": corner(aux, wanted["aux"]),
        "tumour": tumour,
        "aux_mean": aux.mean(),
        "aux_std": aux.std(correction=0),
    }


def _loss(x: dict) -> dict:
    exists = x["mask"][..., 0] == 1
    same = x["nbr_tumor"][..., 0] == x["tumor"]
    other = (1 - x["tumor"])[:, None, 0] == x["tumor"]
    return {
        "spat": spatial_mse(x["pred"], x["nbr"], exists & same),
        "spat_none": spatial_mse(x["pred"], x["nbr"], exists & other),
    }
