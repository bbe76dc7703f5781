"""Expression of super-pixels, learned from the spots that they lie in: what iStar and iSCALE share."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from itertools import pairwise
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from napari_he2st.core.noise import Noise
from napari_he2st.zoo.base import Batches, Expression, Input, Label, Output, Pixels, Predictor
from napari_he2st.zoo.blocks.cells import cell_regions
from napari_he2st.zoo.blocks.hipt import CELL_PX
from napari_he2st.zoo.blocks.losses import nan_mse
from napari_he2st.zoo.blocks.rasters import owner_mean
from napari_he2st.zoo.encoders.dense import dense_encoder, dense_spec
from napari_he2st.zoo.recipe import Recipe

_MPP = 0.5
_FLOOR = 0.01


class _Layer(nn.Module):
    def __init__(self, n_in: int, n_out: int) -> None:
        super().__init__()
        self.linear = nn.Linear(n_in, n_out)

    def forward(self, x: Tensor) -> Tensor:
        return self.linear(x)


class SuperPixels(Predictor):
    """A perceptron on dense features, whose mean over a spot's disc is the spot's expression.

    Parameters
    ----------
    n_genes
        Size of the panel.
    encoder
        A dense encoder, see :mod:`napari_he2st.zoo.encoders.dense`.
    feature_dim
        Size of its features; None is the encoder's own.
    dim, depth
        Width and number of hidden layers.
    standardise
        Give each feature mean 0 and standard deviation 1 over the cells that are trained on.
    region_cells
        Cells on a side of the region that is encoded at once, without its surroundings; a multiple of 16.
    """

    unit = Pixels(CELL_PX * _MPP)
    targets: Mapping[str, Expression | Label] = {"expression": Expression("minmax", panel="var:1000")}
    outputs = {"expression": Output(per="pixel", scale="counts", pitch_um=CELL_PX * _MPP, pool="sum")}
    fitted = "slide"
    members = 5
    combine = "median"

    def __init__(
        self,
        n_genes: int,
        *,
        encoder: str = "hipt",
        feature_dim: int | None = None,
        dim: int = 256,
        depth: int = 4,
        standardise: bool = False,
        region_cells: int = 128,
    ) -> None:
        super().__init__()
        spec = dense_spec(encoder)
        self.inputs: dict[str, Input] = {"image": cell_regions(spec, region_cells, _MPP)}
        self.encoder, self.standardise = encoder, standardise
        widths = [spec.dim if feature_dim is None else feature_dim, *[dim] * depth]
        self.net_lat = nn.ModuleList(_Layer(a, b) for a, b in pairwise(widths))
        self.net_out = _Layer(dim, n_genes)

    def prepare(self, *, image: Tensor) -> dict[str, Tensor]:
        """Features of the cells of one region image (1, 3, px, px): float32 (cells, features)."""
        encode = dense_encoder(self.encoder, image.device)
        return {"features": encode(image[0]).flatten(1).T.contiguous()}

    def latent(self, features: Tensor) -> Tensor:
        """Gene embedding (…, dim) of features (…, features)."""
        for layer in self.net_lat:
            features = F.leaky_relu(layer(features), 0.1)
        return features

    def expression(self, latent: Tensor, genes: Tensor | None = None) -> Tensor:
        """Expression above 0, (…, genes), of gene embeddings; only of some ``genes`` (int64) where given."""
        weight, bias = self.net_out.linear.weight, self.net_out.linear.bias
        if genes is not None:
            weight, bias = weight[genes], bias[genes]
        return F.elu(F.linear(latent, weight, bias), _FLOOR) + _FLOOR

    def forward(self, features: Tensor) -> Tensor:
        """Scaled expression (…, genes) of features (…, features)."""
        return self.expression(self.latent(features))

    def loss(self, targets: Mapping[str, Tensor], *, features: Tensor) -> Tensor:
        """MSE between the mean over each spot's cells and its scaled counts."""
        target = targets["expression"]
        cells = self(self._standardised(features))
        return nan_mse(owner_mean(cells, targets["owner"], len(target)), target)

    def fit(self, batches: Batches, recipe: Recipe) -> Iterator[dict[str, float]]:
        """Look at the features once where they are to be standardised, then train as usual."""
        if self.standardise:
            seen = torch.cat([prepared["features"] for _, prepared in batches]).double()
            std = seen.std(0, correction=0)
            self.extras["features"] = {
                "mean": seen.mean(0).float().cpu().numpy(),
                "std": torch.where(std > 1e-6, std, 1.0).float().cpu().numpy(),
            }
        yield from super().fit(batches, recipe)

    def finish(self, batches: Batches) -> None:
        """Remember how many cells a spot has, for its counts are shared among them."""
        owners = [torch.bincount(targets["owner"][targets["owner"] >= 0]) for targets, _ in batches]
        counts = torch.cat(owners)
        self.extras["cells_per_spot"] = int(counts[counts > 0].median())

    def predict(self, *, features: Tensor, noise: Noise | None = None) -> Tensor:
        """Counts of each cell, float32 (cells, genes): its share of what a spot there would count."""
        scaled = self(self._standardised(features))
        low, span = (features.new_tensor(self.extras["scale"][name]) for name in ("low", "span"))
        return (scaled * span + low) / self.extras["cells_per_spot"]

    def _standardised(self, features: Tensor) -> Tensor:
        known: dict[str, Any] | None = self.extras.get("features")
        if known is None:
            return features
        return (features - features.new_tensor(known["mean"])) / features.new_tensor(known["std"])
