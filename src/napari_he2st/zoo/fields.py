"""Reading a TOML or JSON table into a frozen dataclass, with errors that name file and field."""

from __future__ import annotations

import difflib
import types
from collections.abc import Mapping
from dataclasses import MISSING, fields, is_dataclass
from pathlib import Path
from typing import Any, Literal, TypeVar, Union, get_args, get_origin, get_type_hints

from napari_he2st.core.errors import He2stError

T = TypeVar("T")


def read_fields(cls: type[T], table: Mapping[str, Any], *, where: str | Path, error: type[He2stError]) -> T:
    """Build the dataclass ``cls`` from a table whose names and types have to fit.

    Lists become tuples where the field says so, whole numbers pass as floats, nested tables become
    dataclasses.

    Parameters
    ----------
    cls
        The dataclass to build.
    table
        What the file says.
    where
        The file, for messages.
    error
        The error class to raise.

    Raises
    ------
    He2stError
        Of class ``error``: a field is unknown, missing or of the wrong type.
    """
    hints = get_type_hints(cls)
    known = {field.name: field for field in fields(cls) if field.init}  # type: ignore[arg-type]
    for name in table:
        if name not in known:
            near = difflib.get_close_matches(name, known, n=1)
            todo = f"Did you mean {near[0]!r}?" if near else f"Known fields: {', '.join(known)}"
            raise error(f"There is no field {name!r} here", where=where, todo=todo.rstrip("?"))
    missing = [
        name
        for name, field in known.items()
        if name not in table and field.default is MISSING and field.default_factory is MISSING
    ]
    if missing:
        raise error(f"Fields are missing ({', '.join(missing)})", where=where)
    values = {}
    for name, value in table.items():
        try:
            values[name] = _convert(value, hints[name], where, error)
        except TypeError as misfit:
            raise error(f"Field {name!r} {misfit}", where=where) from None
    return cls(**values)


def _convert(value: Any, hint: Any, where: str | Path, error: type[He2stError]) -> Any:
    """``value`` as ``hint`` wants it; TypeError with the rest of a sentence if it does not fit."""
    origin, arguments = get_origin(hint), get_args(hint)
    if hint is Any:
        return value
    if origin in (Union, types.UnionType):
        for option in arguments:
            try:
                return _convert(value, option, where, error)
            except TypeError:
                continue
    elif origin is Literal:
        if value in arguments:
            return value
        message = f"is {value!r}, not one of {', '.join(map(repr, arguments))}"
        raise TypeError(message)
    elif origin is tuple and isinstance(value, list | tuple):
        options = [arguments[0]] * len(value) if arguments[-1] is Ellipsis else list(arguments)
        if len(options) == len(value):
            return tuple(_convert(item, option, where, error) for item, option in zip(value, options, strict=True))
    elif origin is not None and issubclass(origin, Mapping) and isinstance(value, Mapping):
        return {str(key): _convert(item, arguments[1], where, error) for key, item in value.items()}
    elif is_dataclass(hint) and isinstance(value, Mapping):
        return read_fields(hint, value, where=where, error=error)  # type: ignore[arg-type]
    elif hint is float and isinstance(value, int | float) and not isinstance(value, bool):
        return float(value)
    elif isinstance(hint, type) and isinstance(value, hint) and not (hint is int and isinstance(value, bool)):
        return value
    message = f"is {value!r}, not {getattr(hint, '__name__', hint) if origin is None else hint}"
    raise TypeError(message)
