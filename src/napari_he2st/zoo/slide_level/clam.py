"""CLAM: attention over the tiles of a slide, with clustering of its extremes (Lu et al., 2021)."""

from __future__ import annotations

from typing import Literal

from torch import Tensor
from torch.nn import functional as F

from napari_he2st.zoo.blocks.bags import BagClassifier, width_of
from napari_he2st.zoo.blocks.clam import WIDTHS, ClamNet, TopTileNet
from napari_he2st.zoo.blocks.trunks import adopt
from napari_he2st.zoo.recipe import Recipe

_BAG_SHARE = 0.7


class CLAM(BagClassifier):
    """Weakly supervised classification of slides.

    Parameters
    ----------
    n_classes
        Number of classes.
    head
        ``"sb"``: one attention; ``"mb"``: one for each class; ``"mil"``: the best tile decides.
    encoder, feature_dim
        Of the tiles, and the width of its features (by default the encoder's).
    size
        ``"small"`` or ``"big"``.
    gate, dropout
        Whether attention is gated; share that is dropped.
    k_sample
        Tiles at each end of the ranking that are clustered.
    subtyping
        Whether the classes exclude each other.
    tile_px, tile_mpp, max_tiles
        Of the tiles.
    """

    recipe = Recipe("adam", lr=1e-4, weight_decay=1e-5, epochs=200, batch_size=1)

    def __init__(
        self,
        n_classes: int = 2,
        *,
        head: Literal["sb", "mb", "mil"] = "sb",
        encoder: str = "resnet50-trunc",
        feature_dim: int | None = None,
        size: Literal["small", "big"] = "small",
        gate: bool = True,
        dropout: float = 0.25,
        k_sample: int = 8,
        subtyping: bool = False,
        tile_px: int = 256,
        tile_mpp: float | None = 0.5,
        max_tiles: int | None = None,
    ) -> None:
        super().__init__(encoder=encoder, tile_px=tile_px, tile_mpp=tile_mpp, max_tiles=max_tiles)
        width = width_of(encoder, feature_dim)
        self.head, self.k_sample, self.subtyping = head, k_sample, subtyping
        if head == "mil":
            network = TopTileNet(width, n_classes, dropout=dropout)
        else:
            network = ClamNet(width, n_classes, widths=WIDTHS[size], per_class=head == "mb", gate=gate, dropout=dropout)
        adopt(self, network)
        self._network = (network,)  # in a tuple, so that keys carry no prefix

    def forward(self, features: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """See :class:`~napari_he2st.zoo.blocks.clam.ClamNet` and ``TopTileNet`` there."""
        return self._network[0](features)

    def scores(self, features: Tensor, centres: Tensor) -> tuple[Tensor, Tensor]:
        """Class probabilities, and attention before its softmax or, for ``"mil"``, probabilities of the tiles."""
        logits, attention, shares, _ = self(features)
        return logits[0].softmax(dim=-1), shares if self.head == "mil" else attention.mT

    def bag_loss(self, label: Tensor, features: Tensor, centres: Tensor) -> Tensor:
        """Cross-entropy of the slide, and of the tiles at both ends of the ranking."""
        logits, attention, _, h = self(features)
        loss = F.cross_entropy(logits, label[None])
        if self.head == "mil":
            return loss
        network = self._network[0]
        clustering = network.instances(attention, h, int(label), self.k_sample, subtyping=self.subtyping)[0]
        return _BAG_SHARE * loss + (1 - _BAG_SHARE) * clustering
