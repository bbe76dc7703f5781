"""OmiCLIP's image tower: CoCa's, of which a feature is the embedding beside sentences of genes.

Chen et al., "A visual–omics foundation model to bridge histopathology with spatial transcriptomics", Nature Methods
(2025).
"""

from __future__ import annotations

from torch import Tensor

from napari_he2st.zoo.blocks.coca import ImageTower


class OmiCLIP(ImageTower):
    """Tiles (n, 3, 224, 224) to embeddings (n, 768), not normalised.

    Parameters
    ----------
    px, patch_px
        Width of a tile and of a patch.
    width, depth, heads
        Of the transformer.
    dim, pool_heads
        Of the embedding, and of the pooler that makes it.
    """

    def __init__(
        self,
        *,
        px: int = 224,
        patch_px: int = 14,
        width: int = 1024,
        depth: int = 24,
        heads: int = 16,
        dim: int = 768,
        pool_heads: int = 8,
    ) -> None:
        super().__init__(px, patch_px, width, depth, heads, dim, pool_heads)

    def forward(self, x: Tensor) -> Tensor:
        """Embeddings of normalised tiles."""
        return super().forward(x)[0]
