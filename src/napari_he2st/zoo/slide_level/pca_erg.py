"""pca_ERG: TMPRSS2:ERG fusion in prostate cancer by CLAM (Omar et al., Molecular Cancer Research, 2024)."""

from __future__ import annotations

from typing import Literal

from torch import Tensor
from torch.nn import functional as F

from napari_he2st.zoo.blocks.bags import BagClassifier, width_of
from napari_he2st.zoo.blocks.clam import WIDTHS, ClamNet
from napari_he2st.zoo.blocks.trunks import adopt
from napari_he2st.zoo.recipe import Recipe

_BAG_SHARE = 0.7
_DEEP = (512, 512, 384, 256)


class PcaErg(BagClassifier):
    """CLAM in the configurations that were used for the fusion.

    Parameters
    ----------
    n_classes
        Wild type and fusion.
    head
        ``"sb"``: one attention, as for the independent cohort; ``"mb"``: one for each class, as for TCGA;
        ``"mb-deep"``: three layers before it. Clustering of tiles is broken in the last one, where a
        classifier of tiles has a single output; it is trained without.
    encoder, feature_dim
        Of the tiles, and the width of its features (by default the encoder's).
    dropout
        Share that is dropped.
    k_sample
        Tiles at each end of the ranking that are clustered.
    tile_px, tile_mpp, max_tiles
        Of the tiles: 512 px at 10×.
    """

    recipe = Recipe("adam", lr=1e-4, weight_decay=1e-5, epochs=200, batch_size=1)

    def __init__(
        self,
        n_classes: int = 2,
        *,
        head: Literal["sb", "mb", "mb-deep"] = "sb",
        encoder: str = "resnet50-trunc",
        feature_dim: int | None = None,
        dropout: float = 0.25,
        k_sample: int = 16,
        tile_px: int = 512,
        tile_mpp: float | None = 1.0,
        max_tiles: int | None = None,
    ) -> None:
        super().__init__(encoder=encoder, tile_px=tile_px, tile_mpp=tile_mpp, max_tiles=max_tiles)
        deep = head == "mb-deep"
        self.k_sample, self.clusters = k_sample, not deep
        network = ClamNet(
            width_of(encoder, feature_dim),
            n_classes,
            widths=_DEEP if deep else WIDTHS["big"],
            per_class=head != "sb",
            dropout=dropout,
            instance_classes=1 if deep else 2,
            keep_dropout_layer=False,
        )
        adopt(self, network)
        self._network = (network,)  # in a tuple, so that keys carry no prefix

    def forward(self, features: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """See :class:`~napari_he2st.zoo.blocks.clam.ClamNet`."""
        return self._network[0](features)

    def scores(self, features: Tensor, centres: Tensor) -> tuple[Tensor, Tensor]:
        """Class probabilities, and attention before its softmax."""
        logits, attention, _, _ = self(features)
        return logits[0].softmax(dim=-1), attention.mT

    def bag_loss(self, label: Tensor, features: Tensor, centres: Tensor) -> Tensor:
        """Cross-entropy of the slide, and of the tiles at both ends of the ranking."""
        logits, attention, _, h = self(features)
        loss = F.cross_entropy(logits, label[None])
        if not self.clusters:
            return loss
        clustering = self._network[0].instances(attention, h, int(label), self.k_sample, subtyping=False)[0]
        return _BAG_SHARE * loss + (1 - _BAG_SHARE) * clustering
