"""TransformerST: between the spots of a section by place and colour; its graph network and its regressor.

Briefings in Bioinformatics 25 (2024), bbae052.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Literal

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from napari_he2st.analysis.domains.kmeans import means
from napari_he2st.analysis.domains.leiden import communities
from napari_he2st.analysis.graphs import knn_graph
from napari_he2st.core.noise import Noise
from napari_he2st.core.types import Domains
from napari_he2st.zoo.base import Batches, DomainMethod, Expression, Input, Label, Predictor, Slide, Spots, Unit
from napari_he2st.zoo.blocks.expression import most_variable, normalised
from napari_he2st.zoo.blocks.sparse import (
    TransformerConv,
    edges_in,
    graph_balance,
    sharpened,
    sparse_tensor,
    spread,
    student_t,
    subset,
)
from napari_he2st.zoo.blocks.start import start_at_mean
from napari_he2st.zoo.blocks.vit import Transformer
from napari_he2st.zoo.inputs import Positions, Tiles
from napari_he2st.zoo.recipe import Recipe

if TYPE_CHECKING:
    from anndata import AnnData

_NEAREST = 5
_ROOM = 0.1
_BETA = 0.25
_BINS = 128
_CLUSTERED_GENES, _NEIGHBOURS, _CENTRES = 3000, 10, 10
_REFRESHED = 20
"""Epochs after which the sharpened memberships are computed anew."""


class TransformerST(DomainMethod, Predictor):
    """Expression anywhere on a section, from the five spots that are most alike in place and colour.

    Its regressor predicts another section, and its graph network groups spots into domains.

    Parameters
    ----------
    n_genes
        Size of the panel that is predicted; domains take the 3,000 most variable genes.
    task
        ``"superres"``: nothing is learned; the spots are kept. ``"regression"``: the vision transformer, which
        predicts spots of another section. ``"domains"``: neither, only :meth:`segment`.
    epochs
        Of each of the two stages of the graph network.
    window_px
        Width of the window whose mean is a position's colour.
    tile_px, mpp, dim, depth, heads, dim_head, mlp_dim, dropout
        Of the vision transformer.
    faithful
        Start its training from random weights of its last layer, as published; by default it starts at the mean.

    Notes
    -----
    Colours are standardised by those of the spots; in the original, those of the predicted positions by their own,
    so that a prediction depends on what else is asked for.
    """

    unit: Unit = Spots()
    fitted = "slide"
    optional = frozenset({"tiles", "um"})  # of the domains, which take neither
    targets: Mapping[str, Expression | Label] = {"expression": Expression("log1p_cp10k", panel="hvg:3000")}

    def __init__(
        self,
        n_genes: int = 1,
        *,
        task: Literal["superres", "regression", "domains"] = "superres",
        epochs: int = 200,
        window_px: int = 101,
        tile_px: int = 112,
        mpp: float | None = None,
        dim: int = 1024,
        depth: int = 4,
        heads: int = 16,
        dim_head: int = 64,
        mlp_dim: int = 2048,
        dropout: float = 0.1,
        faithful: bool = False,
    ) -> None:
        Predictor.__init__(self)
        self.task, self.epochs, self.faithful = task, epochs, faithful
        self.inputs: dict[str, Input] = {}
        if task == "domains":
            return
        if task == "superres":
            self.inputs = {"tiles": Tiles(px=window_px, mpp="native"), "um": Positions(kind="um")}
            self.recipe = Recipe(epochs=1)
            return
        self.unit, self.fitted = Slide(), "cohort"
        self.inputs = {"tiles": Tiles(px=tile_px, mpp=mpp), "grid_xy": Positions(kind="grid", bins=_BINS)}
        self.recipe = Recipe("adam", lr=1e-3, epochs=100, batch_size=1)
        self.patch_embedding = nn.Linear(3 * tile_px**2, dim)
        self.x_embed, self.y_embed = nn.Embedding(_BINS, dim), nn.Embedding(_BINS, dim)
        self.vit = nn.ModuleDict(
            {
                "transformer": Transformer(
                    dim, depth=depth, heads=heads, dim_head=dim_head, mlp_dim=mlp_dim, dropout=dropout
                )
            }
        )
        self.gene_head = nn.Sequential(nn.LayerNorm(dim), nn.Linear(dim, n_genes))

    def prepare(self, *, tiles: Tensor, **positions: Tensor) -> dict[str, Tensor]:
        """Mean colour and position of each spot; for the regressor its pixels, 0 … 1, and array position."""
        if self.task == "superres":
            return {"colour": tiles.float().mean((1, 2, 3)), **positions}
        return {"patches": tiles.flatten(1).float()[None] / 255, "positions": positions["grid_xy"][None]}

    def forward(self, patches: Tensor, positions: Tensor) -> Tensor:
        """Expression (1, spots, genes) by the vision transformer.

        Parameters
        ----------
        patches
            (1, spots, pixels).
        positions
            Array (column, row), int64 (1, spots, 2).
        """
        column, row = positions.unbind(-1)
        x = self.patch_embedding(patches) + self.x_embed(column) + self.y_embed(row)
        return self.gene_head(self.vit["transformer"](x))

    def predict(self, *, noise: Noise | None = None, **prepared: Tensor) -> Tensor:
        """Expression, ln (1 + CP10k), float32 (spots, genes)."""
        if self.task == "regression":
            return self(**prepared)[0]
        kept = {name: prepared["um"].new_tensor(value) for name, value in self.extras["spots"].items()}
        here, there = (
            _with_colour(um, colour, kept["colour"], kept["um"])
            for um, colour in ((prepared["um"], prepared["colour"]), (kept["um"], kept["colour"]))
        )
        return weigh_nearest(_distance(here, there), kept["expression"])

    def fit(self, batches: Batches, recipe: Recipe) -> Iterator[dict[str, float]]:
        """Train the vision transformer; for super-resolution there is nothing to train."""
        if self.task == "regression":
            if not self.faithful:
                start_at_mean(batches, self.gene_head[-1])
            yield from super().fit(batches, recipe)

    def finish(self, batches: Batches) -> None:
        """Keep the measured spots."""
        if self.task == "regression":
            return
        parts = [{**prepared, "expression": targets["expression"]} for targets, prepared in batches]
        spots = {name: torch.cat([part[name] for part in parts]) for name in parts[0]}
        known = spots["expression"].isfinite().all(dim=1)
        self.extras["spots"] = {name: np.asarray(value[known].cpu()) for name, value in spots.items()}

    def segment(self, adata: AnnData, *, n_domains: int | None, seed: int, **inputs: Tensor) -> Domains:
        """Group spots by expression over the graph of their ten nearest.

        Autoencoder and graph are learned first; then, with the centres that k-means finds, memberships are
        sharpened. Communities of the embedding are the domains.
        """
        chosen = most_variable(adata.X, _CLUSTERED_GENES)
        x = torch.from_numpy(normalised(adata.X)[:, chosen])
        graph = knn_graph(np.asarray(adata.obsm["spatial"]), _NEIGHBOURS)
        edges, neighbours = edges_in(graph).T, sparse_tensor(graph)
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            network = SpotGraph(x.shape[1], n_domains=n_domains or _CENTRES)
        recipe, target = Recipe("adam", lr=1e-3, weight_decay=1e-4, epochs=self.epochs), torch.empty(0)

        def reconstruction(found: dict[str, Tensor]) -> Tensor:
            some = subset(len(x), self.max_spots)
            near = neighbours.index_select(0, some).index_select(1, some).to_dense()
            return F.mse_loss(found["decoded"], x) + graph_loss(found["z"][some], near)

        def sharpening(epoch: int) -> Tensor:
            nonlocal target
            found = network(x, edges, edges)
            if epoch % _REFRESHED == 0:
                target = sharpened(found["q"]).detach()
            return reconstruction(found) + F.kl_div(found["q"].log(), target, reduction="none").mean()

        self.minimise(network, lambda _: reconstruction(network(x, edges, edges)), recipe)
        with torch.no_grad():
            z = network(x, edges, edges)["z"]
            labels = means(z.numpy(), len(network.cluster_layer), seed, n_init=20)
            centres = [z[torch.from_numpy(labels == k)].mean(0) for k in range(len(network.cluster_layer))]
            network.cluster_layer.copy_(torch.stack(centres))
        params = self.minimise(network, sharpening, recipe)
        with torch.inference_mode():
            embedding = network(x, edges, edges)["z"].numpy()
        groups, found = communities(embedding, n_domains, seed, neighbours=20)
        return Domains(groups, {"method": "transformerst", "seed": seed, **params, **found}, embedding)


class SpotGraph(nn.Module):
    """Clusters spots by an autoencoder of their expression and attention over two graphs of their neighbours.

    Parameters
    ----------
    n_genes
        Of the expression.
    encoder_dim, feature_dim
        Widths of the encoder's two layers.
    graph_dim, embed_dim
        Widths of the graph layers.
    n_domains
        Centres of the clustering.
    n_hidden
        Graph layers between the first and the last.
    dropout
        After the layers that are no graph layers.
    """

    def __init__(
        self,
        n_genes: int,
        *,
        encoder_dim: int = 512,
        feature_dim: int = 64,
        graph_dim: int = 128,
        embed_dim: int = 64,
        n_domains: int = 10,
        n_hidden: int = 1,
        dropout: float = 0.0,
    ) -> None:
        super().__init__()
        self.cluster_layer = nn.Parameter(torch.randn(n_domains, embed_dim + feature_dim))
        self.encoder = nn.ModuleDict(
            {
                "encoder_L1": _layer(n_genes, encoder_dim, dropout),
                "encoder_L2": _layer(encoder_dim, feature_dim, dropout),
            }
        )
        self.quantize = nn.ModuleDict({"embedding": nn.Embedding(embed_dim + feature_dim, feature_dim)})
        self.decoder = nn.ModuleDict({"decoder_L1": _layer(embed_dim + feature_dim, n_genes, dropout)})
        self.gc1 = TransformerConv(feature_dim, graph_dim)
        self.conv_hidden = nn.ModuleList(TransformerConv(graph_dim, graph_dim) for _ in range(n_hidden))
        self.gc2 = TransformerConv(graph_dim, embed_dim)

    def forward(self, x: Tensor, edges: Tensor, other: Tensor) -> dict[str, Tensor]:
        """Embedding ``z``, reconstruction ``decoded``, memberships ``q``, ``features`` and their ``code``.

        Parameters
        ----------
        x
            Expression, (spots, genes).
        edges, other
            Two graphs of spots, int64 (2, edges), from source to target.
        """
        features = self.encoder["encoder_L2"](self.encoder["encoder_L1"](x))
        codes = self.quantize["embedding"].weight
        code = torch.cdist(features, codes).argmin(dim=1)
        quantised = features + (codes[code] - features).detach()
        edges, other = edges.T, other.T
        h = F.relu((_attended(self.gc1, features, edges)[1] + _attended(self.gc1, features, other)[1]) / 2)
        for layer in self.conv_hidden:
            first, again = _attended(layer, h, edges)
            h = F.relu((again + _attended(layer, first, other)[1]) / 2)
        seen = (_attended(self.gc2, h, edges)[1] + _attended(self.gc2, h, other)[1]) / 2
        z = torch.cat([quantised, seen], dim=1)
        return {
            "z": z,
            "decoded": self.decoder["decoder_L1"](z),
            "q": student_t(z, self.cluster_layer),
            "features": features,
            "code": code,
        }

    def quantisation_loss(self, features: Tensor, code: Tensor) -> Tensor:
        """How far features are from their codes; part of the publication, but never of its training."""
        codes = self.quantize["embedding"].weight[code]
        return F.mse_loss(codes.detach(), features) + _BETA * F.mse_loss(codes, features.detach())


def _attended(layer: TransformerConv, x: Tensor, edges: Tensor) -> tuple[Tensor, Tensor]:
    """What a layer makes of the spots, and that once more, gathered back by its attention at each edge's source."""
    attention = layer.attention(x, edges)
    found = layer(x, edges, attention)
    return found, spread(found, edges.flip(1), attention)


