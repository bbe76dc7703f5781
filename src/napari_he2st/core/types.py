"""Types that all rooms share."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from napari_he2st.core.errors import GeneError, SchemaError

Lattice = Literal["square", "hexagonal", "irregular"]


@dataclass(frozen=True)
class Grid:
    """Where expression is measured or predicted on a slide.

    Attributes
    ----------
    xy
        Spot centres in level-0 pixels (x, y), float64, shape (n, 2).
    pitch_um
        Distance between neighbouring spot centres, micrometres.
    lattice
        ``"square"``, ``"hexagonal"`` or ``"irregular"``.
    spot_um
        Diameter of a spot, micrometres.
    mpp
        Micrometres per level-0 pixel of the slide that ``xy`` refers to.
    index
        Integer position (row, column) of each spot on the lattice, shape (n, 2).
    shape
        Rows and columns of the lattice.
    in_tissue
        bool, shape (n,).
    names
        Names of the spots, or None (their number is their name).
    tissue
        How the tissue was found on which the spots were laid: method, parameters, share of the slide. Empty where
        no mask was used.
    """

    xy: NDArray[np.float64]
    pitch_um: float
    lattice: Lattice
    spot_um: float
    mpp: float
    index: NDArray[np.intp]
    shape: tuple[int, int]
    in_tissue: NDArray[np.bool_]
    names: tuple[str, ...] | None = None
    tissue: Mapping[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        n = len(self.xy)
        if self.xy.shape != (n, 2) or self.index.shape != (n, 2) or self.in_tissue.shape != (n,):
            message = f"xy {self.xy.shape}, index {self.index.shape} and in_tissue {self.in_tissue.shape} do not match"
            raise SchemaError(message)
        if n and not np.isfinite(self.xy).all():
            raise SchemaError("A grid has positions that are not finite numbers", todo="Drop these spots first")
        if self.pitch_um <= 0 or self.mpp <= 0:
            message = f"Pitch ({self.pitch_um} µm) and pixel size ({self.mpp} µm) have to be above zero"
            raise SchemaError(message)

    def __len__(self) -> int:
        return len(self.xy)

    @property
    def cell_um2(self) -> float | None:
        """Area that one spot stands for, µm²; None on an irregular lattice."""
        share = {"square": 1.0, "hexagonal": 0.75**0.5}.get(self.lattice)
        return None if share is None else share * self.pitch_um**2

    def take(self, index: NDArray) -> Grid:
        """The spots that an index array or boolean mask selects, in that order."""
        names = None if self.names is None else tuple(np.asarray(self.names, dtype=object)[index])
        return replace(self, xy=self.xy[index], index=self.index[index], in_tissue=self.in_tissue[index], names=names)


@dataclass(frozen=True)
class Chunk:
    """Part of a result, as the engine yields it.

    Attributes
    ----------
    output
        Name of the predictor's output, such as ``"expression"``.
    index
        Rows of the grid that this chunk fills, intp, shape (n,).
    mean
        float32, shape (n, genes); NaN where a tile could not be read.
    std
        Spread over draws and members, of the same shape, or None.
    """

    output: str
    index: NDArray[np.intp]
    mean: NDArray[np.float32]
    std: NDArray[np.float32] | None = None


@dataclass(frozen=True)
class Domains:
    """A grouping of spots into tissue domains.

    Attributes
    ----------
    labels
        int, shape (n,), domains are 0, 1, …; −1 marks spots that belong to none.
    params
        Method and every parameter that leads to this result again.
    embedding
        float32, shape (n, d), or None.
    names
        Names that a user has given, one per domain, or None: D1, D2, …
    colours
        Colours that a user has given, "#rrggbb", one per domain, or None.
    """

    labels: NDArray[np.intp]
    params: dict[str, Any]
    embedding: NDArray[np.float32] | None = None
    names: tuple[str, ...] | None = None
    colours: tuple[str, ...] | None = None

    @property
    def n_domains(self) -> int:
        """How many domains there are, with those that have a name and no spot here."""
        if self.names is not None:
            return len(self.names)
        return int(self.labels.max()) + 1 if len(self.labels) else 0

    @property
    def titles(self) -> list[str]:
        """Name of each domain."""
        return [f"D{i + 1}" for i in range(self.n_domains)] if self.names is None else list(self.names)

    def label_of(self, title: str) -> int:
        """Label of the domain of that name; raises SchemaError where there is none."""
        if title not in self.titles:
            raise SchemaError(f"There is no domain {title!r}", todo=f"Choose one of {', '.join(self.titles)}")
        return self.titles.index(title)

    def merged(self, chosen: list[int]) -> Domains:
        """The chosen domains as one: it takes name, colour and place of the first."""
        into, gone = min(chosen), sorted(set(chosen) - {min(chosen)})
        kept = [label for label in range(self.n_domains) if label not in gone]
        place = np.full(self.n_domains + 1, -1, dtype=np.intp)  # label −1 takes the last
        place[kept] = np.arange(len(kept))
        place[gone] = kept.index(into)
        names = tuple(self.titles[label] for label in kept)
        colours = None if self.colours is None else tuple(self.colours[label] for label in kept)
        return replace(self, labels=place[self.labels], names=names, colours=colours)

    def split(self, label: int, spots: NDArray[np.bool_], colour: str) -> Domains:
        """With those of a domain's spots that are chosen as a new, last domain.

        Raises
        ------
        SchemaError
            None or all of the domain's spots are chosen.
        """
        taken = (self.labels == label) & spots
        if not taken.any() or taken.sum() == (self.labels == label).sum():
            message = f"{int(taken.sum())} spots of {self.titles[label]} lie in the region"
            raise SchemaError(message, todo="Draw a region around a part of the domain")
        n = self.n_domains
        titles = self.titles
        name = next(f"{titles[label]} {i}" for i in range(2, n + 3) if f"{titles[label]} {i}" not in titles)
        colours = None if self.colours is None else (*self.colours, colour)
        labels = np.where(taken, n, self.labels).astype(np.intp)
        return replace(self, labels=labels, names=(*titles, name), colours=colours)

    def names_of_spots(self) -> list[str]:
        """Name of each spot's domain; ``"none"`` where it belongs to none."""
        titles = [*self.titles, "none"]  # label −1 takes the last
        return [titles[label] for label in self.labels]


