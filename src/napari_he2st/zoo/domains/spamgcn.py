"""spaMGCN: an autoencoder and one over several orders of neighbours, mixed layer by layer (Zhang et al. 2025)."""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import pairwise
from typing import TYPE_CHECKING

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional as F

from napari_he2st.analysis.domains.grouping import Grouping, group
from napari_he2st.analysis.graphs import knn_graph
from napari_he2st.core.types import Domains
from napari_he2st.zoo.base import DomainMethod
from napari_he2st.zoo.blocks.expression import components, normalised, scaled
from napari_he2st.zoo.blocks.sparse import edges_in, propagation, subset
from napari_he2st.zoo.inputs import Features
from napari_he2st.zoo.recipe import Recipe

if TYPE_CHECKING:
    from anndata import AnnData

Widths = tuple[int, int, int]


class SpaMGCN(DomainMethod):
    """Two views of the spots, each in two autoencoders whose layers mix; the codes of both are grouped.

    Published for two kinds of molecules; here the second view is the tile, and without tiles the published form for
    one view is used.

    Parameters
    ----------
    n_components, n_image_components
        Principal components of expression and of the tiles' features.
    dims, latent_dim
        Widths of the two hidden layers, and of the code.
    sigma
        Share of the graph's branch where the two branches mix.
    n_neighbours
        Nearest spots that each is joined to.
    rebuild_weight, edge_weight, agree_weight, contrast_weight
        Of the objectives besides the plain reconstruction.
    encoder
        Of the tiles.
    lr, epochs
        Of the training.
    grouping
        How spots are grouped in the end.
    """

    optional = frozenset({"features"})

    def __init__(
        self,
        *,
        n_components: int = 50,
        n_image_components: int = 30,
        dims: tuple[int, int] = (128, 256),
        latent_dim: int = 20,
        sigma: float = 0.7,
        n_neighbours: int = 3,
        rebuild_weight: float = 0.1,
        edge_weight: float = 0.1,
        agree_weight: float = 0.1,
        contrast_weight: float = 0.01,
        encoder: str = "efficientnet-lite0",
        lr: float = 5e-5,
        epochs: int = 700,
        grouping: Grouping = "mixture",
    ) -> None:
        self.inputs = {"features": Features(encoder=encoder)}
        self.n_components, self.n_image_components = n_components, n_image_components
        self.widths, self.sigma, self.n_neighbours = (*dims, latent_dim), sigma, n_neighbours
        self.rebuild_weight, self.edge_weight = rebuild_weight, edge_weight
        self.agree_weight, self.contrast_weight = agree_weight, contrast_weight
        self.grouping = grouping
        self.recipe = Recipe(lr=lr, epochs=epochs)

    def segment(self, adata: AnnData, *, n_domains: int | None, seed: int, features: Tensor | None = None) -> Domains:
        """Group the spots by expression, and by tile where there are tiles."""
        n = adata.n_obs
        views = [components(scaled(normalised(adata.X)), self.n_components, seed)]
        if features is not None:
            views.append(components(scaled(features.cpu().numpy(), limit=None), self.n_image_components, seed))
        x = [torch.from_numpy(view) for view in views]
        graph = propagation(edges_in(knn_graph(np.asarray(adata.obsm["spatial"]), self.n_neighbours)), n)
        network = Network([v.shape[1] for v in x], self.widths, sigma=self.sigma, n_orders=4 if len(x) > 1 else 2)

        def loss(epoch: int) -> Tensor:
            found = network(x, graph)
            plain, spread, agree = reconstruction_losses(found, x, graph)
            some = subset(n, self.max_spots)
            near = graph.index_select(0, some).index_select(1, some).to_dense()
            code = torch.cat([view["code"] for view in found], 1)[some]
            total = plain + self.rebuild_weight * spread + self.agree_weight * agree
            total = total + self.edge_weight * F.binary_cross_entropy_with_logits(code @ code.T, near)
            return (
                total
                if epoch < 0.1 * self.recipe.epochs
                else total + self.contrast_weight * neighbour_noise(code, near)
            )

        report = self.minimise(network, loss, self.recipe, whole_from=math.ceil(0.1 * self.recipe.epochs))
        with torch.no_grad():
            embedding = torch.cat([view["code"] for view in network(x, graph)], 1).numpy()
        labels, found = group(embedding, n_domains, seed, self.grouping)
        return Domains(labels, {**report, **found}, embedding)


