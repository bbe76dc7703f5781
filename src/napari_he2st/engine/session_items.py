"""What a session holds: open slides, and expression on them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import issparse

from napari_he2st.core import keys
from napari_he2st.core.expression import unit_of
from napari_he2st.core.types import Grid, Nuclei

if TYPE_CHECKING:
    from anndata import AnnData

    from napari_he2st.data.slides import Slide
    from napari_he2st.data.slides.tissue import TissueMask
    from napari_he2st.zoo.bundle import Bundle

DENSE_BYTES = 1 << 30
"""Sparse expression that would take more than this as an array stays sparse: a gene is then taken out when shown."""


@dataclass(eq=False)
class SlideItem:
    """A slide that is open, and what is known of its tissue and nuclei."""

    name: str
    slide: Slide
    mask: TissueMask | None = None
    nuclei: Nuclei | None = None


@dataclass(frozen=True)
class Made:
    """How a result came to be, so that a script can make it again.

    Attributes
    ----------
    function
        Public function that made it.
    told
        Its arguments by name. Of a prediction also ``bundle`` (name or folder), ``pitch_um``, ``spots_of`` (the
        measured result whose spots were predicted) and ``regions`` (polygons in level-0 pixels that it was limited to).
    """

    function: Literal["read_truth", "predict_slide"]
    told: Mapping[str, Any]


@dataclass(frozen=True, eq=False)
class Derived:
    """A map computed from the genes of a result.

    Attributes
    ----------
    values
        float32, shape (spots,); NaN where it is not known.
    unit
        As legends have it.
    made_of
        How it was made and of which genes, for tooltips and provenance.
    """

    values: NDArray[np.float32]
    unit: str
    made_of: str


@dataclass(eq=False)
class Result:
    """Expression on a slide: predicted or measured, complete or still filling up.

    Attributes
    ----------
    name
        What the user sees; unique in the session.
    kind
        ``"predicted"`` or ``"measured"``; always shown beside the values.
    slide
        Name of the :class:`SlideItem` it lies on.
    grid
        Its spots.
    genes
        Panel, in the order of the columns.
    values
        float32, shape (spots, genes); NaN where nothing is known (yet). Measured counts of large sections stay
        a sparse CSC matrix: see :data:`DENSE_BYTES`.
    scale
        Expression scale of ``values``, such as ``"log1p_cp10k"``: the unit of legends.
    scores
        Held-out Pearson correlation per gene, float32, NaN where unknown.
    adata
        The finished result in our schema; None while it fills up.
    warnings
        What the user has to know when reading it, such as an organ that does not fit.
    std
        Spread, of the same shape as ``values``, or None.
    bundle
        The predictor it was made with in this session, or None.
    nuclei
        Nuclei that are its spots, by the number in ``grid.index``, or None.
    file
        The h5ad file that holds it as it is, or None.
    made
        How it came to be, or None where that is not known.
    derived
        Maps that were computed from its genes, such as scores of signatures, by their names.
    """

    name: str
    kind: Literal["predicted", "measured"]
    slide: str
    grid: Grid
    genes: list[str]
    values: Any
    scale: str
    scores: NDArray[np.float32]
    adata: AnnData | None = None
    warnings: list[str] = field(default_factory=list)
    std: NDArray[np.float32] | None = None
    bundle: Bundle | None = None
    nuclei: Nuclei | None = None
    file: Path | None = None
    made: Made | None = None
    derived: dict[str, Derived] = field(default_factory=dict)

    def shows(self, label: str) -> bool:
        """Whether there is a gene or a derived map of that name."""
        return label in self.derived or label in self._index

    def unit(self, label: str) -> str:
        """Unit of a gene or derived map, as legends have it."""
        return self.derived[label].unit if label in self.derived else unit_of(self.scale)

    @property
    def title(self) -> str:
        """Name with its kind, for lists and layers."""
        return f"{self.name} ({self.kind})"

    @property
    def outlines(self) -> list[str] | None:
        """Outlines of the cells that are its spots, level-0 pixels as well-known text; None where it has none."""
        if self.adata is None or keys.POLYGON not in self.adata.obs:
            return None
        return list(map(str, self.adata.obs[keys.POLYGON]))

    def column(self, gene: str) -> NDArray[np.float32]:
        """Values of a gene or derived map, float32, shape (spots,); NaN everywhere if there is none."""
        if gene in self.derived:
            return self.derived[gene].values
        index = self._index.get(gene)
        if index is None:
            return np.full(len(self.grid), np.nan, dtype=np.float32)
        column = self.values[:, [index]] if issparse(self.values) else self.values[:, index]
        return np.asarray(column.toarray().ravel() if issparse(column) else column)

    @property
    def _index(self) -> dict[str, int]:
        cached: dict[str, int] | None = self.__dict__.get("_gene_index")
        if cached is None or len(cached) != len(self.genes):
            cached = {gene: i for i, gene in enumerate(self.genes)}
            self.__dict__["_gene_index"] = cached
        return cached


def first_gene(result: Result) -> str | None:
    """The gene to show first: the best predicted one, or the most variable one of a measured panel."""
    if not result.genes:
        return None
    if np.isfinite(result.scores).any():
        return result.genes[int(np.nanargmax(result.scores))]
    if issparse(result.values):
        squares = np.asarray(result.values.multiply(result.values).mean(axis=0)).ravel()
        return result.genes[int(np.argmax(squares - np.asarray(result.values.mean(axis=0)).ravel() ** 2))]
    known = np.isfinite(result.values)
    if not known.any():
        return result.genes[0]
    spread = np.where(known.any(axis=0), np.nanvar(np.where(known, result.values, np.nan), axis=0), -1)
    return result.genes[int(np.argmax(spread))]
