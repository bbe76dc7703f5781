"""THItoGene: dynamic convolution and capsules per spot, then attention and a graph (Jia et al., bbad464, 2024)."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from napari_he2st.core.noise import Noise
from napari_he2st.zoo.base import Expression, Predictor, Slide
from napari_he2st.zoo.blocks.graph import GraphAttention, nearest_graph
from napari_he2st.zoo.blocks.vit import Transformer
from napari_he2st.zoo.inputs import Positions, Tiles
from napari_he2st.zoo.recipe import Recipe

_STRIDE = 4


class THItoGene(Predictor):
    """Capsules of each tile and two position embeddings are its token; transformer and graph attention follow.

    Parameters
    ----------
    n_genes
        Size of the panel.
    n_capsules, capsule_dim
        Output capsules per tile and their width; a spot's token has (n_capsules + 2) · capsule_dim features.
    depth, heads, dim_head, mlp_dim, dropout
        Of the transformer over spots; 4 layers for breast and 8 for skin are published.
    graph_heads, graph_dim, dim
        Heads of the graph attention, width of each, and width of what they give together.
    neighbours
        Nearest spots that are neighbours.
    tile_px
        Width of the tile.
    bins
        Array columns and rows that have an embedding.
    faithful
        Let the graph's weights sum to 1 over the spots that receive, not over those that are heard, as published:
        a spot that is nobody's neighbour then leaks into all. By default they sum to 1 for each spot. Published
        weights were trained with it.
    """

    unit = Slide()
    targets = {"expression": Expression("log10_cp10k_panel", panel="hvg:1000")}
    recipe = Recipe("adam", lr=1e-5, epochs=200, batch_size=1)

    def __init__(
        self,
        n_genes: int,
        *,
        n_capsules: int = 20,
        capsule_dim: int = 64,
        depth: int = 4,
        heads: int = 16,
        dim_head: int = 64,
        mlp_dim: int = 2048,
        dropout: float = 0.2,
        graph_heads: int = 8,
        graph_dim: int = 1024,
        dim: int = 512,
        neighbours: int = 4,
        tile_px: int = 112,
        bins: int = 64,
        faithful: bool = False,
    ) -> None:
        super().__init__()
        self.inputs = {"tiles": Tiles(px=tile_px), "grid_xy": Positions(kind="grid", bins=bins)}
        self.neighbours, self.faithful = neighbours, faithful
        width = (n_capsules + 2) * capsule_dim
        self.odconv2d = _DynamicConvolution(3, 16, _STRIDE)
        self.caps_layer = _Capsules(16, tile_px // _STRIDE, n_capsules, capsule_dim)
        self.x_embed, self.y_embed = nn.Embedding(bins, capsule_dim), nn.Embedding(bins, capsule_dim)
        transformer = Transformer(width, depth=depth, heads=heads, dim_head=dim_head, mlp_dim=mlp_dim, dropout=dropout)
        self.vit = nn.ModuleDict({"dropout": nn.Dropout(dropout), "transformer": transformer})
        self.gat = nn.ModuleDict({f"attention_{i}": GraphAttention(width, graph_dim) for i in range(graph_heads)})
        self.gat["out_att"] = GraphAttention(graph_heads * graph_dim, dim)
        self.gene_head = nn.Sequential(nn.Linear(dim, 1024), nn.ReLU(), nn.LayerNorm(1024), nn.Linear(1024, n_genes))

    def prepare(self, *, tiles: Tensor, grid_xy: Tensor) -> dict[str, Tensor]:
        """Pixel values from 0 to 255, width before height, one slide per batch; graph on array positions."""
        graph = nearest_graph(grid_xy, self.neighbours)
        return {
            "patches": tiles.transpose(-1, -2).float()[None],
            "centers": grid_xy[None],
            "adj": graph[None] if self.faithful else graph,
        }

    def forward(self, patches: Tensor, centers: Tensor, adj: Tensor) -> Tensor:
        """Float32 expression, in the dimensions of ``adj``.

        Parameters
        ----------
        patches
            (1, spots, 3, px, px).
        centers
            Array (column, row), int64 (1, spots, 2).
        adj
            Dense graph. Of shape (spots, spots), its weights are normalised for each spot; of shape
            (1, spots, spots) over the spots that receive, as published.
        """
        capsules = self.caps_layer(F.relu(self.odconv2d(patches[0])))
        x, y = self.x_embed(centers[0, :, 0]), self.y_embed(centers[0, :, 1])
        tokens = torch.cat([capsules, x[:, None], y[:, None]], dim=1).flatten(1)
        nodes = self.vit["transformer"](self.vit["dropout"](tokens[None]))[0]
        over, graph = (0, adj[0]) if adj.ndim == 3 else (1, adj)
        *heads, last = self.gat.values()
        joined = torch.cat([F.elu(head(nodes, graph, over=over)) for head in heads], dim=1)
        out = self.gene_head(F.elu(last(joined, graph, over=over)))
        return out[None] if adj.ndim == 3 else out

    def predict(self, *, noise: Noise | None = None, **prepared: Tensor) -> Tensor:
        """Expression of the spots of the one slide, float32 (spots, genes)."""
        return self(**prepared).flatten(0, -2)


class _DynamicConvolution(nn.Module):
    """Convolution (ODConv) whose kernel each image mixes for itself, with attention on all of its axes."""

    def __init__(self, n_in: int, n_out: int, width: int, n_kernels: int = 4, hidden: int = 16) -> None:
        super().__init__()
        self.width = width
        self.weight = nn.Parameter(torch.empty(n_kernels, n_out, n_in, width, width))
        for kernel in self.weight:
            nn.init.kaiming_normal_(kernel, mode="fan_out", nonlinearity="relu")
        self.attention = nn.ModuleDict(
            {
                "fc": nn.Conv2d(n_in, hidden, 1, bias=False),
                "bn": nn.BatchNorm2d(hidden),
                "channel_fc": nn.Conv2d(hidden, n_in, 1),
                "filter_fc": nn.Conv2d(hidden, n_out, 1),
                "spatial_fc": nn.Conv2d(hidden, width * width, 1),
                "kernel_fc": nn.Conv2d(hidden, n_kernels, 1),
            }
        )

    def forward(self, images: Tensor) -> Tensor:
        layers, n = self.attention, len(images)
        seen = F.relu(layers["bn"](layers["fc"](images.mean((2, 3), keepdim=True))))
        channel, filters = (layers[name](seen).sigmoid() for name in ("channel_fc", "filter_fc"))
        spatial = layers["spatial_fc"](seen).sigmoid().view(n, 1, 1, self.width, self.width)
        mix = layers["kernel_fc"](seen).flatten(1).softmax(1)
        kernels = (torch.einsum("nk,koihw->noihw", mix, self.weight) * spatial).flatten(0, 1)
        # Images become groups of channels, so that each has its own kernel.
        out = F.conv2d((channel * images).flatten(0, 1)[None], kernels, stride=self.width, groups=n)
        return out[0].unflatten(0, (n, -1)) * filters


class _Capsules(nn.Module):
    """Four convolutions, 16 primary capsules of 8 channels, and the output capsules that they agree on."""

    def __init__(self, n_in: int, px: int, n_capsules: int, dim: int) -> None:
        super().__init__()
        sizes = (n_in, 32, 64, 64, 128)
        for i, (kernel, stride) in enumerate(((5, 1), (3, 1), (3, 1), (3, 2))):
            self.add_module(f"conv{i + 1}", nn.Conv2d(sizes[i], sizes[i + 1], kernel, stride))
            self.add_module(f"batch_norm{i + 1}", nn.BatchNorm2d(sizes[i + 1]))
            px = (px - kernel) // stride + 1
        self.primary_caps = nn.ModuleDict({"depthwise_conv": nn.Conv2d(128, 128, px, groups=128)})
        self.digit_caps = nn.ParameterDict(
            {"W": torch.empty(n_capsules, 16, 8, dim), "b": torch.zeros(n_capsules, 16, 1)}
        )
        nn.init.kaiming_normal_(self.digit_caps["W"])

    def forward(self, x: Tensor) -> Tensor:
        for i in range(1, 5):
            x = F.relu(getattr(self, f"batch_norm{i}")(getattr(self, f"conv{i}")(x)))
        primary = squash(self.primary_caps["depthwise_conv"](x).flatten(1).unflatten(1, (16, 8)))
        votes = torch.einsum("nie,kied->nkid", primary, self.digit_caps["W"])
        agreement = (votes * votes.sum(2, keepdim=True)).sum(-1, keepdim=True) / votes.shape[-1] ** 0.5
        weight = agreement.softmax(1) + self.digit_caps["b"]
        return squash((weight * votes).sum(2))


def squash(v: Tensor) -> Tensor:
    """Vectors of the same direction, shorter than 1: (1 − exp(−|v|)) · v / |v|."""
    length = v.norm(dim=-1, keepdim=True)
    return (1 - 1 / (length.exp() + 1e-20)) * v / (length + 1e-20)
