"""Types that all rooms share."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from napari_he2st.core.types import Domains, Grid

GRID = Grid(
    xy=np.array([[0.0, 0.0], [200.0, 0.0]]),
    pitch_um=100.0,
    lattice="square",
    spot_um=55.0,
    mpp=0.5,
    index=np.array([[0, 0], [0, 1]]),
    shape=(1, 2),
    in_tissue=np.ones(2, dtype=bool),
)


def test_a_spot_stands_for_its_cell_of_the_lattice():
    assert GRID.cell_um2 == 10_000
    assert replace(GRID, lattice="hexagonal").cell_um2 == pytest.approx(8660.25, abs=0.01)
    assert replace(GRID, lattice="irregular").cell_um2 is None


def test_domains_have_names():
    domains = Domains(np.array([1, -1, 0]), {})
    assert domains.titles == ["D1", "D2"]
    assert domains.names_of_spots() == ["D2", "none", "D1"]
    named = replace(domains, names=("Tumour", "Stroma"))
    assert named.names_of_spots() == ["Stroma", "none", "Tumour"]
