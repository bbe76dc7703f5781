"""Cervical CMS (TripletMIL): two subtypes of cervical carcinoma (bioRxiv 2024.08.16.608264)."""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor, nn

from napari_he2st.zoo.base import Batches
from napari_he2st.zoo.blocks.bags import BagClassifier, width_of
from napari_he2st.zoo.recipe import Recipe, descend, make_optimizer, make_schedule

_BETWEEN, _WITHIN = 0.5, 0.1
_TRAINING_TILES = 3000


class CervicalCMS(BagClassifier):
    """A probability for each tile, whose mean is the slide's; trained on triplets of slides.

    Parameters
    ----------
    encoder, feature_dim
        Of the tiles, and the width of its features (by default the encoder's). The publication does not
        name its encoder.
    dropout
        After each hidden layer.
    tile_px, tile_mpp, max_tiles
        Of the tiles.
    """

    recipe = Recipe("sgd", lr=3e-3, weight_decay=1e-4, epochs=10, batch_size=1, clip=10.0, schedule="step:5:0.1")

    def __init__(
        self,
        *,
        encoder: str = "ctranspath",
        feature_dim: int | None = None,
        dropout: float = 0.5,
        tile_px: int = 224,
        tile_mpp: float | None = 0.5,
        max_tiles: int | None = None,
    ) -> None:
        super().__init__(encoder=encoder, tile_px=tile_px, tile_mpp=tile_mpp, max_tiles=max_tiles)
        dim = width_of(encoder, feature_dim)
        self.hidden1 = nn.Linear(dim, dim)
        self.hidden2 = nn.Linear(dim, 2 * dim)
        self.out = nn.Linear(2 * dim, 1)
        self.gelu, self.dropout = nn.GELU(), nn.Dropout(dropout)

    def forward(self, features: Tensor) -> Tensor:
        """Probability of each tile, shape (tiles,)."""
        h = self.dropout(self.gelu(self.hidden1(features)))
        h = self.dropout(self.gelu(self.hidden2(h)))
        return self.out(h).sigmoid()[:, 0]

    def scores(self, features: Tensor, centres: Tensor) -> tuple[Tensor, Tensor]:
        """Probabilities of the two subtypes, and those of the second in each tile."""
        tiles = self(features)
        return torch.stack([1 - tiles.mean(), tiles.mean()]), tiles[:, None]

    def fit(self, batches: Batches, recipe: Recipe) -> Iterator[dict[str, float]]:
        """Train on one triplet for each pair of slides of different class, chosen anew in each epoch."""
        optimizer = make_optimizer(self, recipe)
        schedule = make_schedule(optimizer, recipe)
        rng = torch.Generator().manual_seed(torch.initial_seed() % 2**31)
        for epoch in range(recipe.epochs):
            bags = [(int(targets["label"].reshape(())), prepared["features"]) for targets, prepared in batches]
            triplets = self._triplets(bags, rng)
            self.train()
            total = 0.0
            for triplet in triplets:
                cut = [_some(bags[i][1], rng) for i in triplet]
                loss = torch.stack(triplet_terms(*(self(features).mean() for features in cut))).sum()
                descend(optimizer, loss, recipe)
                total += float(loss.detach())
            schedule.step()
            yield {"epoch": epoch, "loss": total / max(len(triplets), 1)}

    @torch.no_grad()
    def _triplets(self, bags: list[tuple[int, Tensor]], rng: torch.Generator) -> list[tuple[int, int, int]]:
        """One triplet with a loss for each positive and negative slide."""
        self.eval()
        score = [self(features).mean() for _, features in bags]
        positive = [i for i, (label, _) in enumerate(bags) if label == 1]
        negative = [i for i, (label, _) in enumerate(bags) if label != 1]
        chosen = []
        for p in positive:
            for place, n in enumerate(negative):
                with_loss = [
                    a for a in negative[place + 1 :] if sum(map(float, triplet_terms(score[p], score[n], score[a]))) > 0
                ]
                if with_loss:
                    chosen.append((p, n, with_loss[int(torch.randint(len(with_loss), (1,), generator=rng))]))
        return chosen


def triplet_terms(p: Tensor, n: Tensor, a: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """How far a positive slide is from standing above two negative ones, and these from each other.

    Parameters
    ----------
    p, n, a
        Scores of the positive slide and of the two negative ones, scalars.
    """
    above = (torch.relu(other - p + _BETWEEN) for other in (n, a))
    return (*above, torch.relu((a - n).abs() - _WITHIN))


def _some(features: Tensor, rng: torch.Generator) -> Tensor:
    if len(features) <= _TRAINING_TILES:
        return features
    return features[torch.randperm(len(features), generator=rng)[:_TRAINING_TILES].to(features.device)]
