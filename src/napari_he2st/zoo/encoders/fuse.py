"""Folding batch normalisation into the convolution before it: the same numbers, faster on a CPU."""

from __future__ import annotations

import copy

import torch
from torch import Tensor, nn
from torch.nn.utils.fusion import fuse_conv_bn_eval


def fuse_conv_bn(network: nn.Module, example: Tensor) -> nn.Module:
    """A copy of a network, for inference, with every convolution → batch norm pair folded into one.

    Pairs are found by running ``example``: a batch norm whose input is the very tensor that a convolution
    returned. Activations that timm keeps inside its norms stay. If folding changed what the network says
    of ``example`` (a convolution whose output is used elsewhere too), the network is returned as it was.

    Parameters
    ----------
    network
        In evaluation mode; returns one tensor.
    example
        A batch that it accepts, with numbers as it gets them in use.
    """
    fused = copy.deepcopy(network)
    names = {module: name for name, module in fused.named_modules()}
    made: dict[int, tuple[nn.Module, Tensor]] = {}  # keeps the tensors, so that no id comes back
    pairs: list[tuple[nn.Module, nn.Module]] = []

    def note_conv(conv: nn.Module, inputs: tuple, output: Tensor) -> None:
        made[id(output)] = (conv, output)

    def note_norm(norm: nn.Module, inputs: tuple) -> None:
        if id(inputs[0]) in made:
            pairs.append((made[id(inputs[0])][0], norm))

    hooks = []
    for module in names:
        if isinstance(module, nn.Conv2d):
            hooks.append(module.register_forward_hook(note_conv))
        elif isinstance(module, nn.BatchNorm2d):
            hooks.append(module.register_forward_pre_hook(note_norm))
    with torch.inference_mode():
        before = fused(example)
    for hook in hooks:
        hook.remove()
    for conv, norm in pairs:
        _replace(fused, names[conv], fuse_conv_bn_eval(conv, norm))
        _replace(fused, names[norm], _rest_of(norm))
    with torch.inference_mode():
        same = torch.allclose(fused(example), before, rtol=0, atol=1e-4 * max(1.0, float(before.abs().max())))
    return fused if same else network


def _replace(network: nn.Module, name: str, module: nn.Module) -> None:
    parent, _, leaf = name.rpartition(".")
    setattr(network.get_submodule(parent), leaf, module)


def _rest_of(norm: nn.Module) -> nn.Module:
    """What a norm still does when its scale and shift are gone: timm's also hold an activation."""
    activation = getattr(norm, "act", None)
    return activation if isinstance(activation, nn.Module) else nn.Identity()
