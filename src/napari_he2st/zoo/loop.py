"""Where gradient descent stands, so that training can be kept at any epoch and gone on from there."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import AbstractContextManager, nullcontext
from typing import Any, Protocol

import torch
from torch import Tensor, nn

from napari_he2st.core.errors import ModelError
from napari_he2st.zoo.recipe import Recipe, clip_gradient, make_optimizer, make_schedule


class Keeper(Protocol):
    """Who is told where training begins, and may then put it to where an earlier run stood."""

    def begin(self, loop: Loop) -> None:
        """Take the loop whose first epoch is about to begin; it may :meth:`~Loop.load` another state into it."""


class Loop:
    """Optimiser, schedule and number of epochs of the loop that most predictors share.

    Parameters
    ----------
    module
        Whose parameters are trained.
    recipe
        How.

    Attributes
    ----------
    epoch
        Epochs that are done.
    frozen
        Layers that stay as they are in evaluation, such as batch normalisation of a frozen encoder.
    """

    def __init__(self, module: nn.Module, recipe: Recipe) -> None:
        self.module, self.recipe, self.epoch = module, recipe, 0
        self.optimizer = make_optimizer(module, recipe)
        self.schedule = make_schedule(self.optimizer, recipe)
        self.optimizer.zero_grad(set_to_none=True)  # whatever came before left behind
        self.frozen: list[nn.Module] = []
        self._waiting = 0

    def begin_epoch(self) -> None:
        """Set the network to training, frozen layers apart."""
        self.module.train()
        for layer in self.frozen:
            layer.eval()

    def precision(self) -> AbstractContextManager[Any]:
        """In which arithmetic the loss is computed: bfloat16 where the recipe and the card allow it."""
        device = next(self.module.parameters()).device
        mixed = self.recipe.mixed and device.type == "cuda" and torch.cuda.is_bf16_supported(including_emulation=False)
        return torch.autocast("cuda", torch.bfloat16) if mixed else nullcontext()

    def step(self, loss: Tensor) -> None:
        """Go down the gradient of the last ``recipe.accumulate`` losses, once there are so many."""
        (loss / self.recipe.accumulate).backward()
        self._waiting += 1
        if self._waiting == self.recipe.accumulate:
            self._descend()

    def end_epoch(self) -> None:
        """Use the gradients that still wait, and let the schedule go on."""
        if self._waiting:
            self._descend()
        self.schedule.step()
        self.epoch += 1

    def _descend(self) -> None:
        clip_gradient(self.optimizer, self.recipe)
        self.optimizer.step()
        self.optimizer.zero_grad(set_to_none=True)
        self._waiting = 0

    def state(self) -> dict[str, Any]:
        """Between two epochs: everything that :meth:`load` needs."""
        return {
            "epoch": self.epoch,
            "optimizer": self.optimizer.state_dict(),
            "schedule": self.schedule.state_dict(),
        }

    def load(self, state: Mapping[str, Any]) -> None:
        """Go on from the state of an earlier run.

        Raises
        ------
        ModelError
            It is of another network or optimiser.
        """
        try:
            self.optimizer.load_state_dict(state["optimizer"])
            self.schedule.load_state_dict(state["schedule"])
            self.epoch = int(state["epoch"])
        except (KeyError, TypeError, ValueError) as error:
            raise ModelError(f"The state of training does not fit this network ({error})") from error
