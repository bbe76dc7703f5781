"""Spots and the larger tiles around them, each level a graph: what ASIGN and MagNet share."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, ClassVar

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from napari_he2st.core.noise import Noise
from napari_he2st.zoo.base import Batches, Expression, Predictor, Slide
from napari_he2st.zoo.blocks.graph import mean_of_neighbours, nearest_graph
from napari_he2st.zoo.blocks.losses import nan_mse, spot_pcc_loss
from napari_he2st.zoo.blocks.pixels import standardise
from napari_he2st.zoo.blocks.start import start_at_mean
from napari_he2st.zoo.blocks.symmetry import random_symmetry
from napari_he2st.zoo.blocks.trunks import load_imagenet, torchvision_network
from napari_he2st.zoo.encoders.build import spec_of
from napari_he2st.zoo.inputs import Positions, TileGraph, Tiles
from napari_he2st.zoo.recipe import Recipe

Pair = tuple[Tensor, Tensor]
N_NEIGHBOURS = 8


class TileGraphs(Predictor):
    """Three levels: spots, and two sizes of tiles that cover the slide.

    Attributes
    ----------
    levels
        Width in pixels of the spot's image and of the two kinds of tiles, in the order of the state dict.
    weights
        In the loss: of the MSE, of the correlation per spot, of that per tile, of that between tiles and
        their spots; the last two for each of the two kinds of tiles.
    sees_image
        Whether the spot's own image counts, not only the tiles around it.

    Parameters
    ----------
    n_genes
        Size of the panel.
    dim, depth, heads, mlp_dim, dropout
        Of the transformer that all levels share.
    trunk
        A torchvision ResNet for the spots.
    encoder
        Of the tiles; its features are brought to ``dim`` by a fixed random projection
        (``extras["projection"]``), as published.
    tile_px
        Width of the image of a spot, by default the published one.
    imagenet
        Start training from ImageNet weights, as published.
    lstm
        The state dict has the LSTM that is published and plays no part.
    faithful
        Read the three graph results as if they were stored node by node, which mixes nodes and makes the
        result depend on their order, give NaN for a node without neighbours, and start training at 0, as
        published. By default each node keeps its own three results, one without neighbours counts as zero, and
        training starts at the mean of the targets, which lie far from 0.

    Notes
    -----
    In the cross-attention every query sees one key, so only its value and output layers matter. The heads
    of the two kinds of tiles and ``transformer.encoder_layer`` are published and play no part either. In
    training, the label of a tile is the mean over its spots, not the normalised sum of their counts.
    """

    unit = Slide()
    targets = {"expression": Expression("log_share_panel", panel="mean:250")}
    max_spots = 1024
    beside = {"projection": "the random matrix that brought the features of tiles to dim, (features, dim)"}
    levels: ClassVar[tuple[int, int, int]]
    weights: tuple[float, float, float, float]
    sees_image: bool = True

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
        tile_px: int | None = None,
        imagenet: bool = True,
        lstm: bool = True,
        faithful: bool = False,
    ) -> None:
        super().__init__()
        self.trunk, self.imagenet, self.faithful = trunk, imagenet, faithful
        spot, first, second = self.levels
        self.inputs = {
            "tiles": Tiles(px=tile_px or spot),
            "positions": Positions(kind="um"),
            "first": TileGraph(encoder=encoder, px=first),
            "second": TileGraph(encoder=encoder, px=second),
        }
        width = spec_of(encoder).dim
        self.extras["projection"] = np.random.default_rng(0).normal(0, width**-0.5, (width, dim)).astype(np.float32)
        self.encoder = torchvision_network(trunk, dim)
        for level in (first, second):
            self.add_module(f"cross_attention_{level}", SingleKeyAttention(dim))
        for level in self.levels:
            self.add_module(f"gat_layer_{level}", nn.ModuleList(GraphLayer(dim) for _ in range(3)))
        self.transformer = SharedTransformer(dim, depth, heads, mlp_dim, dropout)
        if lstm:
            self.lstm_512 = nn.Sequential(nn.LSTM(dim, dim, 2))
        for level in (250, first, second):
            self.add_module(f"gene_head_{level}", nn.Sequential(nn.LayerNorm(dim), nn.Linear(dim, n_genes)))

    def prepare(self, *, tiles: Tensor, positions: Tensor, first: tuple, second: tuple) -> dict[str, Any]:
        """Standardised images, graph of spots, projected features and graphs of tiles, the tile of each spot."""
        projection = torch.from_numpy(self.extras["projection"]).to(positions)
        return {
            "images": standardise(tiles),
            "adjacency": nearest_graph(positions, N_NEIGHBOURS),
            "nodes": (first[0] @ projection, second[0] @ projection),
            "graphs": (first[2], second[2]),
            "owners": (first[1], second[1]),
        }

    def around(self, features: Pair) -> Tensor:
        """What the tiles around a spot give it, float32 (spots, dim)."""
        layers = (getattr(self, f"cross_attention_{level}") for level in self.levels[1:])
        a, b = (layer(feature) for layer, feature in zip(layers, features, strict=True))
        return a + b

    def forward(
        self, images: Tensor, adjacency: Tensor, features: Pair, nodes: Pair, graphs: Pair
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Expression of spots and of both kinds of tiles, float32 (nodes, genes) each.

        Parameters
        ----------
        images
            Of the spots, standardised, (spots, 3, px, px).
        adjacency, graphs
            Dense graphs of the spots and of the tiles; rows receive.
        features
            Features of the tiles that each spot lies in, (spots, dim).
        nodes
            Features of all tiles, (tiles, dim).
        """
        x = self.around(features)
        if self.sees_image:
            x = x + self.encoder(images)
        each = zip(self.levels, (x, *nodes), (adjacency, *graphs), strict=True)
        spots, first, second = (self.read(self.stack(*level)) for level in each)
        return spots, first, second

    def stack(self, level: int, nodes: Tensor, adjacency: Tensor) -> Tensor:
        """The three graph results of each node of a level, float32 (3, nodes, dim)."""
        layers = getattr(self, f"gat_layer_{level}")
        return torch.stack([layer(nodes, adjacency, self.faithful) for layer in layers])

    def read(self, three: Tensor) -> Tensor:
        """Expression of nodes, float32 (nodes, genes), from their graph results (3, nodes, dim)."""
        return self.gene_head_250(self.transformer(by_node(three, self.faithful)))

    def loss(self, targets: Mapping[str, Tensor], *, images: Tensor, owners: Pair, **graphs: Any) -> Tensor:
        """Error and correlation per spot; correlation per tile, and between tiles and their spots."""
        target, (mse, pcc, per_tile, agreement) = targets["expression"], self.weights
        spots, *tiles = self._run(images=random_symmetry(images), owners=owners, **graphs)
        total = mse * nan_mse(spots, target) + pcc * spot_pcc_loss(spots, target)
        for predicted, owner in zip(tiles, owners, strict=True):
            total = total + per_tile * spot_pcc_loss(predicted, _mean_of_spots(target, owner, len(predicted)))
            total = total + agreement * spot_pcc_loss(predicted[owner], target)
        return total

    def predict(self, *, noise: Noise | None = None, **prepared: Any) -> Tensor:
        """Logarithm of the share of counts of each spot, float32 (n, genes)."""
        return self._run(**prepared)[0]

    def _run(self, *, nodes: Pair, owners: Pair, **prepared: Any) -> tuple[Tensor, Tensor, Tensor]:
        (first, second), (of_first, of_second) = nodes, owners
        return self(features=(first[of_first], second[of_second]), nodes=nodes, **prepared)

    def fit(self, batches: Batches, recipe: Recipe) -> Iterator[dict[str, float]]:
        """Start the spots' network from ImageNet and the head at the mean of the targets, then train."""
        if self.imagenet:
            load_imagenet(self.encoder, self.trunk)
        if not self.faithful:
            start_at_mean(batches, self.gene_head_250[-1])
        yield from super().fit(batches, recipe)


