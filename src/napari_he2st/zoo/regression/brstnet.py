"""BrST-Net: EfficientNet-b4 per spot with a head for auxiliary genes (Rahaman et al., Scientific Reports 13, 2023)."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from napari_he2st.core.noise import Noise
from napari_he2st.zoo.base import Batches, Expression, Label, Predictor, Spots
from napari_he2st.zoo.blocks.losses import nan_mse
from napari_he2st.zoo.blocks.pixels import PIXELS, pixel_statistics, standardise
from napari_he2st.zoo.blocks.symmetry import random_symmetry
from napari_he2st.zoo.inputs import Tiles
from napari_he2st.zoo.recipe import Recipe

B4 = (
    (2, 3, 1, 1, 24),
    (4, 3, 2, 6, 32),
    (4, 5, 2, 6, 56),
    (6, 3, 2, 6, 112),
    (6, 5, 1, 6, 160),
    (8, 5, 2, 6, 272),
    (2, 3, 1, 6, 448),
)
"""Stages of EfficientNet-b4: blocks, kernel, stride of the first, expansion, width."""
_NATIVE_PX = 380
"""Padding is that of b4's own image size, whatever is fed."""


class BrSTNet(Predictor):
    """EfficientNet-b4 with one head for the panel and one for auxiliary genes.

    Parameters
    ----------
    n_genes
        Size of the panel.
    n_aux
        Auxiliary genes that share the trunk in training (published: 5,693); without them there is one head.
    stem, stages, head
        Width of the first convolution, the stages (see :data:`B4`), width of the last convolution.
    dropout, drop_connect
        Before the heads; of whole blocks, growing with depth.
    aux_weight
        Of the auxiliary loss.
    norm_momentum
        Share of a batch in the running statistics of the normalisations. The published one suits thousands of
        steps; after fewer, the statistics lag behind the network.
    tile_px
        Width of the tile; published as 299 px scaled to 224.

    Notes
    -----
    Pixels are standardised by statistics of the training tiles, kept in ``extras["pixels"]``. The auxiliary
    genes, log1p counts, are those of highest mean after the panel. The Vahadane stain normalisation of the original is
    left to the slide.
    """

    unit = Spots()
    targets: Mapping[str, Expression | Label] = {"expression": Expression("z_log1p", panel="mean:250")}
    recipe = Recipe("sgd", lr=1e-3, weight_decay=1e-6, epochs=50, batch_size=32, schedule="cosine:5")
    beside = {"pixels": PIXELS}

    def __init__(
        self,
        n_genes: int,
        *,
        n_aux: int = 0,
        stem: int = 48,
        stages: tuple[tuple[int, int, int, int, int], ...] = B4,
        head: int = 1792,
        dropout: float = 0.4,
        drop_connect: float = 0.2,
        aux_weight: float = 1.0,
        norm_momentum: float = 0.01,
        tile_px: int = 224,
    ) -> None:
        super().__init__()
        self.inputs = {"tiles": Tiles(px=tile_px)}
        if n_aux:
            self.targets = {**self.targets, "auxiliary": Expression("log1p")}
        self.n_aux, self.dropout, self.drop_connect, self.aux_weight = n_aux, dropout, drop_connect, aux_weight
        self._conv_stem = _SameConv(3, stem, 3, size=_NATIVE_PX, stride=2)
        self._bn0 = _norm(stem)
        self._blocks = nn.ModuleList()
        width, size = stem, math.ceil(_NATIVE_PX / 2)
        for blocks, kernel, stride, expansion, out in stages:
            for number in range(blocks):
                step = stride if number == 0 else 1
                self._blocks.append(_Block(width, out, kernel, step, expansion, size))
                width, size = out, math.ceil(size / step)
        self._conv_head = _SameConv(width, head, 1, size=size)
        self._bn1 = _norm(head)
        self._fc = nn.ModuleDict({"fc": nn.Linear(head, n_genes)})
        if n_aux:
            self._fc["aux_fc"] = nn.Linear(head, n_aux)
        for layer in self.modules():
            if isinstance(layer, nn.BatchNorm2d):
                layer.momentum = norm_momentum

    def prepare(self, *, tiles: Tensor) -> dict[str, Tensor]:
        """Tiles in 0 … 1, standardised once the statistics of the training tiles are known."""
        return {"patches": standardise(tiles, self.extras.get("pixels"))}

    def features(self, patches: Tensor) -> Tensor:
        """Mean of the last feature map, float32 (n, head)."""
        x = F.silu(self._bn0(self._conv_stem(patches)))
        for number, block in enumerate(self._blocks):
            x = block(x, drop=self.drop_connect * number / len(self._blocks))
        return F.silu(self._bn1(self._conv_head(x))).mean((2, 3))

    def forward(self, patches: Tensor) -> tuple[Tensor, Tensor | None]:
        """Standardised log1p counts of the panel (n, genes) and log1p counts of the auxiliary genes or None."""
        x = F.dropout(self.features(patches), self.dropout, self.training)
        return self._fc["fc"](x), (self._fc["aux_fc"](x) if "aux_fc" in self._fc else None)

    def loss(self, targets: Mapping[str, Tensor], *, patches: Tensor) -> Tensor:
        """Mean squared error of the panel and, weighted, of the auxiliary genes."""
        main, aux = self(random_symmetry(patches))
        total = nan_mse(main, targets["expression"])
        return total if aux is None else total + self.aux_weight * nan_mse(aux, targets["auxiliary"])

    def predict(self, *, patches: Tensor, noise: Noise | None = None) -> Tensor:
        """The panel alone, float32 (n, genes)."""
        return self(patches)[0]

    def fit(self, batches: Batches, recipe: Recipe) -> Iterator[dict[str, float]]:
        """Measure the pixels, then train."""
        self.extras.pop("pixels", None)
        self.extras["pixels"] = pixel_statistics((prepared["patches"] for _, prepared in batches), per_image=True)
        yield from super().fit(batches, recipe)