def _maps(prefix: str, first: int, widths: Sequence[int]) -> nn.ModuleDict:
    pairs = pairwise(widths)
    return nn.ModuleDict({f"{prefix}_{first + i}": nn.Linear(a, b) for i, (a, b) in enumerate(pairs)})


class _Autoencoder(nn.Module):
    """Three maps down, three up."""

    def __init__(self, n_in: int, widths: Widths) -> None:
        super().__init__()
        first, second, latent = widths
        self.encoder = _maps("enc", 1, (n_in, first, second, latent))
        self.decoder = _maps("dec", 1, (latent, second, first, n_in))

    def encode(self, x: Tensor) -> list[Tensor]:
        """What each layer gives."""
        z1 = F.leaky_relu(self.encoder["enc_1"](x), 0.2)
        z2 = F.leaky_relu(self.encoder["enc_2"](z1), 0.2)
        return [z1, z2, self.encoder["enc_3"](z2)]

    def decode(self, z: Tensor) -> Tensor:
        """What a code stands for."""
        for name in ("dec_1", "dec_2"):
            z = F.leaky_relu(self.decoder[name](z), 0.2)
        return self.decoder["dec_3"](z)


class _Weight(nn.Module):
    def __init__(self, n_in: int, n_out: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.empty(n_in, n_out))
        nn.init.xavier_uniform_(self.weight)


