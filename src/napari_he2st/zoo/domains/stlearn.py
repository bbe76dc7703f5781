"""stLearn: expression evened out over neighbours that look and express alike, SME (Pham et al. 2023)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from napari_he2st.analysis.domains.grouping import Grouping, group
from napari_he2st.core.types import Domains
from napari_he2st.zoo.base import DomainMethod
from napari_he2st.zoo.blocks.expression import components, normalised, scaled
from napari_he2st.zoo.blocks.pixels import standardise
from napari_he2st.zoo.blocks.trunks import load_imagenet, torchvision_network
from napari_he2st.zoo.inputs import Features, Tiles

if TYPE_CHECKING:
    from anndata import AnnData

Array = NDArray[np.float64]
Term = Literal["physical", "morphology", "gene"]

_BLOCK = 512  # rows of the weight matrix held at once


class StLearn(DomainMethod):
    """Each spot's expression is averaged with that of the most similar spots around it, then grouped.

    Parameters
    ----------
    use
        What makes spots similar besides their nearness: morphology of the tile, expression, or both.
    only_zeros
        Fill in zeros alone; otherwise measured values are averaged too.
    rate
        Spots are neighbours up to this many array steps; 0 takes 3 on hexagonal lattices and 1.5 on others.
    n_components
        Principal components of expression, of the tiles' features, and of what is grouped.
    encoder
        Of the tiles; ``"resnet50"`` is the published network with torchvision's ImageNet weights.
    grouping
        How spots are grouped in the end.
    faithful
        Take the array step as the published code of 2026 does: √2 times its column part.
    """

    optional = frozenset({"image"})

    def __init__(
        self,
        *,
        use: Literal["both", "morphology", "gene"] = "both",
        only_zeros: bool = False,
        rate: float = 0.0,
        n_components: int = 50,
        encoder: str = "efficientnet-lite0",
        grouping: Grouping = "kmeans",
        faithful: bool = False,
    ) -> None:
        published = encoder == "resnet50"
        self.inputs = {"image": Tiles(px=299) if published else Features(encoder=encoder)}
        self.use, self.only_zeros, self.rate, self.n_components = use, only_zeros, rate, n_components
        self.published, self.grouping, self.faithful = published, grouping, faithful

    def segment(self, adata: AnnData, *, n_domains: int | None, seed: int, image: Tensor | None = None) -> Domains:
        """Group the spots; without an image, by nearness and expression."""
        xy = np.asarray(adata.obsm["spatial"], dtype=np.float64)
        facts = adata.uns["he2st"]
        terms: list[Term] = ["physical"]
        if image is not None and self.use != "gene":
            terms.append("morphology")
        if image is None or self.use != "morphology":
            terms.append("gene")
        looks = np.zeros((len(xy), 1))
        if image is not None:
            looks = components(self._features(image).cpu().numpy(), self.n_components, 1).astype(np.float64)
        values = normalised(adata.X)
        weights = Weights(
            xy,
            looks,
            components(values, self.n_components, seed).astype(np.float64),
            self._reach(adata, xy, facts),
        )
        imputed = weights.impute(values, terms)
        smooth = fill_zeros(values, imputed) if self.only_zeros else average(values, imputed)
        embedding = components(scaled(smooth.astype(np.float32)), self.n_components, seed)
        labels, found = group(embedding, n_domains, seed, self.grouping)
        return Domains(labels, found, embedding)

    def _reach(self, adata: AnnData, xy: Array, facts: dict) -> float:
        rate = self.rate or (3.0 if facts["lattice"] == "hexagonal" else 1.5)
        if "array_row" not in adata.obs or facts["lattice"] == "irregular":
            return rate * float(facts["pitch_um"])
        rows, columns = (adata.obs[name].to_numpy(dtype=np.float64) for name in ("array_row", "array_col"))
        return rate * array_step(rows, columns, xy[:, 1], xy[:, 0], faithful=self.faithful)

    def _features(self, image: Tensor) -> Tensor:
        if not self.published:
            return image
        network = backbone("resnet50").eval()
        load_imagenet(network, "resnet50")
        with torch.inference_mode():
            return torch.cat([morphology(network, tiles) for tiles in image.split(16)])


def backbone(name: str) -> nn.Module:
    """A torchvision network with random weights that ends in its pooled features.

    ResNets and Inception lose their last layer, ConvNeXt its last map; of VGG the mean of its maps is taken.
    """
    network = torchvision_network(name, 1000)
    if name.startswith("vgg"):
        return nn.ModuleDict({"features": network.features})
    if name.startswith("convnext"):
        network.classifier[-1] = nn.Identity()
    else:
        network.fc = nn.Identity()
    return network


def morphology(network: nn.Module, tiles: Tensor, sizes: tuple[int, int] = (256, 224)) -> Tensor:
    """Features of uint8 tiles (n, 3, 299, 299), (n, features).

    The network sees values up to 255 where it was trained on values up to 1: the published code does not rescale
    what is no longer uint8.

    Parameters
    ----------
    network
        A :func:`backbone`.
    tiles
        RGB.
    sizes
        Width that tiles are resized to, and that of the part in their middle that is kept.
    """
    width, kept = sizes
    resized = nn.functional.interpolate(tiles.float(), size=(width, width), mode="bilinear", antialias=True)
    edge = round((width - kept) / 2)
    images = standardise(255 * resized[:, :, edge : edge + kept, edge : edge + kept])
    return network["features"](images).mean((2, 3)) if isinstance(network, nn.ModuleDict) else network(images)


SIZES: Mapping[str, tuple[int, int]] = {
    "inception_v3": (342, 299),
    "convnext_tiny": (236, 224),
    "convnext_small": (230, 224),
    "convnext_base": (232, 224),
    "convnext_large": (232, 224),
}
"""What torchvision resizes and crops to for a network, where it is not 256 and 224."""


def array_step(rows: Array, columns: Array, y: Array, x: Array, *, faithful: bool = False) -> float:
    """Length of one step along both array axes, in units of the positions."""
    along_column = float(np.polyfit(columns, x, 1)[0])
    along_row = along_column if faithful else float(np.polyfit(rows, y, 1)[0])
    return float(np.hypot(along_row, along_column))


class Weights:
    """How much each spot counts for each other: the product of up to three terms.

    Parameters
    ----------
    xy
        Positions (n, 2).
    morphology, gene
        Principal components of the tiles' features and of expression, (n, d).
    reach
        Spots nearer than this are neighbours.
    """

    def __init__(self, xy: Array, morphology: Array, gene: Array, reach: float) -> None:
        self.xy, self.reach = xy, reach
        self._directions = {"morphology": unit_rows(morphology), "gene": unit_rows(gene - gene.mean(1, keepdims=True))}

    def __len__(self) -> int:
        return len(self.xy)

    def term(self, name: Term, rows: slice = slice(None)) -> Array:
        """One term for some rows: 1 for neighbours, cosine similarity of at least 0, or Pearson correlation."""
        if name == "physical":
            from scipy.spatial.distance import cdist

            return np.asarray(cdist(self.xy[rows], self.xy) < self.reach, dtype=np.float64)
        similarity = self._directions[name][rows] @ self._directions[name].T
        return np.maximum(similarity, 0) if name == "morphology" else np.asarray(similarity)

    def product(self, terms: list[Term], rows: slice = slice(None)) -> Array:
        """The product of some terms, (rows, n)."""
        return np.asarray(np.prod([self.term(name, rows) for name in terms], axis=0))

    def impute(self, values: NDArray, terms: list[Term]) -> Array:
        """Weighted mean over the three spots of greatest weight (six where nearness alone counts); 0 without any."""
        k = 6 if terms == ["physical"] else 3
        parts = []
        for start in range(0, len(self), _BLOCK):
            weight = self.product(terms, slice(start, start + _BLOCK))
            best = np.stack([np.argsort(row)[-k:] for row in weight])
            weight = np.take_along_axis(weight, best, axis=1)
            total = weight.sum(1, keepdims=True)
            weight = np.where(total > 0, weight / np.where(total > 0, total, 1), 0)
            parts.append(np.einsum("nk,nkg->ng", weight, values[best]))
        return np.concatenate(parts)


def average(values: NDArray, imputed: Array) -> Array:
    """Mean of what was measured and what was imputed, or the former alone where the latter is 0."""
    return np.where(imputed != 0, (values + imputed) / 2, values)


def fill_zeros(values: NDArray, imputed: Array) -> Array:
    """What was imputed where nothing was measured."""
    return np.where(values == 0, imputed, values)


def adjust(
    values: Array,
    morphology: Array,
    xy: Array,
    radius: float,
    *,
    rates: int = 1,
    method: Literal["mean", "median", "sum"] = "mean",
    similarity: Literal["cosine", "euclidean", "pearson", "spearman"] = "cosine",
) -> Array:
    """Add to each spot what its neighbours within ``radius`` have, weighted by how much they look alike."""
    reduce: Any = {"mean": np.mean, "median": np.median, "sum": np.sum}[method]
    result = values.astype(np.float64).copy()
    for spot, around in enumerate(_within(xy, radius)):
        if len(around):
            weight = _similarity(morphology[spot], morphology[around], similarity)
            result[spot] += rates * reduce(values[around] * weight[:, None], axis=0)
    return result


def disk(
    values: Array, xy: Array, radius: float, *, rates: int = 1, method: Literal["mean", "median"] = "mean"
) -> Array:
    """Mean or median over each spot and its neighbours within ``radius``, these counted ``rates`` times more."""
    reduce: Any = {"mean": np.mean, "median": np.median}[method]
    return np.stack(
        [
            reduce(np.concatenate([values[[spot]], *[values[around]] * (1 + rates)]), axis=0)
            for spot, around in enumerate(_within(xy, radius))
        ]
    )


def _within(xy: Array, radius: float) -> list[NDArray[np.intp]]:
    from scipy.spatial import KDTree

    found = KDTree(xy).query_ball_point(xy, radius)
    return [np.array([other for other in around if other != spot], dtype=np.intp) for spot, around in enumerate(found)]


def _similarity(one: Array, others: Array, kind: str) -> Array:
    if kind == "euclidean":
        return np.asarray(1 / (1 + np.linalg.norm(others - one, axis=1)))
    if kind == "cosine":
        return np.maximum(unit_rows(others) @ unit_rows(one[None])[0], 0)
    both = np.vstack([one[None], others])
    if kind == "spearman":
        from scipy.stats import rankdata

        both = rankdata(both, axis=1)
    both = unit_rows(both - both.mean(1, keepdims=True))
    return np.abs(both[1:] @ both[0])


def unit_rows(values: Array) -> Array:
    """Rows divided by their length; rows of zeros stay."""
    length = np.linalg.norm(values, axis=1, keepdims=True)
    return np.asarray(values / np.where(length > 0, length, 1))
