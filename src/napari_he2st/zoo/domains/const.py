"""conST: autoencoder and graph autoencoder of expression, then contrasts at three levels (Zong et al. 2022)."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from napari_he2st.analysis.domains.grouping import Grouping, group
from napari_he2st.analysis.domains.kmeans import means
from napari_he2st.analysis.domains.refine import outvoted
from napari_he2st.analysis.graphs import knn_graph
from napari_he2st.core.types import Domains
from napari_he2st.zoo.base import DomainMethod
from napari_he2st.zoo.blocks.expression import components, normalised, scaled
from napari_he2st.zoo.blocks.sparse import (
    LinearBlock,
    divergence,
    edges_in,
    gaussian_divergence,
    graph_balance,
    info_nce,
    propagation,
    sharpened,
    student_t,
    subset,
)
from napari_he2st.zoo.inputs import Features
from napari_he2st.zoo.recipe import Recipe

if TYPE_CHECKING:
    from anndata import AnnData


class ConST(DomainMethod):
    """Codes that rebuild expression and graph, sharpened by contrasting spots, neighbourhoods and the section.

    Parameters
    ----------
    n_components
        Principal components of the expression, and of the tiles' features.
    dim, latent_dim, graph_dim, graph_latent_dim
        Widths of the two layers of the encoder and of the two of the graph encoder.
    n_neighbours
        Nearest spots that each is joined to.
    n_centres, n_contexts
        Clusters of the second stage, and of its contrast of spot and cluster.
    temperature
        Of the contrast between views.
    use_image
        Whether tiles count. The published code cannot run with them; the layers behind are widened here.
    encoder
        Of the tiles; the published one is a masked autoencoder.
    lr, epochs
        Of each of the two stages.
    refine
        Whether a spot takes the domain of most of its neighbours in the end.
    grouping
        How spots are grouped in the end.
    """

    optional = frozenset({"features"})

    def __init__(
        self,
        *,
        n_components: int = 300,
        dim: int = 100,
        latent_dim: int = 20,
        graph_dim: int = 32,
        graph_latent_dim: int = 8,
        n_neighbours: int = 10,
        n_centres: int = 10,
        n_contexts: int = 7,
        temperature: float = 0.5,
        use_image: bool = False,
        encoder: str = "efficientnet-lite0",
        lr: float = 0.01,
        epochs: int = 200,
        refine: bool = False,
        grouping: Grouping = "leiden",
    ) -> None:
        self.inputs = {"features": Features(encoder=encoder)} if use_image else {}
        self.n_components, self.n_neighbours, self.temperature = n_components, n_neighbours, temperature
        self.widths = {"dim": dim, "latent_dim": latent_dim, "graph_dim": graph_dim}
        self.widths |= {"graph_latent_dim": graph_latent_dim, "n_centres": n_centres}
        self.n_contexts, self.refine, self.grouping = n_contexts, refine, grouping
        self.recipe = Recipe(lr=lr, weight_decay=0.01, epochs=epochs)

    def segment(self, adata: AnnData, *, n_domains: int | None, seed: int, features: Tensor | None = None) -> Domains:
        """Group the spots."""
        xy, n = np.asarray(adata.obsm["spatial"]), adata.n_obs
        x = torch.from_numpy(components(scaled(normalised(adata.X, 1.0, log=False)), self.n_components, seed))
        image = None if features is None else like(components(features.cpu().numpy(), x.shape[1], seed), x)
        edges = edges_in(knn_graph(xy, self.n_neighbours))
        graph, balance = propagation(edges, n), graph_balance(n, len(edges))
        network = Network(x.shape[1], n_image=None if image is None else image.shape[1], **self.widths)
        near = torch.sparse_coo_tensor(edges.T.flip(0), torch.ones(len(edges)), (n, n), check_invariants=False)
        near = near.coalesce()
        contexts = F.normalize(torch.rand(self.n_contexts, self.widths["latent_dim"]))
        target = torch.empty(0)

        def reconstruction(_: int) -> Tensor:
            out = network(x, graph, image)
            some = subset(n, self.max_spots)
            adjacency = near.index_select(0, some).index_select(1, some).to_dense() + torch.eye(len(some))
            loss = 10 * F.mse_loss(out["rebuilt"], x)
            loss = loss + 0.1 * graph_loss(out["z"][some], adjacency, out["mu"], out["logvar"], balance)
            return loss if image is None else loss + 0.1 * F.mse_loss(out["image_rebuilt"], image)

        def contrast(epoch: int) -> Tensor:
            nonlocal target, contexts
            out = network(x, graph, image)
            if epoch % 20 == 0:
                target = sharpened(out["q"]).detach()
            loss = 10 * divergence(target, out["q"])
            views = [augmented(x, edges, n, edge_rate, rate) for edge_rate, rate in ((0.1, 0.2), (0.1, 0.3))]
            h1, h2 = (network(view, g, image)["feat"] for view, g in views)
            sparse = propagation(edges[torch.rand(len(edges)) >= 0.8], n)
            shuffled = network(x[torch.randperm(n)], sparse, image)["feat"]
            some = subset(n, self.max_spots)
            loss = loss + 0.3 * info_nce(network.project(h1[some]), network.project(h2[some]), self.temperature)
            loss = loss + 0.1 * paired_loss(section_logits(network.disc, out["feat"], shuffled))
            # The weight 0.1 of this last contrast is added in place of multiplied, as published.
            logits, contexts = context_logits(out["feat"], shuffled, contexts)
            contexts = contexts.detach()
            return loss + 0.1 + paired_loss(logits)

        report = self.minimise(network, reconstruction, self.recipe)
        with torch.no_grad():
            z = network(x, graph, image)["z"].numpy()
            n_centres = len(network.cluster_layer)
            first = means(z, n_centres, 42, n_init=20)
            network.cluster_layer.copy_(
                torch.stack([torch.from_numpy(z[first == k]).mean(0) for k in range(n_centres)])
            )
        report = {"epochs_before": report["epochs"], **self.minimise(network, contrast, self.recipe)}
        with torch.no_grad():
            embedding = network(x, graph, image)["z"].numpy()
        labels, found = group(embedding, n_domains, seed, self.grouping)
        if self.refine:
            labels = outvoted(labels, xy, 6 if adata.uns["he2st"]["lattice"] == "hexagonal" else 4)
        return Domains(labels, {**report, **found}, embedding)


class _Convolution(nn.Module):
    """Map without bias, then propagation."""

    def __init__(self, n_in: int, n_out: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.empty(n_in, n_out))
        nn.init.xavier_uniform_(self.weight)

    def forward(self, x: Tensor, graph: Tensor) -> Tensor:
        return graph @ (F.dropout(x, 0.2, self.training) @ self.weight)


class _Discriminator(nn.Module):
    """Whether two codes belong together."""

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.f_k = nn.Bilinear(dim, dim, 1)

    def forward(self, h: Tensor, s: Tensor) -> Tensor:
        return self.f_k(h, s).squeeze(1)


class Network(nn.Module):
    """Encoder, graph encoder and decoder, with or without the tiles' branch.

    Parameters
    ----------
    n_in
        Width of the expression.
    dim, latent_dim, graph_dim, graph_latent_dim, n_centres
        As in :class:`ConST`.
    n_image
        Width of the tiles' features; None leaves their branch out.
    """

    def __init__(
        self,
        n_in: int,
        *,
        dim: int = 100,
        latent_dim: int = 20,
        graph_dim: int = 32,
        graph_latent_dim: int = 8,
        n_centres: int = 10,
        n_image: int | None = None,
        dropout: float = 0.2,
    ) -> None:
        super().__init__()
        branches = 1 if n_image is None else 2
        width = branches * latent_dim + graph_latent_dim
        self.cluster_layer = nn.Parameter(torch.empty(n_centres, width))
        nn.init.xavier_normal_(self.cluster_layer)
        names = [("", n_in)] if n_image is None else [("", n_in), ("img_", n_image)]
        for prefix, n in names:
            layers = {
                f"{prefix}encoder_L1": LinearBlock(n, dim, dropout),
                f"{prefix}encoder_L2": LinearBlock(dim, latent_dim, dropout),
            }
            self.add_module(f"{prefix}encoder", _sequence(layers))
            self.add_module(f"{prefix}decoder", _sequence({f"{prefix}decoder_L0": LinearBlock(width, n, dropout)}))
        self.gc1 = _Convolution(branches * latent_dim, graph_dim)
        self.gc2, self.gc3 = _Convolution(graph_dim, graph_latent_dim), _Convolution(graph_dim, graph_latent_dim)
        self.fc1, self.fc2 = nn.Linear(latent_dim, 2 * latent_dim), nn.Linear(2 * latent_dim, latent_dim)
        self.disc = _Discriminator(latent_dim)

    def forward(self, x: Tensor, graph: Tensor, image: Tensor | None = None) -> dict[str, Tensor]:
        """Codes ``z`` (n, width), ``feat`` of the expression, ``mu`` and ``logvar`` of the graph, reconstructions."""
        feat = self.encoder(x)
        codes = [feat] if image is None else [feat, self.img_encoder(image)]
        hidden = F.relu(self.gc1(torch.cat(codes, 1), graph))
        mu, logvar = self.gc2(hidden, graph), self.gc3(hidden, graph)
        drawn = mu + torch.randn_like(mu) * logvar.exp() if self.training else mu
        z = torch.cat([feat, drawn, *codes[1:]], 1)
        out = {"z": z, "feat": feat, "mu": mu, "logvar": logvar, "rebuilt": self.decoder(z)}
        out["q"] = student_t(z, self.cluster_layer)
        return out if image is None else out | {"image_rebuilt": self.img_decoder(z)}

    def project(self, h: Tensor) -> Tensor:
        """What views are contrasted by: the projection, taken twice as published."""
        return self.projection(self.projection(h))

    def projection(self, h: Tensor) -> Tensor:
        """One projection of the expression's code."""
        return self.fc2(F.elu(self.fc1(h)))


