"""A form made from the keyword options of a registered function."""

from __future__ import annotations

import inspect
import types
from collections.abc import Mapping
from typing import Any, Union, get_args, get_origin

from docstring_parser import parse
from magicgui.widgets import LineEdit, create_widget
from magicgui.widgets.bases import ValueWidget
from qtpy.QtCore import Signal
from qtpy.QtWidgets import QFormLayout, QWidget

from napari_he2st.core.errors import He2stError

_WIDE = {"min": -1_000_000_000, "max": 1_000_000_000}


class OptionsForm(QWidget):
    """One field per option; where ``None`` is allowed an empty line stands for it and reads *automatic*.

    Attributes
    ----------
    changed
        Signal: a field holds something else.
    """

    changed = Signal()

    def __init__(self, parent: QWidget | None = None) -> None:
        super().__init__(parent)
        self._layout = QFormLayout(self)
        self._layout.setContentsMargins(0, 0, 0, 0)
        self._layout.setFieldGrowthPolicy(QFormLayout.FieldGrowthPolicy.AllNonFixedFieldsGrow)
        self._fields: dict[str, tuple[ValueWidget, inspect.Parameter]] = {}

    def show_options(self, options: Mapping[str, inspect.Parameter], doc: str | None = None) -> None:
        """Replace the fields by those of ``options``; tooltips come from the docstring ``doc``."""
        while self._layout.rowCount():
            self._layout.removeRow(0)
        self._fields = {}
        tips = _tips(doc)
        for name, parameter in options.items():
            field = _field(name, parameter)
            field.native.setToolTip(tips.get(name, ""))
            self._layout.addRow(name.replace("_", " "), field.native)
            self._layout.labelForField(field.native).setToolTip(tips.get(name, ""))
            field.changed.connect(lambda *_: self.changed.emit())
            self._fields[name] = (field, parameter)

    @property
    def names(self) -> list[str]:
        """Names of the options."""
        return list(self._fields)

    def tooltip(self, name: str) -> str:
        """What is said of an option."""
        return str(self._fields[name][0].native.toolTip())

    def values(self) -> dict[str, Any]:
        """What the fields hold, by option.

        Raises
        ------
        He2stError
            A line holds something that is not a number.
        """
        return {name: _value(field, parameter) for name, (field, parameter) in self._fields.items()}

    def set_values(self, **values: Any) -> None:
        """Fill fields in."""
        for name, value in values.items():
            self._fields[name][0].value = value


def has_field(parameter: inspect.Parameter) -> bool:
    """Whether an option fits into a form: numbers, texts, switches and choices do, lists do not."""
    kind = get_origin(parameter.annotation) or parameter.annotation
    return kind not in (tuple, list, dict) and not isinstance(parameter.default, tuple | list | dict)


def _is_optional(annotation: Any) -> bool:
    return get_origin(annotation) in (Union, types.UnionType) and type(None) in get_args(annotation)


def _line_kind(annotation: Any) -> type | None:
    """What a line of text is read as: for ``X | None``, and for floats, since a spin box would round them."""
    kinds = get_args(annotation) if _is_optional(annotation) else (annotation,) if annotation is float else ()
    return next((kind for kind in (str, int, float) if kind in kinds), None)


def _field(name: str, parameter: inspect.Parameter) -> ValueWidget:
    if _line_kind(parameter.annotation) is not None:
        line = LineEdit(name=name, value="" if parameter.default is None else str(parameter.default))
        if _is_optional(parameter.annotation):
            line.native.setPlaceholderText("automatic")
        return line
    annotation = str if parameter.annotation is parameter.empty else parameter.annotation
    return create_widget(
        name=name, value=parameter.default, annotation=annotation, options=_WIDE if annotation is int else {}
    )


def _value(field: ValueWidget, parameter: inspect.Parameter) -> Any:
    kind = _line_kind(parameter.annotation)
    if kind is None:
        return field.value
    text = str(field.value).strip()
    if not text and _is_optional(parameter.annotation):
        return None
    try:
        return kind(text)
    except ValueError:
        raise He2stError(f"{text!r} is not a number", where=field.name, todo="Correct it") from None


def _tips(doc: str | None) -> dict[str, str]:
    params = parse(doc).params if doc else []
    return {name.strip(): p.description or "" for p in params for name in p.arg_name.split(",")}
