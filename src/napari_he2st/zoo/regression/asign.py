"""ASIGN: spots, regions and wider regions as graphs, in one section or a volume (CVPR 2025, arXiv 2412.03026)."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from napari_he2st.zoo.base import Recipe
from napari_he2st.zoo.blocks.graph import nearest_graph
from napari_he2st.zoo.blocks.tile_graphs import Pair, TileGraphs

_STEPS = 20


class ASIGN(TileGraphs):
    """The features of the two regions around a spot, with graphs at all three levels.

    Parameters
    ----------
    n_genes
        Size of the panel.
    dim, depth, heads, mlp_dim, dropout, trunk, encoder, tile_px, imagenet
        As in :class:`~napari_he2st.zoo.blocks.tile_graphs.TileGraphs`.
    volume
        The network for serial sections: measured spots lend their expression to those that are not, along a
        graph through the sections (see :meth:`impute`). Predicted by itself, a section has none to lend.
    faithful
        As published: leave out what the spot's own image says, so that it has no influence; read the graph
        results in the wrong order; give NaN for a node without neighbours. By default none of these.
    """

    levels = (224, 512, 1024)
    recipe = Recipe("sgd", lr=1e-3, epochs=100, batch_size=1, schedule="poly:0.9")

    def __init__(
        self,
        n_genes: int,
        *,
        dim: int = 1024,
        depth: int = 3,
        heads: int = 8,
        mlp_dim: int = 4096,
        dropout: float = 0.1,
        trunk: str = "resnet50",
        encoder: str = "timm:resnet50.tv_in1k",
        tile_px: int = 224,
        imagenet: bool = True,
        volume: bool = False,
        faithful: bool = False,
    ) -> None:
        super().__init__(
            n_genes,
            dim=dim,
            depth=depth,
            heads=heads,
            mlp_dim=mlp_dim,
            dropout=dropout,
            trunk=trunk,
            encoder=encoder,
            tile_px=tile_px,
            imagenet=imagenet,
            lstm=not volume,
            faithful=faithful,
        )
        self.sees_image, self.volume = not faithful, volume
        self.weights = (0.75, 0.25, 0.125, 0.125) if volume else (0.75, 0.1, 0.1, 0.1)
        if volume:
            self.alpha = nn.Parameter(torch.full((n_genes,), 0.5))

    def impute(
        self, images: Tensor, adjacency: Tensor, features: Pair, nodes: Pair, graphs: Pair, known: Tensor
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Expression of the spots of all sections and of both kinds of regions, float32 (nodes, genes) each.

        Parameters
        ----------
        images, adjacency, features, nodes, graphs
            As in ``forward``, the graph of spots going through all sections (:func:`through_sections`).
        known
            Expression of the measured spots, (spots, genes); rows of 0 are to be imputed.
        """
        x = self.around(features)
        if self.sees_image:
            x = x + self.encoder(images)
        each = zip(self.levels, (x, *nodes), (adjacency, *graphs), strict=True)
        spots, regions, wider = (self.stack(*level) for level in each)
        if not self.faithful:
            results = [self.read(three) for three in (spots, regions, wider)]
        else:
            results = self._read_joined(spots, regions, wider)
        lent = propagate(adjacency, known)
        share = self.alpha.sigmoid()
        return share * lent + (1 - share) * results[0], results[1], results[2]

    def _read_joined(self, spots: Tensor, regions: Tensor, wider: Tensor) -> list[Tensor]:
        """As published: each level is read behind the wider one, whose tokens already carry their code."""
        code = self.transformer.positional_encoding
        coded = (wider.reshape(-1, *code.shape) + code).view_as(wider)
        behind = [(coded, regions), (regions, spots)]
        first, second = (self.read(torch.cat(pair, dim=1))[pair[0].shape[1] :] for pair in behind)
        return [second, first, self.read(wider)]


def propagate(adjacency: Tensor, known: Tensor) -> Tensor:
    """Known rows of expression spread along a dense graph, in 20 steps of averaging; rows of 0 are unknown."""
    weight = adjacency / adjacency.sum(1, keepdim=True).clamp(min=1e-10)
    given = known.sum(1, keepdim=True) != 0
    labels = known
    for _ in range(_STEPS):
        labels = torch.where(given, known, weight @ labels)
    return labels


def through_sections(similarity: Tensor, positions: Tensor, *, k: int = 12, neighbours: int = 4) -> Tensor:
    """Dense graph through serial sections: the most similar spots of other ones, the nearest of the same.

    Parameters
    ----------
    similarity
        Of spots, symmetric (n, n); 0 between spots of one section.
    positions
        (n, 2).
    k, neighbours
        Number of similar spots and of near ones.
    """
    return torch.maximum(most_similar(similarity, k), same_section(similarity, positions, neighbours))


def most_similar(similarity: Tensor, k: int) -> Tensor:
    """Symmetric dense graph of the ``k`` most similar spots of each."""
    top = similarity.topk(min(k, len(similarity)), dim=1).indices
    graph = torch.zeros_like(similarity).scatter_(1, top, 1.0)
    return torch.maximum(graph, graph.T)


def same_section(similarity: Tensor, positions: Tensor, k: int) -> Tensor:
    """Symmetric dense graph of the ``k`` nearest spots of the same section, those of similarity 0."""
    graph = torch.zeros_like(similarity)
    for rows in (similarity == 0).unique(dim=0):
        index = rows.nonzero().flatten()
        graph[index[:, None], index] = nearest_graph(positions[index], k).to(graph)
    return torch.maximum(graph, graph.T)
