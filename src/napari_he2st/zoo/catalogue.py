"""Everything the zoo holds, listed without importing a line of it."""

from __future__ import annotations

import logging
import warnings
from collections.abc import Iterator
from functools import cache
from importlib import import_module
from importlib.metadata import entry_points
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

from napari_he2st.core.errors import BundleError, ModelError, UnknownNameError
from napari_he2st.core.paths import predictors_folder
from napari_he2st.core.registry import Entry, Registry, unknown_name
from napari_he2st.zoo.card import TASKS, Card, read_card
from napari_he2st.zoo.guard import preload
from napari_he2st.zoo.manifest import FILE_NAME, Manifest, read_manifest

if TYPE_CHECKING:
    from napari_he2st.zoo.base import System
    from napari_he2st.zoo.bundle import Bundle

logger = logging.getLogger(__name__)

GROUP = "napari_he2st.models"
"""Entry-point group: each names a package folder that holds pairs of module and card."""

_ZOO = Path(__file__).parent
_BUNDLES = _ZOO.parent / "bundles"


@cache
def cards() -> dict[str, Card]:
    """Every system's card by its slug, ours first, in alphabetical order.

    Raises
    ------
    ModelError
        One of our cards is broken. A broken card of another package is left out with a warning.
    """
    found: dict[str, Card] = {}
    for task in TASKS:
        for path in (_ZOO / task).glob("*.toml"):
            card = read_card(path, f"{__package__}.{task}")
            if card.tasks[0] != task:
                message = f"The first task is {card.tasks[0]!r}, but the card lies in {task!r}"
                raise ModelError(message, where=path, todo="Move the pair or reorder its tasks")
            found[card.slug] = card
    found = dict(sorted(found.items()))
    for path, package in _foreign():
        try:
            card = read_card(path, package)
            if card.slug in found:
                raise ModelError(f"A system named {card.slug!r} exists already", where=path)
        except ModelError as error:
            warnings.warn(str(error), stacklevel=2)
            continue
        found[card.slug] = card
    return found


def _foreign() -> Iterator[tuple[Path, str]]:
    """Cards of other packages with the package each lies in, found without importing any of them."""
    for point in entry_points(group=GROUP):
        root, *inner = point.value.split(".")
        spec = find_spec(root)
        for location in (spec.submodule_search_locations or []) if spec is not None else []:
            for path in sorted(Path(location, *inner).glob("*.toml")):
                yield path, point.value


def bundles() -> dict[str, Path]:
    """Folders of the trained predictors, by name: those that the user trained, and those that ship with the package."""
    found = [*sorted(predictors_folder().glob(f"*/{FILE_NAME}")), *sorted(_BUNDLES.glob(f"*/{FILE_NAME}"))]
    return {path.parent.name: path.parent for path in found}


def models(task: str | None = None) -> list[dict[str, Any]]:
    """What can be used: trained bundles first, then systems to train; JSON-able.

    Parameters
    ----------
    task
        Keep only what has this task (see :data:`~napari_he2st.zoo.card.TASKS`).

    Returns
    -------
    list of dict
        Keys of each: ``slug``, ``kind`` (``"bundle"``, ``"system"`` or ``"generic"``), ``title``, ``tasks``, ``year``,
        ``status``, ``inputs``, ``output``, ``licence``, ``weights`` (``"included"``, ``"none"``, or how the
        published ones are gated), ``organs``, ``species``, ``genes`` (their number, None before training),
        ``system``, ``reason``, ``fitted``, ``variants`` (their names).

    Raises
    ------
    UnknownNameError
        There is no such task.
    """
    if task is not None and task not in TASKS:
        raise unknown_name("task", task, list(TASKS))
    rows = []
    for name, folder in bundles().items():
        try:
            rows.append(bundle_row(name, read_manifest(folder)))
        except BundleError as error:
            logger.warning("Not listed: %s", error)
    rows += [_system_row(card) for card in cards().values()]
    rows += [_generic_row(entry, kind) for kind, registry in _generic().items() for entry in registry]
    return [row for row in rows if task is None or task in row["tasks"]]


