"""A table of genes (or of anything named) that filters and sorts 40,000 rows between two key strokes.

Qt's own ``QSortFilterProxyModel`` takes seconds at that size, since it asks Python for every cell. Here
the model keeps whole columns as arrays and shows them through one index array.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray
from qtpy.QtCore import QAbstractTableModel, QModelIndex, QPersistentModelIndex, Qt
from qtpy.QtGui import QColor
from qtpy.QtWidgets import QWidget

STAR = "★ "
"""Before the names of favourites."""

DOUBT = " ⚠"
"""After the names of rows whose values deserve little trust."""

Index: TypeAlias = QModelIndex | QPersistentModelIndex


@dataclass(frozen=True)
class Column:
    """One column.

    Attributes
    ----------
    title
        What stands in the header.
    values
        One value per row: str, int or float (NaN is shown as a dash and sorted last).
    text
        Format of a value, such as ``"{:.2f}"``.
    tooltip
        What the column means and in which unit.
    """

    title: str
    values: NDArray[Any]
    text: str = "{}"
    tooltip: str = ""


class GeneTableModel(QAbstractTableModel):
    """Columns of equal length; the first holds the names, which are unique."""

    def __init__(self, parent: QWidget | None = None) -> None:
        super().__init__(parent)
        self._columns: list[Column] = []
        self._upper = np.empty(0, dtype="U1")
        self._searched = np.empty(0, dtype="U1")
        self._subset: frozenset[str] | None = None
        self._starred: frozenset[str] = frozenset()
        self._doubt = np.empty(0, dtype=bool)
        self._doubt_tip = ""
        self._orders: dict[int, NDArray[np.intp]] = {}
        self._kept: NDArray[np.bool_] = np.empty(0, dtype=bool)
        self._row_of: dict[str, int] = {}
        self._shown = np.empty(0, dtype=np.intp)
        self._sort: tuple[int, Qt.SortOrder] | None = None
        self._text = ""

    def set_columns(
        self,
        columns: Sequence[Column],
        *,
        doubt: NDArray[np.bool_] | None = None,
        doubt_tip: str = "",
        also: NDArray[Any] | None = None,
    ) -> None:
        """Replace the content; filter and sort order stay.

        Parameters
        ----------
        columns
            The first one holds the names.
        doubt
            Rows that are greyed, since their values deserve little trust.
        doubt_tip
            Tooltip of these rows.
        also
            Other names by which a row is found, such as identifiers and aliases: text, shape (rows,), several of them
            separated by spaces.
        """
        self.beginResetModel()
        self._columns, self._orders = list(columns), {}
        names = self._names()
        self._upper = np.strings.upper(names.astype(str)) if len(names) else np.empty(0, dtype="U1")
        self._searched = self._upper if also is None else _joined(self._upper, also)
        self._row_of = {name: row for row, name in enumerate(names.tolist())}
        self._doubt = np.zeros(len(names), dtype=bool) if doubt is None else np.asarray(doubt, dtype=bool)
        self._doubt_tip = doubt_tip
        self._keep()
        self.endResetModel()

    @property
    def columns(self) -> Sequence[Column]:
        """What is shown, whatever its order."""
        return tuple(self._columns)

    def set_filter(self, text: str) -> None:
        """Show the rows whose name contains ``text``; ``^`` asks for its beginning, commas for any of several."""
        if text == self._text:
            return
        self.beginResetModel()
        self._text = text
        self._keep()
        self.endResetModel()

    def set_subset(self, names: Collection[str] | None) -> None:
        """Show these rows alone, and of them those that pass the filter; None shows all."""
        self.beginResetModel()
        self._subset = None if names is None else frozenset(names)
        self._keep()
        self.endResetModel()

    def set_starred(self, names: Collection[str]) -> None:
        """Put a star before these names."""
        if self._starred == frozenset(names):
            return
        self._starred = frozenset(names)
        if len(self._shown) and self._columns:
            self.dataChanged.emit(self.index(0, 0), self.index(len(self._shown) - 1, 0))

    def sort(self, column: int, order: Qt.SortOrder = Qt.SortOrder.AscendingOrder) -> None:
        """Sort by a column; values that are not numbers stay at the end. −1 keeps the given order."""
        self.beginResetModel()
        self._sort = (column, order) if column >= 0 else None
        self._arrange()
        self.endResetModel()

    def names(self) -> list[str]:
        """Names in the order in which they are shown."""
        return list(map(str, self._names()[self._shown]))

    def name_at(self, row: int) -> str | None:
        """Name shown in a row, or None beyond the end."""
        return str(self._names()[self._shown[row]]) if 0 <= row < len(self._shown) else None

    def row_of(self, name: str | None) -> int | None:
        """Row in which a name is shown, or None if it is filtered out or unknown."""
        source = self._row_of.get(name) if name is not None else None
        if source is None or not self._kept[source]:
            return None
        return int(np.flatnonzero(self._shown == source)[0])

    def _names(self) -> NDArray[Any]:
        return self._columns[0].values if self._columns else np.empty(0, dtype=object)

    def _keep(self) -> None:
        """Find the rows that pass subset and filter, and bring them into order."""
        self._kept = _matches(self._searched, self._text)
        if self._subset is not None:
            inside = np.zeros(len(self._kept), dtype=bool)
            inside[[self._row_of[name] for name in self._subset if name in self._row_of]] = True
            self._kept &= inside
        self._arrange()

    def _arrange(self) -> None:
        if self._sort is None or self._sort[0] >= len(self._columns):
            self._shown = np.flatnonzero(self._kept)
            return
        column, order = self._sort
        if column not in self._orders:
            self._orders[column] = _ascending(self._upper if column == 0 else self._columns[column].values)
        rows = self._orders[column]
        if order == Qt.SortOrder.DescendingOrder:
            known = len(rows) - _n_unknown(self._columns[column].values)
            rows = np.concatenate([rows[:known][::-1], rows[known:]])
        self._shown = rows[self._kept[rows]]

    # --- what Qt asks

    def rowCount(self, parent: Index = QModelIndex()) -> int:  # noqa: B008 - Qt's own default
        """Rows that pass the filter."""
        return 0 if parent.isValid() else len(self._shown)

    def columnCount(self, parent: Index = QModelIndex()) -> int:  # noqa: B008
        """Columns."""
        return 0 if parent.isValid() else len(self._columns)

    def data(self, index: Index, role: int = Qt.ItemDataRole.DisplayRole) -> Any:
        """Text, alignment, colour and tooltip of a cell."""
        if not index.isValid():
            return None
        source, column = self._shown[index.row()], self._columns[index.column()]
        if role == Qt.ItemDataRole.DisplayRole:
            value = column.values[source]
            if index.column() == 0:
                before, after = STAR if value in self._starred else "", DOUBT if self._doubt[source] else ""
                return f"{before}{value}{after}"
            return "–" if isinstance(value, float | np.floating) and np.isnan(value) else column.text.format(value)
        if role == Qt.ItemDataRole.TextAlignmentRole and index.column() > 0:
            return int(Qt.AlignmentFlag.AlignRight | Qt.AlignmentFlag.AlignVCenter)
        if self._doubt[source]:
            if role == Qt.ItemDataRole.ForegroundRole:
                return QColor(128, 128, 128)  # readable on napari's dark and light background
            if role == Qt.ItemDataRole.ToolTipRole:
                return self._doubt_tip
        return None

    def headerData(
        self, section: int, orientation: Qt.Orientation, role: int = Qt.ItemDataRole.DisplayRole
    ) -> str | None:
        """Title and tooltip of a column."""
        if orientation != Qt.Orientation.Horizontal or not 0 <= section < len(self._columns):
            return None
        if role == Qt.ItemDataRole.DisplayRole:
            return self._columns[section].title
        return self._columns[section].tooltip if role == Qt.ItemDataRole.ToolTipRole else None


def _joined(upper: NDArray[Any], also: NDArray[Any]) -> NDArray[Any]:
    """Names with their other names, separated by spaces, in upper case."""
    return np.strings.add(np.strings.add(upper, " "), np.strings.upper(also.astype(str)))


def _matches(searched: NDArray[Any], text: str) -> NDArray[np.bool_]:
    terms = [term for term in text.upper().replace(",", " ").replace(";", " ").split() if term != "^"]
    if not terms:
        return np.ones(len(searched), dtype=bool)
    kept = np.zeros(len(searched), dtype=bool)
    for term in terms:
        if term[0] == "^":
            kept |= np.strings.startswith(searched, term[1:]) | (np.strings.find(searched, f" {term[1:]}") >= 0)
        else:
            kept |= np.strings.find(searched, term) >= 0
    return kept


def _ascending(values: NDArray[Any]) -> NDArray[np.intp]:
    return np.argsort(values.astype(str) if values.dtype == object else values, kind="stable")


def _n_unknown(values: NDArray[Any]) -> int:
    return int(np.isnan(values).sum()) if np.issubdtype(values.dtype, np.floating) else 0
