"""The gene table of 40,000 rows: filter and sort, CPU of the calling thread."""

from __future__ import annotations

import time
from collections.abc import Callable

import numpy as np
import pytest
from qtpy.QtCore import Qt

from napari_he2st.gui.widgets.gene_model import Column
from napari_he2st.gui.widgets.gene_table import GeneTable

N = 40_000
REPEATS = 9


def cpu_ms(call: Callable[[], object]) -> float:
    """CPU time of the calling thread, milliseconds."""
    start = time.thread_time()
    call()
    return (time.thread_time() - start) * 1e3


@pytest.fixture
def table(qtbot) -> GeneTable:
    """Symbols, identifiers and aliases of usual length, six columns."""
    rng = np.random.default_rng(0)
    letters = np.array(list("ABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789"))
    names = np.array(["".join(rng.choice(letters, 6)) + f"{i % 97}" for i in range(N)], dtype=object)
    names = np.array([f"{name}-{i}" for i, name in enumerate(names)], dtype=object)
    also = np.array([f"ENSG{i:011d}" for i in range(N)])
    columns = [Column("gene", names)]
    columns += [Column(title, rng.normal(size=N), "{:.2f}") for title in ("held-out r", "mean", "detected %", "Moran")]
    table = GeneTable()
    qtbot.addWidget(table)
    table.genes.set_columns(columns, also=also)
    table.choose(names[N // 2])
    table.show()
    return table


@pytest.mark.gui
def test_filter(table, figure):
    table.sortByColumn(2, Qt.SortOrder.DescendingOrder)
    slowest = {}
    for text in ("A", "AB", "^E", "ENSG000000012"):
        took = [cpu_ms(lambda step=step: table.genes.set_filter(step)) for step in (text, "") * REPEATS]
        slowest[text] = min(took[0::2])
        slowest[""] = max(min(took[1::2]), slowest.get("", 0.0))
    worst = max(slowest, key=slowest.__getitem__)
    beside = f"slowest: {worst!r}" if worst else "slowest: clearing it"
    figure("window: gene table, filter 40,000 rows", slowest[worst], "ms of CPU", at_most=20, beside=beside)


@pytest.mark.gui
def test_sort(table, figure):
    orders = Qt.SortOrder.AscendingOrder, Qt.SortOrder.DescendingOrder
    first = {}
    for column in (1, 0):
        table.genes.set_columns(table.genes.columns)  # forgets the orders it knows
        first[column] = cpu_ms(lambda column=column: table.sortByColumn(column, orders[0]))
    again = min(cpu_ms(lambda order=order: table.sortByColumn(0, order)) for order in orders * REPEATS)
    beside = f"by name; {first[1]:.1f} by a number, {again:.1f} once the order is known"
    figure("window: gene table, sort 40,000 rows", first[0], "ms of CPU", at_most=20, beside=beside)