def _layer(n_in: int, n_out: int, dropout: float) -> nn.Sequential:
    return nn.Sequential(nn.Linear(n_in, n_out), nn.BatchNorm1d(n_out, eps=1e-4), nn.ELU(), nn.Dropout(dropout))


def graph_loss(z: Tensor, adjacency: Tensor) -> Tensor:
    """Weighted cross-entropy between ``z zᵀ`` and the graph (spots, spots) with each spot joined to itself."""
    n = len(adjacency)
    own = adjacency + torch.eye(n, device=adjacency.device)
    return graph_balance(n, float(adjacency.sum())) * F.binary_cross_entropy_with_logits(z @ z.T, own)


def weigh_nearest(distance: Tensor, expression: Tensor) -> Tensor:
    """Mean over the five nearest spots by the inverse square of their distance.

    Parameters
    ----------
    distance
        (positions, spots).
    expression
        (spots, genes).
    """
    near, spot = (distance + _ROOM).topk(min(_NEAREST, distance.shape[1]), dim=1, largest=False)
    weight = (near / near[:, :1]) ** -2
    weight = (weight / weight.sum(dim=1, keepdim=True)).to(expression.dtype)
    return torch.einsum("pk,pkg->pg", weight, expression[spot])


def _distance(a: Tensor, b: Tensor) -> Tensor:
    """Of each of ``a`` from each of ``b``; without the shortcut that loses the digits of far-off positions."""
    return torch.cdist(a, b, compute_mode="donot_use_mm_for_euclid_dist")


def _with_colour(um: Tensor, colour: Tensor, of_spots: Tensor, spots_um: Tensor) -> Tensor:
    """Positions (x, y, z), z being the colour in units of the spots' spread."""
    spread = spots_um.std(dim=0, correction=0).amax()
    z = (colour - of_spots.mean()) / of_spots.std(correction=0).clamp(min=1e-6) * spread
    return torch.cat([um, z[:, None]], dim=1)