def _sequence(layers: dict[str, nn.Module]) -> nn.Sequential:
    sequence = nn.Sequential()
    for name, layer in layers.items():
        sequence.add_module(name, layer)
    return sequence


def graph_loss(z: Tensor, adjacency: Tensor, mu: Tensor, logvar: Tensor, balance: float) -> Tensor:
    """How badly inner products of codes rebuild the graph's edges, plus the divergence of the latent normals.

    ``adjacency`` has a loop at each node; pairs that are no edges count as maybe.
    """
    logits = z @ z.T * adjacency
    return balance * F.binary_cross_entropy_with_logits(logits, adjacency) + gaussian_divergence(mu, logvar)


def section_logits(disc: nn.Module, h: Tensor, shuffled: Tensor) -> Tensor:
    """Does each code fit what its spot's features are on average? First the real codes, then the shuffled ones."""
    s = torch.sigmoid(h.mean(1, keepdim=True)).expand_as(h)
    return torch.cat([disc(h, s), disc(shuffled, s)])


def context_logits(h: Tensor, shuffled: Tensor, centres: Tensor, *, beta: float = 100.0) -> tuple[Tensor, Tensor]:
    """Does each code fit its soft cluster? First the real codes, then the shuffled ones; and the new centres."""
    data = h / (h.norm(dim=1, keepdim=True) + 1e-6)
    share = data
    for _ in range(11):
        centres = centres / (centres.norm(dim=1, keepdim=True) + 1e-6)
        share = torch.softmax(beta * data @ centres.T, 1)
        centres = share.T @ data / share.sum(0)[:, None]
    s = torch.sigmoid(share @ centres)
    return torch.cat([(h * s).sum(1), (shuffled * s).sum(1)]), centres


def paired_loss(logits: Tensor) -> Tensor:
    """Cross-entropy of logits whose first half is true."""
    labels = torch.cat([torch.ones(len(logits) // 2), torch.zeros(len(logits) // 2)])
    return F.binary_cross_entropy_with_logits(logits, labels)


def augmented(x: Tensor, edges: Tensor, n: int, edge_rate: float, rate: float) -> tuple[Tensor, Tensor]:
    """A view: features (columns) and edges dropped at random."""
    kept = edges[torch.rand(len(edges)) >= edge_rate]
    return x * (torch.rand(x.shape[1]) >= rate), propagation(kept, n)


def like(values: np.ndarray, x: Tensor) -> Tensor:
    """Values brought to the overall mean and standard deviation of ``x``."""
    spread = max(float(values.std()), 1e-12)
    return torch.from_numpy(values - values.mean()) / spread * x.std() + x.mean()
