"""HGGEP: edges of the image, three scales of attention and a hypergraph of spots (Li et al., bbae500, 2024)."""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from napari_he2st.zoo.base import Batches
from napari_he2st.zoo.blocks.graph import HypergraphConv
from napari_he2st.zoo.blocks.self_distilled import Likelihood, SelfDistilled, SpotBlock
from napari_he2st.zoo.blocks.trunks import load_imagenet, torchvision_network
from napari_he2st.zoo.recipe import Recipe

_TRUNK = "shufflenet_v2_x0_5"
_STAGES = ("conv1", "stage2", "stage3", "stage4", "conv5")


class HGGEP(SelfDistilled):
    """ShuffleNet on enhanced edges; attention among spots at three scales; hypergraph; LSTM over the four.

    Parameters
    ----------
    n_genes
        Size of the panel.
    dim
        Features of a spot, a multiple of 16.
    depth, heads, dim_head, dropout
        Of each of the three transformers over spots.
    lstm_depth
        Layers of the LSTM.
    bins
        Array columns and rows that have an embedding.
    likelihood
        Of the counts: ``"zinb"``, ``"nb"``, or None for expression alone.
    n_views
        Augmented views to distil in each training step; 0 for none.
    neighbours, within
        Nearest spots that are neighbours, and their largest distance in array steps (None: any).
    imagenet
        Start training from ImageNet weights, as published.
    faithful
        Give NaN for a slide with a spot without neighbours, and start training at 0, as published. By default such
        a spot joins the hyperedges of the spots most unlike it, and training starts at the mean of the targets.
        (The published evaluation also leaves a dropout of the hypergraph on; here it is always off.)

    Notes
    -----
    A spot joins the hyperedges of its neighbours and of the spots that are *least* like it, and hyperedge j has
    the weight of incidence j, both as published. Tiles are 112 px wide, which the last feature map of 4 × 4 needs.
    """

    recipe = Recipe("adam", lr=1e-5, epochs=401, batch_size=1, schedule="step:50:0.9")

    def __init__(
        self,
        n_genes: int,
        *,
        dim: int = 1024,
        depth: int = 4,
        heads: int = 16,
        dim_head: int = 64,
        dropout: float = 0.2,
        lstm_depth: int = 4,
        bins: int = 64,
        likelihood: Likelihood = "zinb",
        n_views: int = 5,
        neighbours: int = 8,
        within: float | None = 2.0,
        imagenet: bool = True,
        faithful: bool = False,
    ) -> None:
        super().__init__()
        self._declare(112, bins, likelihood, n_views)
        self.neighbours, self.within, self.imagenet, self.faithful = neighbours, within, imagenet, faithful
        self.x_embed, self.y_embed = nn.Embedding(bins, dim), nn.Embedding(bins, dim)
        self.conv0 = _GradientEnhanced()
        trunk = torchvision_network(_TRUNK, 1)
        for i, stage in enumerate(_STAGES):
            self.add_module(f"layer{i + 1}", getattr(trunk, stage))
        self.down4, self.down5, self.down6 = _down(192, dim // 16), _down(1024, dim // 16), _down(1024, dim)
        for i in range(1, 4):
            blocks = (
                SpotBlock(dim, heads=heads, dim_head=dim_head, mlp_dim=dim, dropout=dropout) for _ in range(depth)
            )
            self.add_module(f"ViT{i}", nn.Sequential(*blocks))
        self.jknet = nn.Sequential(nn.LSTM(dim, dim, lstm_depth))
        self.hgnn = _HypergraphNetwork(dim)
        self.gene_head = nn.Sequential(nn.LayerNorm(dim), nn.Linear(dim, n_genes))
        self._add_count_heads(dim, n_genes)

    def scales(self, images: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Features of each tile (n, 3, 112, 112) at three scales, (n, dim) each."""
        t4 = self.layer4(self.layer3(self.layer2(self.layer1(self.conv0(images)))))
        t5 = self.layer5(t4)
        return self.down4(t4), self.down5(t5), self.down6(t5.amax((2, 3), keepdim=True))

    def hidden(self, patches: Tensor, centers: Tensor, adj: Tensor) -> Tensor:
        """State of each spot before the heads, float32 (spots, dim)."""
        position = self.x_embed(centers[0, :, 0]) + self.y_embed(centers[0, :, 1])
        transformers = (self.ViT1, self.ViT2, self.ViT3)
        pairs = zip(transformers, self.scales(patches[0]), strict=True)
        h4, h5, h6 = (transformer((scale + position)[None])[0] for transformer, scale in pairs)
        joined = h4 + h5 + h6
        graph = self.hgnn(joined, *hyperedges(joined, adj, faithful=self.faithful))
        return self.jknet(torch.stack([h4, h5, h6, graph]))[0].mean(0)

    def fit(self, batches: Batches, recipe: Recipe) -> Iterator[dict[str, float]]:
        """Start the trunk from ImageNet weights, then train."""
        if self.imagenet:
            trunk = torchvision_network(_TRUNK, 1)
            load_imagenet(trunk, _TRUNK)
            for i, stage in enumerate(_STAGES):
                getattr(self, f"layer{i + 1}").load_state_dict(getattr(trunk, stage).state_dict())
        yield from super().fit(batches, recipe)


def hyperedges(
    nodes: Tensor, adjacency: Tensor, n_neighbours: int = 3, *, faithful: bool = False
) -> tuple[Tensor, Tensor]:
    """Hyperedges that each node joins, by being a neighbour or unlike, and the score of each incidence.

    Parameters
    ----------
    nodes
        Features, (n, dim).
    adjacency
        Dense graph (n, n).
    n_neighbours
        One less than the number of hyperedges that a node joins.
    faithful
        NaN scores for a node without neighbours.

    Returns
    -------
    incidence
        Int64 (incidences, 2), each row (node, hyperedge).
    score
        Float32 (incidences,), largest first within a node.
    """

    def share(x: Tensor) -> Tensor:
        total = x.sum(1, keepdim=True)
        return x / (total if faithful else total.masked_fill(total == 0, 1))

    distance = (nodes[:, None] - nodes).norm(dim=-1) if len(nodes) < 64 else torch.cdist(nodes, nodes)
    score, edge = (share(adjacency) + share(distance)).topk(min(n_neighbours + 1, len(nodes)))
    node = torch.arange(len(nodes), device=nodes.device).repeat_interleave(edge.shape[1])
    return torch.stack([node, edge.flatten()], dim=1), score.flatten()


class _HypergraphNetwork(nn.Module):
    """Two hypergraph convolutions beside the identity."""

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.conv1, self.conv2 = HypergraphConv(dim, dim // 2), HypergraphConv(dim // 2, dim)
        self.norm = nn.LayerNorm(dim // 2)

    def forward(self, nodes: Tensor, incidence: Tensor, score: Tensor) -> Tensor:
        weight = score[: len(nodes)]
        x = self.norm(F.relu(self.conv1(nodes, incidence, weight)))
        return self.conv2(F.dropout(x, 0.5, self.training), incidence, weight) + nodes


class _GradientEnhanced(nn.Module):
    """A convolution and a cross-shaped central difference at half size, mixed; the result has a border."""

    def __init__(self) -> None:
        super().__init__()
        self.branch1 = _normalised(nn.Conv2d(3, 3, 3, stride=2, padding=1), 3)
        self.branch2 = _normalised(_CrossConv(), 3)
        self.branch_last = _normalised(nn.Conv2d(6, 3, 1, padding=1), 3)

    def forward(self, images: Tensor) -> Tensor:
        return self.branch_last(torch.cat([self.branch1(images), self.branch2(images)], dim=1))


class _CrossConv(nn.Module):
    """Convolution with a plus-shaped kernel, less 0.7 of what its summed weights give at the centre."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 3, (1, 5), bias=False)

    def forward(self, images: Tensor) -> Tensor:
        weight = self.conv.weight
        plus = torch.zeros(*weight.shape[:2], 9, device=weight.device, dtype=weight.dtype)
        plus = plus.index_copy(2, torch.tensor([1, 3, 4, 5, 7], device=weight.device), weight[:, :, 0])
        crossed = F.conv2d(images, plus.unflatten(2, (3, 3)), stride=2, padding=1)
        return crossed - 0.7 * F.conv2d(images, weight.sum(3, keepdim=True), stride=2)


def _normalised(convolution: nn.Module, channels: int) -> nn.Sequential:
    return nn.Sequential(convolution, nn.BatchNorm2d(channels), nn.ReLU6())


def _down(n_in: int, n_out: int) -> nn.Sequential:
    return nn.Sequential(_Attention(n_in), nn.BatchNorm2d(n_in), nn.Conv2d(n_in, n_out, 1), nn.Flatten())


class _Attention(nn.Module):
    """Attention to channels, then to places (CBAM, Woo et al. 2018)."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        squeezed = channels // 16
        mlp = nn.Sequential(
            nn.Conv2d(channels, squeezed, 1, bias=False), nn.ReLU(), nn.Conv2d(squeezed, channels, 1, bias=False)
        )
        self.channel_attention = nn.ModuleDict({"shared_MLP": mlp})
        self.spatial_attention = nn.ModuleDict({"conv2d": nn.Conv2d(2, 1, 7, padding=3)})

    def forward(self, x: Tensor) -> Tensor:
        mlp = self.channel_attention["shared_MLP"]
        x = x * (mlp(x.mean((2, 3), keepdim=True)) + mlp(x.amax((2, 3), keepdim=True))).sigmoid()
        seen = torch.cat([x.mean(1, keepdim=True), x.amax(1, keepdim=True)], dim=1)
        return x * self.spatial_attention["conv2d"](seen).sigmoid()
