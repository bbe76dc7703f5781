"""Outlines as well-known text, so that each cell keeps its own whatever is taken of a table."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np
from numpy.typing import NDArray

from napari_he2st.core.errors import SchemaError

_BEGIN, _END = "POLYGON ((", "))"


def to_wkt(polygon: NDArray[np.float64]) -> str:
    """Text of a polygon whose corners (x, y), shape (m, 2), do not repeat the first one; two decimals."""
    ring = np.concatenate([polygon, polygon[:1]])
    return _BEGIN + ", ".join(f"{x:.2f} {y:.2f}" for x, y in ring.tolist()) + _END


def from_wkt(text: str) -> NDArray[np.float64]:
    """Corners (x, y), float64 (m, 2), of the text of a polygon without holes; see :func:`corners_of`."""
    return corners_of([text])[0][:-1]


def corners_of(texts: Iterable[str]) -> tuple[NDArray[np.float64], NDArray[np.intp]]:
    """Corners of many polygons without holes.

    Parameters
    ----------
    texts
        One polygon each.

    Returns
    -------
    corners, owner
        (x, y) of one polygon after the other, the first corner of each repeated at its end, (m, 2); and the number of
        the polygon that each belongs to, (m,).

    Raises
    ------
    SchemaError
        One is something else.
    """
    bodies = []
    for text in texts:
        if not (text.startswith(_BEGIN) and text.endswith(_END)):
            raise _no_polygon(text)
        bodies.append(text[len(_BEGIN) : -len(_END)])
    sizes = np.array([body.count(",") + 1 for body in bodies], dtype=np.intp)
    try:
        corners = np.array(" ".join(bodies).replace(",", " ").split(), dtype=np.float64).reshape(-1, 2)
    except ValueError as error:
        raise _no_polygon(error) from error
    if len(corners) != sizes.sum() or not np.isfinite(corners).all():
        raise _no_polygon("a corner is not two numbers")
    return corners, np.repeat(np.arange(len(sizes)), sizes)


def _no_polygon(found: object) -> SchemaError:
    return SchemaError(f"This is no polygon: {str(found)[:40]}", todo='Give it as "POLYGON ((x y, x y, …))"')
