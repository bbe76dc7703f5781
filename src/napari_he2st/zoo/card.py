"""What is known of a system before any of its code is imported: its card, a TOML file beside it."""

from __future__ import annotations

import tomllib
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from napari_he2st.core.errors import ModelError
from napari_he2st.zoo.fields import read_fields

TASKS: Mapping[str, str] = {
    "regression": "expression of spots, by regression",
    "retrieval": "expression of spots, by similar reference spots",
    "generation": "expression of spots, drawn from a generative model",
    "superres": "expression below the size of a spot",
    "imputation": "expression of sections beside measured ones",
    "cells": "expression or types of single cells",
    "slide_level": "expression, mutations or subtypes of a whole slide",
    "domains": "tissue domains",
    "alignment": "registration of sections",
}
"""Task → what a system of that task gives. A system lives in the folder of its first task."""

Status = Literal["reproduced", "ported", "described", "unavailable", "baseline"]


@dataclass(frozen=True, kw_only=True)
class Weights:
    """Published weights of a system.

    Attributes
    ----------
    address
        Where their authors offer them.
    licence
        Of the weights.
    gating
        ``"open"``, or what one has to do to get them (``"request"``, ``"account"``).
    sha256
        Of the file, where known.
    """

    address: str
    licence: str
    gating: str
    sha256: str | None = None


@dataclass(frozen=True, kw_only=True)
class Card:
    """The facts about a system.

    Attributes
    ----------
    slug
        Its name: the name of its file, with hyphens for underscores.
    module
        Where its class lives.
    title, year, venue, paper, code, code_licence
        Of the publication; a baseline may have none.
    commercial_use
        Whether the original code and weights permit it.
    weights
        Published weights.
    tasks
        The first one is the folder it lives in.
    inputs, output
        In words and units.
    organs, species
        What published weights were trained on.
    status
        ``"reproduced"`` (parity and learning shown), ``"ported"`` (parity shown), ``"described"`` (built
        from the paper, no public code), ``"unavailable"``, or ``"baseline"``.
    reason
        Why it is unavailable, or what to know of the port.
    fitted
        ``"cohort"``, or ``"slide"`` where it is trained on the slide it predicts.
    variants
        Name → constructor arguments.
    half
        Half precision in which its predictions stay the same to about 1 %, used on graphics cards; empty for float32.
    """

    slug: str
    module: str
    title: str
    tasks: tuple[str, ...]
    inputs: str
    output: str
    status: Status
    commercial_use: Literal["yes", "no", "unclear"]
    year: int | None = None
    venue: str = ""
    paper: str = ""
    code: str = ""
    code_licence: str = ""
    weights: tuple[Weights, ...] = ()
    organs: tuple[str, ...] = ()
    species: tuple[str, ...] = ()
    reason: str = ""
    fitted: Literal["cohort", "slide"] = "cohort"
    variants: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    half: Literal["", "float16", "bfloat16"] = ""


_PUBLICATION = ("year", "venue", "paper", "code", "code_licence")


def slug_of(path: Path) -> str:
    """The name of the system whose card or module ``path`` is."""
    return path.stem.replace("_", "-")


def read_card(path: Path, package: str) -> Card:
    """Read one card.

    Parameters
    ----------
    path
        The TOML file.
    package
        Dotted name of the package that holds its module.

    Raises
    ------
    ModelError
        The file is no TOML, a field is unknown, missing or wrong, or a task is not one of :data:`TASKS`.
    """
    try:
        table = tomllib.loads(path.read_text(encoding="utf-8"))
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise ModelError(f"The card is not readable TOML ({error})", where=path) from error
    given = {"slug": slug_of(path), "module": f"{package}.{path.stem}"}
    for name in given.keys() & table.keys():
        raise ModelError(f"Field {name!r} comes from the file's name", where=path, todo="Leave it out")
    card = read_fields(Card, {**table, **given}, where=path, error=ModelError)
    if card.status not in ("baseline", "unavailable"):
        absent = [name for name in _PUBLICATION if name not in table]
        if absent:
            raise ModelError(f"Fields are missing ({', '.join(absent)})", where=path)
    if card.status == "unavailable" and not card.reason:
        raise ModelError("An unavailable system needs a reason", where=path, todo="Fill the field 'reason'")
    unknown = [task for task in card.tasks if task not in TASKS]
    if unknown or not card.tasks:
        known = ", ".join(TASKS)
        raise ModelError(f"Tasks {list(card.tasks)} are not among the known ones ({known})", where=path)
    return card
