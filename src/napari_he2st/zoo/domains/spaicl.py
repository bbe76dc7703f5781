"""SpaICL: masked spots are rebuilt with the help of tiles, over neighbourhoods that grow (Ma et al. 2025)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from napari_he2st.analysis.domains.grouping import Grouping, group
from napari_he2st.analysis.domains.refine import majority
from napari_he2st.analysis.graphs import knn_graph
from napari_he2st.core.types import Domains
from napari_he2st.zoo.base import DomainMethod
from napari_he2st.zoo.blocks.expression import components, panel
from napari_he2st.zoo.blocks.sparse import LinearBlock, SparseGCNConv, edges_in, propagation
from napari_he2st.zoo.inputs import Features
from napari_he2st.zoo.recipe import Recipe

if TYPE_CHECKING:
    from anndata import AnnData


class SpaICL(DomainMethod):
    """A masked autoencoder of expression, whose code is asked for by the tiles' code.

    Parameters
    ----------
    n_components, n_image_components
        Principal components of expression and of the tiles' features.
    dim, code_dim, graph_dim, latent_dim, projection_dim
        Widths of the layers.
    n_neighbours
        Nearest spots that each is joined to.
    mask, replace
        Share of spots that are masked, and of these the share that get another spot's expression.
    rebuild_weight, match_weight
        Of the two objectives; 0.5 and 1 for cortex, 1.5 and 0.3 for a tumour.
    encoder
        Of the tiles.
    lr, epochs
        Of the training.
    refine
        A spot takes the domain that most of so many nearest spots have; 0 leaves it.
    grouping
        How spots are grouped in the end.
    """

    def __init__(
        self,
        *,
        n_components: int = 200,
        n_image_components: int = 50,
        dim: int = 64,
        code_dim: int = 32,
        graph_dim: int = 64,
        latent_dim: int = 16,
        projection_dim: int = 32,
        n_neighbours: int = 12,
        mask: float = 0.7,
        replace: float = 0.1,
        rebuild_weight: float = 0.5,
        match_weight: float = 1.0,
        encoder: str = "efficientnet-lite0",
        lr: float = 1e-3,
        epochs: int = 100,
        refine: int = 30,
        grouping: Grouping = "mixture",
    ) -> None:
        self.inputs = {"features": Features(encoder=encoder)}
        self.n_components, self.n_image_components = n_components, n_image_components
        self.widths = {"dim": dim, "code_dim": code_dim, "graph_dim": graph_dim}
        self.widths |= {"latent_dim": latent_dim, "projection_dim": projection_dim}
        self.n_neighbours, self.mask, self.replace = n_neighbours, mask, replace
        self.rebuild_weight, self.match_weight = rebuild_weight, match_weight
        self.refine, self.grouping = refine, grouping
        self.recipe = Recipe(lr=lr, weight_decay=1e-3, epochs=epochs, clip=5.0)

    def segment(self, adata: AnnData, *, n_domains: int | None, seed: int, features: Tensor) -> Domains:
        """Group the spots by expression and tile."""
        xy, n = np.asarray(adata.obsm["spatial"]), adata.n_obs
        x = torch.from_numpy(components(panel(adata, 3000), self.n_components, seed))
        image = torch.from_numpy(components(features.cpu().numpy(), self.n_image_components, seed))
        edges = edges_in(knn_graph(xy, self.n_neighbours))
        graph = propagation(edges, n)
        edges = torch.cat([edges, torch.arange(n).repeat(2, 1).T])
        network = Network(x.shape[1], image.shape[1], **self.widths)
        epochs = self.recipe.epochs

        def loss(epoch: int) -> Tensor:
            gamma = 1.0 if epoch >= 0.9 * epochs else epoch / epochs
            kept = edges[torch.rand(len(edges)) > 1 - gamma]
            match, rebuild = network.losses(x, image, graph, kept, Draws.at_random(n, self.mask, self.replace))
            return self.rebuild_weight * rebuild + self.match_weight * match

        report = self.minimise(network, loss, self.recipe)
        with torch.no_grad():
            embedding = network(x, image, graph, edges)[0].numpy()
        labels, found = group(embedding, n_domains, seed, self.grouping)
        if self.refine:
            labels = majority(labels, xy, self.refine)
        return Domains(labels, {**report, **found}, embedding)


@dataclass(frozen=True)
class Draws:
    """What chance decides in one step, as rows of spots.

    Attributes
    ----------
    masked, kept
        Which spots are hidden from the online encoder, and which from the target encoder.
    blanked, replaced, donors
        Of the masked: which show a token, which show the expression of which other spot.
    negatives
        Pairs of spots that should not match, (2, masked).
    """

    masked: Tensor
    kept: Tensor
    blanked: Tensor
    replaced: Tensor
    donors: Tensor
    negatives: Tensor

    @classmethod
    def of(cls, order: Tensor, inner: Tensor, donors: Tensor, negatives: Tensor, mask: float, replace: float) -> Draws:
        """From permutations of all spots, of the masked ones and of all, and the pairs."""
        n_masked = int(mask * len(order))
        masked = order[:n_masked]
        n_blank, n_replaced = int((1 - replace) * n_masked), int(replace * n_masked)
        replaced = masked[inner[n_masked - n_replaced :]]
        return cls(masked, order[n_masked:], masked[inner[:n_blank]], replaced, donors[:n_replaced], negatives)

    @classmethod
    def at_random(cls, n: int, mask: float, replace: float) -> Draws:
        """Fresh draws for ``n`` spots."""
        n_masked = int(mask * n)
        negatives = torch.randint(0, n, (2, n_masked))
        return cls.of(torch.randperm(n), torch.randperm(n_masked), torch.randperm(n), negatives, mask, replace)


class _GraphLayer(nn.Module):
    """Graph convolution, batch norm, activation, dropout."""

    def __init__(self, n_in: int, n_out: int, *, relu: bool = False, dropout: float = 0.2) -> None:
        super().__init__()
        self.bn, self.conv = nn.BatchNorm1d(n_out), SparseGCNConv(n_in, n_out)
        self.after = nn.Sequential(nn.ReLU() if relu else nn.Identity(), nn.Dropout(dropout))

    def forward(self, x: Tensor, graph: Tensor) -> Tensor:
        return self.after(self.bn(self.conv(x, graph)))


class Encoder(nn.Module):
    """Two maps, two graph convolutions."""

    def __init__(self, n_in: int, dim: int, code_dim: int, graph_dim: int, latent_dim: int) -> None:
        super().__init__()
        self.encoder = nn.Sequential()
        self.encoder.add_module("encoder_L1", LinearBlock(n_in, dim, 0.2))
        self.encoder.add_module("encoder_L2", LinearBlock(dim, code_dim, 0.2))
        self.gc1 = _GraphLayer(code_dim, graph_dim, relu=True)
        self.gc2 = _GraphLayer(graph_dim, latent_dim)

    def forward(self, x: Tensor, graph: Tensor) -> Tensor:
        """(spots, latent)."""
        return self.gc2(self.gc1(self.encoder(x), graph), graph)


class _Decoder(nn.Module):
    def __init__(self, latent_dim: int, n_out: int) -> None:
        super().__init__()
        self.layer1 = _GraphLayer(latent_dim, n_out)

    def forward(self, x: Tensor, graph: Tensor) -> Tensor:
        return self.layer1(x, graph)


class _Projector(nn.Module):
    def __init__(self, latent_dim: int, dim: int) -> None:
        super().__init__()
        self.layer1 = _GraphLayer(latent_dim, dim, relu=True)
        self.layer2 = nn.Linear(dim, latent_dim, bias=False)

    def forward(self, x: Tensor, graph: Tensor) -> Tensor:
        return self.layer2(self.layer1(x, graph))


class CrossAttention(nn.Module):
    """Attention among the heads of one spot, never among spots: the published tensors have no axis of spots left."""

    def __init__(self, dim: int, heads: int = 2) -> None:
        super().__init__()
        self.heads = heads
        self.w_q, self.w_k, self.w_v = (nn.Linear(dim, dim, bias=False) for _ in range(3))
        self.proj = nn.Linear(dim, dim)

    def forward(self, query: Tensor, other: Tensor) -> Tensor:
        """(spots, dim): what each spot's ``query`` asks of its own ``other``."""
        split = (len(query), self.heads, -1)
        q, k, v = self.w_q(query).view(split), self.w_k(other).view(split), self.w_v(other).view(split)
        weight = torch.softmax(q @ k.mT / q.shape[2] ** 0.5, -1)
        return self.proj((weight @ v).reshape(len(query), -1))