class OrdersLayer(nn.Module):
    """Neighbours of the first, second … order, each with its own map, summed under gates."""

    def __init__(self, n_in: int, n_out: int, n_orders: int) -> None:
        super().__init__()
        self.main_layers = nn.ModuleList(_Weight(n_in, n_out) for _ in range(n_orders))
        self.fc1, self.fc2 = nn.Linear(n_out, n_out // 4), nn.Linear(n_out // 4, n_out)

    def forward(self, x: Tensor, graph: Tensor, *, active: bool = True) -> Tensor:
        """(spots, out); without ``active`` nothing bends the maps."""
        orders = []
        for number, layer in enumerate(self.main_layers):
            h = x @ layer.weight
            h = torch.tanh(h) if active else h
            for _ in range(number + 1):
                h = graph @ h
            orders.append(h)
        stack = torch.stack(orders)
        gates = torch.softmax(self.fc2(F.relu(self.fc1(stack.mean(1)))), 0)
        return (gates[:, None] * stack).sum(0)


class _GraphAutoencoder(nn.Module):
    def __init__(self, n_in: int, widths: Widths, n_orders: int) -> None:
        super().__init__()
        first, second, latent = widths
        down, up = (n_in, first, second, latent), (latent, second, first, n_in)
        for name, number, sizes in (("encoder", 1, down), ("decoder", 4, up)):
            pairs = pairwise(sizes)
            layers = {f"gnn_{number + i}": OrdersLayer(a, b, n_orders) for i, (a, b) in enumerate(pairs)}
            self.add_module(name, nn.ModuleDict(layers))

    def decode(self, z: Tensor, graph: Tensor) -> Tensor:
        """What a code stands for."""
        z = self.decoder["gnn_5"](self.decoder["gnn_4"](z, graph), graph)
        return self.decoder["gnn_6"](z, graph, active=False)


class _Unused(nn.Module):
    """Attention across views: published, and never used."""

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.w_omega, self.u_omega = nn.Parameter(torch.zeros(dim, dim)), nn.Parameter(torch.zeros(dim, 1))


class Network(nn.Module):
    """An autoencoder and a graph autoencoder for each of one or two views.

    Parameters
    ----------
    n_in
        Width of each view.
    widths
        Of the two hidden layers and the code.
    sigma
        Share of the graph's branch.
    n_orders
        Orders of neighbours: 4, or 2 for a single view.
    n_clusters
        Rows of centres that are published and never used.
    """

    def __init__(
        self, n_in: Sequence[int], widths: Widths, *, sigma: float = 0.5, n_orders: int = 4, n_clusters: int = 5
    ) -> None:
        super().__init__()
        self.sigma, self.n_views = sigma, len(n_in)
        self.cluster_layer = nn.Parameter(torch.zeros(n_clusters, widths[2]))
        for view, n in enumerate(n_in):
            self.add_module(f"ae{view or ''}", _Autoencoder(n, widths))
            self.add_module(f"gae{view or ''}", _GraphAutoencoder(n, widths, n_orders))
        if self.n_views > 1:
            self.atten_cross = _Unused(widths[2])

    def forward(self, x: Sequence[Tensor], graph: Tensor) -> list[dict[str, Tensor]]:
        """For each view: ``code``, both branches' codes ``plain`` and ``spread``, and what each rebuilds."""
        return [self._view(view, values, graph) for view, values in enumerate(x)]

    def _view(self, view: int, x: Tensor, graph: Tensor) -> dict[str, Tensor]:
        plain, spread, s = getattr(self, f"ae{view or ''}"), getattr(self, f"gae{view or ''}"), self.sigma
        z1, z2, z3 = plain.encode(x)
        g1 = spread.encoder["gnn_1"](x, graph)
        g2 = spread.encoder["gnn_2"]((1 - s) * z1 + s * g1, graph)
        g3 = spread.encoder["gnn_3"]((1 - s) * z2 + s * g2, graph, active=False)
        code = (1 - s) * z3 + s * g3
        return {
            "code": code,
            "plain": z3,
            "spread": g3,
            "rebuilt": plain.decode(z3),
            "rebuilt_spread": spread.decode(code, graph),
        }


def rebuilt_edges(view: dict[str, Tensor]) -> Tensor:
    """What a view says of the edges, 0 … 2; the published code computes it and does not use it."""
    code, spread = view["code"], view["rebuilt_spread"]
    return torch.sigmoid(code @ code.T) + torch.sigmoid(spread @ spread.T)


def reconstruction_losses(
    found: Sequence[dict[str, Tensor]], x: Sequence[Tensor], graph: Tensor
) -> tuple[Tensor, Tensor, Tensor]:
    """Errors of the plain branch, of the graph's branch against smoothed values, and disagreement of their codes."""
    pairs = list(zip(found, x, strict=True))
    plain = torch.stack([F.mse_loss(view["rebuilt"], values) for view, values in pairs]).sum()
    spread = torch.stack([F.mse_loss(view["rebuilt_spread"], graph @ values) for view, values in pairs]).sum()
    return plain, spread, torch.stack([F.mse_loss(view["spread"], view["plain"]) for view in found]).sum()


def neighbour_noise(code: Tensor, near: Tensor) -> Tensor:
    """Contrast of neighbours, as far as ``near`` (n, n) says they are, with all others."""
    code = F.normalize(code)
    similarity = torch.exp(code @ code.T)
    return -torch.log((similarity * near).sum(1) / (similarity * (1 - near)).sum(1)).mean()


def centred_log_ratio(counts: NDArray) -> NDArray[np.float64]:
    """Each spot's counts over their geometric mean, log1p; for proteins."""
    counts = np.asarray(counts, dtype=np.float64)
    mean = np.where(counts > 0, np.log1p(counts), 0).sum(1, keepdims=True) / counts.shape[1]
    return np.log1p(counts / np.exp(mean))
