"""Hist2ST: convolutions within, attention and a graph among the spots of a slide (Zeng et al., bbac297, 2022)."""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from napari_he2st.zoo.blocks.graph import mean_of_neighbours
from napari_he2st.zoo.blocks.self_distilled import Likelihood, SelfDistilled, SpotBlock


class Hist2ST(SelfDistilled):
    """ConvMixer per tile, transformer over spots, GraphSAGE along neighbours, LSTM over its layers.

    Parameters
    ----------
    n_genes
        Size of the panel.
    tile_px, patch_px, channels, kernel
        Width of the tile, of its patches, channels of each patch (a multiple of 8) and width of the
        convolutions over patches. A spot has (tile_px // patch_px)² · channels / 8 features, 1024 as published.
    conv_depth, depth, graph_depth
        Number of ConvMixer, transformer and graph layers.
    heads, dim_head, dropout
        Of the transformer.
    bins
        Array columns and rows that have an embedding.
    likelihood
        Of the counts: ``"zinb"``, ``"nb"``, or None for expression alone.
    n_views
        Augmented views to distil in each training step; 0 for none.
    policy
        ``"mean"`` or ``"max"`` of the neighbours.
    neighbours, within
        Nearest spots that are neighbours, and their largest distance in array steps (None: any).
    faithful
        Give NaN for a whole slide with a spot without neighbours, and start training at 0, as published. By
        default such a spot's neighbourhood counts as zero, and training starts at the mean of the targets.
    """

    def __init__(
        self,
        n_genes: int,
        *,
        tile_px: int = 112,
        patch_px: int = 7,
        channels: int = 32,
        kernel: int = 5,
        conv_depth: int = 2,
        depth: int = 8,
        graph_depth: int = 4,
        heads: int = 16,
        dim_head: int = 64,
        dropout: float = 0.2,
        bins: int = 64,
        likelihood: Likelihood = "zinb",
        n_views: int = 5,
        policy: Literal["mean", "max"] = "mean",
        neighbours: int = 4,
        within: float | None = 2.0,
        faithful: bool = False,
    ) -> None:
        super().__init__()
        self._declare(tile_px, bins, likelihood, n_views)
        self.neighbours, self.within, self.faithful = neighbours, within, faithful
        dim = (tile_px // patch_px) ** 2 * channels // 8
        self.dropout = nn.Dropout(dropout)
        self.patch_embedding = nn.Conv2d(3, channels, patch_px, patch_px)
        self.x_embed, self.y_embed = nn.Embedding(bins, dim), nn.Embedding(bins, dim)
        blocks = [SpotBlock(dim, heads=heads, dim_head=dim_head, mlp_dim=dim, dropout=dropout) for _ in range(depth)]
        self.vit = nn.ModuleDict(
            {
                "transformer": nn.ModuleDict(
                    {
                        "layer1": nn.Sequential(*(_ConvMixer(channels, kernel) for _ in range(conv_depth))),
                        "layer2": nn.Sequential(*blocks),
                        "layer3": nn.ModuleList(_GraphLayer(dim, policy) for _ in range(graph_depth)),
                        "jknet": nn.Sequential(nn.LSTM(dim, dim, 2)),
                        "down": nn.Sequential(nn.Conv2d(channels, channels // 8, 1), nn.Flatten()),
                    }
                )
            }
        )
        self._add_count_heads(dim, n_genes)
        self.gene_head = nn.Sequential(nn.LayerNorm(dim), nn.Linear(dim, n_genes))

    def hidden(self, patches: Tensor, centers: Tensor, adj: Tensor) -> Tensor:
        """State of each spot before the heads, float32 (spots, dim)."""
        part = self.vit["transformer"]
        x = part["down"](part["layer1"](self.dropout(self.patch_embedding(patches[0]))))
        x = x + (self.x_embed(centers[0, :, 0]) + self.y_embed(centers[0, :, 1]))
        x = part["layer2"](x[None])[0]
        states = []
        for layer in part["layer3"]:
            x = layer(x, adj, self.faithful)
            states.append(x)
        return part["jknet"](torch.stack(states))[0].mean(0)


class _ConvMixer(nn.Module):
    """Two depthwise convolutions beside the identity, then one over channels."""

    def __init__(self, channels: int, kernel: int) -> None:
        super().__init__()
        parts: list[nn.Module] = []
        for _ in range(2):
            depthwise = nn.Conv2d(channels, channels, kernel, padding="same", groups=channels)
            parts += [depthwise, nn.BatchNorm2d(channels), nn.GELU()]
        self.dw = nn.Sequential(*parts)
        self.pw = nn.Sequential(nn.Conv2d(channels, channels, 1), nn.GELU(), nn.BatchNorm2d(channels))

    def forward(self, x: Tensor) -> Tensor:
        return self.pw(x + self.dw(x))


class _GraphLayer(nn.Module):
    """GraphSAGE of the neighbours alone: mean or maximum, one linear map, ReLU, unit length."""

    def __init__(self, dim: int, policy: Literal["mean", "max"]) -> None:
        super().__init__()
        self.policy = policy
        self.weight = nn.Parameter(torch.empty(dim, dim))
        nn.init.xavier_uniform_(self.weight)

    def forward(self, nodes: Tensor, adjacency: Tensor, faithful: bool) -> Tensor:
        if self.policy == "max":
            seen = adjacency == 1
            around = torch.stack([nodes[row].amax(0) if row.any() else torch.zeros_like(nodes[0]) for row in seen])
        else:
            around = mean_of_neighbours(adjacency, nodes, faithful=faithful)
        return F.normalize(F.relu(around @ self.weight.T), dim=1)
