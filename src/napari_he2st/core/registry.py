"""One registry class for readers, metrics, domain methods and exporters."""

from __future__ import annotations

import difflib
import inspect
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from importlib import import_module
from importlib.metadata import entry_points
from pkgutil import iter_modules
from types import SimpleNamespace
from typing import Any, Generic, TypeVar, get_type_hints

from napari_he2st.core.errors import UnknownNameError

F = TypeVar("F", bound=Callable[..., Any])


@dataclass(frozen=True)
class Entry(Generic[F]):
    """A registered function and what is said of it.

    Attributes
    ----------
    name
        What users type and see.
    function
        The decorated function itself.
    description
        One line for lists and tooltips.
    facts
        What else the registry's kind declares, such as ``better="higher"``.
    """

    name: str
    function: F
    description: str
    facts: dict[str, Any] = field(default_factory=dict)

    @property
    def options(self) -> dict[str, inspect.Parameter]:
        """Keyword-only arguments with a default: they become form fields and ``--option k=v``."""
        options = {
            name: parameter
            for name, parameter in inspect.signature(self.function).parameters.items()
            if parameter.kind is parameter.KEYWORD_ONLY and parameter.default is not parameter.empty
        }
        # Only these annotations are evaluated: those of the data may name types that are imported for checking alone.
        texts = SimpleNamespace(__annotations__={name: parameter.annotation for name, parameter in options.items()})
        types = get_type_hints(texts, self.function.__globals__, include_extras=True)
        return {name: parameter.replace(annotation=types[name]) for name, parameter in options.items()}


class Registry(Generic[F]):
    """Named functions of one kind, found by importing the modules of one package.

    Parameters
    ----------
    kind
        The word used in messages, such as ``"metric"``.
    package
        The package whose modules register themselves when imported.
    group
        Entry-point group through which other packages add theirs.
    """

    def __init__(self, kind: str, package: str, group: str | None = None) -> None:
        self.kind, self._package, self._group = kind, package, group
        self._entries: dict[str, Entry[F]] = {}
        self._loaded, self._loading = False, threading.RLock()

    def register(self, name: str, description: str, **facts: Any) -> Callable[[F], F]:
        """Register the decorated function under ``name``; a name taken twice is an error."""

        def decorate(function: F) -> F:
            if name in self._entries:
                message = f"{self.kind} {name!r} is registered twice"
                raise ValueError(message)
            self._entries[name] = Entry(name, function, description, facts)
            return function

        return decorate

    def _load(self) -> None:
        with self._loading:  # no other thread may find it half loaded
            if self._loaded:
                return
            self._loaded = True
            package = import_module(self._package)
            for module in sorted(iter_modules(package.__path__), key=lambda m: m.name):
                import_module(f"{self._package}.{module.name}")
            if self._group is not None:
                for point in entry_points(group=self._group):
                    point.load()

    def __iter__(self) -> Iterator[Entry[F]]:
        self._load()
        return iter(self._entries.values())

    def names(self) -> list[str]:
        """Registered names, in order of registration."""
        return [entry.name for entry in self]

    def __getitem__(self, name: str) -> Entry[F]:
        self._load()
        if name not in self._entries:
            raise unknown_name(self.kind, name, self.names())
        return self._entries[name]


def unknown_name(kind: str, name: str, known: list[str]) -> UnknownNameError:
    """The error for a name that is not among ``known``, with near matches."""
    near = difflib.get_close_matches(name.lower(), known, n=3, cutoff=0.5)
    hint = f"Did you mean {' or '.join(near)}?" if near else f"Known: {', '.join(known)}"
    return UnknownNameError(f"There is no {kind} named {name!r}", todo=hint.rstrip(".?"))