@dataclass(frozen=True)
class Nuclei:
    """Segmented nuclei of a slide.

    Attributes
    ----------
    labels
        Label image of the whole slide, int, shape (height, width): 0 outside of nuclei, a number for each.
    mpp
        Micrometres per pixel of the label image.
    numbers
        Numbers of the nuclei, ascending, intp, shape (n,).
    centres_px
        Their centres in pixels of the label image (x, y), float64, shape (n, 2).
    """

    labels: NDArray[np.integer]
    mpp: float
    numbers: NDArray[np.intp]
    centres_px: NDArray[np.float64]

    @classmethod
    def of(cls, labels: NDArray[np.integer], mpp: float) -> Nuclei:
        """The nuclei of a label image.

        Raises
        ------
        SchemaError
            It is no image of whole numbers from 0, or shows no nucleus.
        """
        if labels.ndim != 2 or not np.issubdtype(labels.dtype, np.integer):
            message = f"A label image has shape (height, width) and whole numbers, not {labels.shape} {labels.dtype}"
            raise SchemaError(message)
        y, x = np.nonzero(labels)
        found = labels[y, x]
        if not len(found) or found.min() < 0:
            raise SchemaError("The label image shows no nuclei, or has labels below 0", todo="Segment the slide first")
        numbers, owner, size = np.unique(found, return_inverse=True, return_counts=True)
        centres = np.stack([np.bincount(owner.ravel(), weights=c + 0.5) / size for c in (x, y)], axis=1)
        return cls(labels, mpp, numbers.astype(np.intp), centres)

    @property
    def largest(self) -> int:
        """The largest number."""
        return int(self.labels.max())

    def are(self, grid: Grid) -> bool:
        """Whether the spots of a grid are some of these nuclei: their numbers, and their centres."""
        row = np.minimum(np.searchsorted(self.numbers, grid.index[:, 0]), len(self.numbers) - 1)
        centres = self.centres_px[row] * (self.mpp / grid.mpp)
        return bool((self.numbers[row] == grid.index[:, 0]).all() and np.allclose(centres, grid.xy, atol=0.5))

    def grid(self, mpp: float) -> Grid:
        """The nuclei as spots of a slide of that pixel size; ``index`` holds the number of each, and 0."""
        xy = self.centres_px * (self.mpp / mpp)
        index = np.stack([self.numbers, np.zeros_like(self.numbers)], axis=1)
        side_um = float(np.sqrt((self.labels > 0).sum() / len(xy)) * self.mpp)  # of a square as large as a nucleus
        names = tuple(f"nucleus{number}" for number in self.numbers)
        inside = np.ones(len(xy), dtype=bool)
        return Grid(xy, side_um, "irregular", side_um, mpp, index, (self.largest + 1, 1), inside, names)


