"""Importing torch, timm and torchvision without bringing down or holding up a running napari viewer.

On Linux, PyTorch ships triton, which brings its own LLVM. Loaded after a viewer's canvas exists, its
symbols mix with the LLVM of Mesa's software driver and the process dies. Loaded once with ``RTLD_DEEPBIND``
it keeps to its own, whenever that happens.

Python holds its interpreter lock while a library is loaded, torch's for a third of a second, in which a window does
not react; loaded before by a foreign call, which holds no lock, it is there already.
"""

from __future__ import annotations

import ctypes
import os
import sys
from contextlib import suppress
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from types import ModuleType


def preload() -> None:
    """Load what torch brings so that it neither clashes with a display driver nor stops other threads."""
    _preload_triton()
    _preload_torch()


def _preload_torch() -> None:
    """Load torch's largest library; what fails here is torch's to report."""
    spec = None if "torch" in sys.modules or not sys.platform.startswith("linux") else find_spec("torch")
    library = None if spec is None or spec.origin is None else Path(spec.origin).parent / "lib" / "libtorch_cpu.so"
    if library is not None and library.exists():
        dlopen = ctypes.CDLL(None).dlopen
        dlopen.restype, dlopen.argtypes = ctypes.c_void_p, [ctypes.c_char_p, ctypes.c_int]
        dlopen(os.fsencode(library), os.RTLD_NOW)


def _preload_triton() -> None:
    """Load triton so that it cannot clash with a display driver; does nothing where it is not installed."""
    if not sys.platform.startswith("linux") or "triton" in sys.modules or find_spec("triton") is None:
        return
    flags = sys.getdlopenflags()
    sys.setdlopenflags(os.RTLD_NOW | os.RTLD_DEEPBIND)
    try:
        with suppress(ImportError):  # a broken triton is torch's to report, when it needs one
            import_module("triton")
    finally:
        sys.setdlopenflags(flags)


def safe_import(name: str) -> ModuleType:
    """Import a module that loads triton (timm, torchvision); the only way the package imports them."""
    preload()
    return import_module(name)
