"""DANet: BLEEP with a state space over the genes and spline layers in its heads (Wu et al. 2025)."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from napari_he2st.zoo.base import Batches
from napari_he2st.zoo.blocks.contrast import soft_clip_losses
from napari_he2st.zoo.blocks.pixels import standardise
from napari_he2st.zoo.blocks.retrieval import Retrieval
from napari_he2st.zoo.blocks.state_space import Mamba
from napari_he2st.zoo.blocks.symmetry import random_symmetry
from napari_he2st.zoo.blocks.trunks import feature_network, load_imagenet
from napari_he2st.zoo.inputs import Tiles
from napari_he2st.zoo.recipe import Recipe
from napari_he2st.zoo.weights import load_published

_ADDRESS = "https://github.com/202324131016T/DANet"
_INTERVALS, _ORDER = 3, 3


class DANet(Retrieval):
    """Genes pass a state space one by one; both heads have a layer of learnt splines.

    Parameters
    ----------
    n_genes
        Size of the panel.
    trunk
        A timm network, or a small one (see :func:`~napari_he2st.zoo.blocks.trunks.feature_network`).
    dim, spline_dim, dropout
        Of the embeddings, inside the spline layers, and of the heads.
    tile_px
        Width of the tile.
    imagenet
        Start training from ImageNet weights, as published.
    pretrained
        Load the published weights and train no further; the training spots are only the reference. They were
        trained on certain genes in a certain order, which the panel has to follow.
    faithful
        Read the tiles as BGR and transposed, as the published weights need them.
    """

    n_neighbours = 100
    recipe = Recipe("adamw", lr=1e-3, weight_decay=1e-3, epochs=25, batch_size=256)

    def __init__(
        self,
        n_genes: int,
        *,
        trunk: str = "densenet121",
        dim: int = 256,
        spline_dim: int = 64,
        dropout: float = 0.1,
        tile_px: int = 224,
        imagenet: bool = True,
        pretrained: bool = False,
        faithful: bool = False,
    ) -> None:
        super().__init__()
        self.inputs = {"tiles": Tiles(px=tile_px)}
        self.trunk, self.imagenet, self.pretrained, self.faithful = trunk, imagenet, pretrained, faithful
        if pretrained:
            self.recipe = Recipe(epochs=0)
        network, width = feature_network(trunk)
        self.image_encoder = nn.ModuleDict({"model": network})
        self.spot_encoder = nn.ModuleDict({"mamba": Mamba(1)})
        self.image_projection = SplineHead(width, dim, spline_dim, dropout)
        self.spot_projection = SplineHead(n_genes, dim, spline_dim, dropout)

    def prepare(self, *, tiles: Tensor) -> dict[str, Tensor]:
        """Tiles standardised as ImageNet's."""
        return {"images": standardise(tiles.flip(1).transpose(-1, -2) if self.faithful else tiles)}

    def embed_images(self, *, images: Tensor) -> Tensor:
        """Embeddings of tiles (n, 3, px, px), not normalised."""
        return self.image_projection(self.image_encoder["model"](images))

    def spot_features(self, expression: Tensor) -> Tensor:
        """Expression after the state space, float32 (n, genes)."""
        return self.spot_encoder["mamba"](expression[..., None])[..., 0]

    def embed_spots(self, expression: Tensor) -> Tensor:
        """Embeddings of expression, not normalised."""
        return self.spot_projection(self.spot_features(expression))

    def forward(self, images: Tensor, expression: Tensor) -> Tensor:
        """The loss of a batch."""
        return soft_clip_losses(self.embed_images(images=images), self.embed_spots(expression)).mean()

    def loss(self, targets: Mapping[str, Tensor], *, images: Tensor) -> Tensor:
        """That of randomly turned and mirrored tiles."""
        return self(random_symmetry(images), targets["expression"].nan_to_num())

    def fit(self, batches: Batches, recipe: Recipe) -> Iterator[dict[str, float]]:
        """Start from the published weights or from ImageNet, then train."""
        if self.pretrained:
            load_published(self, "danet", _ADDRESS)
        elif self.imagenet:
            load_imagenet(self.image_encoder["model"], self.trunk)
        yield from super().fit(batches, recipe)


