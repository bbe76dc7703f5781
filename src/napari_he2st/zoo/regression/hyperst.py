"""HyperST: a spot and its niche, aligned with their genes in hyperbolic space (CVPR 2026, arXiv 2511.22107)."""

from __future__ import annotations

import math
from collections.abc import Mapping

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from napari_he2st.core.noise import Noise
from napari_he2st.zoo.base import Expression, Predictor, Spots
from napari_he2st.zoo.blocks.losses import nan_mse
from napari_he2st.zoo.inputs import Features
from napari_he2st.zoo.recipe import Recipe

_EPS = 1e-8
_ROOM = 1e-7
"""How far from 1 the arguments of inverse functions stay, where float32 still tells them apart."""
_MIN_RADIUS = 0.1
_APERTURES = (0.7, 0.7, 1.2, 1.2)
"""Share of the entailment cone: image → gene, niche image → niche gene, image → its niche, gene → its niche."""


class HyperST(Predictor):
    """Residual perceptrons on the encoder features of a spot and of its niche.

    Parameters
    ----------
    n_genes
        Size of the panel.
    encoder, feature_dim
        Encoder of both images and the size of its features.
    dim, depth, mlp_ratio, dropout
        Of the residual perceptrons.
    entailment_weight, alignment_weight
        Of the entailment within the alignment, and of the alignment within the loss.
    scaled
        Predict from features after, not before, the learned scale of the hyperbolic space.
    tile_px, niche_px, mpp
        Width of the spot's and of the niche's image; by default 112 and 255 µm, a spot and its six neighbours.

    Notes
    -----
    The niche's expression is the mean of the counts of a spot and its six nearest ones. The original also adapts
    the last blocks of its encoder (LoRA), whose published setting without adaptation is used here.
    """

    unit = Spots()
    targets = {"expression": Expression("log2p", panel="hvg:1000"), "niche": Expression("counts", smooth=7)}
    recipe = Recipe("adamw", lr=1e-4, weight_decay=0.01, epochs=200, batch_size=128)

    def __init__(
        self,
        n_genes: int,
        *,
        encoder: str = "uni",
        feature_dim: int = 1024,
        dim: int = 1024,
        depth: int = 2,
        mlp_ratio: float = 2.0,
        dropout: float = 0.1,
        entailment_weight: float = 0.4,
        alignment_weight: float = 0.2,
        scaled: bool = False,
        tile_px: int = 224,
        niche_px: int = 510,
        mpp: float | None = 0.5,
    ) -> None:
        super().__init__()
        self.inputs = {
            "features": Features(encoder=encoder, px=tile_px, mpp=mpp),
            "niche_features": Features(encoder=encoder, px=niche_px, mpp=mpp),
        }
        self.alignment_weight, self.scaled = alignment_weight, scaled
        self.image_projector, self.niche_image_projector = (nn.Linear(feature_dim, dim) for _ in range(2))
        self.gene_encoder, self.niche_gene_encoder = (nn.Linear(n_genes, dim) for _ in range(2))
        self.alignment = _Alignment(dim, depth, mlp_ratio, dropout, entailment_weight)
        self.gene_decoder = _ResidualPerceptron(2 * dim, dim, depth, mlp_ratio, dropout)
        self.fc = nn.Linear(dim, n_genes)

    def forward(self, features: Tensor, niche_features: Tensor) -> Tensor:
        """log2 (1 + counts), float32 (n, genes), from the features (n, dim) of both images."""
        return self._decode(*self.image_embeddings(features, niche_features))

    def _decode(self, *embeddings: Tensor) -> Tensor:
        both = torch.cat(embeddings, dim=1)
        if self.scaled:
            both = both * self.alignment.image_alpha.clamp(max=0).exp()
        return self.fc(self.gene_decoder(both))

    def image_embeddings(self, features: Tensor, niche_features: Tensor) -> tuple[Tensor, Tensor]:
        """Euclidean embeddings (n, dim) of spot and niche images."""
        a = self.alignment
        return (
            a.image_proj(a.image_encoder(self.image_projector(features))),
            a.niche_image_proj(a.ncihe_image_encoder(self.niche_image_projector(niche_features))),
        )

    def gene_embeddings(self, genes: Tensor, niche_genes: Tensor) -> tuple[Tensor, Tensor]:
        """Euclidean embeddings (n, dim) of spot and niche expression, both log2 (1 + counts)."""
        a = self.alignment
        return (
            a.gene_proj(a.gene_encoder(self.gene_encoder(genes))),
            a.niche_gene_proj(a.ncihe_gene_encoder(self.niche_gene_encoder(niche_genes))),
        )

    def loss(self, targets: Mapping[str, Tensor], *, features: Tensor, niche_features: Tensor) -> Tensor:
        """MSE and the weighted alignment; a gene that was not measured counts as absent in the alignment."""
        images = self.image_embeddings(features, niche_features)
        niche = torch.log2(1 + targets["niche"].nan_to_num())
        genes = self.gene_embeddings(targets["expression"].nan_to_num(), niche)
        alignment = self.alignment(*images, *genes)[0]
        return nan_mse(self._decode(*images), targets["expression"]) + self.alignment_weight * alignment

    def predict(self, *, features: Tensor, niche_features: Tensor, noise: Noise | None = None) -> Tensor:
        """log2 (1 + counts), float32 (n, genes)."""
        return self(features, niche_features)