@dataclass(frozen=True)
class Transform:
    """Affine map between two planes: ``xy_out = xy @ matrix[:2, :2].T + matrix[:2, 2]``.

    Attributes
    ----------
    matrix
        float64, shape (3, 3).
    info
        How it was found: residuals, coupling, objective.
    """

    matrix: NDArray[np.float64]
    info: dict[str, Any] = field(default_factory=dict)

    @classmethod
    def scale(cls, factor: float, offset: tuple[float, float] = (0.0, 0.0)) -> Transform:
        """Uniform scaling followed by a shift (x, y)."""
        return cls(np.array([[factor, 0, offset[0]], [0, factor, offset[1]], [0, 0, 1]], dtype=np.float64))

    def __call__(self, xy: NDArray) -> NDArray[np.float64]:
        """Map positions (x, y), shape (n, 2)."""
        return np.asarray(xy, dtype=np.float64) @ self.matrix[:2, :2].T + self.matrix[:2, 2]

    def inverse(self) -> Transform:
        """The map back."""
        return Transform(np.linalg.inv(self.matrix).astype(np.float64))


@dataclass(frozen=True)
class GeneSet:
    """An ordered panel of genes without repeats.

    Attributes
    ----------
    symbols
        Gene symbols.
    name
        What the panel is called.
    source
        Where it comes from: a file, a paper, a rule.
    """

    symbols: tuple[str, ...]
    name: str = "panel"
    source: str = ""

    def __post_init__(self) -> None:
        if len(set(self.symbols)) != len(self.symbols):
            seen: set[str] = set()
            twice = [s for s in self.symbols if s in seen or seen.add(s)]  # type: ignore[func-returns-value]
            message = f"Genes appear more than once in {self.name!r}: {', '.join(twice[:5])}"
            raise GeneError(message, todo="Remove the repeats")

    def __len__(self) -> int:
        return len(self.symbols)


@dataclass(frozen=True)
class Region:
    """A named area of a slide.

    Attributes
    ----------
    polygon
        Corners in level-0 pixels (x, y), float64, shape (m, 2).
    name
        What the user calls it.
    kind
        Its class, such as ``"Tumor"``; empty without one.
    colour
        Colour of its class, ``"#rrggbb"``, or None where nobody chose one.
    """

    polygon: NDArray[np.float64]
    name: str = "region"
    kind: str = ""
    colour: str | None = None

    @classmethod
    def box(cls, x: float, y: float, width: float, height: float, name: str = "region") -> Region:
        """A rectangle whose upper left corner is (x, y), in level-0 pixels."""
        corners = [(x, y), (x + width, y), (x + width, y + height), (x, y + height)]
        return cls(np.asarray(corners, dtype=np.float64), name)
