"""mclSTExp: contrastive learning with a transformer over spots (Min et al., Briefings in Bioinformatics 2024)."""

from __future__ import annotations

from typing import Literal

from torch import Tensor, nn

from napari_he2st.zoo.blocks.placed_spots import PlacedSpots
from napari_he2st.zoo.blocks.retrieval import Found
from napari_he2st.zoo.blocks.search import inverse_square
from napari_he2st.zoo.blocks.self_distilled import SpotBlock


class MclSTExp(PlacedSpots):
    """Spots of a batch attend to each other before they are embedded.

    Parameters
    ----------
    n_genes
        Size of the panel.
    trunk
        A torchvision DenseNet or ResNet, or a timm network.
    dim, dropout
        Of the embeddings and their heads.
    depth, heads, dim_head
        Of the spots' transformer; a depth of 0 leaves it out (the published mclSTExp_MLP).
    bins
        Number of array positions that the tables hold.
    norm
        Order of the norm by whose square spots are weighed: 1 as published for her2st, 2 for the other sets.
    tile_px
        Width of the tile.
    imagenet
        Start training from ImageNet weights, as published.

    Notes
    -----
    Reference spots are embedded in runs of 32 of the sections one after another, as published, because what a
    spot attends to changes its embedding.
    """

    together = 32

    def __init__(
        self,
        n_genes: int,
        *,
        trunk: str = "densenet121",
        dim: int = 256,
        dropout: float = 0.0,
        depth: int = 2,
        heads: int = 8,
        dim_head: int = 64,
        bins: int = 65536,
        norm: Literal[1, 2] = 1,
        tile_px: int = 224,
        imagenet: bool = True,
    ) -> None:
        super().__init__()
        self.norm = norm
        sizes = {"heads": heads, "dim_head": dim_head, "mlp_dim": n_genes}
        layers = [SpotBlock(n_genes, **sizes, dropout=0.0) for _ in range(depth)]
        self._build(
            n_genes,
            trunk=trunk,
            dim=dim,
            dropout=dropout,
            bins=bins,
            tile_px=tile_px,
            imagenet=imagenet,
            encoder="image_encoder" if depth else "image_ecode",
            spot_encoder=nn.Sequential(*layers) if depth else None,
        )

    def encode_spots(self, expression: Tensor, positions: Tensor) -> Tensor:
        """Expression, place and what the other spots of the batch add, float32 (n, genes)."""
        placed = self.place(expression, positions)
        return self.spot_encoder(placed[None])[0] if hasattr(self, "spot_encoder") else placed

    def embed_spots(self, expression: Tensor, *, positions: Tensor) -> Tensor:
        """Embeddings of the spots of a batch, not normalised."""
        return self.spot_projection(self.encode_spots(expression, positions))

    def weigh(self, found: Found) -> Tensor:
        """One over the squared distance."""
        return inverse_square(found.distance(self.norm))
