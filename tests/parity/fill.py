"""Weights and inputs of parity cases, rebuilt from names, shapes and seeds."""

from __future__ import annotations

import json
import re
import zlib
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch


def weight_of(key: str, shape: tuple[int, ...], dtype: str = "float32") -> np.ndarray:
    """The value of a state-dict entry: standard normal, seeded by its key, then brought to a sensible size."""
    if not np.issubdtype(np.dtype(dtype), np.floating):
        return np.zeros(shape, dtype)
    draw = np.random.default_rng(zlib.crc32(key.encode())).standard_normal(shape)
    if key.endswith("running_var"):
        value = 0.5 + np.abs(draw)
    elif key.endswith("weight") and len(shape) == 1:
        value = 1 + 0.1 * draw
    elif len(shape) < 2:
        value = 0.1 * draw
    else:
        value = draw * float(np.prod(shape[1:])) ** -0.5
    return np.asarray(value, dtype)


def with_overrides(key: str, overrides: dict[str, str], filled: np.ndarray, constructed: np.ndarray) -> np.ndarray:
    """Apply the last of a case's overrides whose pattern matches the whole key."""
    value = filled
    for pattern, rule in overrides.items():
        if re.fullmatch(pattern, key) is None:
            continue
        match rule.split():
            case ["constructed"]:
                value = constructed
            case ["scale", number]:
                value = filled * np.asarray(float(number), filled.dtype)
            case ["fill", number]:
                value = np.full_like(filled, float(number))
            case _:
                message = f"unknown override {rule!r} of {pattern!r}"
                raise ValueError(message)
    return value


def fill_model(
    model: torch.nn.Module,
    case: dict,
    *,
    state: str = "state",
    ours: Callable[[str], str] = lambda key: key,
) -> None:
    """Check a model's state against a case, then fill it in place.

    Parameters
    ----------
    model
        The port.
    case
        Its ``state`` entry lists key, shape and dtype in upstream's order.
    state
        Which list of the case belongs to this model, where it has several.
    ours
        Our key of an upstream key, where they differ; then the order may differ too.
    """
    wanted = [(ours(key), tuple(shape), dtype) for key, shape, dtype in case[state]]
    before = model.state_dict()
    found = [(key, tuple(value.shape), str(value.dtype).removeprefix("torch.")) for key, value in before.items()]
    renamed = any(ours(key) != key for key, _, _ in case[state])
    assert (sorted(found) if renamed else found) == (sorted(wanted) if renamed else wanted)
    filled = {}
    for key, shape, dtype in case[state]:
        value = weight_of(key, tuple(shape), dtype)
        value = with_overrides(key, case.get("overrides", {}), value, before[ours(key)].numpy())
        filled[ours(key)] = torch.from_numpy(np.ascontiguousarray(value))
    model.load_state_dict(filled)


def input_of(spec: dict) -> np.ndarray:
    """An input array from its spec."""
    shape, rng = tuple(spec["shape"]), np.random.default_rng(spec.get("seed", 0))
    make = {
        "normal": lambda: rng.standard_normal(shape),
        "uniform": lambda: rng.random(shape),
        "integers": lambda: rng.integers(spec["low"], spec["high"], shape),
        "value": lambda: np.asarray(spec["value"]),
    }
    return np.asarray(make[spec["kind"]](), spec.get("dtype", "float32")).reshape(shape)


def inputs_of(case: dict) -> dict[str, torch.Tensor]:
    """Every input of a case, as tensors."""
    return {name: torch.from_numpy(input_of(spec)) for name, spec in case["inputs"].items()}


def corner(array: torch.Tensor, like: np.ndarray) -> torch.Tensor:
    """The leading part of an array of which a case stores no more."""
    return array[tuple(slice(n) for n in like.shape)]


def upsampled(blocks: torch.Tensor, px: int) -> torch.Tensor:
    """Each value of (…, width, width) repeated, so that images are ``px`` wide."""
    times = px // blocks.shape[-1]
    return blocks.repeat_interleave(times, -1).repeat_interleave(times, -2)


def grid_graph(positions: torch.Tensor) -> torch.Tensor:
    """Spots one array step apart, dense."""
    return ((positions[:, None] - positions).abs().sum(-1) == 1).float()


def load_case(path: Path) -> dict:
    """A case with its ``outputs`` as arrays (their meanings are in ``outputs_meaning``)."""
    case = json.loads(path.with_suffix(".json").read_text(encoding="utf-8"))
    case["outputs_meaning"] = case["outputs"]
    with np.load(path.with_suffix(".npz")) as arrays:
        case["outputs"] = {name: arrays[name] for name in arrays.files}
    return case


def n_parameters(case: dict) -> int:
    """Numbers in the states of a case."""
    states = [value for name, value in case.items() if name == "state" or name.startswith("state_")]
    return sum(int(np.prod(shape)) for state in states for _, shape, _ in state)
