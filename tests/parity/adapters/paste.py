"""PASTE: divergence, couplings, start by nearness, rigid motion."""

from __future__ import annotations

import numpy as np
from tests.parity.fill import inputs_of

from napari_he2st.zoo.alignment import paste
from napari_he2st.zoo.blocks.transport import rigid, row_divergence

SETTINGS = {
    "a01": {"alpha": 0.1, "normalise": False},
    "a01_norm": {"alpha": 0.1, "normalise": True},
    "a05_euc": {"alpha": 0.5, "dissimilarity": "euclidean", "normalise": True},
}


def run(case: dict) -> dict:
    x = {name: value.numpy() for name, value in inputs_of(case).items()}
    given = (x["countsA"], x["xyA"], x["countsB"], x["xyB"])
    iterations = case["config"]["numItermax"]
    out: dict = {"kl": row_divergence(x["countsA"] + 0.01, x["countsB"] + 0.01)}
    for name, settings in SETTINGS.items():
        aligner = paste.PASTE(**settings, iterations=iterations, faithful=True)
        out[f"pi_{name}"], out[f"obj_{name}"] = aligner.couple(*given)
    out["pi_heur"] = paste.by_nearness(x["xyA"], x["xyB"])
    plain = paste.PASTE(normalise=False, iterations=iterations, faithful=True)
    out["pi_init"] = plain.couple(*given, start=out["pi_heur"])[0]
    out["R"], out["tX"], out["tY"] = rotation, centre_a, centre_b = rigid(x["xyA"], x["xyB"], out["pi_a01"])
    out["procA"], out["procB"] = x["xyA"] - centre_a, (x["xyB"] - centre_b) @ rotation.T
    covariance = (x["xyB"] - centre_b).T @ out["pi_a01"].T @ (x["xyA"] - centre_a)
    quarter = np.array([[0, -1], [1, 0]])
    out["theta"] = np.arctan(np.trace(quarter @ covariance) / np.trace(covariance))
    return out
