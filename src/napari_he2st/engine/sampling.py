"""Members × draws of a predictor: their mean or median, and their spread."""

from __future__ import annotations

import inspect
from collections.abc import Mapping, Sequence
from types import NoneType
from typing import Any, Literal, get_args, get_origin, get_type_hints

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from napari_he2st.core.errors import ModelError
from napari_he2st.core.noise import Noise
from napari_he2st.engine.device import half_on, precision
from napari_he2st.zoo.base import Predictor
from napari_he2st.zoo.inputs import Reference

Draws = tuple[Tensor, Tensor | None]
"""Mean (or median), float32 (rows, genes); standard deviation of the same shape, or None for a single draw."""


class Sampler:
    """Runs all members of an ensemble, each as often as it takes.

    Parameters
    ----------
    members
        The ensemble, in evaluation mode on its device.
    columns
        Genes to keep, on the device.
    seed, n_samples
        Fix the noise; number of draws per member, None for as many as published.
    options
        The predictor's own options, see :func:`options_of`.
    half
        Half precision that its card permits, see :func:`~napari_he2st.engine.device.half_on`.

    Raises
    ------
    ModelError
        The predictor has no such option, or it cannot have that value.
    """

    def __init__(
        self,
        members: Sequence[Predictor],
        columns: Tensor,
        *,
        seed: int = 0,
        n_samples: int | None = None,
        options: Mapping[str, Any] | None = None,
        half: str = "",
    ) -> None:
        self.members, self._columns, self._seed = members, columns, seed
        self._n_samples = draws_of(members[0], n_samples)
        self._options = dict(options or {})
        check_options(members[0], self._options)
        self._n_genes = len(members[0].genes)
        self._all = columns.tolist() == list(range(self._n_genes))
        self._half = half_on(columns.device, half)
        self._banks = [banks_of(member, columns.device) for member in members]

    @torch.inference_mode()
    def prepare(self, values: Mapping[str, Any]) -> list[dict[str, Any]]:
        """What every member makes of the same inputs."""
        return [member.prepare(**{**values, **bank}) for member, bank in zip(self.members, self._banks, strict=True)]

    @torch.inference_mode()
    def __call__(
        self, prepared: Sequence[Mapping[str, Any]], numbers: NDArray[np.intp], shape: tuple[int, ...]
    ) -> Draws:
        """Predict.

        Parameters
        ----------
        prepared
            Of each member.
        numbers
            Of the rows, which fix their noise.
        shape
            Of the result, without its genes.

        Raises
        ------
        ModelError
            A member returned another shape.
        """
        draws = []
        for number, (member, inputs) in enumerate(zip(self.members, prepared, strict=True)):
            for draw in range(self._n_samples):
                noise = Noise(self._seed, number * self._n_samples + draw, numbers) if member.draws else None
                with precision(self._columns.device, self._half):
                    predicted = member.predict(**({} if noise is None else {"noise": noise}), **self._options, **inputs)
                found = predicted["expression"] if isinstance(predicted, dict) else predicted
                self._check(member, found, shape)
                draws.append(found.float() if self._all else found.float().index_select(-1, self._columns))
        if len(draws) == 1:
            return draws[0], None
        stacked = torch.stack(draws)
        centre = _median(stacked) if self.members[0].combine == "median" else stacked.mean(dim=0)
        return centre, stacked.std(dim=0)

    def _check(self, member: Predictor, found: Tensor, shape: tuple[int, ...]) -> None:
        if found.shape != (*shape, self._n_genes):
            wanted = f"{' × '.join(map(str, shape))} spots and {self._n_genes} genes"
            message = f"{type(member).__name__} returned shape {tuple(found.shape)} for {wanted}"
            raise ModelError(message, todo="Its code does not fit this bundle; report this to its author")


def draws_of(model: Predictor, n_samples: int | None) -> int:
    """Draws per member: as many as asked for, or published, but one where nothing is drawn at random."""
    return max(1, model.draws if n_samples is None else n_samples) if model.draws else 1


def options_of(model: Predictor | type[Predictor]) -> dict[str, inspect.Parameter]:
    """A predictor's own options: what its ``predict`` can be told beside the noise and what was prepared for it."""
    types = get_type_hints(model.predict)
    parameters = inspect.signature(model.predict).parameters
    return {
        name: parameter.replace(annotation=types[name])
        for name, parameter in parameters.items()
        if parameter.default is not parameter.empty and _is_plain(types[name])
    }


def _is_plain(kind: Any) -> bool:
    if get_origin(kind) is Literal:
        return True
    return all(part in (bool, int, float, str, NoneType) for part in get_args(kind) or (kind,))


def check_options(model: Predictor | type[Predictor], options: Mapping[str, Any]) -> None:
    """Refuse options that a predictor does not have, and values that are not among its choices.

    Raises
    ------
    ModelError
        Names the option, and those that there are.
    """
    known, name = options_of(model), model.__name__ if isinstance(model, type) else type(model).__name__
    for option, value in options.items():
        if option not in known:
            todo = f"It has {', '.join(known)}" if known else "It has none"
            raise ModelError(f"{name} has no option {option}", todo=todo)
        kind = known[option].annotation
        if get_origin(kind) is Literal and value not in get_args(kind):
            todo = f"Choose one of {', '.join(map(str, get_args(kind)))}"
            raise ModelError(f"{option} of {name} cannot be {value!r}", todo=todo)


def banks_of(member: Predictor, device: torch.device) -> dict[str, Any]:
    """The bank of a trained member for each of its ``Reference`` inputs: name → tensors by name.

    Raises
    ------
    ModelError
        Its training left no bank.
    """
    names = [name for name, spec in member.inputs.items() if isinstance(spec, Reference)]
    if not names:
        return {}
    bank = member.extras.get("reference")
    if bank is None:
        message = f"{type(member).__name__} needs a reference bank, and this bundle holds none"
        raise ModelError(message, todo="Train it again")
    tensors = {
        key: torch.from_numpy(np.ascontiguousarray(value)).to(device)
        for key, value in bank.items()
        if np.asarray(value).dtype.kind in "fiub"
    }
    return dict.fromkeys(names, tensors)


def join(parts: Sequence[Draws]) -> Draws:
    """Results of consecutive rows as one."""
    spreads = [std for _, std in parts if std is not None]
    return torch.cat([mean for mean, _ in parts]), torch.cat(spreads) if spreads else None


def _median(stacked: Tensor) -> Tensor:
    """Median over the first axis, the mean of the middle two where their number is even."""
    ordered = stacked.sort(dim=0).values
    n = len(ordered)
    return (ordered[(n - 1) // 2] + ordered[n // 2]) / 2
