"""TCGN: convolutions, transformers and learned graphs of one tile (Xiao et al., Medical Image Analysis 2024)."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from napari_he2st.zoo.base import Expression, Predictor, Spots
from napari_he2st.zoo.blocks.losses import nan_mse
from napari_he2st.zoo.blocks.pixels import standardise
from napari_he2st.zoo.blocks.symmetry import random_symmetry
from napari_he2st.zoo.blocks.vit import join_heads, split_heads
from napari_he2st.zoo.inputs import Tiles
from napari_he2st.zoo.recipe import Recipe

_STAGES = "abcd"
_GRAPH_DIM, _EDGE_DIM = 48, 12
_EDGES_PER_NODE = 4


class TCGN(Predictor):
    """A CMT network of four stages; graphs learned from the first two are mixed into the third.

    Parameters
    ----------
    n_genes
        Size of the panel.
    dims, depths, heads, reductions
        Of the four stages: width, blocks, heads, and by how much keys and values are thinned out per side.
    mlp_ratio, stem_dim, fc_dim, dropout
        Width inside the feed-forward parts, channels of the stem, width before the head, dropout.
    tile_px, image_px
        Width of the tile around the spot, and to which it is scaled; the latter a multiple of 32.
    faithful
        As published: in a batch, image i uses the incidence matrix of the image as far from the end; the number
        of edges grows for the whole batch where one image has ties; and a node without any edge makes its image
        NaN. By default images do not depend on their batch, and such a node hears of nobody.
    """

    unit = Spots()
    targets = {"expression": Expression("log10_cp10k_panel", panel="hvg:1000")}
    recipe = Recipe("adam", lr=1e-5, epochs=80, batch_size=32)

    def __init__(
        self,
        n_genes: int,
        *,
        dims: tuple[int, ...] = (46, 92, 184, 368),
        depths: tuple[int, ...] = (2, 2, 10, 2),
        heads: tuple[int, ...] = (1, 2, 4, 8),
        reductions: tuple[int, ...] = (8, 4, 2, 1),
        mlp_ratio: float = 3.6,
        stem_dim: int = 16,
        fc_dim: int = 1280,
        dropout: float = 0.1,
        tile_px: int = 112,
        image_px: int = 224,
        faithful: bool = False,
    ) -> None:
        super().__init__()
        self.inputs = {"tiles": Tiles(px=tile_px)}
        self.image_px = image_px
        sides = [image_px // 4 // 2**stage for stage in range(4)]
        for name, side, h, thin in zip(_STAGES, sides, heads, reductions, strict=True):
            self.register_parameter(f"relative_pos_{name}", _positions(h, side**2, (side // thin) ** 2))
        for number in (1, 2, 3):
            self.add_module(
                f"stem_conv{number}",
                nn.Conv2d(3 if number == 1 else stem_dim, stem_dim, 3, stride=2 if number == 1 else 1, padding=1),
            )
            self.add_module(f"stem_norm{number}", nn.BatchNorm2d(stem_dim))
        for name, before, dim in zip(_STAGES, (stem_dim, *dims), dims, strict=False):
            self.add_module(f"patch_embed_{name}", _PatchEmbedding(before, dim, 2))
        for name, dim, depth, h, thin in zip(_STAGES, dims, depths, heads, reductions, strict=True):
            blocks = [_Block(dim, h, mlp_ratio=mlp_ratio, reduction=thin, dropout=dropout) for _ in range(depth)]
            self.add_module(f"blocks_{name}", nn.ModuleList(blocks))
        for number in (0, 1):
            graph = _GraphBlock(dims[number], dims[number + 1], sides[number], sides[2], dropout, faithful)
            self.add_module(f"gnn_block{number}", graph)
            self.add_module(f"channel_attention{number}", _ChannelAttention(sides[2] ** 2, dropout))
        self._fc = nn.Conv2d(dims[-1], fc_dim, 1)
        self._bn = nn.BatchNorm2d(fc_dim)
        self.dropout = nn.Dropout(dropout)
        self.head = nn.Sequential(nn.Linear(fc_dim, 4 * fc_dim), nn.GELU(), nn.Linear(4 * fc_dim, n_genes))

    def prepare(self, *, tiles: Tensor) -> dict[str, Tensor]:
        """Tiles scaled to ``image_px``, width before height, standardised by the statistics of ImageNet."""
        images = standardise(tiles.transpose(-1, -2))
        return {"images": F.interpolate(images, (self.image_px, self.image_px), mode="bilinear", antialias=True)}

    def forward(self, images: Tensor) -> Tensor:
        """log10 (1 + CP10k of the panel), float32 (n, genes), from (n, 3, image_px, image_px)."""
        x = images
        for number in (1, 2, 3):
            conv, norm = (self.get_submodule(f"stem_{part}{number}") for part in ("conv", "norm"))
            x = norm(F.gelu(conv(x)))
        x = early = self._stage("a", self.patch_embed_a(x))
        x = self._stage("b", self.patch_embed_b(x))
        graphs = self.gnn_block0(early), self.gnn_block1(x)
        x = self.channel_attention0(self.patch_embed_c(x), graphs[0])
        x = self.channel_attention1(self._stage("c", x), graphs[1])
        x = self._stage("d", self.patch_embed_d(x))
        x = F.silu(self._bn(self._fc(x))).mean((2, 3))
        return self.head(self.dropout(x))

    def _stage(self, name: str, x: Tensor) -> Tensor:
        positions = self.get_parameter(f"relative_pos_{name}")
        for block in self.get_submodule(f"blocks_{name}"):  # type: ignore[union-attr]
            x = block(x, positions)
        return x

    def loss(self, targets: Mapping[str, Tensor], *, images: Tensor) -> Tensor:
        """MSE of randomly turned and mirrored tiles."""
        return nan_mse(self(random_symmetry(images)), targets["expression"])


def _positions(heads: int, queries: int, keys: int) -> nn.Parameter:
    return nn.Parameter(0.02 * torch.randn(heads, queries, keys))


def _tokens(x: Tensor) -> Tensor:
    """(n, channels, side, side) to (n, side², channels), row by row."""
    return x.flatten(2).transpose(1, 2)


def _map(tokens: Tensor) -> Tensor:
    """The inverse of :func:`_tokens`."""
    side = round(tokens.shape[1] ** 0.5)
    return tokens.transpose(1, 2).unflatten(2, (side, side))


class _PatchEmbedding(nn.Module):
    def __init__(self, before: int, dim: int, patch: int) -> None:
        super().__init__()
        self.proj = nn.Conv2d(before, dim, patch, patch)
        self.norm = nn.LayerNorm(dim)

    def forward(self, x: Tensor) -> Tensor:
        return _map(self.norm(_tokens(self.proj(x))))


class _ThinnedAttention(nn.Module):
    """Attention to a thinned-out map, with a learned bias for each pair of places."""

    def __init__(self, dim: int, heads: int, reduction: int, qkv_bias: bool) -> None:
        super().__init__()
        self.heads = heads
        for name in "qkv":
            self.add_module(name, nn.Linear(dim, dim, bias=qkv_bias))
        self.proj = nn.Linear(dim, dim)
        if reduction > 1:
            self.sr = nn.Sequential(nn.Conv2d(dim, dim, reduction, reduction, groups=dim), nn.BatchNorm2d(dim))

    def forward(self, x: Tensor, bias: Tensor) -> Tensor:
        around = _tokens(self.sr(_map(x))) if hasattr(self, "sr") else x
        q, k, v = (split_heads(part, self.heads) for part in (self.q(x), self.k(around), self.v(around)))
        return self.proj(join_heads(F.scaled_dot_product_attention(q, k, v, attn_mask=bias)))


class _InvertedFeedForward(nn.Module):
    def __init__(self, dim: int, hidden: int, dropout: float) -> None:
        super().__init__()
        self.conv1 = nn.Sequential(nn.Conv2d(dim, hidden, 1), nn.GELU(), nn.BatchNorm2d(hidden))
        self.proj = nn.Conv2d(hidden, hidden, 3, padding=1, groups=hidden)
        self.proj_bn = nn.BatchNorm2d(hidden)
        self.conv2 = nn.Sequential(nn.Conv2d(hidden, dim, 1), nn.BatchNorm2d(dim))
        self.dropout = nn.Dropout(dropout)

    def forward(self, x: Tensor) -> Tensor:
        x = self.dropout(self.conv1(x))
        return self.dropout(self.conv2(self.proj_bn(F.gelu(x + self.proj(x)))))


class _Block(nn.Module):
    """CMT block of a map: depthwise convolution, attention, inverted feed-forward part; each added to its input."""

    def __init__(
        self, dim: int, heads: int, *, mlp_ratio: float, reduction: int, dropout: float, in_graph: bool = False
    ) -> None:
        super().__init__()
        eps = 1e-5 if in_graph else 1e-6
        self.norm1 = nn.LayerNorm(dim, eps=eps)
        self.attn = _ThinnedAttention(dim, heads, reduction, qkv_bias=not in_graph)
        self.norm2 = nn.LayerNorm(dim, eps=eps)
        self.mlp = _InvertedFeedForward(dim, int(dim * mlp_ratio), dropout)
        self.proj = nn.Conv2d(dim, dim, 3, padding=1, groups=dim)

    def forward(self, x: Tensor, positions: Tensor) -> Tensor:
        tokens = _tokens(x + self.proj(x))
        tokens = tokens + self.attn(self.norm1(tokens), positions)
        return _map(tokens) + self.mlp(_map(self.norm2(tokens)))


class _Transformer(nn.Module):
    """Pre-norm attention without output projection, then a feed-forward part.

    ``own`` is added to each token's affinity to itself before scaling.
    """

    def __init__(self, dim: int, heads: int, dropout: float, own: float = 0.0) -> None:
        super().__init__()
        self.heads, self.scale, self.own = heads, dim**-0.5, own
        self.layernorm1 = nn.LayerNorm(dim)
        self.Attention = nn.ModuleDict({"qkv": nn.Linear(dim, 3 * dim)})
        self.layernorm2 = nn.LayerNorm(dim)
        self.FFN = nn.Sequential(
            nn.Linear(dim, 4 * dim), nn.GELU(), nn.Dropout(dropout), nn.Linear(4 * dim, dim), nn.Dropout(dropout)
        )

    def forward(self, x: Tensor) -> Tensor:
        packed = self.Attention["qkv"](self.layernorm1(x)).unflatten(-1, (self.heads, -1, 3))
        q, k, v = packed.transpose(1, 2).unbind(-1)
        logits = q @ k.transpose(-1, -2)
        if self.own:
            logits = logits + self.own * torch.eye(logits.shape[-1], device=x.device)
        x = x + join_heads((logits * self.scale).softmax(-1) @ v)
        return x + self.FFN(self.layernorm2(x))


class _ChannelAttention(nn.Module):
    """Channels of a map look at one another and at those of a graph; the map's are kept."""

    def __init__(self, n_tokens: int, dropout: float) -> None:
        super().__init__()
        self.transformer = _Transformer(n_tokens, 4, dropout, own=1.0)

    def forward(self, x: Tensor, graph: Tensor) -> Tensor:
        channels = torch.cat([x.flatten(2), graph.transpose(1, 2)], dim=1)
        return self.transformer(channels)[:, : x.shape[1]].view_as(x)


