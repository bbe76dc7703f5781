"""PASTE2: dissimilarities, partial couplings, gradient, rigid motion, inconsistent edges."""

from __future__ import annotations

import re

import numpy as np
from tests.parity.fill import inputs_of

from napari_he2st.zoo.alignment import paste2
from napari_he2st.zoo.blocks.transport import pairwise, rigid

SETTINGS = {
    "s07_kl": {"overlap": 0.7},
    "s07_gkl": {"overlap": 0.7, "dissimilarity": "gkl"},
    "s05_euc": {"overlap": 0.5, "dissimilarity": "euclidean", "alpha": 0.3},
    "s09_nonorm": {"overlap": 0.9, "normalise": False},
}


def _as_sets(ours: np.ndarray, theirs: np.ndarray) -> str | None:
    return None if set(map(tuple, ours.tolist())) == set(map(tuple, theirs.tolist())) else "other edges"


COMPARE = {"edges4": _as_sets}


def run(case: dict) -> dict:
    x = {name: value.numpy() for name, value in inputs_of(case).items()}
    given = (x["countsA"], x["xyA"], x["countsB"], x["xyB"])
    alpha = case["config"]["alpha"]
    n_top = int(re.search(r"KL on the (\d+) genes", case["outputs_meaning"]["umi"])[1])
    out: dict = {
        "gkl": paste2.generalised_divergence(x["countsA"] + 0.01, x["countsB"] + 0.01),
        "umi": paste2.top_gene_divergence(x["countsA"], x["countsB"], n_top),
    }
    for name, settings in SETTINGS.items():
        out[f"pi_{name}"], out[f"obj_{name}"] = paste2.PASTE2(**{"alpha": alpha, **settings}).couple(*given)
    aligner = paste2.PASTE2(alpha=alpha, overlap=0.7)
    out["pi_hist"], out["obj_hist"] = aligner.couple(*given, x["rgbA"], x["rgbB"])
    rotation, centre_a, centre_b = rigid(x["xyA"], x["xyB"], out["pi_s07_kl"])
    out["procA"], out["procB"] = x["xyA"] - centre_a, (x["xyB"] - centre_b) @ rotation.T
    plan = np.full((len(x["xyA"]), len(x["xyB"])), 0.7 / (len(x["xyA"]) * len(x["xyB"])))
    out["gwgrad"] = 2 * paste2.bracket(pairwise(x["xyA"], x["xyA"]), pairwise(x["xyB"], x["xyB"]), plan)
    out["gwloss"] = 0.5 * (out["gwgrad"] * plan).sum()
    out["edges4"] = paste2.neighbour_edges(x["xyA"], 4)
    out["edge_inconsistency"] = paste2.edge_inconsistency(x["xyA"], x["xyA"][:, 0] > 3)
    return out
