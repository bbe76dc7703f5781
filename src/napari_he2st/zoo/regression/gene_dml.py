"""Gene-DML: image and gene tokens pulled together at three scales and in clusters (WACV 2026, arXiv 2507.14670)."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from itertools import pairwise

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from napari_he2st.core.noise import Noise
from napari_he2st.zoo.base import Batches, Expression, Predictor, Spots
from napari_he2st.zoo.blocks.losses import nan_mse
from napari_he2st.zoo.blocks.pixels import standardise
from napari_he2st.zoo.blocks.slide_encoder import SlideEncoder
from napari_he2st.zoo.blocks.symmetry import random_symmetry
from napari_he2st.zoo.blocks.vit import FeedForward, Transformer
from napari_he2st.zoo.encoders.build import spec_of
from napari_he2st.zoo.guard import safe_import
from napari_he2st.zoo.inputs import Features, Index, NeighbourFeatures, Positions, Tiles
from napari_he2st.zoo.recipe import Recipe
from napari_he2st.zoo.weights import check_state, find_weights, load_checkpoint, shapes_of

Clusters = tuple[Tensor, Tensor]
_KMEANS_STEPS = 10


class GeneDML(Predictor):
    """The tile's own tokens, its neighbours and the whole slide, fused; gene tokens guide the training.

    Parameters
    ----------
    n_genes
        Size of the panel.
    encoder
        Of neighbours and slide; published is UNI, which also looks at the tile itself.
    dim
        Width of its features.
    vit_depth, vit_heads, patch_px
        Of the frozen transformer for the tile.
    projection_dim
        Width of all fused tokens.
    neighbour_depth, neighbour_heads, neighbour_mlp_dim
        Of the transformer over 5 × 5 neighbours.
    slide_depth, slide_heads, slide_mlp_dim, slide_dropout
        Of the transformer over all spots of the slide.
    dropout
        Elsewhere but in the predictors, which have 0.1.
    temperature, cluster_temperature, cluster_weight, n_clusters
        Of the contrastive losses and of the discrimination between clusters.
    tile_px
        Width of the tile.
    pretrained
        Load the encoder's weights into the frozen transformer before training, as published.
    faithful
        Take the slide's tokens in the order of array positions, as published, which gives a spot the token
        of another. By default each spot has its own. (The published evaluation also leaves a dropout of the
        slide's transformer on; here it is always off.)
    """

    unit = Spots()
    targets = {"expression": Expression("log10_cp10k_panel", smooth=9, panel="mean:250")}
    recipe = Recipe("adam", lr=1e-4, epochs=200, batch_size=512, schedule="step:20:0.95")

    def __init__(
        self,
        n_genes: int,
        *,
        encoder: str = "uni",
        dim: int = 1024,
        vit_depth: int = 24,
        vit_heads: int = 16,
        patch_px: int = 16,
        projection_dim: int = 512,
        neighbour_depth: int = 4,
        neighbour_heads: int = 4,
        neighbour_mlp_dim: int = 4096,
        slide_depth: int = 5,
        slide_heads: int = 8,
        slide_mlp_dim: int = 4096,
        slide_dropout: float = 0.3,
        dropout: float = 0.3,
        temperature: float = 0.07,
        cluster_temperature: float = 0.1,
        cluster_weight: float = 1.0,
        n_clusters: int = 18,
        tile_px: int = 224,
        pretrained: bool = True,
        faithful: bool = False,
    ) -> None:
        super().__init__()
        self.inputs = {
            "tiles": Tiles(px=tile_px),
            "neighbours": NeighbourFeatures(encoder=encoder, px=tile_px),
            "slide_features": Features(per="slide", encoder=encoder, px=tile_px),
            "slide_xy": Positions(per="slide", kind="grid"),
            "index": Index(),
        }
        self.encoder, self.pretrained = encoder, pretrained
        self.temperature, self.cluster_temperature = temperature, cluster_temperature
        self.cluster_weight, self.n_clusters = cluster_weight, n_clusters
        vit = _vision_transformer(tile_px, patch_px, dim, vit_depth, vit_heads)
        neighbours = Transformer(
            dim,
            depth=neighbour_depth,
            heads=neighbour_heads,
            dim_head=dim // neighbour_heads,
            mlp_dim=neighbour_mlp_dim,
            dropout=dropout,
            grid=5,
        )
        slide = SlideEncoder(
            dim,
            depth=slide_depth,
            heads=slide_heads,
            mlp_dim=slide_mlp_dim,
            dropout=slide_dropout,
            kernel=3,
            place="dense",
            packed=False,
            faithful=faithful,
        )
        self.image_encoder = nn.ModuleDict(
            {
                "model": vit.requires_grad_(False),
                "fc_layer": nn.Linear(dim, projection_dim),
                "neighbor_encoder": nn.ModuleDict({"layer": neighbours, "norm": nn.LayerNorm(dim)}),
                "global_encoder": slide,
            }
        )
        self.gene_encoder = nn.Sequential(
            _Projection(n_genes, projection_dim, dropout), FeedForward(projection_dim, 2 * projection_dim)
        )
        fusion = Transformer(
            projection_dim, depth=1, heads=1, dim_head=projection_dim, mlp_dim=2 * projection_dim, dropout=dropout
        )
        self.trans_encoder = nn.Sequential(fusion, FeedForward(projection_dim, 2 * projection_dim, dropout))
        for scale in ("target", "neighbor", "global"):
            self.add_module(f"{scale}_predictor", _predictor(projection_dim, projection_dim, n_genes))
        self.fusion_predictor = _predictor(projection_dim, 3 * projection_dim, projection_dim, n_genes)
        self.feature_cluster = nn.Sequential(nn.Linear(projection_dim, projection_dim))

    def prepare(
        self,
        *,
        tiles: Tensor,
        neighbours: tuple[Tensor, Tensor],
        slide_features: Tensor,
        slide_xy: Tensor,
        index: Tensor,
    ) -> dict[str, Tensor]:
        """Standardised tiles; everything else as it is."""
        return {
            "patches": standardise(tiles),
            "neighbours": neighbours[0],
            "mask": neighbours[1],
            "slide_features": slide_features,
            "slide_xy": slide_xy,
            "index": index,
        }

    def slide_tokens(self, features: Tensor, xy: Tensor) -> Tensor:
        """One token per spot of a slide, (n, dim), from features (n, dim) and array (column, row)."""
        return self.image_encoder["global_encoder"](features[None], xy[None])[0]

    def forward(self, patches: Tensor, neighbours: Tensor, mask: Tensor, slide: Tensor) -> dict[str, Tensor]:
        """Predictions (n, genes) and embeddings (n, projection) of the three scales and their fusion.

        Parameters
        ----------
        patches
            Standardised tiles, (n, 3, px, px).
        neighbours, mask
            Features of the 5 × 5 tiles around, (n, 25, dim), and which exist, (n, 25).
        slide
            The slide's token of each spot, (n, dim).
        """
        parts = self.image_encoder
        with torch.no_grad():
            target = parts["model"].eval().forward_features(patches)
        around = parts["neighbor_encoder"]["norm"](parts["neighbor_encoder"]["layer"](neighbours, mask=mask))
        tokens = parts["fc_layer"](torch.cat([target, around, slide[:, None]], dim=1))
        tokens = self.trans_encoder(tokens)
        own, near, whole = tokens.split([target.shape[1], around.shape[1], 1], dim=1)
        out = {"fused": tokens.mean(1), "fusion": self.fusion_predictor(tokens.mean(1))}
        for scale, part in (("target", own), ("neighbor", near), ("global", whole)):
            embedding = F.normalize(part.mean(1), dim=1)
            out[f"{scale}_embedding"] = embedding
            out[scale] = getattr(self, f"{scale}_predictor")(embedding)
        return out

    def losses(self, out: Mapping[str, Tensor], target: Tensor, n_clusters: int) -> dict[str, Tensor]:
        """Contrastive loss, squared error of the fusion, and cluster discrimination."""
        gene = F.normalize(self.gene_encoder(target.nan_to_num()), dim=1)
        scales = [out[f"{scale}_embedding"] for scale in ("target", "neighbor", "global")]
        contrastive = [soft_contrastive(gene, image, self.temperature) for image in scales]
        by_image, by_gene = (
            kmeans(F.normalize(self.feature_cluster(x), dim=1), n_clusters) for x in (out["fused"], gene)
        )
        return {
            "contrastive": torch.stack(contrastive).mean(),
            "prediction": nan_mse(out["fusion"], target),
            "cluster": cluster_discrimination(out["fused"], gene, by_image, by_gene, self.cluster_temperature),
        }

    def loss(
        self, targets: Mapping[str, Tensor], *, patches: Tensor, neighbours: Tensor, mask: Tensor, **slide: Tensor
    ) -> Tensor:
        """Sum of the three losses, the last one weighted."""
        tokens = self.slide_tokens(slide["slide_features"], slide["slide_xy"])[slide["index"]]
        out = self(random_symmetry(patches), neighbours, mask, tokens)
        parts = self.losses(out, targets["expression"], self.n_clusters)
        return parts["contrastive"] + parts["prediction"] + self.cluster_weight * parts["cluster"]

    def predict(
        self,
        *,
        patches: Tensor,
        neighbours: Tensor,
        mask: Tensor,
        slide_features: Tensor,
        slide_xy: Tensor,
        index: Tensor,
        noise: Noise | None = None,
    ) -> Tensor:
        """log10 (1 + CP10k of the panel), float32 (n, genes), of the fused tokens."""
        return self(patches, neighbours, mask, self.slide_tokens(slide_features, slide_xy)[index])["fusion"]

    def fit(self, batches: Batches, recipe: Recipe) -> Iterator[dict[str, float]]:
        """Load the frozen transformer, then train the rest."""
        if self.pretrained:
            path = find_weights(self.encoder, spec_of(self.encoder).weights)
            entries, vit = load_checkpoint(path), self.image_encoder["model"]
            check_state({key: tuple(value.shape) for key, value in entries.items()}, shapes_of(vit), path)
            vit.load_state_dict(entries)
        yield from super().fit(batches, recipe)


class _Projection(nn.Module):
    """Linear layer with a residual branch, normalised."""

    def __init__(self, width: int, dim: int, dropout: float) -> None:
        super().__init__()
        self.projection = nn.Linear(width, dim)
        self.fc = nn.Linear(dim, dim)
        self.dropout = nn.Dropout(dropout)
        self.layer_norm = nn.LayerNorm(dim)

    def forward(self, x: Tensor) -> Tensor:
        projected = self.projection(x)
        return self.layer_norm(self.dropout(self.fc(F.gelu(projected))) + projected)


def _predictor(*widths: int) -> nn.Sequential:
    layers: list[nn.Module] = []
    for before, after in pairwise(widths[:-1]):
        layers += [nn.Linear(before, after), nn.ReLU(), nn.Dropout(0.1)]
    return nn.Sequential(*layers, nn.Linear(widths[-2], widths[-1]))


def _vision_transformer(px: int, patch_px: int, dim: int, depth: int, heads: int) -> nn.Module:
    timm = safe_import("timm")
    return timm.create_model(
        "vit_large_patch16_224",
        img_size=px,
        patch_size=patch_px,
        embed_dim=dim,
        depth=depth,
        num_heads=heads,
        init_values=1e-5,
        dynamic_img_size=True,
        num_classes=0,
    )


def soft_contrastive(gene: Tensor, image: Tensor, temperature: float) -> Tensor:
    """Contrastive loss between unit vectors (n, d) whose targets are their likenesses within each kind."""
    logits = gene @ image.T / temperature
    targets = torch.softmax((image @ image.T + gene @ gene.T) / 2 / temperature, dim=1)
    by_gene = -(targets * F.log_softmax(logits, dim=1)).sum(1)
    by_image = -(targets.T * F.log_softmax(logits.T, dim=1)).sum(1)
    return ((by_gene + by_image) / 2).mean()


def cluster_discrimination(
    image: Tensor, gene: Tensor, image_clusters: Clusters, gene_clusters: Clusters, temperature: float
) -> Tensor:
    """How badly each image finds the cluster of its genes among all of them, and the other way round."""
    by_image = F.cross_entropy(image @ gene_clusters[1].T / temperature, gene_clusters[0])
    by_gene = F.cross_entropy(gene @ image_clusters[1].T / temperature, image_clusters[0])
    return (by_image + by_gene) / 2


def kmeans(x: Tensor, k: int) -> Clusters:
    """Ten steps of k-means from the first rows of ``x`` (n, d); an empty cluster moves to the origin.

    Returns
    -------
    labels, centroids
        Int64 (n,) and (k, d).
    """
    k = min(k, len(x))
    centroids = x[:k]
    for _ in range(_KMEANS_STEPS):
        labels = torch.cdist(x, centroids).argmin(1)
        member = F.one_hot(labels, k).to(x)
        centroids = (member.T @ x) / member.sum(0).clamp(min=1)[:, None]
    return labels, centroids


def absolute_cosine(x: Tensor) -> Tensor:
    """Likeness of the rows of ``x`` that the published spectral clustering, an alternative to k-means, starts from.

    Absolute products divided twice by the length of the column's vector, the larger of both directions, zero
    diagonal; values may exceed 1.
    """
    likeness = (x @ x.T).abs() / x.square().sum(1)
    return torch.maximum(likeness, likeness.T).fill_diagonal_(0)
