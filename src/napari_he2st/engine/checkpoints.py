"""Keep a training run on disk, so that one that was killed goes on to exactly the result it would have had.

Beside the output lies a folder with ``settings.json``, what the run was asked for, and a file for every fit: after each
epoch the state of its network, optimiser, schedule and random numbers with the curve so far; at its end what it
learned. Each is written aside and renamed. A fit whose system has a loop of its own is begun again, to the same result.
"""

from __future__ import annotations

import io
import json
import os
import re
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import torch

from napari_he2st.core.atomic import atomic_write
from napari_he2st.core.errors import ModelError, OutputError
from napari_he2st.zoo.base import Predictor
from napari_he2st.zoo.loop import Loop

SUFFIX = ".training"
_SETTINGS = "settings.json"
_ARRAY = "array of numpy"
_SHARE = 20  # of the time since the last one, a checkpoint takes at most a 20th
_MAX_BYTES = 64 * 2**30


class Counted(Protocol):
    """Batches that know how often they were gone over."""

    epoch: int


class Checkpoints:
    """The folder of a run.

    Parameters
    ----------
    folder
        Made if need be.
    settings
        All that decides the result, as JSON has it; another run's folder is refused.

    Raises
    ------
    ModelError
        The folder is of a run with other settings.
    OutputError
        It cannot be made or read.
    """

    def __init__(self, folder: str | Path, settings: Mapping[str, Any]) -> None:
        self.folder = Path(folder)
        wanted = json.loads(json.dumps(settings, default=str))
        path = self.folder / _SETTINGS
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            for left in self.folder.glob(".*"):  # of a write that was killed
                left.unlink()
            found = json.loads(path.read_bytes()) if path.exists() else None
        except (OSError, ValueError) as error:
            raise OutputError(f"The checkpoints cannot be read ({error})", where=self.folder, todo=_REMOVE) from error
        if found is None:
            with atomic_write(path) as aside:
                aside.write_text(json.dumps(wanted, indent=1), encoding="utf-8")
        elif found != wanted:
            message = f"The checkpoints are of another training ({_difference(found, wanted)})"
            raise ModelError(message, where=self.folder, todo=f"Choose another output. {_REMOVE}")

    def fit(self, name: str) -> FitFile:
        """The file of a fit."""
        return FitFile(self.folder / f"{re.sub(r'[^A-Za-z0-9]+', '-', name)}.pt")


_REMOVE = "Remove the folder to begin anew"


