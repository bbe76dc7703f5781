"""What the status bar says of the spot under the cursor: gene, value, unit, kind, domain, spread, trust."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any
from weakref import ref

import numpy as np

from napari_he2st.analysis.novelty import DISTANCE
from napari_he2st.core.geometry import level0_from_world
from napari_he2st.engine.session_items import Result

if TYPE_CHECKING:
    from napari.layers import Layer

    from napari_he2st.engine.session import Session
    from napari_he2st.gui.rasters import Raster


def row_at(result: Result, raster: Raster | None, world: Sequence[float]) -> int | None:
    """Spot of a result at a world position (y, x), micrometres; None beside all spots.

    Parameters
    ----------
    result
        Whose spots are meant.
    raster
        The image in which they are drawn, or None where they are points.
    world
        The position.
    """
    position = np.asarray(world, dtype=np.float64)[-2:]
    if not len(result.grid) or not np.isfinite(position).all():
        return None
    if raster is not None:
        cell = np.rint((position - raster.translate_um) / raster.scale_um).astype(int)
        if (cell < 0).any() or (cell >= raster.shape).any():
            return None
        spot = int(raster.source[cell[0] * raster.shape[1] + cell[1]])
        return spot if spot < len(result.grid) else None
    apart = result.grid.xy - level0_from_world(position, result.grid.mpp)
    squares = np.einsum("ij,ij->i", apart, apart)
    row = int(squares.argmin())
    return row if squares[row] ** 0.5 * result.grid.mpp <= result.grid.spot_um / 2 else None


def describe(session: Session, result: Result, labels: Sequence[str], row: int) -> str:
    """A line about one spot: the values of genes or derived maps, and what else is known of it."""
    said = []
    for label in labels:
        value = float(result.column(label)[row])
        said.append(f"{label} {value:.2f}" if np.isfinite(value) else f"{label} –")
    units = list(dict.fromkeys(result.unit(label) for label in labels))
    parts = [f"{', '.join(said)} {' and '.join(units)} ({result.kind})"]
    if len(labels) == 1 and result.std is not None and labels[0] in result.genes:
        spread = float(result.std[row, result.genes.index(labels[0])])
        if np.isfinite(spread):
            parts[0] += f" ± {spread:.2f}"
    domains = session.domains.get(result.name)
    if domains is not None and row < len(domains.labels) and domains.labels[row] >= 0:
        parts.append(f"domain {domains.titles[domains.labels[row]]}")
    if DISTANCE in result.derived and DISTANCE not in labels and result.derived[DISTANCE].values[row] > 1:
        parts.append("outside training")
    return "    ".join(parts)


def tell_spot(
    layer: Layer, session: Session, drawn: Callable[[], tuple[Result, Raster | None, Sequence[str]] | None]
) -> None:
    """Let a layer tell of its spots in napari's status bar, where it would show bare numbers.

    Parameters
    ----------
    layer
        The layer.
    session
        Knows domains.
    drawn
        Gives what the layer draws now; None leaves it to napari. It is called in a thread of napari's.
    """
    usual, held = layer.get_status, ref(session)

    def status(position: Any = None, **how: Any) -> dict[str, str]:
        now, known = drawn(), held()
        if position is None or now is None or known is None:
            return usual(position, **how)
        result, raster, labels = now
        row = row_at(result, raster, layer.data_to_world(position) if not how.get("world") else position)
        text = "" if row is None else describe(known, result, labels, row)
        return {
            "layer_base": text or result.title,
            "source_type": "",
            "plugin": "",
            "coordinates": "",
            "coords": "",
            "value": text,
        }

    layer.get_status = status
