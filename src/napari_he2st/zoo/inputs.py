"""Kinds of input that a system can ask for; each has one resolver in :mod:`napari_he2st.engine.inputs`.

Sizes are in the tile's own pixels at ``mpp`` micrometres per pixel. ``mpp=None`` is the pixel size the
bundle was trained at; ``"native"`` is the slide's own.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from napari_he2st.zoo.base import Input, Per

Mpp = float | Literal["native"] | None


@dataclass(frozen=True, kw_only=True)
class Tiles(Input):
    """Square tile around each spot: uint8 (n, 3, px, px), RGB, not normalised."""

    px: int = 224
    mpp: Mpp = None


@dataclass(frozen=True, kw_only=True)
class Features(Input):
    """Encoder features of the tile around each spot: float32 (n, dim).

    Attributes
    ----------
    encoder
        Name of an encoder of :mod:`napari_he2st.zoo.encoders`.
    px
        Width of the field that is cut, before the encoder's own resizing.
    standardise
        ``"slide"`` subtracts mean and divides by standard deviation of a fixed sample of the slide's
        tissue, which takes out stain and scanner; the same sample in training and prediction.
    """

    encoder: str = "efficientnet-lite0"
    px: int = 224
    mpp: Mpp = None
    standardise: Literal["slide"] | None = None


@dataclass(frozen=True, kw_only=True)
class Positions(Input):
    """Position of each spot.

    ``"um"``: micrometres (x, y), float32. ``"grid"``: integer array position (column, row), int64, from 0
    at the first occupied row and column; above ``bins`` positions the engine runs in windows.
    """

    kind: Literal["um", "grid"] = "grid"
    bins: int | None = None


@dataclass(frozen=True, kw_only=True)
class Index(Input):
    """Rows of the batch among all spots of the slide: int64 (n,)."""


@dataclass(frozen=True, kw_only=True)
class NeighbourTiles(Input):
    """Tiles of the lattice neighbours of each spot: uint8 (n, k, 3, px, px), and bool (n, k) which exist.

    Attributes
    ----------
    px, mpp
        Of the tiles.
    offsets
        Array (column, row) steps to the neighbours.
    """

    px: int = 224
    mpp: Mpp = None
    offsets: tuple[tuple[int, int], ...] = ((-1, -1), (-1, 0), (-1, 1), (0, -1), (0, 1), (1, -1), (1, 0), (1, 1))


@dataclass(frozen=True, kw_only=True)
class TileGraph(Input):
    """The larger tiles that cover a slide without overlap, as a graph.

    A triple: encoder features, float32 (tiles, dim); the tile that each spot lies in, int64 (spots,); which
    tiles are neighbours, float32 (tiles, tiles) of 0 and 1, symmetric, no tile its own. Only tiles with a spot
    count; two of them are neighbours if they are among the eight nearest of one another on the lattice.

    Attributes
    ----------
    encoder, px, mpp
        As in :class:`Features`.
    """

    per: Per = "slide"
    encoder: str = "efficientnet-lite0"
    px: int = 512
    mpp: Mpp = None


@dataclass(frozen=True, kw_only=True)
class NeighbourFeatures(Input):
    """Encoder features of the tiles around each spot: float32 (n, size², dim), and bool (n, size²) which exist.

    Attributes
    ----------
    encoder, px, mpp
        As in :class:`Features`.
    size
        The neighbourhood is ``size`` × ``size``, row by row, the spot itself in its middle.
    at
        ``"tiles"``: adjoining tiles of the image, which exist inside of it; ``"lattice"``: the tiles of
        spots on neighbouring array positions, which exist where such a spot does.
    """

    encoder: str = "efficientnet-lite0"
    px: int = 224
    mpp: Mpp = None
    size: int = 5
    at: Literal["lattice", "tiles"] = "tiles"
