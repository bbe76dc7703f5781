"""What a reader of measured expression returns, and the registry of readers."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from napari_he2st.core.registry import Registry

if TYPE_CHECKING:
    from anndata import AnnData

F = TypeVar("F", bound=Callable[..., Any])


@dataclass(frozen=True)
class Detection:
    """What a folder or file holds, told by its names alone.

    Attributes
    ----------
    layout
        Name of the reader.
    root
        Folder or file from which the reader starts; may lie above or below what the user named.
    sections
        Names of the sections that can be read; empty when a part that is needed is missing.
    found, missing
        What was found and what was looked for in vain, in words.
    default
        The section to read when none of several is named, or None: then the user has to choose.
    """

    layout: str
    root: Path
    sections: list[str]
    found: list[str] = field(default_factory=list)
    missing: list[str] = field(default_factory=list)
    default: str | None = None


@dataclass(frozen=True)
class Section:
    """One measured section.

    Attributes
    ----------
    name
        Name of the section.
    adata
        Expression, see :mod:`napari_he2st.core.schema`.
    slide_path
        Image that ``obsm["spatial"]`` refers to, or None where there is none.
    layout
        Name of the reader.
    patient
        Whom the section is from, where the layout says so.
    found, missing
        What was read, what was left out and what was looked for in vain, in words.
    warnings
        What does not fit together, such as barcodes of another slide; part of the message of the fit check.
    root
        The folder or file it was read from, or None.
    """

    name: str
    adata: AnnData
    slide_path: Path | None
    layout: str
    patient: str | None = None
    found: list[str] = field(default_factory=list)
    missing: list[str] = field(default_factory=list)
    warnings: list[str] = field(default_factory=list)
    root: Path | None = None


@dataclass(frozen=True)
class Source:
    """What the user says of a section beside its files.

    Attributes
    ----------
    mpp
        Micrometres per pixel of the image, or None to take it from the files.
    image
        Image that the section lies on, or None to take the one of the layout.
    image_scale
        Pixels of ``image`` per pixel of the layout's own positions, or None where the files tell it.
    stand_in
        Whether one of the vendor's small pictures may take the place of an image that is not there: good to
        look at, too coarse to predict from.
    genes
        Symbols or identifiers of the only genes to read, which keeps large sets small; None reads all.
    """

    mpp: float | None = None
    image: Path | None = None
    image_scale: float | None = None
    stand_in: bool = False
    genes: frozenset[str] | None = None


TRUTH_READERS: Registry = Registry("layout", "napari_he2st.data.truth", group="napari_he2st.truth_readers")
"""Layouts of measured expression."""


def truth_reader(
    name: str, description: str, *, looks_for: str, detect: Callable[[Path], Detection | None], order: int = 50
) -> Callable[[F], F]:
    """Register a reader ``(detection, name, source) -> Section``.

    Parameters
    ----------
    name, description
        What users see.
    looks_for
        Names of the files by which the layout is recognised, for messages.
    detect
        Says what a path holds, or None if it holds nothing of this layout. Looks at names only.
    order
        Readers are asked in this order: the more particular layout first.
    """
    return TRUTH_READERS.register(name, description, looks_for=looks_for, detect=detect, order=order)
