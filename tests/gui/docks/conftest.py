"""Docks beside a viewer with a predicted and a measured result."""

from __future__ import annotations

import numpy as np
import pytest

from napari_he2st.gui.workspace import session_of

GENES = ["ERBB2", "GAPDH", "MT-CO1"]
SCORES = np.array([0.6, 0.05, np.nan], dtype=np.float32)


@pytest.fixture
def viewer(make_napari_viewer_proxy):
    return make_napari_viewer_proxy()


@pytest.fixture
def session(viewer):
    return session_of(viewer)


@pytest.fixture
def fill(session, slide, square_grid, scattered_grid, measured):
    """Put a predicted result without its AnnData (``run``) and a measured one (``spots``) on the slide."""

    def fill() -> None:
        session.add_slide(slide)
        grid = square_grid()
        predicted = session.begin_result("run", slide.name, grid, GENES, scale="log1p_cp10k", scores=SCORES)
        predicted.values[:] = np.random.default_rng(1).gamma(2, size=(len(grid), 3))
        session.finish("run", None)
        spots = scattered_grid()
        values = np.random.default_rng(2).poisson(1, size=(len(spots), 3))
        session.add_adata(measured(spots, values, GENES), slide.name)

    return fill


@pytest.fixture
def open_dock(viewer, qtbot):
    """Open a dock class; at the end of a test its work is waited for."""
    made = []

    def open_dock(cls):
        dock = cls(viewer)
        viewer.window.add_dock_widget(dock, name=cls.__name__, area="right")
        made.append(dock)
        return dock

    yield open_dock
    for dock in made:
        qtbot.waitUntil(lambda dock=dock: not dock.status.bar.isVisibleTo(dock.status), timeout=20_000)
