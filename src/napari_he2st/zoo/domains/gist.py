"""GIST: two graph transformers, of expression and of tiles, joined in one embedding (Lv et al. 2025)."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from napari_he2st.analysis.domains.grouping import Grouping, group
from napari_he2st.analysis.graphs import radius_graph
from napari_he2st.core.types import Domains
from napari_he2st.zoo.base import DomainMethod
from napari_he2st.zoo.blocks.expression import most_variable, normalised
from napari_he2st.zoo.blocks.sparse import TransformerConv, edges_in
from napari_he2st.zoo.inputs import Features
from napari_he2st.zoo.recipe import Recipe

if TYPE_CHECKING:
    from anndata import AnnData
    from scipy.sparse import csr_array


class GIST(DomainMethod):
    """Expression is rebuilt from genes, from tiles and from both; the joint code is grouped.

    Parameters
    ----------
    n_genes
        Genes of highest variance to use; the published scripts take all.
    dim, latent_dim
        Width of the hidden layers and of the code.
    reach_pitches
        Spots are neighbours up to this many pitches.
    encoder
        Of the tiles; the published ones are CTransPath and UNI.
    lr, epochs
        Of the training.
    grouping
        How spots are grouped in the end.
    """

    def __init__(
        self,
        *,
        n_genes: int = 3000,
        dim: int = 512,
        latent_dim: int = 30,
        reach_pitches: float = 1.6,
        encoder: str = "efficientnet-lite0",
        lr: float = 1e-3,
        epochs: int = 1000,
        grouping: Grouping = "mixture",
    ) -> None:
        self.inputs = {"features": Features(encoder=encoder)}
        self.n_genes, self.dim, self.latent_dim = n_genes, dim, latent_dim
        self.reach_pitches, self.grouping = reach_pitches, grouping
        self.recipe = Recipe(lr=lr, weight_decay=1e-4, epochs=epochs, clip=5.0)

    def segment(self, adata: AnnData, *, n_domains: int | None, seed: int, features: Tensor) -> Domains:
        """Group the spots by expression and tile."""
        genes = torch.from_numpy(normalised(adata.X)[:, most_variable(adata.X, self.n_genes)])
        reach = self.reach_pitches * adata.uns["he2st"]["pitch_um"]
        edges = edges_in(apart(np.asarray(adata.obsm["spatial"]), reach))
        tiles = features.float().cpu()
        network = Network(genes.shape[1], tiles.shape[1], self.dim, self.latent_dim)

        def loss(_: int) -> Tensor:
            *_, from_genes, from_tiles, joint = network(genes, tiles, edges)
            return reconstruction_loss(from_genes, from_tiles, joint, genes)

        report = self.minimise(network, loss, self.recipe)
        with torch.no_grad():
            embedding = network(genes, tiles, edges)[2].numpy()
        labels, found = group(embedding, n_domains, seed, self.grouping)
        return Domains(labels, {**report, **found}, embedding)


def apart(xy: np.ndarray, reach: float) -> csr_array:
    """Spots within reach of one another, those at the very same place left out."""
    graph = radius_graph(xy, reach).tocoo()
    rows, columns = graph.coords
    graph.data[(xy[rows] == xy[columns]).all(1)] = 0
    result = graph.tocsr()
    result.eliminate_zeros()
    return result


class Network(nn.Module):
    """Two autoencoders on the same graph, and one on their joint code.

    Parameters
    ----------
    n_genes, n_features
        Width of the two inputs.
    dim, latent_dim
        Width of the hidden layers and of each code.
    rebuild_features
        Whether the tiles' branch rebuilds the tiles' features in place of expression.
    """

    def __init__(
        self, n_genes: int, n_features: int, dim: int, latent_dim: int, *, rebuild_features: bool = False
    ) -> None:
        super().__init__()
        self.conv1, self.conv2 = TransformerConv(n_genes, dim), TransformerConv(dim, latent_dim)
        self.conv3, self.conv4 = TransformerConv(latent_dim, dim), TransformerConv(dim, n_genes)
        self.imgconv1, self.imgconv2 = TransformerConv(n_features, dim), TransformerConv(dim, latent_dim)
        self.imgconv3 = TransformerConv(latent_dim, dim)
        self.imgconv4 = TransformerConv(dim, n_features if rebuild_features else n_genes)
        self.neck, self.neck2 = TransformerConv(2 * latent_dim, latent_dim), TransformerConv(latent_dim, latent_dim)
        self.c3, self.c4 = TransformerConv(latent_dim, dim), TransformerConv(dim, n_genes)
        self.norm1, self.norm2 = nn.LayerNorm(dim), nn.LayerNorm(latent_dim)  # published, and never used

    def forward(self, genes: Tensor, tiles: Tensor, edges: Tensor) -> tuple[Tensor, ...]:
        """Codes of genes, tiles and both, then what is rebuilt from each."""
        code = self.conv2(F.elu(self.conv1(genes, edges)), edges)
        rebuilt = self.conv4(F.elu(self.conv3(code, edges)), edges)
        tile_code = self.imgconv2(F.elu(self.imgconv1(tiles, edges)), edges)
        tile_rebuilt = self.imgconv4(F.elu(self.imgconv3(tile_code, edges)), edges)
        joint = self.neck2(F.elu(self.neck(torch.cat([code, tile_code], 1), edges)), edges)
        joint_rebuilt = self.c4(F.elu(self.c3(joint, edges)), edges)
        return code, tile_code, joint, rebuilt, tile_rebuilt, joint_rebuilt


def reconstruction_loss(from_genes: Tensor, from_tiles: Tensor, joint: Tensor, genes: Tensor) -> Tensor:
    """Mean squared errors of the three reconstructions of expression, the joint one weighing ten times more."""
    return 0.1 * F.mse_loss(from_genes, genes) + 0.1 * F.mse_loss(from_tiles, genes) + F.mse_loss(joint, genes)
