"""mclust's EEE: start, mixture, labels."""

from __future__ import annotations

import numpy as np
from tests.parity.fill import inputs_of

from napari_he2st.analysis.domains.mixture import fit_mixture, hierarchical_start

INFERENCE = False


def _same_groups(ours: np.ndarray, theirs: np.ndarray) -> str | None:
    return None if np.array_equal(ours, theirs) else "other groups"


COMPARE = {r"mc\d+|mchc\d+": _same_groups}


def run(case: dict) -> dict:
    points = inputs_of(case)["x"].double().numpy()
    out: dict = {}
    for k in case["config"]["G"]:
        found = fit_mixture(points, k, 0)
        out |= {
            f"mc{k}": found.labels + 1,
            f"mcll{k}": np.array([found.log_likelihood]),
            f"mcmean{k}": found.means,
            f"mcS{k}": found.covariance,
            f"mcz{k}": found.responsibilities,
            f"mchc{k}": hierarchical_start(points, k) + 1,
        }
    return out
