"""HEMIT: generator, discriminator, metrics."""

from __future__ import annotations

import numpy as np
from tests.parity.fill import fill_model, inputs_of

from napari_he2st.analysis.metrics import METRICS
from napari_he2st.zoo.blocks.image_quality import peak_signal_to_noise, structural_similarity
from napari_he2st.zoo.superres.hemit import Discriminator, Hemit


def run(case: dict) -> dict:
    x, config = inputs_of(case), case["config"]
    if "noise" in x:
        return {"metrics": _metrics(x)}
    if "ndf" in config:
        judge = Discriminator(config["input_nc"], config["ndf"], config["n_layers"]).eval()
        fill_model(judge, case)
        return {"out": judge(x["x"])}
    side = config["img_size"][0]
    model = Hemit(
        config["output_nc"],
        swin_dim=config["embed_dim"],
        swin_depths=config["depths"],
        patch_px=config["patch_size"],
        tile_px=side,
        bins=side,
    ).eval()
    case["overrides"] = {**case.get("overrides", {}), r".*relative_position_index": "constructed"}
    fill_model(model, case)
    images = 2 * x["x"] - 1
    out = model(images)
    initial = model.initial_layers(images)[:, ::8, ::32, ::32]
    return {"out": out[:, :, ::8, ::8], "mean": out.mean(), "std": out.std(), "initial": initial}


def _metrics(x: dict) -> np.ndarray:
    real = 2 * x["real"] - 1
    fake = (real + 0.2 * x["noise"]).clamp(-1, 1)
    rows = [[], [], []]
    for r, f in zip(real.unbind(-1), fake.unbind(-1), strict=True):
        rows[0].append(float(structural_similarity(f.double(), r.double(), data_range=r.max() - r.min())))
        rows[1].append(METRICS["pcc"].function(f.reshape(-1, 1).numpy(), r.reshape(-1, 1).numpy())[0])
        rows[2].append(float(peak_signal_to_noise(f.double(), r.double())))
    return np.asarray([value for row in rows for value in (*row, np.mean(row))])
