"""Kinds of input that a system can ask for; each has one resolver in :mod:`napari_he2st.engine.inputs`.

Sizes are in the tile's own pixels at ``mpp`` micrometres per pixel. ``mpp=None`` is the pixel size the
bundle was trained at; ``"native"`` is the slide's own. An input has one row per unit of the batch; with
``per="slide"`` it describes the whole slide (or window), whatever the batch.
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
    at the first occupied row and column, in steps of the pitch the predictor was trained at, so that several spots
    of a finer grid share one; above ``bins`` positions the engine runs in windows. ``"lattice"``: the same in
    steps of the grid itself, so that each spot has its own.
    """

    kind: Literal["um", "grid", "lattice"] = "grid"
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


@dataclass(frozen=True, kw_only=True)
class MultiScaleTiles(Input):
    """Tiles around each spot that show ever more of its surroundings: uint8 (n, scales, 3, px, px).

    Attributes
    ----------
    px, mpp
        Width of every tile, and pixel size of the first.
    factors
        Pixel size of each tile over ``mpp``.
    """

    px: int = 224
    mpp: Mpp = None
    factors: tuple[float, ...] = (1.0, 2.0, 4.0)


@dataclass(frozen=True, kw_only=True)
class RegionImage(Input):
    """Image of each region: uint8 (n, 3, px, px), RGB, not normalised, white outside of the slide.

    Where the unit is ``Regions``, the unit says how large a region is. Where it is ``Pixels``, a region is
    what ``prepare`` sees at once: it gets one image and returns one row for each of its cells, row by row.

    Attributes
    ----------
    px, mpp
        Size of a region where the unit is ``Pixels``; its width has to be a whole number of cells.
    overlap
        Pixels that it shares with the next one there; only cells in its core are kept.
    """

    px: int | None = None
    mpp: float | None = None
    overlap: int = 0


@dataclass(frozen=True, kw_only=True)
class KnnGraph(Input):
    """Each spot's nearest spots by distance: edges from neighbour to spot, int64 (2, edges).

    Edges are ordered by spot, then from near to far; with ``symmetric`` those that are missing in the other
    direction follow.

    Attributes
    ----------
    k
        Neighbours of each spot; fewer where there are not as many spots.
    radius_um
        Neighbours farther away than this are left out; None keeps all.
    loops
        Whether each spot is its own first neighbour, beside the ``k`` others.
    symmetric
        Whether an edge in one direction brings the other.
    """

    per: Per = "slide"
    k: int = 6
    radius_um: float | None = None
    loops: bool = False
    symmetric: bool = False


@dataclass(frozen=True, kw_only=True)
class Reference(Input):
    """The bank that training put into ``extras["reference"]``, as tensors by name; None while training.

    The bank is a dict of arrays with one row per reference spot: ``"expression"``, float32 (m, genes), and
    whatever the system keeps beside it. A bundle holds it as ``reference.h5ad``.

    Attributes
    ----------
    training
        Names of inputs. If there are any, training gets a bank too: expression and these inputs of the
        other training sections, never of the batch's own.
    """

    per: Per = "slide"
    training: tuple[str, ...] = ()


@dataclass(frozen=True, kw_only=True)
class CellReference(Input):
    """Single cells with known types that the user supplies, as tensors by name.

    ``"counts"``: float32 (cells, genes) in the predictor's panel, NaN for genes that were not measured;
    ``"total"``: counts of each cell over all genes, float32 (cells,); ``"label"``: int64 (cells,), the number
    of its type in alphabetical order.

    Attributes
    ----------
    label
        Column of ``obs`` that holds the types.
    """

    per: Per = "slide"
    label: str = "cell_type"


@dataclass(frozen=True, kw_only=True)
class Nuclei(Input):
    """Which pixels belong to which nucleus, from a label image that the user supplies.

    Where the unit is ``Spots`` or ``Slide``, every spot is a nucleus and the input is its mask: bool
    (n, px, px). Where it is ``Regions``, it is a label map of the regions: int64 (n, px, px), 0 outside of
    nuclei, otherwise 1 + the row of the nucleus among those that belong to the batch (in prediction and in
    targets); nuclei that mostly lie in another region are 0.

    Attributes
    ----------
    px, mpp
        Size of a mask, as of a tile; with ``Regions``, the unit's.
    """

    px: int | None = None
    mpp: Mpp = None


@dataclass(frozen=True, kw_only=True)
class Expression(Input):
    """Measured expression of each spot: float32 (n, genes), NaN where no spot was measured.

    Attributes
    ----------
    scale
        Name of a scale; None is the target's.
    """

    scale: str | None = None


@dataclass(frozen=True, kw_only=True)
class Bag(Input):
    """Encoder features of all tissue of a slide, cut into adjoining tiles.

    A pair: float32 (tiles, dim); centres in micrometres (x, y), float32 (tiles, 2), row by row.

    Attributes
    ----------
    encoder, px, mpp
        As in :class:`Features`.
    max_tiles
        Largest number of tiles, spread evenly over the tissue; None takes all.
    """

    per: Per = "slide"
    encoder: str = "efficientnet-lite0"
    px: int = 256
    mpp: Mpp = None
    max_tiles: int | None = None


@dataclass(frozen=True, kw_only=True)
class TypedCells(Input):
    """Single nuclei with their kinds, which the user supplies.

    A pair: positions in micrometres (x, y), float64 (nuclei, 2); kinds, str or int (nuclei,). Numpy arrays.
    """

    per: Per = "slide"


@dataclass(frozen=True, kw_only=True)
class Overview(Input):
    """The whole slide as one small image, for aligners.

    A pair: uint8 (3, height, width), RGB; micrometres per pixel.

    Attributes
    ----------
    px
        Longer side.
    """

    per: Per = "slide"
    px: int = 512
