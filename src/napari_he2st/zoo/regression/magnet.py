"""MagNet: bins, tiles and regions as graphs, for Visium HD (Zhu et al., MIDL 2025, arXiv 2502.21011)."""

from __future__ import annotations

from napari_he2st.zoo.blocks.tile_graphs import TileGraphs
from napari_he2st.zoo.recipe import Recipe


class MagNet(TileGraphs):
    """A ResNet per bin, joined by the features of the region and tile around it; graphs at all three levels.

    Its arguments are those of :class:`~napari_he2st.zoo.blocks.tile_graphs.TileGraphs`.
    """

    levels = (112, 512, 224)
    weights = (0.75, 0.1, 0.05, 0.05)
    recipe = Recipe("sgd", lr=0.005, epochs=51, batch_size=1, schedule="poly:0.9")
