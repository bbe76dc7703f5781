"""STco: expression with its place on the array against the tile's image (Shi et al., ICIC 2024)."""

from __future__ import annotations

from dataclasses import replace

from torch import Tensor

from napari_he2st.zoo.blocks.placed_spots import PlacedSpots
from napari_he2st.zoo.blocks.retrieval import Found
from napari_he2st.zoo.blocks.search import inverse_square


class STco(PlacedSpots):
    """mclSTExp's predecessor: spots do not see each other.

    Parameters
    ----------
    n_genes
        Size of the panel.
    trunk
        A torchvision DenseNet or ResNet, or a timm network.
    dim, dropout
        Of the embeddings and their heads.
    bins
        Number of array positions that the tables hold.
    tile_px
        Width of the tile.
    imagenet
        Start training from ImageNet weights, as published.
    """

    recipe = replace(PlacedSpots.recipe, epochs=100)

    def __init__(
        self,
        n_genes: int,
        *,
        trunk: str = "densenet121",
        dim: int = 256,
        dropout: float = 0.0,
        bins: int = 128,
        tile_px: int = 224,
        imagenet: bool = True,
    ) -> None:
        super().__init__()
        self._build(
            n_genes,
            trunk=trunk,
            dim=dim,
            dropout=dropout,
            bins=bins,
            tile_px=tile_px,
            imagenet=imagenet,
            encoder="image_ecode",
        )

    def weigh(self, found: Found) -> Tensor:
        """One over the squared distance."""
        return inverse_square(found.distance())