def by_node(three: Tensor, faithful: bool) -> Tensor:
    """Graph results (3, nodes, dim) as tokens (nodes, 3, dim).

    As published, where ``faithful``, the numbers are merely read as if they were stored so, which mixes nodes
    and makes the result depend on their order.
    """
    return three.reshape(three.shape[1], 3, -1) if faithful else three.transpose(0, 1)


def _mean_of_spots(target: Tensor, owner: Tensor, n: int) -> Tensor:
    """Mean target of the spots that each of ``n`` tiles owns; NaN where there is none."""
    known = target.isfinite().to(target)
    total = target.new_zeros(n, target.shape[1]).index_add(0, owner, target.nan_to_num())
    return total / target.new_zeros(n, target.shape[1]).index_add(0, owner, known)


class SingleKeyAttention(nn.Module):
    """Attention to a single key, which passes on its value whatever the query."""

    def __init__(self, dim: int) -> None:
        super().__init__()
        for name in ("query_proj", "key_proj", "value_proj", "out_proj"):
            self.add_module(name, nn.Linear(dim, dim))

    def forward(self, feature: Tensor) -> Tensor:
        """Float32 (spots, dim)."""
        return self.out_proj(self.value_proj(feature))


class GraphLayer(nn.Module):
    """Mean of the neighbours, weighted by the receiving node, one linear map, unit length."""

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.empty(dim, dim))
        self.att_weight = nn.Parameter(torch.empty(dim, 1))
        nn.init.xavier_uniform_(self.weight)
        nn.init.xavier_uniform_(self.att_weight)

    def forward(self, nodes: Tensor, adjacency: Tensor, faithful: bool) -> Tensor:
        """Float32 (nodes, dim), from a dense graph."""
        mean = mean_of_neighbours(adjacency, nodes, faithful=faithful)
        weight = torch.softmax(nodes @ self.att_weight, dim=0)
        return F.normalize(F.relu((weight * mean) @ self.weight.T), dim=1)


class SharedTransformer(nn.Module):
    """A transformer over the three graph results of a node; mean of its tokens."""

    def __init__(self, dim: int, depth: int, heads: int, mlp_dim: int, dropout: float) -> None:
        super().__init__()
        self.positional_encoding = nn.Parameter(torch.randn(3, dim))
        self.encoder_layer = nn.TransformerEncoderLayer(dim, heads, mlp_dim, dropout, batch_first=True)
        self.transformer_encoder = nn.TransformerEncoder(self.encoder_layer, depth)

    def forward(self, tokens: Tensor) -> Tensor:
        """Float32 (nodes, dim), from (nodes, 3, dim)."""
        return self.transformer_encoder(tokens + self.positional_encoding).mean(1)
