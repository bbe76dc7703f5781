"""The registry of exporters."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

from napari_he2st.core.registry import Registry

F = TypeVar("F", bound=Callable[..., Any])

EXPORTERS: Registry = Registry("export format", "napari_he2st.data.export", group="napari_he2st.exporters")
"""Formats that expression can be written in."""


def exporter(name: str, description: str, *, suffix: str) -> Callable[[F], F]:
    """Register an exporter ``(adata, path, slide, *, options…) -> None``.

    It writes ``path``, a file that does not exist yet, and leaves ``adata`` as it is. ``slide`` is the open
    slide that the spots lie on, or None.

    Parameters
    ----------
    name, description
        What users see.
    suffix
        Usual ending of the file, such as ``".csv"``.
    """
    return EXPORTERS.register(name, description, suffix=suffix)
