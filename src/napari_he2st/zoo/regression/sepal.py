"""SEPAL: a vision transformer, corrected by a graph network around each spot (Mejia et al., arXiv 2309.01036, 2023)."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from itertools import pairwise
from typing import Literal

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from napari_he2st.core.noise import Noise
from napari_he2st.zoo.base import Batches, Expression, Predictor, Slide
from napari_he2st.zoo.blocks.graph import GCNConv, GraphConv, at_offsets, lattice_offsets
from napari_he2st.zoo.blocks.losses import nan_mse
from napari_he2st.zoo.blocks.pixels import standardise
from napari_he2st.zoo.blocks.trunks import load_imagenet
from napari_he2st.zoo.guard import safe_import
from napari_he2st.zoo.inputs import Positions, Tiles
from napari_he2st.zoo.recipe import Recipe, descend, make_optimizer

_N_DISTANCES = 7


class SEPAL(Predictor):
    """Difference from the mean of the training spots, from the tile alone plus a correction by its neighbours.

    Parameters
    ----------
    n_genes
        Size of the panel.
    dim, depth, heads
        Of the vision transformer; published is ViT-B/16.
    preprocess, graph, head
        Widths after the input of the layers before, in and after the graph; published for Visium are
        (512,), (256, 128) and (n_genes,), for ST-Net (), (n_genes,) and (): the last is always n_genes.
    operator
        Of the graph: ``"gcn"`` (Visium) or ``"graphconv"`` (ST-Net).
    add_positions
        Add the code of a node's relative position to its feature (ST-Net), or append it (Visium).
    tile_px
        Width of the tile; its middle seven eighths are seen.
    imagenet
        Start the transformer from ImageNet weights, as published.
    image_epochs, image_lr
        Of the transformer's own training, which comes first; ``recipe`` is that of the graph.
    fill
        Take zeros for failed measurements, and put medians of the surroundings in their place before training
        (:func:`fill_zeros`), as published. Predictions are then above what was measured.
    """

    unit = Slide()
    targets = {"expression": Expression("log2_cpm", panel="hvg:256")}
    recipe = Recipe("adam", lr=1e-5, epochs=300, batch_size=1)
    beside = {"mean": "mean expression of the training spots, one number per gene"}

    def __init__(
        self,
        n_genes: int,
        *,
        dim: int = 768,
        depth: int = 12,
        heads: int = 12,
        preprocess: Sequence[int] = (512,),
        graph: Sequence[int] = (256, 128),
        head: bool = True,
        operator: Literal["gcn", "graphconv"] = "gcn",
        add_positions: bool = False,
        tile_px: int = 224,
        imagenet: bool = True,
        image_epochs: int = 50,
        image_lr: float = 1e-4,
        fill: bool = True,
    ) -> None:
        super().__init__()
        self.inputs = {"tiles": Tiles(px=tile_px), "grid_xy": Positions(kind="grid")}
        self.imagenet, self.image_epochs, self.image_lr = imagenet, image_epochs, image_lr
        self.add_positions, self.fill = add_positions, fill
        self.image = ImageEncoder(n_genes, dim=dim, depth=depth, heads=heads, tile_px=tile_px)
        width = dim if add_positions else 2 * dim
        graph = tuple(graph) if head else (*graph, n_genes)
        self.correction = GraphNetwork(width, preprocess, graph, (n_genes,) if head else (), operator)
        self.extras["mean"] = np.zeros(n_genes, np.float32)

    def prepare(self, *, tiles: Tensor, grid_xy: Tensor) -> dict[str, Tensor]:
        """Tiles seen through the middle, standardised; the neighbourhood of each spot (:func:`neighbourhoods`)."""
        px = tiles.shape[-1]
        wide = F.interpolate(tiles.float() / 255, scale_factor=8 / 7, mode="bilinear", antialias=True)
        edge = (wide.shape[-1] - px) // 2
        images = standardise(255 * wide[..., edge : edge + px, edge : edge + px])
        return {"images": images, "grid_xy": grid_xy}

    def forward(self, embeddings: Tensor, predictions: Tensor, grid_xy: Tensor) -> Tensor:
        """Difference from the training mean of each spot, float32 (spots, genes).

        Parameters
        ----------
        embeddings, predictions
            What the image encoder says of each spot, (spots, dim) and (spots, genes).
        grid_xy
            Array (column, row), int64 (spots, 2).
        """
        index, steps, adjacency = neighbourhoods(grid_xy)
        nodes = self.with_positions(embeddings[index.clamp(min=0)], steps)
        return self.correction(nodes, adjacency, index >= 0) + predictions

    def with_positions(self, nodes: Tensor, steps: Tensor) -> Tensor:
        """Features of nodes (…, dim) with the code of their steps (column, row), int64 (…, 2), from the centre."""
        reach = int(steps.abs().max())
        code = position_table(reach, nodes.shape[-1]).to(nodes)[steps[..., 1] + reach, steps[..., 0] + reach]
        return nodes + code if self.add_positions else torch.cat([nodes, code], dim=-1)

    def predict(self, *, images: Tensor, grid_xy: Tensor, noise: Noise | None = None) -> Tensor:
        """Binary logarithm of 1 + counts per million, float32 (spots, genes)."""
        return self(*self._encode(images), grid_xy) + torch.from_numpy(self.extras["mean"]).to(images)

    @torch.no_grad()
    def _encode(self, images: Tensor) -> tuple[Tensor, Tensor]:
        parts = [self.image(part) for part in images.split(64)]
        return torch.cat([part[0] for part in parts]), torch.cat([part[1] for part in parts])

    def _wanted(self, targets: dict[str, Tensor], prepared: dict[str, Tensor]) -> Tensor:
        """What is learnt of a slide, float32 (spots, genes)."""
        expression = targets["expression"]
        if not self.fill:
            return expression
        filled = fill_zeros(expression.cpu().numpy(), prepared["grid_xy"].cpu().numpy())
        return torch.from_numpy(filled).to(expression)

    def fit(self, batches: Batches, recipe: Recipe) -> Iterator[dict[str, float]]:
        """Fill zeros, take the mean off, train the transformer on tiles, then the graph with it frozen."""
        if self.imagenet:
            load_imagenet(self.image.encoder, "vit_b_16")
        mean = torch.cat([self._wanted(*batch) for batch in batches]).nanmean(0).nan_to_num()
        self.extras["mean"] = mean.cpu().numpy()
        first = replace(recipe, epochs=self.image_epochs, lr=self.image_lr)
        optimizer = make_optimizer(self.image, first)
        for _ in range(first.epochs):
            self.train()
            for targets, prepared in batches:
                wanted = self._wanted(targets, prepared) - mean
                for part in torch.randperm(len(wanted)).split(128):
                    descend(optimizer, nan_mse(self.image(prepared["images"][part])[1], wanted[part]), first)
        optimizer = make_optimizer(self.correction, recipe)
        for epoch in range(recipe.epochs):
            self.correction.train()
            self.image.eval()
            losses = []
            for targets, prepared in batches:
                loss = nan_mse(self.predict(**prepared), self._wanted(targets, prepared))
                descend(optimizer, loss, recipe)
                losses.append(float(loss.detach()))
            yield {"epoch": epoch, "loss": sum(losses) / max(len(losses), 1)}


class ImageEncoder(nn.Module):
    """A torchvision vision transformer; its last layer predicts the differences."""

    def __init__(self, n_genes: int, *, dim: int, depth: int, heads: int, tile_px: int) -> None:
        super().__init__()
        self.encoder = safe_import("torchvision.models").VisionTransformer(
            tile_px, 16, depth, heads, dim, 4 * dim, num_classes=n_genes
        )

    def forward(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """Feature (n, dim) and prediction (n, genes) of standardised images (n, 3, px, px)."""
        tokens = self.encoder._process_input(images)
        start = self.encoder.class_token.expand(len(images), -1, -1)
        feature = self.encoder.encoder(torch.cat([start, tokens], dim=1))[:, 0]
        return feature, self.encoder.heads(feature)


class GraphNetwork(nn.Module):
    """Layers before the graph, the graph's own, the one node with the highest score, layers after it."""

    def __init__(
        self, n_in: int, before: Sequence[int], graph: Sequence[int], after: Sequence[int], operator: str
    ) -> None:
        super().__init__()
        convolution = {"gcn": GCNConv, "graphconv": GraphConv}[operator]
        sizes = [n_in, *before, *graph]
        self.pooling_fn = nn.ModuleDict({"gnn": GraphConv(sizes[-1], 1)})
        if before:
            self.preprocess_layer = _Mlp([n_in, *before])
        sizes = sizes[len(before) :]
        self.layers = nn.ModuleList(convolution(a, b) for a, b in pairwise(sizes))
        if after:
            self.prediction_layer = _Mlp([sizes[-1], *after])

    def forward(self, nodes: Tensor, adjacency: Tensor, exists: Tensor) -> Tensor:
        """One row per graph, from nodes (graphs, n, dim), dense graphs and which nodes exist, bool (graphs, n)."""
        x = self.preprocess_layer(nodes) if hasattr(self, "preprocess_layer") else nodes
        for layer in self.layers:
            x = F.elu(layer(x, adjacency))
        score = self.pooling_fn["gnn"](x, adjacency).squeeze(-1).tanh().masked_fill(~exists, -2)
        top, node = score.max(1)
        x = x[torch.arange(len(x), device=x.device), node] * top[:, None]
        return self.prediction_layer(x) if hasattr(self, "prediction_layer") else x


