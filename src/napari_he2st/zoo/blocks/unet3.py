"""UNet 3+: every level of the decoder sees every level of the network.

Huang et al., "UNet 3+: a full-scale connected UNet for medical image segmentation" (2020).
"""

from __future__ import annotations

from itertools import pairwise

import torch
from torch import Tensor, nn
from torch.nn import functional as F


class UNet3Plus(nn.Module):
    """The network; its keys are the published ones.

    Parameters
    ----------
    n_channels, n_outputs
        Channels of the image, and of the map at its own resolution.
    width
        Of the first level and of each branch; every further level is twice as wide.
    """

    def __init__(self, n_channels: int, n_outputs: int, width: int = 64) -> None:
        super().__init__()
        widths = [width * 2**level for level in range(5)]
        fused = 5 * width
        for level, (before, after) in enumerate(pairwise([n_channels, *widths]), start=1):
            self.add_module(f"conv{level}", _TwoConvs(before, after))
        for target in (4, 3, 2, 1):
            for source in range(1, 6):
                before = fused if target < source < 5 else widths[source - 1]
                name = _branch(source, target)
                self.add_module(f"{name}_conv", nn.Conv2d(before, width, 3, padding=1))
                self.add_module(f"{name}_bn", nn.BatchNorm2d(width))
            self.add_module(f"conv{target}d_1", nn.Conv2d(fused, fused, 3, padding=1))
            self.add_module(f"bn{target}d_1", nn.BatchNorm2d(fused))
        self.outconv_seg = nn.Conv2d(fused, n_outputs, 3, padding=1)

    def forward(self, images: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Map (n, n_outputs, height, width), and states of its pixels: the last (5 · width) and the first (width)."""
        part = self.get_submodule
        down: list[Tensor] = []
        for level in range(1, 6):
            x = images if level == 1 else F.max_pool2d(down[-1], 2)
            down.append(part(f"conv{level}")(x))
        up = {5: down[-1]}
        for target in (4, 3, 2, 1):
            branches = []
            for source in range(1, 6):
                name, steps = _branch(source, target), 2 ** abs(source - target)
                if source < target:
                    x = F.max_pool2d(down[source - 1], steps, steps, ceil_mode=True)
                elif source == target:
                    x = down[source - 1]
                else:
                    x = F.interpolate(up[source], scale_factor=steps, mode="bilinear", align_corners=False)
                branches.append(part(f"{name}_bn")(part(f"{name}_conv")(x)).relu())
            fused = part(f"conv{target}d_1")(torch.cat(branches, dim=1))
            up[target] = part(f"bn{target}d_1")(fused).relu()
        return self.outconv_seg(up[1]), up[1], down[0]


def _branch(source: int, target: int) -> str:
    if source < target:
        return f"h{source}_PT_hd{target}"
    return f"h{source}_Cat_hd{target}" if source == target else f"hd{source}_UT_hd{target}"


class _TwoConvs(nn.Module):
    def __init__(self, before: int, after: int) -> None:
        super().__init__()
        for number, width in ((1, before), (2, after)):
            layers = nn.Sequential(nn.Conv2d(width, after, 3, padding=1), nn.BatchNorm2d(after), nn.ReLU())
            self.add_module(f"conv{number}", layers)

    def forward(self, x: Tensor) -> Tensor:
        return self.get_submodule("conv2")(self.get_submodule("conv1")(x))
