"""Outlines as well-known text, so that each cell keeps its own whatever is taken of a table."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from napari_he2st.core.errors import SchemaError

_BEGIN, _END = "POLYGON ((", "))"


def to_wkt(polygon: NDArray[np.float64]) -> str:
    """Text of a polygon whose corners (x, y), shape (m, 2), do not repeat the first one; two decimals."""
    ring = np.concatenate([polygon, polygon[:1]])
    return _BEGIN + ", ".join(f"{x:.2f} {y:.2f}" for x, y in ring.tolist()) + _END


def from_wkt(text: str) -> NDArray[np.float64]:
    """Corners (x, y), float64 (m, 2), of the text of a polygon without holes.

    Raises
    ------
    SchemaError
        It is something else.
    """
    try:
        if not (text.startswith(_BEGIN) and text.endswith(_END)):
            raise ValueError(text[:40])
        ring = np.array([pair.split() for pair in text[len(_BEGIN) : -len(_END)].split(",")], dtype=np.float64)
        if ring.ndim != 2 or ring.shape[1] != 2 or not np.isfinite(ring).all():
            raise ValueError(text[:40])
    except ValueError as error:
        raise SchemaError(f"This is no polygon: {error}", todo='Give it as "POLYGON ((x y, x y, …))"') from error
    return ring[:-1]