def _generic() -> dict[str, Registry]:
    """Methods that are nobody's publication, by task."""
    from napari_he2st.analysis.alignment import ALIGNMENT_METHODS
    from napari_he2st.analysis.domains import DOMAIN_METHODS

    return {"domains": DOMAIN_METHODS, "alignment": ALIGNMENT_METHODS}


def _generic_row(entry: Entry, task: str) -> dict[str, Any]:
    blank = dict.fromkeys(("year", "genes", "scale", "system"))
    text = {"status": "generic", "licence": "", "weights": "none", "inputs": "see description", "reason": ""}
    lists: dict[str, list[str]] = {"organs": [], "species": []}
    about = {"slug": entry.name, "kind": "generic", "title": entry.description, "tasks": [task], "output": TASKS[task]}
    return {**about, **blank, **text, **lists}


def _system_row(card: Card) -> dict[str, Any]:
    gating = sorted({weights.gating for weights in card.weights})
    return {
        "slug": card.slug,
        "kind": "system",
        "title": card.title,
        "tasks": list(card.tasks),
        "year": card.year,
        "status": card.status,
        "inputs": card.inputs,
        "output": card.output,
        "licence": card.code_licence,
        "weights": ", ".join(gating) or "none",
        "organs": list(card.organs),
        "species": list(card.species),
        "genes": None,
        "scale": None,
        "system": card.slug,
        "reason": card.reason,
        "fitted": card.fitted,
        "variants": list(card.variants),
    }


def bundle_row(name: str, manifest: Manifest) -> dict[str, Any]:
    """A trained predictor's row in :func:`models`."""
    row = _system_row(card_of(manifest.system))
    row.update(
        slug=name,
        kind="bundle",
        title=manifest.title,
        licence=manifest.licence,
        weights="included",
        organs=list(manifest.organs),
        species=list(manifest.species),
        genes=len(manifest.genes),
        scale=manifest.scale,
        year=int(manifest.created[:4]),
    )
    return row


def card_of(slug: str) -> Card:
    """The card of one system; raises :class:`~napari_he2st.core.errors.UnknownNameError` with near matches."""
    known = cards()
    name = slug.replace("_", "-")
    if name not in known:
        raise unknown_name("system", slug, list(known))
    return known[name]


def variant_arguments(slug: str, variant: str | None) -> dict[str, Any]:
    """Constructor arguments of one of a system's variants; none for None.

    Raises
    ------
    UnknownNameError
        There is no such system or variant.
    """
    if variant is None:
        return {}
    variants = card_of(slug).variants
    if variant not in variants:
        raise unknown_name("variant", variant, list(variants))
    return dict(variants[variant])


def system(slug: str) -> type[System]:
    """The class of a system; imports its module and no other system's.

    Raises
    ------
    UnknownNameError
        There is no such system.
    ModelError
        It is unavailable, or its module does not define exactly one system.
    """
    card = card_of(slug)
    if card.status == "unavailable":
        raise ModelError(f"{card.title} cannot be used: {card.reason}", where=card.slug)
    preload()
    from napari_he2st.zoo.base import System

    module = import_module(card.module)
    classes = [
        value
        for name, value in vars(module).items()
        if isinstance(value, type)
        and issubclass(value, System)
        and value.__module__ == module.__name__
        and not name.startswith("_")
    ]
    if len(classes) != 1:
        names = ", ".join(cls.__name__ for cls in classes) or "none"
        raise ModelError(f"A module defines one public system, this one {names}", where=card.module)
    return classes[0]


def load(name_or_path: str | Path) -> Bundle:
    """Load a trained predictor by the name it ships under, or from a bundle's folder.

    Raises
    ------
    UnknownNameError
        There is neither a bundle of that name nor a folder.
    BundleError, WeightsError
        The bundle is incomplete, damaged or does not fit its system.
    """
    preload()
    from napari_he2st.zoo.bundle import Bundle

    name = str(name_or_path)
    shipped = bundles()
    if name in shipped:
        return Bundle.load(shipped[name])
    if Path(name).is_dir():
        return Bundle.load(name)
    if name in cards():
        message = f"{name!r} is a system, not a trained predictor"
        raise UnknownNameError(message, todo=f"Train it first (he2st train {name} --data SECTION -o FOLDER)")
    raise unknown_name("trained predictor", name, list(shipped))
