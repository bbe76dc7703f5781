"""GHIST: expression of single cells from an H&E image and its nuclei (Nature Methods 2025, s41592-025-02795-z)."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from napari_he2st.zoo.base import Batches, Expression, Output, Predictor, Regions
from napari_he2st.zoo.blocks.graph import scatter_mean
from napari_he2st.zoo.blocks.losses import nan_mse
from napari_he2st.zoo.blocks.pixels import pixel_statistics
from napari_he2st.zoo.blocks.start import start_at_mean
from napari_he2st.zoo.blocks.unet3 import UNet3Plus
from napari_he2st.zoo.inputs import CellReference, Nuclei, RegionImage
from napari_he2st.zoo.recipe import Recipe

_COPIES = ("", "_immune", "_invasive")
_TINY = 1e-11
_COSINE_WEIGHT = 100.0


class GHIST(Predictor):
    """Cells are what the network sees in and around their nuclei, as mixtures of a reference.

    Parameters
    ----------
    n_genes
        Size of the panel.
    n_classes
        Types of cells.
    n_types
        Types of the reference, each with a profile.
    dim
        Width of a cell's state.
    with_reference
        Whether cells are mixtures of reference profiles.
    region_px, mpp
        Of the regions, and their pixel size.
    width
        Of the network's first level.

    Notes
    -----
    ``extras["pixels"]``: mean and standard deviation of the training images' channels, 0 to 255.
    """

    targets = {"expression": Expression("log1p", panel="hvg:250")}
    outputs = {"expression": Output(per="cell")}
    recipe = Recipe("adamw", lr=1e-3, weight_decay=1e-4, epochs=50, batch_size=8, schedule="poly:1")

    def __init__(
        self,
        n_genes: int,
        *,
        n_classes: int = 9,
        n_types: int = 1,
        dim: int = 256,
        with_reference: bool = False,
        region_px: int = 256,
        mpp: float = 0.25,
        width: int = 64,
    ) -> None:
        super().__init__()
        self.unit = Regions(px=region_px, mpp=mpp)
        self.inputs = {"images": RegionImage(), "nuclei": Nuclei()}
        if with_reference:
            self.inputs["cells"] = CellReference()
        self.n_classes, self.with_reference = n_classes, with_reference
        self.extras["pixels"] = np.full((2, 3), 127.5, dtype=np.float32)
        self.cnn = UNet3Plus(3, n_classes + 1, width)
        self.embed_hist = nn.Module()
        self.embed_hist.model = nn.Sequential(nn.Linear(12 * width, dim), nn.ReLU(), nn.Linear(dim, dim))
        self.estimate_comp = _Head(dim, dim, n_classes)
        kind, n_out = ("weights", n_types) if with_reference else ("offset", n_genes)
        for copy in _COPIES:
            self.add_module(f"mlp_{kind}{copy}", _Head(dim, dim, n_out))
        for copy in _COPIES:
            self.add_module(f"refine_expr{copy}", _Refine(n_classes, n_genes, dim))
        self.mlp_hist = _Head(dim, dim, n_classes)
        self.mlp_genes = _Head(n_genes, dim, n_classes)

    def prepare(self, *, images: Tensor, nuclei: Tensor, cells: Mapping[str, Tensor] | None = None) -> dict[str, Any]:
        """Images standardised by the training images; label maps; the mean profile of each reference type."""
        mean, std = (torch.as_tensor(row, device=images.device).view(1, 3, 1, 1) for row in self.extras["pixels"])
        reference = None
        if cells is not None:
            kinds = int(cells["label"].max()) + 1
            reference = scatter_mean(cells["counts"].nan_to_num().log1p(), cells["label"], kinds)
        return {"images": (images - mean) / std, "nuclei": nuclei, "reference": reference}

    def fit(self, batches: Batches, recipe: Recipe) -> Iterator[dict[str, float]]:
        """Take the statistics of the training images, then train.

        Without a reference, cells start at their mean; if ``faithful`` at random, which leaves some genes at 0.
        """
        self.extras["pixels"] = np.array([[0.0] * 3, [255.0] * 3], dtype=np.float32)
        found = pixel_statistics(prepared["images"] for _, prepared in batches)
        self.extras["pixels"] = 255 * np.array([found["mean"], found["std"]], dtype=np.float32)
        if not (self.faithful or self.with_reference):
            start_at_mean(batches, *(self.get_submodule(f"refine_expr{copy}.linear_out") for copy in _COPIES))
        yield from super().fit(batches, recipe)

    def forward(self, images: Tensor, nuclei: Tensor, reference: Tensor | None) -> dict[str, Tensor]:
        """What is known of the nuclei of some tiles, tile by tile, by ascending number.

        Parameters
        ----------
        images
            Standardised, (n, 3, px, px).
        nuclei
            Number of the nucleus of each pixel, int64 (n, px, px), 0 in none.
        reference
            Profiles, (n_types, n_genes), or None.

        Returns
        -------
        dict
            ``map`` (n, n_classes + 1, px, px); of the cells ``cell_type`` logits, ``expr``, ``expr_immune``,
            ``expr_invasive``, ``ct_from_expr`` logits, ``fv_from_expr`` and ``area``; ``comp`` (n, n_classes) of
            the tiles; ``tile`` and ``number`` of each cell.
        """
        seen, last, first = self.cnn(images)
        states = torch.cat([last, first], dim=1)
        tile, number, index = cells_of(nuclei)
        inside = index >= 0
        own = scatter_mean(states.permute(0, 2, 3, 1)[inside], index[inside], len(tile))
        around = states.mean((2, 3))[tile]
        cells = self.embed_hist.model(torch.cat([own, around], dim=1))
        composition = self.estimate_comp(scatter_mean(cells, tile, len(images))).softmax(dim=1)
        found = {"map": seen, "comp": composition, "cell_type": self.mlp_hist(cells), "tile": tile, "number": number}
        for copy in _COPIES:
            if reference is not None and self.with_reference:
                base = self.get_submodule(f"mlp_weights{copy}")(cells).softmax(dim=1) @ reference
            else:
                base = self.get_submodule(f"mlp_offset{copy}")(cells).relu()
            change = self.get_submodule(f"refine_expr{copy}")(composition[tile], base)
            found[f"expr{copy}"] = (base + change).relu() if self.with_reference else change.relu()
        found["ct_from_expr"], found["fv_from_expr"] = self.types_of(found["expr"])
        return found | {"area": index[inside].bincount(minlength=len(tile))}

    def types_of(self, expression: Tensor) -> tuple[Tensor, Tensor]:
        """Type logits of cells from their expression, and the state before the first ReLU."""
        first = self.mlp_genes.mlp[0](expression)
        return self.mlp_genes.mlp[1:](first), first

    def predict(self, *, noise: Any = None, images: Tensor, nuclei: Tensor, reference: Tensor | None) -> Tensor:
        """Expression of the nuclei that belong to the batch, in the order of their numbers."""
        found = self(images, nuclei, reference)
        return found["expr"][found["number"].argsort()]

    def loss(self, targets: Mapping[str, Tensor], **prepared: Any) -> Tensor:
        """Expression of the cells, that its types read alike, and that the tiles' composition agrees with them.

        Terms that need the measured type of each cell are left out where ``targets`` has none (``"type"``).
        """
        found = self(**prepared)
        order = found["number"].argsort()
        measured = targets["expression"]
        owner = targets.get("owner", torch.arange(len(measured), device=measured.device))
        own = owner >= 0
        wanted, expr = measured[owner[own]], found["expr"][order][own]
        known = wanted.nan_to_num()
        real_logits, real_state = self.types_of(known)
        logits, state = found["ct_from_expr"][order][own], found["fv_from_expr"][order][own]
        same = torch.ones(len(known), device=known.device)
        loss = nan_mse(expr, wanted) + F.mse_loss(logits, real_logits)
        loss = loss + _COSINE_WEIGHT * F.cosine_embedding_loss(state, real_state, same)
        if "type" in targets:
            kinds = targets["type"][owner[own]]
            loss = loss + F.cross_entropy(found["cell_type"][order][own], kinds) + F.cross_entropy(logits, kinds)
            tile, n = found["tile"][order][own], len(found["comp"])
            real = scatter_mean(F.one_hot(kinds, self.n_classes).float(), tile, n)
            guessed = scatter_mean(F.one_hot(found["cell_type"][order][own].argmax(1), self.n_classes).float(), tile, n)
            loss = loss + composition_loss(found["comp"], real) + composition_loss(guessed, real)
        return loss


class _Head(nn.Module):
    def __init__(self, before: int, dim: int, after: int) -> None:
        super().__init__()
        self.mlp = nn.Sequential(nn.Linear(before, dim), nn.ReLU(), nn.Linear(dim, after))

    def forward(self, x: Tensor) -> Tensor:
        return self.mlp(x)


class _Refine(nn.Module):
    """Attention of a cell to itself: the composition of its tile takes no part in the result, as published."""

    def __init__(self, n_classes: int, n_genes: int, dim: int) -> None:
        super().__init__()
        self.query_transform = nn.Linear(n_classes, dim)
        self.key_transform = nn.Linear(n_genes, dim)
        self.value_transform = nn.Linear(n_genes, dim)
        self.attention = nn.MultiheadAttention(dim, 8)
        self.linear_out = nn.Linear(dim, n_genes)

    def forward(self, composition: Tensor, base: Tensor) -> Tensor:
        query = self.query_transform(composition)[None]
        key, value = self.key_transform(base)[None], self.value_transform(base)[None]
        return self.linear_out(self.attention(query, key, value, need_weights=False)[0][0])


def cells_of(nuclei: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Tile and number of each nucleus, int64 (cells,), and the cell of each pixel, −1 in none."""
    base = int(nuclei.max()) + 1
    tiles = torch.arange(len(nuclei), device=nuclei.device).view(-1, 1, 1)
    keys, index = (nuclei + tiles * base).unique(return_inverse=True)
    real = keys % base > 0
    row = real.long().cumsum(dim=0) - 1
    cell = torch.where(real, row, torch.full_like(row, -1))[index]
    return keys[real] // base, keys[real] % base, cell


