"""FGFR3MUT: mutation of FGFR3 in bladder cancer from the extreme tiles of a slide (Chowder).

Bannier et al., Nature Communications 15 (2024); Courtiol et al., "Classification and disease localization
in histopathology using only global labels" (2018).
"""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import torch
from numpy.typing import ArrayLike
from torch import Tensor, nn
from torch.nn import functional as F

from napari_he2st.zoo.blocks.bags import BagClassifier, at_least, width_of
from napari_he2st.zoo.recipe import Recipe


class FGFR3Mut(BagClassifier):
    """A score for each tile; the highest and the lowest of them decide.

    Parameters
    ----------
    encoder, feature_dim
        Of the tiles, and the width of its features (by default the encoder's).
    n_extreme
        Tiles at each end.
    tile_px, tile_mpp, max_tiles
        Of the tiles; as published, at most 5,000 of a slide.
    """

    # The training code is not public: a recipe of ours.
    recipe = Recipe("adam", lr=1e-3, epochs=60, batch_size=1)

    def __init__(
        self,
        *,
        encoder: str = "h-optimus-0",
        feature_dim: int | None = None,
        n_extreme: int = 100,
        tile_px: int = 224,
        tile_mpp: float | None = 0.5,
        max_tiles: int | None = 5000,
    ) -> None:
        super().__init__(encoder=encoder, tile_px=tile_px, tile_mpp=tile_mpp, max_tiles=max_tiles)
        self.n_extreme = n_extreme
        self.score_model = _TileScores(width_of(encoder, feature_dim))
        widths = (2 * n_extreme, 128, 64)
        hidden = [nn.Sequential(nn.Linear(a, b), nn.Sigmoid()) for a, b in pairwise(widths)]
        self.mlp = nn.Sequential(*hidden, nn.Linear(widths[-1], 1))
        for layer in self.modules():
            if isinstance(layer, nn.Linear):
                nn.init.xavier_uniform_(layer.weight)
                nn.init.zeros_(layer.bias)

    def forward(self, x: Tensor, mask: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """Logits (n, 1) and extreme scores (n, 2 · n_extreme) of bags (n, tiles, feature_dim).

        ``mask``, bool (n, tiles, 1), says which tiles are padding; a bag without one needs at least
        ``n_extreme`` tiles.
        """
        scores = self.score_model(x, mask)[..., 0]
        hidden = torch.zeros_like(scores, dtype=torch.bool) if mask is None else mask[..., 0]
        ends = []
        for sign in (1, -1):
            ranked = (sign * scores).masked_fill(hidden, -torch.inf).topk(self.n_extreme, dim=1).values
            ends.append(torch.where(ranked.isfinite(), sign * ranked, torch.zeros_like(ranked)))
        extreme = torch.cat(ends, dim=1)
        return self.mlp(extreme), extreme

    def scores(self, features: Tensor, centres: Tensor) -> tuple[Tensor, Tensor]:
        """Probabilities of wild type and mutation, and the scores of the tiles."""
        padded, padding = at_least(features, self.n_extreme)
        logits, _ = self(padded[None], padding[None, :, None])
        mutated = logits[0].sigmoid()
        return torch.cat([1 - mutated, mutated]), self.score_model(features[None], None)[0]

    def bag_loss(self, label: Tensor, features: Tensor, centres: Tensor) -> Tensor:
        """Binary cross-entropy of the mutation."""
        padded, padding = at_least(features, self.n_extreme)
        logits, _ = self(padded[None], padding[None, :, None])
        return F.binary_cross_entropy_with_logits(logits[0, 0], label.to(logits.dtype))


class _TileScores(nn.Module):
    def __init__(self, width: int) -> None:
        super().__init__()
        self.hidden_layers = nn.Sequential(nn.Linear(width, 128), nn.Sigmoid(), nn.Linear(128, 1))

    def forward(self, x: Tensor, mask: Tensor | None) -> Tensor:
        first, squash, last = self.hidden_layers
        hidden = first(x)
        if mask is not None:
            hidden = hidden.masked_fill(mask, -torch.inf)
        return last(squash(hidden))


def classification_metrics(truth: ArrayLike, probability: ArrayLike, *, sensitivity: float = 0.92) -> dict[str, float]:
    """Figures of a binary classifier at the threshold that the publication takes.

    Parameters
    ----------
    truth, probability
        0 or 1, and the predicted probability of 1, shape (n,).
    sensitivity
        The threshold is the first of the ROC curve, collinear points left out, that reaches it.

    Returns
    -------
    dict
        ``auc``, ``ap``, ``sensitivity``, ``specificity``, ``ppv``, ``npv``, ``threshold``.
    """
    from sklearn.metrics import average_precision_score, confusion_matrix, roc_auc_score, roc_curve

    truth, probability = np.asarray(truth), np.asarray(probability)
    _, reached, thresholds = roc_curve(truth, probability, drop_intermediate=True)
    threshold = float(thresholds[int(np.argmax(reached >= sensitivity))])
    tn, fp, fn, tp = confusion_matrix(truth, probability >= threshold, labels=[0, 1]).ravel().tolist()

    def share(part: int, whole: int) -> float:
        return part / whole if whole else float("nan")

    return {
        "auc": float(roc_auc_score(truth, probability)),
        "ap": float(average_precision_score(truth, probability)),
        "sensitivity": share(tp, tp + fn),
        "specificity": share(tn, tn + fp),
        "ppv": share(tp, tp + fp),
        "npv": share(tn, tn + fn),
        "threshold": threshold,
    }
