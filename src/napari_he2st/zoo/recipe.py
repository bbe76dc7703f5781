"""How a system is trained: optimiser, schedule and length, as its publication gives them."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from napari_he2st.core.errors import ModelError


@dataclass(frozen=True)
class Recipe:
    """Published training defaults.

    Attributes
    ----------
    optimizer, lr, weight_decay, epochs
        ``"adam"``, ``"adamw"`` or ``"sgd"`` (with momentum 0.9).
    batch_size
        Units per step; spots where rows have owners.
    batch_of
        In its place, units per step as a function of how many there are to train on.
    clip
        Largest norm of the gradient.
    schedule
        How the learning rate changes from epoch to epoch: ``"step:N:F"`` times F every N epochs,
        ``"cosine:N"`` down to 0 over N epochs and back, ``"poly:P"`` as (1 − epoch / epochs) ** P.
    accumulate
        Batches whose gradients make one step, for batches larger than the memory holds.
    mixed
        Compute the loss in bfloat16 on GPUs that have it; weights and steps stay float32.
    """

    optimizer: str = "adam"
    lr: float = 1e-3
    weight_decay: float = 0.0
    epochs: int = 10
    batch_size: int = 32
    clip: float | None = None
    schedule: str | None = None
    batch_of: Callable[[int], int] | None = None
    accumulate: int = 1
    mixed: bool = False

    def __post_init__(self) -> None:
        for name in ("batch_size", "accumulate"):
            value = getattr(self, name)
            if isinstance(value, int) and value < 1:
                raise ModelError(f"{name} has to be at least 1, not {value}", where="recipe")


def make_optimizer(
    module: nn.Module, recipe: Recipe, factors: Mapping[str, float] | None = None
) -> torch.optim.Optimizer:
    """The optimiser that a recipe names, over the parameters that require gradients.

    ``factors`` multiply the learning rate of the layers whose names they are.
    """
    groups: dict[float, list[nn.Parameter]] = {}
    for name, parameter in module.named_parameters():
        if parameter.requires_grad:
            groups.setdefault((factors or {}).get(name.split(".")[0], 1.0), []).append(parameter)
    parameters = [{"params": group, "lr": recipe.lr * factor} for factor, group in groups.items()]
    if recipe.optimizer == "sgd":
        return torch.optim.SGD(parameters, lr=recipe.lr, momentum=0.9, weight_decay=recipe.weight_decay)
    kinds = {"adam": torch.optim.Adam, "adamw": torch.optim.AdamW}
    return kinds[recipe.optimizer](parameters, lr=recipe.lr, weight_decay=recipe.weight_decay)


def make_schedule(optimizer: torch.optim.Optimizer, recipe: Recipe) -> torch.optim.lr_scheduler.LRScheduler:
    """The learning-rate schedule that a recipe names, to be stepped after each epoch."""
    match (recipe.schedule or "constant").split(":"):
        case ["constant"]:
            factor: Callable[[int], float] = lambda epoch: 1.0  # noqa: E731
        case ["step", every, times]:
            factor = lambda epoch: float(times) ** (epoch // int(every))  # noqa: E731
        case ["cosine", period]:
            factor = lambda epoch: (1 + math.cos(math.pi * epoch / int(period))) / 2  # noqa: E731
        case ["poly", power]:
            factor = lambda epoch: max(1 - epoch / recipe.epochs, 0.0) ** float(power)  # noqa: E731
        case _:
            raise ModelError(f"There is no schedule {recipe.schedule!r}", where="recipe")
    return torch.optim.lr_scheduler.LambdaLR(optimizer, factor)


def descend(optimizer: torch.optim.Optimizer, loss: Tensor, recipe: Recipe) -> None:
    """One step down the gradient of a loss."""
    optimizer.zero_grad(set_to_none=True)
    loss.backward()
    clip_gradient(optimizer, recipe)
    optimizer.step()


def clip_gradient(optimizer: torch.optim.Optimizer, recipe: Recipe) -> None:
    """Shorten the gradient of an optimiser's parameters to the recipe's largest norm, if it names one."""
    if recipe.clip is not None:
        parameters = [p for group in optimizer.param_groups for p in group["params"]]
        nn.utils.clip_grad_norm_(parameters, recipe.clip)
