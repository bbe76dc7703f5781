"""PathoRiCH: response to platinum in ovarian carcinoma by DSMIL (Nature Communications 15, 2024).

The bag network is Li et al., "Dual-stream multiple instance learning network" (2021).
"""

from __future__ import annotations

from torch import Tensor, nn
from torch.nn import functional as F

from napari_he2st.zoo.blocks.bags import BagClassifier, width_of
from napari_he2st.zoo.guard import safe_import
from napari_he2st.zoo.recipe import Recipe

_DIM = 128


class PathoRiCH(BagClassifier):
    """The most telling tile of each class, and the tiles that resemble it.

    Parameters
    ----------
    n_classes
        Favourable and poor response.
    encoder, feature_dim
        Of the tiles, and the width of its features (by default the encoder's).
    dropout
        On the values of the tiles.
    tile_px, tile_mpp, max_tiles
        Of the tiles.
    """

    # The training code is not public: the recipe of DSMIL's authors.
    recipe = Recipe("adam", lr=2e-4, weight_decay=5e-3, epochs=40, batch_size=1)

    def __init__(
        self,
        n_classes: int = 2,
        *,
        encoder: str = "resnet18",
        feature_dim: int | None = None,
        dropout: float = 0.0,
        tile_px: int = 224,
        tile_mpp: float | None = 0.5,
        max_tiles: int | None = None,
    ) -> None:
        super().__init__(encoder=encoder, tile_px=tile_px, tile_mpp=tile_mpp, max_tiles=max_tiles)
        width = width_of(encoder, feature_dim)
        self.i_classifier = nn.Module()
        self.i_classifier.fc = nn.Sequential(nn.Linear(width, n_classes))
        self.b_classifier = _BagAttention(width, n_classes, dropout)

    def forward(self, features: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
        """Logits of tiles and slide, with what they came from.

        Returns
        -------
        instance, bag, attention, slide, raw
            Shapes (tiles, n_classes); (1, n_classes); (tiles, n_classes), summing to 1 over the tiles;
            (1, n_classes, width); attention before its softmax.
        """
        instance = self.i_classifier.fc(features)
        return (instance, *self.b_classifier(features, instance))

    def scores(self, features: Tensor, centres: Tensor) -> tuple[Tensor, Tensor]:
        """Class probabilities, and attention before its softmax."""
        instance, bag, _, _, raw = self(features)
        return slide_probability(instance, bag), raw

    def bag_loss(self, label: Tensor, features: Tensor, centres: Tensor) -> Tensor:
        """Binary cross-entropies of the best tiles and of the slide, half each."""
        instance, bag, _, _, _ = self(features)
        wanted = F.one_hot(label, bag.shape[1]).to(bag.dtype)
        losses = (F.binary_cross_entropy_with_logits(logits, wanted) for logits in (instance.amax(0), bag[0]))
        return sum(losses, start=bag.new_zeros(())) / 2


class _BagAttention(nn.Module):
    def __init__(self, width: int, n_classes: int, dropout: float) -> None:
        super().__init__()
        self.q = nn.Sequential(nn.Linear(width, _DIM), nn.ReLU(), nn.Linear(_DIM, _DIM), nn.Tanh())
        self.v = nn.Dropout(dropout)
        self.fcc = nn.Conv1d(n_classes, n_classes, width)

    def forward(self, features: Tensor, instance: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        queries = self.q(features)
        raw = queries @ queries[instance.argmax(dim=0)].mT
        attention = (raw / _DIM**0.5).softmax(dim=0)
        slide = (attention.mT @ self.v(features))[None]
        return self.fcc(slide)[..., 0], attention, slide, raw


def slide_probability(instance: Tensor, bag: Tensor) -> Tensor:
    """Class probabilities (n_classes,): the mean of what the best tiles and the slide say."""
    return (instance.amax(dim=0).softmax(dim=-1) + bag[0].softmax(dim=-1)) / 2


class TileEmbedder(nn.Module):
    """The published ResNet-18 with instance normalisation, which turns tiles in [0, 1] into features (n, 512)."""

    def __init__(self, n_classes: int = 2) -> None:
        super().__init__()
        network = safe_import("torchvision.models").resnet18(norm_layer=nn.InstanceNorm2d)
        network.fc = nn.Identity()
        self.feature_extractor = network
        self.fc = nn.Linear(512, n_classes)

    def forward(self, tiles: Tensor) -> tuple[Tensor, Tensor]:
        """Features and logits."""
        features = self.feature_extractor(tiles)
        return features, self.fc(features)
