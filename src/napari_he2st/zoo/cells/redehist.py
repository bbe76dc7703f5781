"""RedeHist: single cells as mixtures of a single-cell reference, learned from spots."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, Literal

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray
from torch import Tensor, nn
from torch.nn import functional as F

from napari_he2st.zoo.base import Batches, Expression, Output, Predictor, Spots
from napari_he2st.zoo.inputs import CellReference, Nuclei, Tiles
from napari_he2st.zoo.recipe import Recipe, descend, make_schedule

_DIM = 200
_TEXT_DIM = 256
_SLOW = 5e-5
_FAST = ("gene_feature", "mask2mRNA", "sc_drop")
_TINY = 1e-7
_PROBABLE = 0.9


class RedeHist(Predictor):
    """What a nucleus looks like is compared with reference cells; a spot is the sum of its cells.

    Parameters
    ----------
    n_genes
        Size of the panel.
    n_reference, n_types
        Cells of the reference, and their types.
    mode
        ``"deconvolution"``: a cell is a mixture of reference cells; ``"mapping"``: it is one of them.
    tile_px, tile_mpp
        Of the tile around each nucleus.
    dropout
        Of the reference's encoder.
    """

    unit = Spots()
    targets = {"expression": Expression("times_panel_mean", panel="hvg:2000")}
    outputs = {"expression": Output(per="cell")}
    recipe = Recipe("adam", lr=1e-3, epochs=50, batch_size=8, schedule="step:1:0.99")

    def __init__(
        self,
        n_genes: int,
        *,
        n_reference: int = 1,
        n_types: int = 1,
        mode: Literal["deconvolution", "mapping"] = "deconvolution",
        tile_px: int = 128,
        tile_mpp: float | None = None,
        dropout: float = 0.3,
    ) -> None:
        super().__init__()
        self.inputs = {
            "tiles": Tiles(px=tile_px, mpp=tile_mpp),
            "masks": Nuclei(px=tile_px, mpp=tile_mpp),
            "cells": CellReference(),
        }
        self.n_genes, self.mode = n_genes, mode
        self.anno_class = nn.Parameter(torch.zeros(n_reference, n_types), requires_grad=False)
        self.sc_data = nn.Parameter(torch.ones(n_reference, n_genes), requires_grad=False)
        self.sc_drop = nn.Parameter(torch.ones(n_reference, n_genes))
        # The next four, the two feature layers and two norms are in the published files and never used.
        self.weight = nn.Parameter(torch.ones(20, 1, 3, 3), requires_grad=False)
        self.weight2 = nn.Parameter(torch.ones(1, 1, 3, 3), requires_grad=False)
        self.mask_mRNA_ratio = nn.Parameter(torch.ones(1))
        self.gene_feature = nn.Parameter(torch.randn(n_genes, _TEXT_DIM) * 0.02)
        self.mask2mRNA = nn.Parameter(torch.ones(1))
        self.sc2feature1 = nn.Linear(n_genes, _DIM)
        self.sc2feature2 = nn.Linear(_DIM, _DIM)
        self.sc2feature3 = nn.Linear(_DIM, _DIM)
        widths = (3, 64, 128, 256, 512, 1024, 512, 256, 128, 64)
        for number in range(1, 10):
            self.add_module(f"layer{number}", _DoubleConv(widths[number - 1], widths[number]))
        self.layer10 = nn.Conv2d(64, _DIM, 3, padding=1)
        for number, width in enumerate((1024, 512, 256, 128), start=1):
            self.add_module(f"up{number}", _Up(width))
        self.out2out = nn.Linear(_DIM, _DIM)
        self.feature2mask = nn.Linear(_DIM, 1)
        self.feature2expression = nn.Linear(_DIM, _TEXT_DIM)
        self.layer_norm_pixel = nn.LayerNorm(_DIM)
        self.layer_norm_expression = nn.LayerNorm(_DIM)
        self.layer_norm_256 = nn.LayerNorm(_TEXT_DIM)
        self.layer_norm_scExp = nn.LayerNorm(n_genes)
        self.dropout = nn.Dropout(dropout)

    def prepare(self, *, tiles: Tensor, masks: Tensor, cells: Mapping[str, Tensor] | None) -> dict[str, Any]:
        """Tiles in [0, 1], one mask each, and the reference where it is given."""
        return {"tiles": tiles.float() / 255, "masks": masks[:, None].float(), "cells": cells}

    def pixels(self, tiles: Tensor) -> Tensor:
        """State of each pixel before its norm, (n, height, width, 200)."""
        part, skips, x = self.get_submodule, [], tiles
        for number in range(1, 6):
            x = part(f"layer{number}")(x if number == 1 else F.max_pool2d(x, 2))
            skips.append(x)
        for number in range(1, 5):
            x = torch.cat([skips[4 - number], part(f"up{number}")(x)], dim=1)
            x = part(f"layer{5 + number}")(x)
        return self.layer10(x).permute(0, 2, 3, 1)

    def cell_features(self, pixels: Tensor, masks: Tensor) -> Tensor:
        """State of each cell, (n · cells, 200), from its own pixels and those that look like it.

        ``masks``: (n, cells, height, width).
        """
        states = self.layer_norm_pixel(self.out2out(pixels)).flatten(1, 2)
        flat = masks.flatten(2)
        own = flat @ states / (flat.sum(dim=2, keepdim=True) + 1e-3)
        looks = (own @ states.mT / _DIM**0.5).softmax(dim=-1) @ states
        return (own + looks).flatten(0, 1)

    def forward(self, tiles: Tensor, masks: Tensor) -> dict[str, Tensor]:
        """What is known of each cell.

        Parameters
        ----------
        tiles
            Float in [0, 1], (n, 3, px, px).
        masks
            Of the cells of each tile, (n, cells, px, px); empty ones have no pixel.

        Returns
        -------
        dict
            ``pixel``; ``cell_feature``; ``soft`` and ``abundance`` of the reference cells, (n · cells,
            n_reference); ``reference`` (n_reference, n_genes) as seen here; ``cell`` expression
            (n · cells, n_genes) that sums to n_genes.
        """
        pixel = self.pixels(tiles)
        features = self.cell_features(pixel, masks)
        known = self.dropout(self.sc2feature1(self.layer_norm_scExp(self.sc_data)).relu())
        known = self.dropout(self.sc2feature2(known).relu())
        known = self.dropout(self.sc2feature3(known).tanh())
        seen = self.dropout(features) if self.mode == "deconvolution" else features
        soft = self._soft(seen @ known.mT)
        hard = F.one_hot(soft.argmax(dim=1), soft.shape[1]).to(soft.dtype)
        abundance = hard if self.mode == "mapping" else soft
        reference = self._scaled(self.sc_data * F.softplus(self.sc_drop))
        cell = self._scaled(abundance @ reference)
        found = {"pixel": pixel, "cell_feature": features, "soft": soft, "abundance": abundance}
        return found | {"reference": reference, "cell": cell}

    def _soft(self, likeness: Tensor) -> Tensor:
        if self.mode == "deconvolution":
            shares = F.softplus(likeness)
            return shares / shares.sum(dim=1, keepdim=True)
        scaled = likeness / self.n_genes**0.5
        return F.gumbel_softmax(scaled, tau=0.1) if self.training else scaled.softmax(dim=1)

    def _scaled(self, x: Tensor) -> Tensor:
        """Rows that sum to the number of genes."""
        return x / x.sum(dim=1, keepdim=True).clamp(min=_TINY) * self.n_genes

    def objective(self, found: Mapping[str, Tensor], spots: Tensor, measured: Tensor) -> dict[str, Tensor]:
        """The terms of the loss.

        Parameters
        ----------
        found
            As :meth:`forward` returns it.
        spots, measured
            Expression of the spots as the sum of their cells, and as it was measured; (n, n_genes).

        Returns
        -------
        dict
            ``spot``, ``reference`` and ``entropy2``, scalars; ``entropy1`` of each cell; ``loss``.
        """
        types = found["soft"] @ self.anno_class
        n_types = types.shape[1]

        def entropy(shares: Tensor) -> Tensor:
            return -(shares * (shares + _TINY).log()).sum(dim=-1) / n_types**0.5

        together = types.sum(dim=0)
        spot = 1 - F.cosine_similarity(self._scaled(measured), spots).mean()
        used = found["abundance"].sum(dim=0)
        changed = 1 - F.cosine_similarity(found["reference"], self.sc_data)
        reference = (used / used.sum() * changed).sum()
        entropy2 = entropy(together / together.sum())
        loss = spot + reference + 0.05 * (1 - entropy2)
        terms = {"spot": spot, "reference": reference, "entropy2": entropy2}
        return terms | {"entropy1": entropy(types), "loss": loss}

    def loss(self, targets: Mapping[str, Tensor], *, tiles: Tensor, masks: Tensor, cells: Any) -> Tensor:
        """Objective of the spots whose cells these are."""
        measured = targets["expression"].nan_to_num()
        owner = targets.get("owner", torch.arange(len(measured), device=measured.device))
        found = self(tiles, masks)
        own = owner >= 0
        spots = measured.new_zeros(measured.shape).index_add(0, owner[own], found["cell"][own])
        seen = owner[own].bincount(minlength=len(measured)) > 0
        return self.objective(found, self._scaled(spots[seen]), measured[seen])["loss"]

    def fit(self, batches: Batches, recipe: Recipe) -> Iterator[dict[str, float]]:
        """Take the reference from the first batch, then train; most layers learn at a twentieth of the rate."""
        for _, prepared in batches:
            self.take_reference(prepared["cells"])
            break
        fast = [p for name, p in self.named_parameters() if name in _FAST and p.requires_grad]
        slow = [p for name, p in self.named_parameters() if name not in _FAST and p.requires_grad]
        groups = [{"params": fast, "lr": recipe.lr}, {"params": slow, "lr": recipe.lr * _SLOW / 1e-3}]
        optimizer = torch.optim.Adam(groups)
        schedule = make_schedule(optimizer, recipe)
        for epoch in range(recipe.epochs):
            self.train()
            total, n = 0.0, 0
            for targets, prepared in batches:
                loss = self.loss(targets, **prepared)
                descend(optimizer, loss, recipe)
                total, n = total + float(loss.detach()), n + 1
            schedule.step()
            yield {"epoch": epoch, "loss": total / max(n, 1)}

    def take_reference(self, cells: Mapping[str, Tensor]) -> None:
        """Make single cells with known types the reference; see :class:`~napari_he2st.zoo.inputs.CellReference`."""
        counts = cells["counts"].nan_to_num().float()
        label = cells["label"].long()
        with torch.no_grad():
            self.sc_data = nn.Parameter(self._scaled(counts + _TINY), requires_grad=False)
            self.sc_drop = nn.Parameter(torch.ones_like(counts))
            types = F.one_hot(label, int(label.max()) + 1).float()
            self.anno_class = nn.Parameter(types, requires_grad=False)

    def predict(self, *, noise: Any = None, tiles: Tensor, masks: Tensor, cells: Any = None) -> Tensor:
        """Expression of each nucleus over the mean of its genes, (n, n_genes): how much a cell holds is not known."""
        return self(tiles, masks)["cell"]


class _DoubleConv(nn.Module):
    def __init__(self, before: int, after: int) -> None:
        super().__init__()
        layers: list[nn.Module] = []
        for width in (before, after):
            layers += [nn.Conv2d(width, after, 3, padding=1), nn.BatchNorm2d(after), nn.ReLU()]
        self.conv = nn.Sequential(*layers)

    def forward(self, x: Tensor) -> Tensor:
        return self.conv(x)


class _Up(nn.Module):
    def __init__(self, width: int) -> None:
        super().__init__()
        self.up = nn.Sequential(nn.ConvTranspose2d(width, width // 2, 2, 2), nn.BatchNorm2d(width // 2))

    def forward(self, x: Tensor) -> Tensor:
        return self.up(x)


def gene_scores(counts: ArrayLike) -> NDArray[np.float64]:
    """How much a gene varies between cells beyond what its mean lets expect: (n_genes,), 0 to 1.

    Parameters
    ----------
    counts
        Cells × genes.
    """
    from scipy.interpolate import UnivariateSpline
    from scipy.stats import norm

    x = np.asarray(counts, dtype=np.float64)
    x = x / x.sum(axis=1, keepdims=True) * x.shape[1]
    mean, log = np.log(x.mean(axis=0) + 1), np.log(x + 1).mean(axis=0)

    def score(kept: NDArray[np.bool_]) -> NDArray[np.float64]:
        order = np.argsort(mean[kept], kind="stable")
        excess = UnivariateSpline(mean[kept][order], log[kept][order])(mean) - log
        return np.asarray(norm.cdf(excess, excess.mean(), excess.std()))

    return score(score(np.ones(len(mean), dtype=bool)) <= _PROBABLE)


def nucleus_crops(labels: NDArray[np.integer], tile_px: int) -> tuple[NDArray[np.float64], NDArray[np.intp]]:
    """Where the published code cuts the tile of each nucleus.

    Parameters
    ----------
    labels
        Label image, (height, width).
    tile_px
        Width of the tile; tiles at the border are moved inside, and never hold the last row and column.

    Returns
    -------
    centres, starts
        Number, row and column of each nucleus, (n, 3); first row and column of its tile, (n, 2).
    """
    numbers = np.unique(labels[labels > 0])
    places = [np.argwhere(labels == number).mean(axis=0) for number in numbers]
    centres = np.column_stack([numbers, np.array(places)])
    first = np.maximum((centres[:, 1:] - tile_px / 2).astype(np.intp), 0)
    end = np.minimum(first + tile_px, np.array(labels.shape) - 1)
    return centres, end - tile_px
