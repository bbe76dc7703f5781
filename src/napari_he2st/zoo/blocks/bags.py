"""What systems have in common that see a slide as a bag of tile features."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from napari_he2st.core.noise import Noise
from napari_he2st.zoo.base import Label, Output, Predictor, Spots
from napari_he2st.zoo.encoders.build import spec_of
from napari_he2st.zoo.inputs import Bag


class BagClassifier(Predictor):
    """A slide's class from the features of its tiles, with a map of what the decision looked at.

    Subclasses define :meth:`scores`, and :meth:`bag_loss` where the publication's objective is not the
    cross-entropy of the class.

    Parameters
    ----------
    encoder, tile_px, tile_mpp
        Features of the tiles, width of a tile in pixels, and its pixel size (None: that of training).
    max_tiles
        Tiles that are taken of a slide, spread evenly over its tissue; None takes all.
    """

    unit = Spots()
    targets = {"label": Label()}
    outputs = {"label": Output("label", per="slide"), "attention": Output("attention", per="spot")}

    def __init__(
        self, *, encoder: str, tile_px: int = 256, tile_mpp: float | None = 0.5, max_tiles: int | None = None
    ) -> None:
        super().__init__()
        self.inputs = {"bag": Bag(encoder=encoder, px=tile_px, mpp=tile_mpp, max_tiles=max_tiles)}

    def prepare(self, *, bag: tuple[Tensor, Tensor]) -> dict[str, Any]:
        """Features (tiles, dim) and centres (tiles, 2) in micrometres."""
        features, centres = bag
        return {"features": features, "centres": centres}

    def scores(self, features: Tensor, centres: Tensor) -> tuple[Tensor, Tensor]:
        """Class probabilities, shape (n_classes,), and attention of the tiles, (tiles, maps)."""
        raise NotImplementedError

    def bag_loss(self, label: Tensor, features: Tensor, centres: Tensor) -> Tensor:
        """Objective of one slide, whose class is an int64 scalar."""
        probabilities = self.scores(features, centres)[0]
        return F.nll_loss(probabilities.clamp(min=1e-7).log()[None], label[None])

    def loss(self, targets: Mapping[str, Tensor], **prepared: Any) -> Tensor:
        """Objective of one slide."""
        return self.bag_loss(targets["label"].reshape(()).long(), **prepared)

    def predict(self, *, noise: Noise | None = None, **prepared: Any) -> dict[str, Tensor]:
        """``label``: probabilities (1, n_classes); ``attention``: float32 (tiles, maps)."""
        probabilities, attention = self.scores(**prepared)
        return {"label": probabilities[None], "attention": attention}


def width_of(encoder: str, feature_dim: int | None) -> int:
    """Length of a tile's feature: as given, or the encoder's."""
    return feature_dim or spec_of(encoder).dim


def at_least(features: Tensor, n: int) -> tuple[Tensor, Tensor]:
    """Features with zeros below, so that there are ``n``; and bool (tiles,), which are such padding."""
    short = max(0, n - len(features))
    padding = torch.arange(len(features) + short, device=features.device) >= len(features)
    return F.pad(features, (0, 0, 0, short)), padding