class _Mlp(nn.Module):
    def __init__(self, sizes: Sequence[int]) -> None:
        super().__init__()
        self.layers = nn.ModuleList(nn.Linear(a, b) for a, b in pairwise(sizes))

    def forward(self, x: Tensor) -> Tensor:
        for layer in self.layers:
            x = F.elu(layer(x))
        return x


def neighbourhoods(grid_xy: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Each spot (first) and its neighbours on the lattice as a graph.

    Returns
    -------
    index
        Row of each node, int64 (spots, nodes); −1 where no spot is.
    steps
        From the centre, (column, row), int64 (spots, nodes, 2).
    adjacency
        Which nodes touch, float32 (spots, nodes, nodes).
    """
    offsets = lattice_offsets(grid_xy)
    around = at_offsets(grid_xy, offsets)
    index = torch.cat([torch.arange(len(grid_xy), device=grid_xy.device)[:, None], around], dim=1)
    steps = torch.cat([torch.zeros_like(offsets[:1]), offsets])
    between = (steps[:, None] - steps)[:, :, None]
    touch = (between == offsets).all(-1).any(-1)
    exists = index >= 0
    adjacency = (touch & exists[:, :, None] & exists[:, None]).float()
    return index, steps.expand(len(index), -1, -1), adjacency


def position_table(reach: int, dim: int) -> Tensor:
    """Sines and cosines of row and column, float32 (2 · reach + 1, 2 · reach + 1, dim), rows first."""
    half = 2 * -(-dim // 4)
    frequency = 10000 ** (-torch.arange(0, half, 2) / half)
    angle = torch.arange(2 * reach + 1)[:, None] * frequency
    code = torch.stack([angle.sin(), angle.cos()], dim=-1).flatten(1)
    rows, columns = code[:, None].expand(-1, len(code), -1), code.expand(len(code), -1, -1)
    return torch.cat([rows, columns], dim=-1)[..., :dim]


def fill_zeros(expression: np.ndarray, positions: np.ndarray, n_distances: int = _N_DISTANCES) -> np.ndarray:
    """Zeros of a slide replaced by the median of ever wider neighbourhoods, then of the gene's other spots.

    Parameters
    ----------
    expression
        Spots × genes; NaN stays so.
    positions
        Array positions, (spots, 2).
    n_distances
        How many of the smallest distances between spots are tried as radius.
    """
    distance = np.linalg.norm(positions[:, None] - positions[None].astype(np.float64), axis=-1)
    radii = np.unique(distance[distance > 0].round(9))[:n_distances]
    filled = expression.copy()
    for spot in np.flatnonzero((expression == 0).any(axis=1)):
        for radius in radii:
            empty = filled[spot] == 0
            if not empty.any():
                break
            near = expression[distance[spot] <= radius + 1e-9]
            filled[spot, empty] = np.median(near[:, empty], axis=0)
    for gene in np.flatnonzero((filled == 0).any(axis=0)):
        others = expression[:, gene][expression[:, gene] > 0]
        filled[filled[:, gene] == 0, gene] = np.median(others) if len(others) else 0
    return filled


def log2_tpm(counts: np.ndarray, gene_length: np.ndarray) -> np.ndarray:
    """Binary logarithm of 1 + transcripts per million, from spots × genes and the length of each gene."""
    rate = counts / gene_length
    return np.log2(1 + 1e6 * rate / rate.sum(axis=1, keepdims=True))