class _ExpressionModel(nn.Module):
    """An online encoder and its target, and how the one's code is projected."""

    def __init__(self, n_in: int, sizes: tuple[int, ...], projection_dim: int) -> None:
        super().__init__()
        latent_dim = sizes[-1]
        self.enc_mask_token, self.rep_mask = (
            nn.Parameter(torch.zeros(1, n_in)),
            nn.Parameter(torch.zeros(1, latent_dim)),
        )
        self.online_encoder, self.target_encoder = Encoder(n_in, *sizes), Encoder(n_in, *sizes)
        self.decoder = _Decoder(latent_dim, n_in)  # published, and never used
        self.encoder_to_decoder = nn.Linear(latent_dim, latent_dim, bias=False)
        self.projector = _Projector(latent_dim, projection_dim)


class Network(nn.Module):
    """The expression's autoencoder, the tiles' encoder, and attention between them."""

    def __init__(
        self,
        n_in: int,
        n_image: int,
        *,
        dim: int = 64,
        code_dim: int = 32,
        graph_dim: int = 64,
        latent_dim: int = 16,
        projection_dim: int = 32,
    ) -> None:
        super().__init__()
        sizes = (dim, code_dim, graph_dim, latent_dim)
        self.weight = nn.Parameter(torch.zeros(latent_dim, latent_dim))  # published, and never used
        self.exp_model = _ExpressionModel(n_in, sizes, projection_dim)
        self.img_model = Encoder(n_image, *sizes)
        self.img_exp_cross, self.att = CrossAttention(latent_dim), CrossAttention(latent_dim)
        self.redu_dim = nn.Linear(2 * latent_dim, latent_dim)  # published, and never used
        self.decoder = _Decoder(latent_dim, n_in)

    def forward(self, x: Tensor, image: Tensor, graph: Tensor, edges: Tensor) -> tuple[Tensor, Tensor]:
        """Code and reconstruction, by the target encoder."""
        model = self.exp_model
        rep = model.projector(model.encoder_to_decoder(model.target_encoder(x, graph)), graph)
        return self._fuse(rep, image, graph, edges)

    def _fuse(self, rep: Tensor, image: Tensor, graph: Tensor, edges: Tensor) -> tuple[Tensor, Tensor]:
        asked = self.img_exp_cross(self.img_model(image, graph), neighbourhood_mean(rep, edges))
        latent = self.att(asked, rep)
        return latent, self.decoder(latent, graph)

    def losses(self, x: Tensor, image: Tensor, graph: Tensor, edges: Tensor, draws: Draws) -> tuple[Tensor, Tensor]:
        """How badly projected code and target code match, and how badly masked spots are rebuilt.

        ``edges`` are those that the curriculum keeps, loops among them. The target encoder follows the online one.
        """
        model = self.exp_model
        seen = x.clone()
        seen[draws.blanked] = model.enc_mask_token.expand(len(draws.blanked), -1)
        seen[draws.replaced] = x[draws.donors]
        online = model.online_encoder(seen, graph)
        with torch.no_grad():
            other = x.clone()
            other[draws.kept] = model.enc_mask_token.expand(len(draws.kept), -1)
            target = model.target_encoder(other, graph)
            for mine, theirs in zip(model.target_encoder.parameters(), model.online_encoder.parameters(), strict=True):
                mine.copy_(theirs)
        rep = model.encoder_to_decoder(online)
        rep = rep.index_copy(0, draws.masked, model.rep_mask.expand(len(draws.masked), -1))
        rep = model.projector(rep, graph)
        one, two = draws.negatives
        match = (alike(rep[draws.masked], target[draws.masked]) + unlike(rep[one], target[two])) / 2
        _, rebuilt = self._fuse(rep, image, graph, edges)
        return match, alike(rebuilt[draws.masked], x[draws.masked])


def alike(a: Tensor, b: Tensor) -> Tensor:
    """Scaled cosine error of rows that should be the same."""
    return -torch.log(((1 + F.cosine_similarity(a, b)) / 2).square()).mean()


def unlike(a: Tensor, b: Tensor) -> Tensor:
    """The same of rows that should differ."""
    return -torch.log(1 - ((1 + F.cosine_similarity(a, b)) / 2).square()).mean()


def neighbourhood_mean(rep: Tensor, edges: Tensor) -> Tensor:
    """Mean over the sources of each spot's edges (source, destination); 0 without any."""
    source, destination = edges.T
    count = torch.bincount(destination, minlength=len(rep)).clamp(min=1)
    return torch.zeros_like(rep).index_add(0, destination, rep[source]) / count[:, None]
