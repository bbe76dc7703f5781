"""Where a model runs, in batches of which size, in which precision, and what happens when memory runs out."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import nn

from napari_he2st.core.errors import MissingExtraError, ModelError

OPENVINO = "openvino"
"""Name of the device that is the CPU with OpenVINO in place of torch for image encoders."""

_LOST = ("CUDA error", "MPS backend", "HIP error", "cuDNN error", "CUDNN")
"""How torch begins what it says of a device that fails."""

_FULL = ("out of memory", "can't allocate memory", "not enough memory", "ALLOC_FAILED")
"""Parts of what torch says when memory runs out and it has no error of its own for that."""

_AUTO_BATCH = {"cpu": 4, "mps": 64, "cuda": 256}
_MOST_WORKERS = 16


def choose_device(name: str = "auto") -> torch.device:
    """The device that a name means; ``"auto"`` takes CUDA, then Apple's MPS, then the CPU.

    Raises
    ------
    ModelError
        The device does not exist on this machine.
    MissingExtraError
        OpenVINO is wanted and not installed.
    """
    if name == OPENVINO:
        from importlib.util import find_spec

        if find_spec(OPENVINO) is None:
            raise MissingExtraError("OpenVINO is not installed", todo='pip install "napari-he2st[openvino]"')
        return torch.device("cpu")
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


def device_name(name: str = "auto") -> str:
    """What provenance says of the device that a name means: ``"cpu"``, ``"openvino"``, ``"cuda"``, ``"mps"``."""
    return OPENVINO if name == OPENVINO else str(choose_device(name))


def auto_batch_size(device: torch.device) -> int:
    """A batch size that suits most tile models on a device."""
    return _AUTO_BATCH.get(device.type, 8)


def auto_workers(device: torch.device) -> int:
    """Batches that go through a model at the same time: on a CPU one for each thread that torch may use.

    A core for each batch beats all cores for one batch: threads that work on one convolution wait for the slowest
    of them, and where other programs want the cores too that is an order of magnitude.
    """
    return min(torch.get_num_threads(), _MOST_WORKERS) if device.type == "cpu" else 1


def placed(module: nn.Module, device: torch.device) -> nn.Module:
    """A module on its device, for inference; on CUDA with channels last, as tiles come and as tensor cores want it."""
    module = module.to(device).eval()
    return module.to(memory_format=torch.channels_last) if device.type == "cuda" else module  # type: ignore[call-overload]


def to_device(tensor: torch.Tensor, device: torch.device) -> torch.Tensor:
    """Copy a tensor; to CUDA from page-locked memory, which torch recycles, without waiting for the copy."""
    if device.type != "cuda":
        return tensor.to(device)
    return tensor.pin_memory().to(device, non_blocking=True)


def half_on(device: torch.device, half: str) -> torch.dtype | None:
    """The half precision in which to run what permits ``half``; None for float32.

    Never on a CPU, where it is slower or, without support for it, far slower.

    Parameters
    ----------
    device
        Where it runs.
    half
        ``"float16"``, ``"bfloat16"`` or, for what permits neither, empty.
    """
    if not half or device.type == "cpu":
        return None
    if half == "bfloat16" and device.type == "cuda" and not torch.cuda.is_bf16_supported(including_emulation=False):
        return None
    found: torch.dtype = getattr(torch, half)
    return found


@contextmanager
def precision(device: torch.device, dtype: torch.dtype | None) -> Iterator[None]:
    """Run convolutions and matrix products in half precision; None changes nothing."""
    if dtype is None:
        yield
        return
    with torch.autocast(device.type, dtype=dtype):
        yield


@contextmanager
def device_errors(device: torch.device) -> Iterator[None]:
    """Say in words that a device stopped working, or that what cannot be split does not fit into its memory.

    Raises
    ------
    ModelError
        In place of what torch raises when memory runs out, when the driver fails or the device is gone.
    """
    try:
        yield
    except (RuntimeError, MemoryError) as error:
        if is_full(error):
            message = "What this predictor sees at once does not fit into the device's memory"
            todo = "Predict a smaller region, close other programs, or choose --device cpu"
        elif str(error).startswith(_LOST):
            message = f"The device {device} stopped working ({str(error).splitlines()[0]})"
            todo = "Finished batches are kept: run again, with --device cpu if need be"
        else:
            raise
        raise ModelError(message, todo=todo) from error


def is_full(error: BaseException) -> bool:
    """Whether an error says that memory ran out."""
    if isinstance(error, torch.OutOfMemoryError | MemoryError):
        return True
    return isinstance(error, RuntimeError) and any(part in str(error) for part in _FULL)


class Halving:
    """Run functions on rows in pieces that fit into memory.

    Parameters
    ----------
    say
        Told in words when memory ran out.
    size
        Rows per piece at first; None for all.

    Attributes
    ----------
    size
        Rows per piece: halved, for good, whenever memory runs out.
    """

    def __init__(self, say: Callable[[str], None] = lambda _: None, size: int | None = None) -> None:
        self.size, self._say = size, say

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
            rows = slice(start, min(start + (self.size or n_rows), n_rows))
            try:
                results.append(function(rows))
            except (RuntimeError, MemoryError) as error:
                if not is_full(error):
                    raise
                tried = rows.stop - rows.start
                if tried == 1:
                    raise ModelError(
                        "A single tile does not fit into the device's memory",
                        todo="Close other programs, or choose --device cpu",
                    ) from error
                self.size = min(self.size or n_rows, tried // 2)
                self._say(f"Memory ran out with batches of {tried}; the run goes on with {self.size}")
                if torch.cuda.is_available():
                    torch.cuda.empty_cache()
                continue
            start = rows.stop
        return results