def composition_loss(estimated: Tensor, real: Tensor) -> Tensor:
    """Kullback–Leibler divergence of two compositions after another softmax, as published; mean over tiles."""
    guess, truth = ((part + _TINY).log_softmax(dim=1) for part in (estimated, real))
    return F.kl_div(guess, truth, reduction="batchmean", log_target=True)


def adjust_types(
    logits: Tensor,
    estimated: Tensor,
    observed: Tensor,
    group: Sequence[int],
    *,
    ignored: Sequence[int] = (),
    alpha: float = 2.0,
    invasive: bool = False,
    targets: Sequence[int] = (),
    generator: torch.Generator | None = None,
) -> Tensor:
    """Types of a tile's cells after they are pushed towards its estimated composition.

    Parameters
    ----------
    logits
        Of the cells, (cells, n_classes).
    estimated, observed
        Composition that the tile is thought to have, and that of the cells' likeliest types, (n_classes,).
    group
        Types among which cells may change.
    ignored
        Cells that keep their type.
    alpha
        How hard.
    invasive
        Take nothing for observed, and push only towards ``targets``.
    generator
        Of the random weights.

    Returns
    -------
    Tensor
        Type of each cell, int64 (cells,).
    """
    types = logits.argmax(dim=1)
    inside = torch.isin(types, torch.as_tensor(list(group)))
    inside[list(ignored)] = False
    m, k = int(inside.sum()), len(group)
    if m == 0:
        return types
    chosen = torch.as_tensor(list(group))
    noise = torch.stack([torch.randn(1, k, generator=generator)[0] for _ in range(m)])
    weight = (noise - noise.mean(dim=0) + estimated[chosen]).abs()
    push = (estimated - (torch.zeros_like(observed) if invasive else observed))[chosen]
    if invasive:
        push = push * torch.isin(chosen, torch.as_tensor(list(targets))).float()
    score = logits[inside][:, chosen] + alpha * len(logits) * push * weight
    return types.masked_scatter(inside, chosen[score.argmax(dim=1)])


def tile_starts(length: int, width: int = 256, overlap: int = 30) -> list[int]:
    """First rows of the published tiles of an image; the last may come twice."""
    step = width - overlap
    return [min(start, length - width) for start in range(0, length, step)]
