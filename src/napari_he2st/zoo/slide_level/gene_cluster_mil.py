"""Clusters of tiles that tell a mutation (Chen et al., Journal of Pathology: Clinical Research 9, 2023).

No code is public, and the publication leaves much open; what is built here is attention over the tiles of those
clusters that predict the class better than all tiles do.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from napari_he2st.core.errors import ModelError
from napari_he2st.zoo.base import Batches
from napari_he2st.zoo.blocks.bags import BagClassifier, width_of
from napari_he2st.zoo.blocks.clam import WIDTHS, ClamNet
from napari_he2st.zoo.blocks.trunks import adopt
from napari_he2st.zoo.recipe import Recipe, descend, make_optimizer

_FOLDS = 3


class GeneClusterMIL(BagClassifier):
    """Gated attention over the tiles of telling clusters.

    Parameters
    ----------
    n_classes
        Number of classes.
    encoder, feature_dim
        Of the tiles, and the width of its features (by default the encoder's).
    n_clusters
        Groups that k-means makes of the tiles of all training slides.
    trial_epochs
        Epochs of the trials that choose among them.
    tile_px, tile_mpp, max_tiles
        Of the tiles.

    Notes
    -----
    ``extras["centres"]`` are the clusters, ``extras["telling"]`` the numbers of those that are used.
    """

    recipe = Recipe("adam", lr=1e-4, weight_decay=1e-5, epochs=60, batch_size=1)

    def __init__(
        self,
        n_classes: int = 2,
        *,
        encoder: str = "resnet50-trunc",
        feature_dim: int | None = None,
        n_clusters: int = 10,
        trial_epochs: int = 10,
        tile_px: int = 256,
        tile_mpp: float | None = 0.5,
        max_tiles: int | None = None,
    ) -> None:
        super().__init__(encoder=encoder, tile_px=tile_px, tile_mpp=tile_mpp, max_tiles=max_tiles)
        self.n_classes, self.width = n_classes, width_of(encoder, feature_dim)
        self.n_clusters, self.trial_epochs = n_clusters, trial_epochs
        network = self._network_for()
        adopt(self, network)
        self._network = (network,)  # in a tuple, so that keys carry no prefix

    def _network_for(self) -> ClamNet:
        return ClamNet(self.width, self.n_classes, widths=WIDTHS["small"])

    def forward(self, features: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """See :class:`~napari_he2st.zoo.blocks.clam.ClamNet`."""
        return self._network[0](features)

    def scores(self, features: Tensor, centres: Tensor) -> tuple[Tensor, Tensor]:
        """Class probabilities, and attention before its softmax, NaN on tiles of other clusters."""
        used = self._used(features)
        logits, attention, _, _ = self(features[used])
        shown = features.new_full((len(features), 1), torch.nan)
        shown[used] = attention.mT
        return logits[0].softmax(dim=-1), shown

    def bag_loss(self, label: Tensor, features: Tensor, centres: Tensor) -> Tensor:
        """Cross-entropy of the slide over the tiles of telling clusters."""
        return F.cross_entropy(self(features[self._used(features)])[0], label[None])

    def fit(self, batches: Batches, recipe: Recipe) -> Iterator[dict[str, float]]:
        """Make clusters, choose among them by cross-validation over the training slides, then train on them."""
        bags = [(int(targets["label"].reshape(())), prepared["features"]) for targets, prepared in batches]
        self.extras["centres"] = self._clusters(torch.cat([features for _, features in bags]))
        self.extras["telling"] = self._telling(bags, recipe)
        yield from super().fit(batches, recipe)

    def _used(self, features: Tensor) -> Tensor:
        """Which tiles belong to telling clusters; all where none does."""
        if "centres" not in self.extras:
            return torch.ones(len(features), dtype=torch.bool, device=features.device)
        used = torch.isin(self._cluster_of(features), torch.as_tensor(self.extras["telling"], device=features.device))
        return used if bool(used.any()) else torch.ones_like(used)

    def _cluster_of(self, features: Tensor) -> Tensor:
        centres = torch.as_tensor(self.extras["centres"], dtype=features.dtype, device=features.device)
        return torch.cdist(features, centres).argmin(dim=1)

    def _clusters(self, features: Tensor) -> np.ndarray[Any, Any]:
        from sklearn.cluster import MiniBatchKMeans

        n = min(self.n_clusters, len(features))
        return MiniBatchKMeans(n, n_init=3, random_state=0).fit(features.cpu().numpy()).cluster_centers_

    def _telling(self, bags: list[tuple[int, Tensor]], recipe: Recipe) -> np.ndarray[Any, Any]:
        """Clusters whose tiles predict the class of slides left out at least as well as all tiles do."""
        labels = np.array([label for label, _ in bags])
        if len(set(labels.tolist())) < 2:
            raise ModelError("All training slides are of one class", todo="Add slides of the other")
        whole = self._validated(bags, recipe, None)
        found = [self._validated(bags, recipe, cluster) for cluster in range(len(self.extras["centres"]))]
        telling = [number for number, score in enumerate(found) if score >= whole]
        return np.asarray(telling or [int(np.argmax(found))], dtype=np.int64)

    def _validated(self, bags: list[tuple[int, Tensor]], recipe: Recipe, cluster: int | None) -> float:
        """Mean probability of the right class of slides left out, in three folds."""
        chosen = []
        for label, features in bags:
            own = features if cluster is None else features[self._cluster_of(features) == cluster]
            # A slide without such tiles is itself a hint: it shows one empty tile.
            chosen.append((label, own if len(own) else features.new_zeros(1, self.width)))
        scores = []
        for fold in range(_FOLDS):
            held = [bag for i, bag in enumerate(chosen) if i % _FOLDS == fold]
            kept = [bag for i, bag in enumerate(chosen) if i % _FOLDS != fold]
            if not held or len({label for label, _ in kept}) < 2:
                continue
            torch.manual_seed(fold)
            network = self._network_for().to(held[0][1].device)
            optimizer = make_optimizer(network, recipe)
            for _ in range(self.trial_epochs):
                for label, features in kept:
                    wanted = torch.tensor([label], device=features.device)
                    descend(optimizer, F.cross_entropy(network(features)[0], wanted), recipe)
            network.eval()
            with torch.no_grad():
                scores += [float(network(features)[0].softmax(dim=1)[0, label]) for label, features in held]
        return float(np.mean(scores)) if scores else 0.0
