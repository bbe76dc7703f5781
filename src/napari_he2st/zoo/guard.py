"""Importing timm and torchvision without bringing down a running napari viewer.

On Linux, PyTorch ships triton, which brings its own LLVM. Loaded after a viewer's canvas exists, its
symbols mix with the LLVM of Mesa's software driver and the process dies. Loaded once with ``RTLD_DEEPBIND``
it keeps to its own, whenever that happens.
"""

from __future__ import annotations

import os
import sys
from contextlib import suppress
from importlib import import_module
from importlib.util import find_spec
from types import ModuleType


def preload_triton() -> None:
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
    preload_triton()
    return import_module(name)
