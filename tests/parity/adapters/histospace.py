"""HistoSPACE: auto-encoder and regressor."""

from __future__ import annotations

from tests.parity.fill import fill_model, inputs_of

from napari_he2st.zoo.regression.histospace import AutoEncoder, HistoSPACE


def run(case: dict) -> dict:
    image = inputs_of(case)["img"]
    if "num_classes" not in case["config"]:
        network = AutoEncoder().eval()
        fill_model(network, case)
        out = network(image)
        return {"recon": out[:, :, :6, :6], "recon_mean": out.mean(), "recon_std": out.std(correction=0)}
    model = HistoSPACE(case["config"]["num_classes"], tile_px=image.shape[-1]).eval()
    fill_model(model, case)
    return {"pred": model(image)[:, :96], "enc": model.encoder(image)[:, :8, :4, :4]}
