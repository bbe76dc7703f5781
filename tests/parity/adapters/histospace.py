"""HistoSPACE: auto-encoder and regressor."""

from __future__ import annotations

from tests.parity.fill import corner, fill_model, inputs_of

from napari_he2st.zoo.regression.histospace import AutoEncoder, HistoSPACE


def run(case: dict) -> dict:
    image, wanted = inputs_of(case)["img"], case["outputs"]
    if "num_classes" not in case["config"]:
        network = AutoEncoder().eval()
        fill_model(network, case)
        out = network(image)
        return {"recon": corner(out, wanted["recon"]), "recon_mean": out.mean(), "recon_std": out.std(correction=0)}
    model = HistoSPACE(case["config"]["num_classes"], tile_px=image.shape[-1]).eval()
    fill_model(model, case)
    return {"pred": corner(model(image), wanted["pred"]), "enc": corner(model.encoder(image), wanted["enc"])}
