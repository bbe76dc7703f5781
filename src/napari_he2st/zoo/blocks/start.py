"""Where training starts."""

from __future__ import annotations

import torch
from torch import nn

from napari_he2st.zoo.base import Batches


@torch.no_grad()
def start_at_mean(batches: Batches, *heads: nn.Linear | nn.Conv2d) -> None:
    """Let last layers predict the mean of the training targets, gene by gene, whatever they are given (as in ST-Net).

    Else targets far from 0, such as logarithms of shares, cost thousands of steps before anything is learnt of the
    image, more than a handful of sections has, and what random weights add to a prediction is never quite unlearnt.
    """
    target = torch.cat([targets["expression"] for targets, _ in batches])
    for head in heads:
        head.weight.zero_()
        head.bias.copy_(target.nanmean(0).nan_to_num())
