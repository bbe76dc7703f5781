"""ASIGN: spots and the regions around them as graphs, also through serial sections (Zhu et al., arXiv 2412.03026)."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from napari_he2st.zoo.base import Batches
from napari_he2st.zoo.blocks.graph import nearest_graph
from napari_he2st.zoo.blocks.tile_graphs import Pair, TileGraphs
from napari_he2st.zoo.inputs import Features
from napari_he2st.zoo.recipe import Recipe

_STEPS = 20
_LENDING = 0.25
"""Share of the spots that lend their expression in a training step."""


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
        graph through the sections (see :meth:`predict_beside`). Predicted by itself, a section has none to lend.
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
            self.inputs = {**self.inputs, "likeness": Features(encoder=encoder, px=self.levels[0])}
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

    def prepare(self, *, positions: Tensor, likeness: Tensor | None = None, **inputs: Any) -> dict[str, Any]:
        """As for one section; those of a volume add positions, and features by which spots of others are alike."""
        prepared = super().prepare(positions=positions, **inputs)
        return prepared if likeness is None else {**prepared, "positions": positions, "likeness": likeness}

    def loss(self, targets: Mapping[str, Tensor], **prepared: Any) -> Tensor:
        """As for one section; in a volume, a quarter of the spots lend, and the others are to be imputed."""
        if not self.volume:
            return super().loss(targets, **prepared)
        target = targets["expression"]
        lends = (torch.rand(len(target), 1, device=target.device) < _LENDING) & target.isfinite().all(1, keepdim=True)
        known = torch.where(lends, target, 0.0)
        return super().loss({"expression": target.masked_fill(lends, torch.nan)}, known=known, **prepared)

    def fit(self, batches: Batches, recipe: Recipe) -> Iterator[dict[str, float]]:
        """Train on sections, or for a volume on pairs of them."""
        yield from super().fit(_Pairs(self, batches) if self.volume else batches, recipe)

    def _run(self, *, nodes: Pair, owners: Pair, **prepared: Any) -> tuple[Tensor, Tensor, Tensor]:
        for name in ("positions", "likeness"):
            prepared.pop(name, None)
        if "known" not in prepared:
            return super()._run(nodes=nodes, owners=owners, **prepared)
        features = (nodes[0][owners[0]], nodes[1][owners[1]])
        return self.impute(features=features, nodes=nodes, **prepared)

    def join(self, sections: Sequence[Mapping[str, Any]], places: Sequence[Tensor] | None = None) -> dict[str, Any]:
        """Prepared sections as one volume.

        Parameters
        ----------
        sections
            What ``prepare`` made of each.
        places
            Positions of the spots of each section in one frame, in units of the spots' width; without them only
            the likeness of features joins spots of different sections.
        """
        number = torch.cat([torch.full((len(s["images"]),), i) for i, s in enumerate(sections)])
        likeness = F.normalize(torch.cat([s["likeness"] for s in sections]), dim=1)
        similarity = (likeness @ likeness.T).clamp(min=1e-6)
        if places is not None:
            similarity = similarity + overlap(torch.cat(list(places)))
        similarity = similarity * (number[:, None] != number).to(similarity)
        counts = [[len(s["nodes"][level]) for s in sections] for level in (0, 1)]
        starts = [torch.tensor([0, *level]).cumsum(0) for level in counts]
        return {
            "images": torch.cat([s["images"] for s in sections]),
            "adjacency": through_sections(similarity, torch.cat([s["positions"] for s in sections])),
            "nodes": tuple(torch.cat([s["nodes"][level] for s in sections]) for level in (0, 1)),
            "graphs": tuple(torch.block_diag(*(s["graphs"][level] for s in sections)) for level in (0, 1)),
            "owners": tuple(
                torch.cat([s["owners"][level] + int(starts[level][i]) for i, s in enumerate(sections)])
                for level in (0, 1)
            ),
        }

    def predict_beside(
        self,
        measured: Sequence[Mapping[str, Any]],
        expression: Sequence[Tensor],
        section: Mapping[str, Any],
        places: Sequence[Tensor] | None = None,
    ) -> Tensor:
        """Expression of a section beside measured ones, float32 (spots, genes).

        Parameters
        ----------
        measured, section
            What ``prepare`` made of each.
        expression
            Of the measured sections, complete, (spots, genes) each.
        places
            As for :meth:`join`, the section last.
        """
        unknown = torch.zeros(len(section["images"]), expression[0].shape[1]).to(expression[0])
        volume = self.join([*measured, section], places)
        return self._run(**volume, known=torch.cat([*expression, unknown]))[0][-len(unknown) :]

    def _read_joined(self, spots: Tensor, regions: Tensor, wider: Tensor) -> list[Tensor]:
        """As published: each level is read behind the wider one, whose tokens already carry their code."""
        code = self.transformer.positional_encoding
        coded = (wider.reshape(-1, *code.shape) + code).view_as(wider)
        behind = [(coded, regions), (regions, spots)]
        first, second = (self.read(torch.cat(pair, dim=1))[pair[0].shape[1] :] for pair in behind)
        return [second, first, self.read(wider)]


class _Pairs:
    """Each section of an epoch joined with the one before it."""

    def __init__(self, model: ASIGN, batches: Batches) -> None:
        self.model, self.batches, self.n_slides = model, batches, batches.n_slides

    def __len__(self) -> int:
        return len(self.batches)

    def __iter__(self) -> Iterator[tuple[dict[str, Tensor], dict[str, Any]]]:
        epoch = list(self.batches)
        for i in range(len(epoch)):
            pair = epoch[i - 1 : i + 1] if i else [*epoch[1:][-1:], epoch[0]]
            targets = {name: torch.cat([given[name] for given, _ in pair]) for name in epoch[0][0]}
            yield targets, self.model.join([prepared for _, prepared in pair])


def overlap(places: Tensor) -> Tensor:
    """Intersection over union of squares of side 1 centred at (n, 2), for every pair, (n, n)."""
    shared = (1 - (places[:, None] - places).abs()).clamp(min=0).prod(-1)
    return shared / (2 - shared)


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