def _norm(width: int) -> nn.BatchNorm2d:
    return nn.BatchNorm2d(width, eps=1e-3)


class _SameConv(nn.Conv2d):
    """Convolution padded, unevenly if need be, so that an image of ``size`` shrinks by exactly the stride."""

    def __init__(
        self, in_width: int, out_width: int, kernel: int, *, size: int, stride: int = 1, **options: Any
    ) -> None:
        super().__init__(in_width, out_width, kernel, stride=stride, bias=options.pop("bias", False), **options)
        total = max((math.ceil(size / stride) - 1) * stride + kernel - size, 0)
        self.before, self.after = total // 2, total - total // 2

    def forward(self, x: Tensor) -> Tensor:
        return super().forward(F.pad(x, (self.before, self.after, self.before, self.after)))


class _Block(nn.Module):
    """Inverted bottleneck with squeeze and excitation."""

    def __init__(self, width: int, out: int, kernel: int, stride: int, expansion: int, size: int) -> None:
        super().__init__()
        inner, squeezed = width * expansion, max(1, width // 4)
        self.expands, self.skips = expansion > 1, stride == 1 and width == out
        if self.expands:
            self._expand_conv = nn.Conv2d(width, inner, 1, bias=False)
            self._bn0 = _norm(inner)
        self._depthwise_conv = _SameConv(inner, inner, kernel, size=size, stride=stride, groups=inner)
        self._bn1 = _norm(inner)
        self._se_reduce = nn.Conv2d(inner, squeezed, 1)
        self._se_expand = nn.Conv2d(squeezed, inner, 1)
        self._project_conv = nn.Conv2d(inner, out, 1, bias=False)
        self._bn2 = _norm(out)

    def forward(self, x: Tensor, drop: float) -> Tensor:
        y = F.silu(self._bn0(self._expand_conv(x))) if self.expands else x
        y = F.silu(self._bn1(self._depthwise_conv(y)))
        gate = self._se_expand(F.silu(self._se_reduce(y.mean((2, 3), keepdim=True))))
        y = self._bn2(self._project_conv(gate.sigmoid() * y))
        if not self.skips:
            return y
        if self.training and drop > 0:
            kept = torch.rand(len(y), 1, 1, 1, device=y.device) >= drop
            y = y * kept / (1 - drop)
        return x + y