class _Mlp(nn.Module):
    def __init__(self, dim: int, hidden: int, dropout: float) -> None:
        super().__init__()
        self.fc1, self.fc2, self.dropout = nn.Linear(dim, hidden), nn.Linear(hidden, dim), nn.Dropout(dropout)

    def forward(self, x: Tensor) -> Tensor:
        return self.dropout(self.fc2(self.dropout(F.gelu(self.fc1(x)))))


class _ResidualPerceptron(nn.Module):
    """A linear map between two normalisations, and ``depth`` residual perceptrons after it."""

    def __init__(self, dim_in: int, dim: int, depth: int, mlp_ratio: float, dropout: float) -> None:
        super().__init__()
        hidden = int(dim * mlp_ratio)
        self.linear = nn.Linear(dim_in, dim)
        self.blocks = nn.ModuleList(
            nn.ModuleDict({"norm": nn.LayerNorm(dim), "mlp": _Mlp(dim, hidden, dropout)}) for _ in range(depth)
        )
        self.pre_norm, self.post_norm = nn.LayerNorm(dim_in), nn.LayerNorm(dim)

    def forward(self, x: Tensor) -> Tensor:
        x = self.linear(self.pre_norm(x))
        for block in self.blocks:
            x = x + block["mlp"](block["norm"](x))
        return self.post_norm(x)


