"""Resolve the inputs that a system declares: one resolver per kind, behind :class:`Supply`."""

from napari_he2st.engine.inputs.supply import Supply
from napari_he2st.engine.inputs.tiles import lattice_rows

__all__ = ["Supply", "lattice_rows"]
