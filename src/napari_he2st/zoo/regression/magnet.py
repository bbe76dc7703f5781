"""MagNet: bins, tiles and regions as graphs, for Visium HD (Zhu et al., MIDL 2025, arXiv 2502.21011)."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from napari_he2st.core.noise import Noise
from napari_he2st.zoo.base import Batches, Expression, Predictor, Recipe, Slide
from napari_he2st.zoo.blocks.graph import mean_of_neighbours, nearest_graph
from napari_he2st.zoo.blocks.losses import nan_mse, spot_pcc_loss
from napari_he2st.zoo.blocks.pixels import standardise
from napari_he2st.zoo.blocks.symmetry import random_symmetry
from napari_he2st.zoo.blocks.trunks import load_imagenet, torchvision_network
from napari_he2st.zoo.encoders.build import spec_of
from napari_he2st.zoo.inputs import Positions, TileGraph, Tiles

Graph = tuple[Tensor, Tensor, Tensor]
N_NEIGHBOURS = 8


class MagNet(Predictor):
    """A ResNet per bin, joined by the features of the tile and region around it; graphs at all three levels.

    Parameters
    ----------
    n_genes
        Size of the panel.
    dim, depth, heads, mlp_dim, dropout
        Of the transformer that all levels share.
    trunk
        A torchvision ResNet for the bins.
    encoder
        Of tiles and regions; its features are brought to ``dim`` by a fixed random projection
        (``extras["projection"]``), as published.
    tile_px
        Width of the image of a bin.
    imagenet
        Start training from ImageNet weights, as published.
    faithful
        Read the three graph results as if they were stored node by node, which mixes nodes and makes the
        result depend on their order, and give NaN for a node without neighbours, as published. By default
        each node keeps its own three results, and one without neighbours counts as zero.

    Notes
    -----
    In the cross-attention every query sees one key, so only its value and output layers matter. The heads
    ``gene_head_512`` and ``gene_head_224``, ``lstm_512`` and ``transformer.encoder_layer`` are published
    and play no part. In training, the label of a tile is the mean over its bins, not the normalised sum of
    their counts.
    """

    unit = Slide()
    targets = {"expression": Expression("log_share_panel", panel="mean:250")}
    recipe = Recipe("sgd", lr=0.005, epochs=51, batch_size=1, schedule="poly:0.9")
    max_spots = 1024

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
        tile_px: int = 112,
        imagenet: bool = True,
        faithful: bool = False,
    ) -> None:
        super().__init__()
        self.inputs = {
            "tiles": Tiles(px=tile_px),
            "positions": Positions(kind="um"),
            "regions": TileGraph(encoder=encoder, px=512),
            "spots": TileGraph(encoder=encoder, px=224),
        }
        self.trunk, self.imagenet, self.faithful = trunk, imagenet, faithful
        width = spec_of(encoder).dim
        self.extras["projection"] = np.random.default_rng(0).normal(0, width**-0.5, (width, dim)).astype(np.float32)
        self.encoder = torchvision_network(trunk, dim)
        self.cross_attention_512, self.cross_attention_224 = _SingleKeyAttention(dim), _SingleKeyAttention(dim)
        for level in (112, 512, 224):
            self.add_module(f"gat_layer_{level}", nn.ModuleList(_GraphLayer(dim) for _ in range(3)))
        self.transformer = _SharedTransformer(dim, depth, heads, mlp_dim, dropout)
        self.lstm_512 = nn.Sequential(nn.LSTM(dim, dim, 2))
        for name in ("gene_head_250", "gene_head_512", "gene_head_224"):
            self.add_module(name, nn.Sequential(nn.LayerNorm(dim), nn.Linear(dim, n_genes)))

    def prepare(self, *, tiles: Tensor, positions: Tensor, regions: Graph, spots: Graph) -> dict[str, Tensor]:
        """Standardised images, graph of bins, projected features of tiles, and the tile of each bin."""
        projection = torch.from_numpy(self.extras["projection"]).to(positions)
        (g512, tile_512, a512), (g224, tile_224, a224) = regions, spots
        return {
            "images": standardise(tiles),
            "adjacency": nearest_graph(positions, N_NEIGHBOURS),
            "g512": g512 @ projection,
            "g224": g224 @ projection,
            "a512": a512,
            "a224": a224,
            "tile_512": tile_512,
            "tile_224": tile_224,
        }

    def forward(
        self,
        images: Tensor,
        adjacency: Tensor,
        f512: Tensor,
        f224: Tensor,
        g512: Tensor,
        g224: Tensor,
        a512: Tensor,
        a224: Tensor,
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Expression of bins, regions and tiles, float32 (nodes, genes) each.

        Parameters
        ----------
        images
            Of the bins, standardised, (n, 3, px, px).
        adjacency, a512, a224
            Graphs of bins, regions and tiles; rows receive.
        f512, f224
            Features of the region and tile of each bin, (n, dim).
        g512, g224
            Features of all regions and tiles, (nodes, dim).
        """
        x = self.encoder(images) + self.cross_attention_512(f512) + self.cross_attention_224(f224)
        levels = (
            (self.gat_layer_112, x, adjacency),
            (self.gat_layer_512, g512, a512),
            (self.gat_layer_224, g224, a224),
        )
        bins, regions, tiles = (self._level(*level) for level in levels)
        return bins, regions, tiles

    def _level(self, layers: nn.Module, nodes: Tensor, adjacency: Tensor) -> Tensor:
        three = torch.stack([layer(nodes, adjacency, self.faithful) for layer in layers])  # type: ignore[operator]
        by_node = three.view(len(nodes), 3, -1) if self.faithful else three.transpose(0, 1)
        return self.gene_head_250(self.transformer(by_node))

    def loss(self, targets: Mapping[str, Tensor], *, images: Tensor, **graphs: Tensor) -> Tensor:
        """0.75 MSE, 0.1 correlation per bin, 0.05 per tile and region, 0.05 of these against their bins."""
        target = targets["expression"]
        bins, *larger = self._run(images=random_symmetry(images), **graphs)
        total = 0.75 * nan_mse(bins, target) + 0.1 * spot_pcc_loss(bins, target)
        for predicted, owner in zip(larger, (graphs["tile_512"], graphs["tile_224"]), strict=True):
            total = total + 0.05 * spot_pcc_loss(predicted, _mean_of_bins(target, owner, len(predicted)))
            total = total + 0.05 * spot_pcc_loss(predicted[owner], target)
        return total

    def predict(self, *, noise: Noise | None = None, **prepared: Tensor) -> Tensor:
        """Logarithm of the share of counts of each bin, float32 (n, genes)."""
        return self._run(**prepared)[0]

    def _run(self, *, tile_512: Tensor, tile_224: Tensor, **prepared: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        return self(f512=prepared["g512"][tile_512], f224=prepared["g224"][tile_224], **prepared)

    def fit(self, batches: Batches, recipe: Recipe) -> Iterator[dict[str, float]]:
        """Start the bins' network from ImageNet, then train."""
        if self.imagenet:
            load_imagenet(self.encoder, self.trunk)
        yield from super().fit(batches, recipe)


def _mean_of_bins(target: Tensor, owner: Tensor, n: int) -> Tensor:
    """Mean target of the bins that each of ``n`` tiles owns; NaN where there is none."""
    known = target.isfinite().to(target)
    total = target.new_zeros(n, target.shape[1]).index_add(0, owner, target.nan_to_num())
    return total / target.new_zeros(n, target.shape[1]).index_add(0, owner, known)


class _SingleKeyAttention(nn.Module):
    """Attention to a single key, which passes on its value whatever the query."""

    def __init__(self, dim: int) -> None:
        super().__init__()
        for name in ("query_proj", "key_proj", "value_proj", "out_proj"):
            self.add_module(name, nn.Linear(dim, dim))

    def forward(self, feature: Tensor) -> Tensor:
        return self.out_proj(self.value_proj(feature))


class _GraphLayer(nn.Module):
    """Mean of the neighbours, weighted by the receiving node, one linear map, unit length."""

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.empty(dim, dim))
        self.att_weight = nn.Parameter(torch.empty(dim, 1))
        nn.init.xavier_uniform_(self.weight)
        nn.init.xavier_uniform_(self.att_weight)

    def forward(self, nodes: Tensor, adjacency: Tensor, faithful: bool) -> Tensor:
        mean = mean_of_neighbours(adjacency, nodes, faithful=faithful)
        weight = torch.softmax(nodes @ self.att_weight, dim=0)
        return F.normalize(F.relu((weight * mean) @ self.weight.T), dim=1)


class _SharedTransformer(nn.Module):
    """A transformer over the three graph results of a node; mean of its tokens."""

    def __init__(self, dim: int, depth: int, heads: int, mlp_dim: int, dropout: float) -> None:
        super().__init__()
        self.positional_encoding = nn.Parameter(torch.randn(3, dim))
        self.encoder_layer = nn.TransformerEncoderLayer(dim, heads, mlp_dim, dropout, batch_first=True)
        self.transformer_encoder = nn.TransformerEncoder(self.encoder_layer, depth)

    def forward(self, tokens: Tensor) -> Tensor:
        return self.transformer_encoder(tokens + self.positional_encoding).mean(1)
