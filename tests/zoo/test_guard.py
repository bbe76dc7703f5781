from __future__ import annotations

import subprocess
import sys

import pytest


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="triton clashes with display drivers on Linux only")
def test_triton_is_loaded_apart_and_the_flags_come_back() -> None:
    pytest.importorskip("triton", reason="this torch brings no triton")
    code = """
import sys
before = sys.getdlopenflags()
used = []
real = sys.setdlopenflags
sys.setdlopenflags = lambda flags: (used.append(flags), real(flags))
from napari_he2st.zoo.guard import safe_import
timm = safe_import("timm")
import os
assert "triton" in sys.modules and timm.list_models()
assert used[:2] == [os.RTLD_NOW | os.RTLD_DEEPBIND, before], used
assert sys.getdlopenflags() == before
"""
    subprocess.run([sys.executable, "-c", code], check=True)


def test_systems_are_imported_behind_the_guard() -> None:
    code = """
import sys
from napari_he2st.zoo import catalogue, guard
order = []
catalogue.preload = lambda: order.append("torch" in sys.modules)
catalogue.system("mean")
assert order == [False]
"""
    subprocess.run([sys.executable, "-c", code], check=True)


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="libraries are loaded ahead on Linux only")
def test_torch_is_loaded_ahead_while_other_threads_run() -> None:
    code = """
from pathlib import Path
from napari_he2st.zoo.guard import preload
preload()
assert "libtorch_cpu.so" in Path("/proc/self/maps").read_text()
import sys
assert "torch" not in sys.modules
import torch
assert torch.ones(2).sum() == 2
"""
    subprocess.run([sys.executable, "-c", code], check=True)
