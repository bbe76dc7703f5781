"""TripletMIL: tiles, bags, and the terms of its loss."""

from __future__ import annotations

import torch
from tests.parity.fill import fill_model, inputs_of

from napari_he2st.zoo.slide_level.cervical_cms import CervicalCMS, triplet_terms


def run(case: dict) -> dict:
    model = CervicalCMS(feature_dim=case["config"]["d"], dropout=case["config"]["dropout"]).eval()
    fill_model(model, case)
    tiles = {name: model(bag) for name, bag in inputs_of(case).items()}
    bags = [tiles[name].mean() for name in "pna"]
    return {
        "tile_scores": tiles["p"],
        "bag_scores": torch.stack(bags),
        "loss_terms": torch.stack(triplet_terms(*bags)),
    }
