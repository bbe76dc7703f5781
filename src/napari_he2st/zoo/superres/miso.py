"""MISO: spots that look at their neighbours teach a network that sees single patches (bioRxiv 2024.07.22.604083)."""

from __future__ import annotations

from collections.abc import Generator, Iterator, Mapping, Sequence
from itertools import pairwise

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from napari_he2st.analysis.graphs import nearest
from napari_he2st.core.noise import Noise
from napari_he2st.zoo.base import Batches, Expression, Input, Label, Output, Pixels, Predictor
from napari_he2st.zoo.blocks.cells import CellsOfSpots, cell_regions
from napari_he2st.zoo.blocks.losses import nan_mse
from napari_he2st.zoo.blocks.rasters import cell_positions, owner_mean
from napari_he2st.zoo.blocks.vit import join_heads, split_heads
from napari_he2st.zoo.encoders.dense import dense_encoder, dense_spec
from napari_he2st.zoo.inputs import Positions
from napari_he2st.zoo.recipe import Recipe, descend, make_optimizer

_MPP = 0.5
_QUERIES = 512
"""Spots whose neighbours are gathered together."""


class Miso(Predictor):
    """A perceptron on single patches, taught by spots that attend to their neighbours.

    Parameters
    ----------
    n_genes
        Size of the panel.
    encoder, feature_dim
        Dense encoder, see :mod:`napari_he2st.zoo.encoders.dense`, and the size of its features; None is its own.
    hidden
        Widths of the perceptron.
    neighbours
        Nearest spots that a spot attends to in the first stage, itself included.
    dim, depth, heads, dim_head
        Of the first stage.
    spot_lr, spot_epochs, folds
        How the first stage is trained: so many times, each without a part of the slides.
    region_cells
        Patches on a side of the region that is encoded at once.

    Notes
    -----
    The published encoders are Phikon in training and H0-mini in prediction; here one serves both. The first stage
    lives as long as training. In the original it sees a feature of a spot's whole image, here the mean over its
    patches. Each spot's label is the mean of what those first stages say that saw its slide; with fewer slides
    than folds there is one. Its loss leaves the size of each gene open; here labels are brought to the size of the
    counts.
    """

    targets: Mapping[str, Expression | Label] = {"expression": Expression("counts", panel="hvg:100")}
    recipe = Recipe("adam", lr=1e-3, epochs=5, batch_size=128)

    def __init__(
        self,
        n_genes: int,
        *,
        encoder: str = "tokens:h0-mini",
        feature_dim: int | None = None,
        hidden: Sequence[int] = (1024, 512),
        neighbours: int = 37,
        dim: int = 2048,
        depth: int = 1,
        heads: int = 64,
        dim_head: int = 16,
        spot_lr: float = 1e-3,
        spot_epochs: int = 5,
        folds: int = 3,
        region_cells: int = 128,
    ) -> None:
        super().__init__()
        spec = dense_spec(encoder)
        self.pitch_um = spec.cell_px * _MPP
        self.unit = Pixels(self.pitch_um)
        self.inputs: dict[str, Input] = {
            "image": cell_regions(spec, region_cells, _MPP),
            "centre": Positions(kind="um"),
        }
        self.outputs = {"expression": Output(per="pixel", pitch_um=self.pitch_um)}
        self.encoder, self.neighbours, self.folds = encoder, neighbours, folds
        self.spot_recipe = Recipe("adam", lr=spot_lr, epochs=spot_epochs)
        self.spot_stage = {"dim": dim, "depth": depth, "heads": heads, "dim_head": dim_head}
        layers: list[nn.Module] = []
        for a, b in pairwise((feature_dim or spec.dim, *hidden, n_genes)):
            layers += [nn.Linear(a, b), nn.ReLU()]
        self.mlp = nn.ModuleDict({"hidden_layers": nn.Sequential(*layers[:-1])})

    def prepare(self, *, image: Tensor, centre: Tensor) -> dict[str, Tensor]:
        """Features of each patch, (cells, looks, dim), and its position in µm.

        Encoders that see one tile at a time look four times, from tiles shifted by half their width.
        """
        encode = dense_encoder(self.encoder, image.device)
        half = (encode.spec.tile_px or 0) // 2
        looks = [encode(image[0])]
        for y, x in ((0, half), (half, 0), (half, half)) if half else ():
            look = looks[0].clone()  # where no shifted tile begins
            look[:, y // encode.spec.cell_px :, x // encode.spec.cell_px :] = encode(image[0, :, y:, x:])
            looks.append(look)
        features = torch.stack([look.flatten(1).T for look in looks], dim=1)
        return {"features": features, "xy": cell_positions(centre[0], looks[0].shape[-1], self.pitch_um)}

    def patches(self, features: Tensor) -> Tensor:
        """Expression (…, genes) of patches (…, dim)."""
        return self.mlp["hidden_layers"](features)

    def forward(self, features: Tensor) -> Tensor:
        """Expression of spots, (n, genes), from their patches (n, patches, dim)."""
        return F.relu(self.patches(features)).mean(dim=1)

    def predict(self, *, features: Tensor, xy: Tensor, noise: Noise | None = None) -> Tensor:
        """Counts of a spot of which every patch is as this one, (cells, genes); can be below 0, as published."""
        return self.patches(features).mean(dim=1)

    def fit(self, batches: Batches, recipe: Recipe) -> Iterator[dict[str, float]]:
        """Train the first stage, then learn what it says of every spot."""
        known = CellsOfSpots.gather(batches)
        labels = yield from self._spot_labels(known)
        optimizer = make_optimizer(self, recipe)
        size = recipe.batch_size if isinstance(recipe.batch_size, int) else recipe.batch_size(len(labels))
        for epoch in range(recipe.epochs):
            self.train()
            total, n = 0.0, 0
            for spots in torch.randperm(len(labels)).to(labels.device).split(size):
                features, owner = known.batch(spots)
                cells = F.relu(self.patches(features)).mean(dim=1)
                loss = nan_mse(owner_mean(cells, owner, len(spots)), labels[spots])
                descend(optimizer, loss, recipe)
                total, n = total + float(loss.detach()), n + 1
            yield {"epoch": epoch, "loss": total / n}

    def _spot_labels(self, known: CellsOfSpots) -> Generator[dict[str, float], None, Tensor]:
        """Train the first stages; return what they say of the spots, (spots, genes)."""
        features = known.spot_features()
        slides = known.slide.unique().tolist()
        near = {s: _nearest(known.xy[known.slide == s], self.neighbours) for s in slides}
        folds = self.folds if len(slides) >= self.folds else 1
        total, n = torch.zeros_like(known.expression), torch.zeros_like(known.expression[:, :1])
        for fold in range(folds):
            seen = [s for i, s in enumerate(slides) if folds == 1 or i % folds != fold]
            model = LocalAttention(features.shape[1], known.expression.shape[1], **self.spot_stage).to(features.device)
            of_seen = known.expression[torch.isin(known.slide, features.new_tensor(seen).long())]
            with torch.no_grad():
                model.mlp.bias.copy_(of_seen.nanmean(0).nan_to_num())
            optimizer = make_optimizer(model, self.spot_recipe)
            for epoch in range(self.spot_recipe.epochs):
                losses = []
                for slide in seen:
                    here = known.slide == slide
                    predicted = model(features[None, here], near[slide][None])
                    loss = cosine_loss(predicted, known.expression[None, here])
                    descend(optimizer, loss, self.spot_recipe)
                    losses.append(float(loss.detach()))
                yield {"epoch": epoch, "spot_loss": sum(losses) / len(losses)}
            with torch.no_grad():
                said = {slide: model(features[None, known.slide == slide], near[slide][None])[0] for slide in seen}
                measured = torch.cat([known.expression[known.slide == slide] for slide in seen])
                size = own_size(torch.cat(list(said.values())), measured)
                for slide, labels in said.items():
                    total[known.slide == slide] += labels * size
                    n[known.slide == slide] += 1
        return total / n


class LocalAttention(nn.Module):
    """The first stage: spots that attend to their nearest ones.

    Parameters
    ----------
    feature_dim, n_genes
        Of a spot.
    dim, depth
        Width and number of layers.
    heads, dim_head
        Of the attention.
    """

    def __init__(
        self, feature_dim: int, n_genes: int, *, dim: int = 2048, depth: int = 1, heads: int = 64, dim_head: int = 16
    ) -> None:
        super().__init__()
        self.emb_layer = nn.Linear(feature_dim, dim)
        layers = (
            (
                nn.LayerNorm(dim),
                _NeighbourAttention(dim, heads, dim_head),
                nn.LayerNorm(dim),
                nn.ModuleDict({"hidden_layers": nn.Sequential(nn.Linear(dim, dim))}),
            )
            for _ in range(depth)
        )
        self.transformer = nn.ModuleDict({"layers": nn.ModuleList(nn.ModuleList(layer) for layer in layers)})
        self.mlp = nn.Linear(dim, n_genes)

    def forward(self, features: Tensor, neighbours: Tensor, mask: Tensor | None = None) -> Tensor:
        """Expression (1, spots, genes).

        Parameters
        ----------
        features
            (1, spots, dim).
        neighbours
            Rows of each spot's nearest, itself included, int64 (1, spots, k).
        mask
            Rows that are only padding, bool (1, spots, 1): they are not seen, and come out 0.
        """
        hidden = torch.zeros_like(features[..., :1], dtype=torch.bool) if mask is None else mask
        x = self.emb_layer(features).masked_fill(hidden, 0)
        for norm, attention, norm_mlp, mlp in self.transformer["layers"]:
            x = x + attention(norm(x), neighbours, hidden)
            x = x + mlp["hidden_layers"](norm_mlp(x))
        return self.mlp(x).masked_fill(hidden, 0)


class _NeighbourAttention(nn.Module):
    def __init__(self, dim: int, heads: int, dim_head: int) -> None:
        super().__init__()
        self.heads = heads
        self.to_qkv = nn.Linear(dim, 3 * heads * dim_head)
        self.to_out = nn.Linear(heads * dim_head, dim, bias=False)

    def forward(self, x: Tensor, neighbours: Tensor, hidden: Tensor) -> Tensor:
        q, k, v = self.to_qkv(x[0]).chunk(3, dim=-1)
        near, unseen = neighbours[0], hidden[0, :, 0]
        found = []
        for some, there in zip(q.split(_QUERIES), near.split(_QUERIES), strict=True):
            keys, values = (split_heads(part[there], self.heads) for part in (k, v))
            seen = ~unseen[there] if near.shape[1] > 1 else torch.ones_like(there, dtype=torch.bool)
            query = split_heads(some[:, None], self.heads)
            attended = F.scaled_dot_product_attention(query, keys, values, attn_mask=seen[:, None, None])
            found.append(join_heads(attended)[:, 0])
        return self.to_out(torch.cat(found).masked_fill(unseen[:, None], 0))[None]


def cosine_loss(predicted: Tensor, measured: Tensor) -> Tensor:
    """1 − cosine similarity along axis 1, over measured entries: of a gene's spots in (1, spots, genes)."""
    known = measured.isfinite()
    predicted = torch.where(known, predicted, torch.zeros_like(predicted))
    return 1 - F.cosine_similarity(predicted, measured.nan_to_num(), dim=1).mean()


def own_size(predicted: Tensor, measured: Tensor) -> Tensor:
    """Factor of each gene, (genes,), that brings (spots, genes) nearest to what was measured; not below 0."""
    known = measured.isfinite()
    predicted, measured = torch.where(known, predicted, 0.0), measured.nan_to_num()
    return ((predicted * measured).sum(0) / predicted.square().sum(0).clamp(min=1e-12)).clamp(min=0)


def _nearest(xy: Tensor, k: int) -> Tensor:
    """Rows of the ``k`` nearest spots, itself included, in ascending order: int64 (n, k)."""
    own = torch.arange(len(xy))[:, None]
    others = torch.from_numpy(nearest(xy.cpu().numpy(), k - 1))
    return torch.cat([own, others], dim=1).sort(dim=1).values.to(xy.device)