class _Alignment(nn.Module):
    """Contrastive and entailment losses in the Lorentz model; its scalars are kept as logarithms."""

    def __init__(self, dim: int, depth: int, mlp_ratio: float, dropout: float, entailment_weight: float) -> None:
        super().__init__()
        self.entailment_weight = entailment_weight
        self.logit_scale = nn.Parameter(torch.tensor(math.log(1 / 0.07)))
        self.curv = nn.Parameter(torch.tensor(0.0))
        self.image_alpha, self.gene_alpha = (nn.Parameter(torch.tensor(-0.5 * math.log(dim))) for _ in range(2))
        for scale in ("", "ncihe_"):
            for kind in ("image", "gene"):
                encoder = _ResidualPerceptron(dim, dim, depth, mlp_ratio, dropout)
                self.add_module(f"{scale}{kind}_encoder", encoder)
            if not scale:
                self.image_proj, self.gene_proj = nn.Linear(dim, dim, bias=False), nn.Linear(dim, dim, bias=False)
        self.niche_image_proj, self.niche_gene_proj = self.image_proj, self.gene_proj

    def forward(
        self, image: Tensor, niche_image: Tensor, gene: Tensor, niche_gene: Tensor
    ) -> tuple[Tensor, Tensor, Tensor]:
        """The alignment loss, its contrastive part, and the four entailments, from embeddings (n, dim)."""
        c = self.curv.clamp(math.log(0.1), math.log(10)).exp()
        scale = self.logit_scale.clamp(max=math.log(100)).exp()
        image, niche_image = (self._point(x, self.image_alpha, c) for x in (image, niche_image))
        gene, niche_gene = (self._point(x, self.gene_alpha, c) for x in (gene, niche_gene))
        own = torch.arange(len(image), device=image.device)
        pairs = ((image, gene), (gene, image), (niche_image, gene), (niche_gene, image))
        contrastive = sum(F.cross_entropy(-distance(a, b, c) * scale, own) for a, b in pairs) / 4
        cones = ((image, gene), (niche_image, niche_gene), (image, niche_image), (gene, niche_gene))
        entailment = torch.stack(
            [
                (exterior_angle(x, y, c) - share * half_aperture(x, c)).clamp(min=0).mean()
                for (x, y), share in zip(cones, _APERTURES, strict=True)
            ]
        )
        total = contrastive + self.entailment_weight * 0.5 * entailment.sum()
        return total, contrastive, entailment  # type: ignore[return-value]

    @staticmethod
    def _point(x: Tensor, alpha: Tensor, c: Tensor) -> Tensor:
        return exp_map0(x * alpha.clamp(max=0).exp(), c)


# --- Lorentz model of curvature −c (MERU, arXiv 2304.09172): points (n, dim) by their space components


def _time(x: Tensor, c: Tensor | float) -> Tensor:
    return (1 / c + x.square().sum(-1, keepdim=True)).sqrt()


def exp_map0(v: Tensor, c: Tensor | float) -> Tensor:
    """The point that a tangent vector at the origin leads to."""
    s = c**0.5 * v.norm(dim=-1, keepdim=True)
    return s.clamp(_EPS, math.asinh(2**15)).sinh() * v / s.clamp(min=_EPS)


def log_map0(x: Tensor, c: Tensor | float) -> Tensor:
    """The tangent vector at the origin that leads to a point."""
    s = c**0.5 * x.norm(dim=-1, keepdim=True)
    return (c**0.5 * _time(x, c)).clamp(min=1 + _ROOM).acosh() * x / s.clamp(min=_EPS)


def inner(x: Tensor, y: Tensor, c: Tensor | float) -> Tensor:
    """Lorentzian product of each point of ``x`` with each of ``y``, (n, m)."""
    return x @ y.T - _time(x, c) @ _time(y, c).T


def distance(x: Tensor, y: Tensor, c: Tensor | float) -> Tensor:
    """Geodesic distance of each point of ``x`` from each of ``y``, (n, m)."""
    return (-c * inner(x, y, c)).clamp(min=1 + _ROOM).acosh() / c**0.5


def half_aperture(x: Tensor, c: Tensor | float) -> Tensor:
    """Half the angle of the cone that each point entails, (n,)."""
    return (2 * _MIN_RADIUS / (c**0.5 * x.norm(dim=-1) + _EPS)).clamp(-1 + _ROOM, 1 - _ROOM).asin()


def exterior_angle(x: Tensor, y: Tensor, c: Tensor | float) -> Tensor:
    """Angle at each point of ``x`` between the ray from the origin and the one to the same row of ``y``, (n,)."""
    x_time, y_time = _time(x, c)[:, 0], _time(y, c)[:, 0]
    product = c * ((x * y).sum(-1) - x_time * y_time)
    below = x.norm(dim=-1) * (product.square() - 1).clamp(min=_EPS).sqrt()
    return ((y_time + product * x_time) / (below + _EPS)).clamp(-1 + _ROOM, 1 - _ROOM).acos()
