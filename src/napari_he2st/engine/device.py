"""Where a model runs, in batches of which size, and what happens when memory runs out."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch

from napari_he2st.core.errors import ModelError

_LOST = ("CUDA error", "MPS backend", "HIP error", "cuDNN error", "CUDNN")
"""How torch begins what it says of a device that fails."""

_AUTO_BATCH = {"cpu": 16, "mps": 64, "cuda": 256}


def choose_device(name: str = "auto") -> torch.device:
    """The device that a name means; ``"auto"`` takes CUDA, then Apple's MPS, then the CPU.

    Raises
    ------
    ModelError
        The device does not exist on this machine.
    """
    if name == "auto":
        if torch.cuda.is_available():
            return torch.device("cuda")
        return torch.device("mps" if torch.backends.mps.is_available() else "cpu")
    try:
        device = torch.device(name)
        torch.zeros(1, device=device)
    except (RuntimeError, AssertionError) as error:
        message = f"The device {name!r} cannot be used here ({str(error).splitlines()[0]})"
        raise ModelError(message, todo="Choose --device cpu or --device auto") from error
    return device


def auto_batch_size(device: torch.device) -> int:
    """A batch size that suits most tile models on a device."""
    return _AUTO_BATCH.get(device.type, 16)


@contextmanager
def device_errors(device: torch.device) -> Iterator[None]:
    """Say in words that a device stopped working.

    Raises
    ------
    ModelError
        In place of what torch raises when the driver fails or the device is gone.
    """
    try:
        yield
    except torch.OutOfMemoryError:
        raise
    except RuntimeError as error:
        if not str(error).startswith(_LOST):
            raise
        message = f"The device {device} stopped working ({str(error).splitlines()[0]})"
        raise ModelError(message, todo="Finished batches are kept: run again, with --device cpu if need be") from error


class Halving:
    """Run a function on rows in pieces that fit into memory.

    Attributes
    ----------
    size
        Rows per piece; halved, for good, whenever memory runs out.
    """

    def __init__(self, size: int) -> None:
        self.size = size

    def __call__(self, function: Callable[[slice], Any], n_rows: int) -> list[Any]:
        """Results of ``function(rows)`` over slices that cover ``n_rows`` rows.

        Raises
        ------
        ModelError
            Even a single row does not fit.
        """
        results: list[Any] = []
        start = 0
        while start < n_rows:
            rows = slice(start, min(start + self.size, n_rows))
            try:
                results.append(function(rows))
            except (torch.OutOfMemoryError, MemoryError) as error:
                if self.size == 1:
                    raise ModelError(
                        "A single tile does not fit into the device's memory",
                        todo="Close other programs, or choose --device cpu",
                    ) from error
                self.size = max(1, self.size // 2)
                if torch.cuda.is_available():
                    torch.cuda.empty_cache()
                continue
            start = rows.stop
        return results
