"""Domain methods and aligners, generic and published, in one list: what there is and which options each has."""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal, get_type_hints

from napari_he2st.analysis.alignment import ALIGNMENT_METHODS
from napari_he2st.analysis.domains import DOMAIN_METHODS
from napari_he2st.core.registry import Entry, unknown_name
from napari_he2st.zoo import catalogue

if TYPE_CHECKING:
    from napari_he2st.zoo.base import Fitted
    from napari_he2st.zoo.card import Card

Task = Literal["domains", "alignment"]

_NOT_OPTIONS = ("n_domains", "seed")


@dataclass(frozen=True)
class Method:
    """One way to find domains or to align sections.

    Attributes
    ----------
    name
        What users type and see.
    title
        One line for lists and tooltips.
    entry
        The registered function of a generic method, else None.
    card
        The card of a published one, else None.
    """

    name: str
    title: str
    entry: Entry | None = None
    card: Card | None = None

    @property
    def system(self) -> type[Fitted]:
        """The class of a published method; this imports its code."""
        return catalogue.system(self.name)  # type: ignore[return-value]

    @property
    def options(self) -> dict[str, inspect.Parameter]:
        """Its options; of a published method, this imports its code."""
        if self.entry is not None:
            return {name: option for name, option in self.entry.options.items() if name not in _NOT_OPTIONS}
        types = get_type_hints(self.system.__init__)
        parameters = inspect.signature(self.system).parameters
        return {name: parameter.replace(annotation=types.get(name, Any)) for name, parameter in parameters.items()}

    @property
    def doc(self) -> str | None:
        """The docstring that describes the options."""
        return inspect.getdoc(self.system) if self.entry is None else inspect.getdoc(self.entry.function)

    @property
    def variants(self) -> Mapping[str, Mapping[str, Any]]:
        """Named settings of a published method; a generic one has none."""
        return {} if self.card is None else self.card.variants

    def check(self, options: Mapping[str, Any]) -> None:
        """Refuse options that it does not have; raises :class:`~napari_he2st.core.errors.UnknownNameError`."""
        known = self.options
        for name in options:
            if name not in known:
                raise unknown_name(f"option of {self.name}", name, list(known))

    def build(self, options: Mapping[str, Any], variant: str = "default") -> Fitted:
        """A published method with its options; those that are given go before those of the variant."""
        self.check(options)
        if variant not in self.variants:
            raise unknown_name(f"variant of {self.name}", variant, list(self.variants))
        return self.system(**{**self.variants[variant], **options})


def methods(task: Task) -> dict[str, Method]:
    """Every method of a task by its name: generic ones first. No published method's code is imported."""
    registry = DOMAIN_METHODS if task == "domains" else ALIGNMENT_METHODS
    found = {entry.name: Method(entry.name, entry.description, entry=entry) for entry in registry}
    for card in catalogue.cards().values():
        # A system of another kind has a variant of the task's name where its class does this too.
        own = card.tasks[0] in ("domains", "alignment") or task in card.variants
        if task in card.tasks and own and card.status != "unavailable":
            where = f"{card.venue} {card.year}".strip()
            found[card.slug] = Method(card.slug, f"{card.title} ({where}): {card.inputs}", card=card)
    return found


def method(task: Task, name: str) -> Method:
    """One method; raises :class:`~napari_he2st.core.errors.UnknownNameError` with near matches."""
    known = methods(task)
    if name not in known:
        raise unknown_name("domain method" if task == "domains" else "alignment method", name, list(known))
    return known[name]
