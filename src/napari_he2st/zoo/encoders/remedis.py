"""REMEDIS: a wide pre-activation ResNet with standardised weights (BiT).

Azizi et al., "Robust and data-efficient generalization of self-supervised machine learning for
diagnostic imaging", Nature Biomedical Engineering 7 (2023); Kolesnikov et al., "Big Transfer" (2020).
"""

from __future__ import annotations

from collections import OrderedDict

from torch import Tensor, nn
from torch.nn import functional as F

GROUPS = 32


class Remedis(nn.Module):
    """The network, tiles to the mean of its last map (n, 2048 · width).

    Parameters
    ----------
    units
        Residual units of each of the four blocks.
    width
        Factor on the channels of the plain ResNet.
    """

    def __init__(self, *, units: tuple[int, ...] = (3, 8, 36, 3), width: int = 2) -> None:
        super().__init__()
        channels = 64 * width
        self.root = nn.Sequential(
            OrderedDict(
                conv=_StdConv(3, channels, 7, 2, 3, bias=False),
                pad=nn.ConstantPad2d(1, 0.0),
                pool=nn.MaxPool2d(3, 2),
            )
        )
        blocks = OrderedDict()
        for number, count in enumerate(units):
            inner, stride = 64 * width * 2**number, 1 if number == 0 else 2
            parts = OrderedDict()
            for unit in range(count):
                parts[f"unit{unit + 1:02d}"] = _Unit(channels, inner, stride if unit == 0 else 1, first=unit == 0)
                channels = 4 * inner
            blocks[f"block{number + 1}"] = nn.Sequential(parts)
        self.body = nn.Sequential(blocks)

    def forward(self, x: Tensor) -> Tensor:
        """Features of tiles with values in [0, 1]."""
        return self.body(self.root(x)).mean((2, 3))


class _StdConv(nn.Conv2d):
    """Convolution whose weights are standardised for each output channel."""

    def forward(self, x: Tensor) -> Tensor:
        mean = self.weight.mean((1, 2, 3), keepdim=True)
        var = self.weight.var((1, 2, 3), correction=0, keepdim=True)
        weight = (self.weight - mean) / (var + 1e-10).sqrt()
        return F.conv2d(x, weight, self.bias, self.stride, self.padding)


class _Unit(nn.Module):
    def __init__(self, channels: int, inner: int, stride: int, *, first: bool) -> None:
        super().__init__()
        self.gn1 = nn.GroupNorm(GROUPS, channels)
        self.conv1 = _StdConv(channels, inner, 1, bias=False)
        self.gn2 = nn.GroupNorm(GROUPS, inner)
        self.conv2 = _StdConv(inner, inner, 3, stride, 1, bias=False)
        self.gn3 = nn.GroupNorm(GROUPS, inner)
        self.conv3 = _StdConv(inner, 4 * inner, 1, bias=False)
        if first:
            self.downsample = _StdConv(channels, 4 * inner, 1, stride, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        out = self.gn1(x).relu()
        shortcut = self.downsample(out) if hasattr(self, "downsample") else x
        out = self.conv2(self.gn2(self.conv1(out)).relu())
        return shortcut + self.conv3(self.gn3(out).relu())