class FitFile:
    """State of one fit on disk."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._next = 0.0

    def load(self) -> dict[str, Any] | None:
        """What was kept last, or None.

        Raises
        ------
        OutputError
            It is damaged.
        """
        if not self.path.exists():
            return None
        if self.path.stat().st_size > _MAX_BYTES:
            raise OutputError("The checkpoint is too large to be one", where=self.path, todo=_REMOVE)
        try:
            found: dict[str, Any] = _unpack(torch.load(self.path, map_location="cpu", weights_only=True))
        except Exception as error:  # whatever a damaged file makes of the reader
            raise OutputError(f"The checkpoint is damaged ({error})", where=self.path, todo=_REMOVE) from error
        return found

    def save(self, state: Mapping[str, Any], *, always: bool = False) -> None:
        """Keep a state, unless the last one took long and was only just kept.

        Raises
        ------
        OutputError
            The disk is full; the state that was kept before is still there.
        """
        started = time.monotonic()
        if started < self._next and not always:
            return
        content = io.BytesIO()
        torch.save(_pack(state), content)
        with atomic_write(self.path, force=True) as aside, aside.open("wb") as file:
            file.write(content.getbuffer())
            file.flush()
            os.fsync(file.fileno())
        ended = time.monotonic()
        self._next = ended + _SHARE * (ended - started) if ended - started > 0.1 else 0.0


class FitKeeper:
    """Puts a fit to where it stood, when its loop begins, and gives the state it has after each epoch.

    Parameters
    ----------
    model, batches
        What is fitted, and what it is fitted to.
    saved
        From an earlier run, or None.
    start, frozen
        Weights to begin with in place of fresh ones, and layers that keep them.
    """

    def __init__(
        self,
        model: Predictor,
        batches: Counted,
        saved: Mapping[str, Any] | None,
        start: Mapping[str, torch.Tensor] | None = None,
        frozen: list[torch.nn.Module] | None = None,
    ) -> None:
        self._model, self._batches, self._saved = model, batches, saved
        self._start, self._frozen = start, frozen or []
        self.loop: Loop | None = None

    def begin(self, loop: Loop) -> None:
        """Called by the predictor before its first epoch."""
        self.loop = loop
        loop.frozen = self._frozen
        if self._start is not None:
            self._model.load_state_dict(self._start)
        if self._saved is None:
            return
        loop.load(self._saved["loop"])
        restore(self._model, self._saved)
        self._batches.epoch = self._saved["batches"]
        torch.set_rng_state(self._saved["random"][0])
        if len(self._saved["random"]) > 1:
            torch.cuda.set_rng_state_all(self._saved["random"][1:])

    def state(self) -> dict[str, Any] | None:
        """Everything that going on needs; None while there is no loop, or of a system that has its own."""
        if self.loop is None:
            return None
        cuda = torch.cuda.get_rng_state_all() if torch.cuda.is_available() else []
        return {
            **learned(self._model),
            "loop": self.loop.state(),
            "batches": self._batches.epoch,
            "random": [torch.get_rng_state(), *cuda],
        }


def learned(model: Predictor) -> dict[str, Any]:
    """What a model learned: parameters, all buffers, fitted values."""
    return {"model": model.state_dict(), "buffers": dict(model.named_buffers()), "extras": model.extras}


def restore(model: Predictor, saved: Mapping[str, Any]) -> None:
    """Give a model back what it had learned.

    Raises
    ------
    ModelError
        It is of another network.
    """
    try:
        model.load_state_dict(saved["model"])
    except (RuntimeError, KeyError) as error:
        raise ModelError(f"The checkpoint does not fit this network ({error})", todo=_REMOVE) from error
    device = next(model.parameters(), torch.zeros(0)).device
    with torch.no_grad():
        for name, buffer in model.named_buffers():
            if name in saved["buffers"]:
                buffer.copy_(saved["buffers"][name])
    model.extras.clear()
    model.extras.update(_on(saved["extras"], device))


def _on(value: Any, device: torch.device) -> Any:
    if isinstance(value, torch.Tensor):
        return value.to(device)
    return {key: _on(item, device) for key, item in value.items()} if isinstance(value, dict) else value


def _pack(value: Any) -> Any:
    """A state with arrays as tensors, for only those are read back from a file that could be anybody's."""
    if isinstance(value, np.ndarray):
        return {_ARRAY: torch.from_numpy(np.array(value, order="C"))}
    if isinstance(value, np.generic):
        return value.item()
    if isinstance(value, Mapping):
        return {key: _pack(item) for key, item in value.items()}
    return type(value)(map(_pack, value)) if type(value) in (list, tuple) else value


def _unpack(value: Any) -> Any:
    if isinstance(value, dict):
        if set(value) == {_ARRAY}:
            return value[_ARRAY].numpy()
        return {key: _unpack(item) for key, item in value.items()}
    return type(value)(map(_unpack, value)) if type(value) in (list, tuple) else value


def _difference(found: Any, wanted: Mapping[str, Any]) -> str:
    """Which settings differ, in words."""
    found = found if isinstance(found, dict) else {}
    names = [name for name in wanted if found.get(name) != wanted[name]]
    values = [(name, str(found.get(name)), str(wanted[name])) for name in names]
    return "; ".join(
        f"{name} {old}, not {new}" if len(old) + len(new) < 80 else f"other {name}" for name, old, new in values
    )
