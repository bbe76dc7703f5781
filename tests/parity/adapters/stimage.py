"""stImage: joined distances, neighbours, expression smoothed by tiles."""

from __future__ import annotations

import re

import numpy as np
from tests.parity.fill import inputs_of

from napari_he2st.zoo.domains import stimage


def _shared(raw: np.ndarray) -> np.ndarray:
    shared = (raw + raw.T) / 2
    shared[shared < 0.4] = 0
    np.fill_diagonal(shared, 1)
    return shared


def run(case: dict) -> dict:
    x = {name: value.double().numpy() for name, value in inputs_of(case).items()}
    k = int(re.search(r"k\.param\s*=\s*(\d+)", case["call"])[1])
    n = int(re.search(r"FindCoordinateNeighbor\(xy, n\s*=\s*(\d+)", case["call"])[1])
    d1, d2, s1, s2 = stimage.distances(x["p1"]), stimage.distances(x["p2"]), _shared(x["s1"]), _shared(x["s2"])
    return {
        "d1": d1,
        "d2": d2,
        "snn1": s1,
        "snn2": s2,
        "integrated": stimage.integrated(d1, d2, s1, s2, k),
        "neighbours": stimage.coordinate_neighbours(x["xy"], n).astype(float),
        "smoothed": stimage.smoothed(x["g"].T, x["xy"], x["f"], n).T,
    }