class _GroupNorm(nn.GroupNorm):
    def __init__(self, dim: int) -> None:
        super().__init__(1, dim)


class _ConvNeXt(nn.Module):
    def __init__(self, dim: int) -> None:
        super().__init__()
        self.block = nn.Sequential(
            nn.Conv2d(dim, dim, 7, padding=3, groups=dim, bias=False),
            _GroupNorm(dim),
            nn.Conv2d(dim, 4 * dim, 1),
            nn.GELU(),
            nn.Conv2d(4 * dim, dim, 1),
        )
        self.layer_scaler = nn.ParameterDict({"gamma": nn.Parameter(torch.full((dim,), 1e-6))})

    def forward(self, x: Tensor) -> Tensor:
        return x + self.layer_scaler["gamma"][:, None, None] * self.block(x)


def _convnext_stage(before: int, dim: int, depth: int) -> nn.Sequential:
    halve = nn.Sequential(_GroupNorm(before), nn.Conv2d(before, dim, 2, 2))
    return nn.Sequential(halve, *(_ConvNeXt(dim) for _ in range(depth)))


class _GraphBlock(nn.Module):
    """A graph among the places of a map, learned from its tokens and its convolutions; float32 (n, places, 48)."""

    def __init__(self, before: int, dim: int, side: int, n_side: int, dropout: float, faithful: bool) -> None:
        super().__init__()
        heads, n_nodes = 2, n_side**2
        self.faithful = faithful
        self.relative_pos = _positions(heads, n_nodes, n_nodes)
        self.patch_embedding = _PatchEmbedding(before, dim, side // n_side)
        self.CMT_encoder1 = _Block(dim, heads, mlp_ratio=4, reduction=1, dropout=dropout, in_graph=True)
        if side // n_side == 4:
            self.convnext1 = _convnext_stage(before, before, 2)
            self.convnext2 = _convnext_stage(before, dim, 1)
        else:
            self.convnext1 = _convnext_stage(before, dim, 2)
            self.convnext2 = nn.Identity()
        self.MHSA = _GraphAttention(dim, heads)
        self.censnet = _CensNet(dim, heads + 4)
        self.transformer_fusion_encoder = _Fusion(n_nodes, heads, dropout)

    def forward(self, x: Tensor) -> Tensor:
        tokens = _tokens(self.CMT_encoder1(self.patch_embedding(x), self.relative_pos))
        attention, nodes = self.MHSA(tokens, _tokens(self.convnext2(self.convnext1(x))))
        ends = strongest_edges(attention.mean(1), _EDGES_PER_NODE * tokens.shape[1], extend_ties=self.faithful)
        features = edge_features(attention, nodes, ends)
        incidence = F.one_hot(ends, tokens.shape[1]).sum(2).transpose(1, 2).to(x)
        nodes, edges, used = self.censnet(nodes, features, ends, incidence, self.faithful)
        return self.transformer_fusion_encoder(nodes, edges, used, self.relative_pos)


class _GraphAttention(nn.Module):
    """How much each token (query) has to do with each place of the convolutions (key), per head; and nodes."""

    def __init__(self, dim: int, heads: int) -> None:
        super().__init__()
        self.heads, self.scale = heads, dim**-0.5
        for name in ("k", "q", "value_transform"):
            self.add_module(name, nn.Linear(dim, dim))

    def forward(self, tokens: Tensor, places: Tensor) -> tuple[Tensor, Tensor]:
        q, k = split_heads(self.q(tokens), self.heads), split_heads(self.k(places), self.heads)
        logits = q @ k.transpose(-1, -2) * self.scale + torch.eye(tokens.shape[1], device=tokens.device)
        return logits.softmax(-1), self.value_transform(places)


def strongest_edges(attention: Tensor, k: int, *, extend_ties: bool = False) -> Tensor:
    """The ``k`` largest entries of each matrix (n, nodes, nodes), row by row: int64 (n, edges, 2), row and column.

    With ``extend_ties``, ``k`` grows until no matrix of the batch has another entry as large as its last.
    """
    flat, n_nodes = attention.flatten(1), attention.shape[-1]
    value, place = flat.sort(dim=1, descending=True, stable=True)
    while extend_ties and k < flat.shape[1] and bool((value[:, k - 1] == value[:, k]).any()):
        k += 1
    kept = place[:, :k].sort(dim=1).values
    return torch.stack([kept // n_nodes, kept % n_nodes], dim=-1)


def edge_features(attention: Tensor, nodes: Tensor, ends: Tensor) -> Tensor:
    """Attention per head and its mean, closeness on the lattice and among nodes, cosine: (n, edges, heads + 4)."""
    row = torch.arange(len(ends), device=ends.device)[:, None]
    start, end = ends.unbind(-1)
    per_head = attention.permute(0, 2, 3, 1)[row, start, end]
    side, half = round(nodes.shape[1] ** 0.5), nodes.shape[2] // 2
    distance = torch.hypot((start // side - end // side).float(), (start % side - end % side).float())
    a, b = nodes[row, start], nodes[row, end]
    closeness = (((a - b).square().sum(-1) + half) / half).rsqrt()
    cosine = (F.cosine_similarity(a, b, dim=-1) + 1) / 2
    single = torch.stack([per_head.mean(-1), 1 / (distance / 3 + 1), closeness, cosine], dim=-1)
    return torch.cat([per_head, single], dim=-1)


class _CoLayer(nn.Module):
    """Nodes along edges (or edges along nodes), each connection weighted by what lies on it (``p``)."""

    def __init__(self, dim: int, dim_out: int, dim_other: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.empty(dim, dim_out))
        self.p = nn.Parameter(torch.empty(1, dim_other))
        self.bias = nn.Parameter(torch.zeros(dim_out))
        nn.init.xavier_uniform_(self.weight)
        nn.init.xavier_uniform_(self.p)

    def forward(self, x: Tensor, other: Tensor, incidence: Tensor, adjacency: Tensor, by_column: bool) -> Tensor:
        on_it = other @ self.p[0]
        along = (incidence * on_it[:, None]) @ incidence.transpose(1, 2)
        diagonal = torch.eye(along.shape[1], device=x.device)
        weighted = (diagonal + along * (1 - diagonal)) * adjacency
        if by_column:
            weighted = weighted / weighted.amax(1, keepdim=True)
        return weighted @ (x @ self.weight) + self.bias


class _CensNet(nn.Module):
    """Nodes, then edges, then nodes (CensNet)."""

    def __init__(self, dim: int, n_features: int) -> None:
        super().__init__()
        self.gc1 = _CoLayer(dim, dim, n_features)
        self.gc2 = _CoLayer(n_features, _EDGE_DIM, dim)
        self.gc3 = _CoLayer(dim, _GRAPH_DIM, _EDGE_DIM)

    def forward(
        self, nodes: Tensor, edges: Tensor, ends: Tensor, incidence: Tensor, faithful: bool
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Nodes, edges, and the incidence matrix (n, nodes, edges) that was used for them."""
        row = torch.arange(len(ends), device=ends.device)[:, None]
        adjacency = nodes.new_zeros(len(nodes), nodes.shape[1], nodes.shape[1])
        adjacency[row, ends[..., 0], ends[..., 1]] = 1
        touching = (incidence.transpose(1, 2) @ incidence > 0).to(nodes)
        by_node = _scale(adjacency, adjacency.sum(2), faithful)
        by_edge = _scale(touching, touching.sum(2) + 1, faithful)
        used = incidence.flip(0) if faithful else incidence
        nodes = F.relu(self.gc1(nodes, edges, used, by_node, False))
        edges = F.relu(self.gc2(edges, nodes, used.transpose(1, 2), by_edge, True))
        return self.gc3(nodes, edges, used, by_node, False), edges, used


def _scale(adjacency: Tensor, degree: Tensor, faithful: bool) -> Tensor:
    """D^−½ A D^−½; a node of degree 0 counts as none, or gives NaN where ``faithful``."""
    factor = degree.rsqrt() if faithful else degree.clamp(min=1).rsqrt()
    return factor[:, :, None] * adjacency * factor[:, None]


class _Fusion(nn.Module):
    """Edges gathered at their nodes, a transformer for either, and one across the channels of both."""

    def __init__(self, n_nodes: int, heads: int, dropout: float) -> None:
        super().__init__()
        self.edge_transformer = _Transformer(_EDGE_DIM, 2, dropout)
        self.node_transformer = _Block(_GRAPH_DIM, heads, mlp_ratio=4, reduction=1, dropout=dropout, in_graph=True)
        self.channel_attention_196 = _Transformer(n_nodes, 4, dropout)
        self.linear_fusion = nn.Linear(_GRAPH_DIM + _EDGE_DIM, _GRAPH_DIM)

    def forward(self, nodes: Tensor, edges: Tensor, incidence: Tensor, positions: Tensor) -> Tensor:
        per_node = edges.shape[1] / nodes.shape[1]
        at_nodes = self.edge_transformer(incidence @ edges / per_node)
        nodes = _tokens(self.node_transformer(_map(nodes), positions))
        channels = torch.cat([nodes, at_nodes], dim=-1).transpose(1, 2)
        return self.linear_fusion(self.channel_attention_196(channels).transpose(1, 2))