class SplineHead(nn.Module):
    """BLEEP's head with a narrow spline layer in its residual part."""

    def __init__(self, n_in: int, dim: int, spline_dim: int, dropout: float) -> None:
        super().__init__()
        self.projection = nn.Linear(n_in, dim)
        self.fc_in = nn.Linear(dim, spline_dim)
        self.kan = SplineLayer(spline_dim)
        self.fc_out = nn.Linear(spline_dim, dim)
        self.dropout = nn.Dropout(dropout)
        self.layer_norm = nn.LayerNorm(dim)

    def forward(self, x: Tensor) -> Tensor:
        """Embeddings (n, dim)."""
        projected = self.projection(x)
        residual = self.fc_out(self.kan(self.fc_in(F.gelu(projected))))
        return self.layer_norm(self.dropout(residual) + projected)


class SplineLayer(nn.Module):
    """A Kolmogorov–Arnold layer (Liu et al. 2024): a learnt function of each input for each output, summed.

    State-dict keys are pykan's; its symbolic part is published, switched off, and plays no part here.
    """

    def __init__(self, dim: int) -> None:
        super().__init__()
        for name in ("node_bias_0", "node_scale_0", "subnode_bias_0", "subnode_scale_0"):
            value = torch.zeros(dim) if "bias" in name else torch.ones(dim)
            self.register_parameter(name, nn.Parameter(value, requires_grad=False))
        knots = torch.linspace(-1, 1, _INTERVALS + 1)
        spacing = knots[1] - knots[0]
        beyond = spacing * torch.arange(1, _ORDER + 1)
        grid = torch.cat([knots[0] - beyond.flip(0), knots, knots[-1] + beyond])
        spread = dim**-0.5
        functions = (
            ("grid", _fixed(grid.repeat(dim, 1))),
            ("coef", nn.Parameter(0.1 * torch.randn(dim, dim, _INTERVALS + _ORDER))),
            ("mask", _fixed(torch.ones(dim, dim))),
            ("scale_base", nn.Parameter(spread * (2 * torch.rand(dim, dim) - 1))),
            ("scale_sp", nn.Parameter(torch.full((dim, dim), spread))),
        )
        symbolic = (("mask", _fixed(torch.zeros(dim, dim))), ("affine", _fixed(torch.zeros(dim, dim, 4))))
        self.act_fun = nn.ModuleList([nn.ParameterDict(functions)])
        self.symbolic_fun = nn.ModuleList([nn.ParameterDict(symbolic)])

    def forward(self, x: Tensor) -> Tensor:
        """Float32 (n, dim) of unchanged shape."""
        own = self.act_fun[0]
        spline = torch.einsum("nib,iob->nio", splines(x, own["grid"]), own["coef"])
        each = own["mask"] * (own["scale_base"] * F.silu(x)[..., None] + own["scale_sp"] * spline)
        y = self.subnode_scale_0 * each.sum(1) + self.subnode_bias_0
        return self.node_scale_0 * y + self.node_bias_0


def _fixed(value: Tensor) -> nn.Parameter:
    return nn.Parameter(value, requires_grad=False)


def splines(x: Tensor, grid: Tensor) -> Tensor:
    """Cubic B-splines at ``x`` (n, dim) on the knots (dim, knots): (n, dim, knots − 4); 0 outside of them."""
    x = x[..., None]
    basis = ((x >= grid[:, :-1]) & (x < grid[:, 1:])).to(x)
    for k in range(1, _ORDER + 1):
        rising = (x - grid[:, : -(k + 1)]) / (grid[:, k:-1] - grid[:, : -(k + 1)]) * basis[..., :-1]
        falling = (grid[:, k + 1 :] - x) / (grid[:, k + 1 :] - grid[:, 1:-k]) * basis[..., 1:]
        basis = rising + falling
    return basis
