"""Checked counts, genes and spots put together to AnnData in our schema."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from napari_he2st.core import keys
from napari_he2st.core.errors import GeneError, TruthError
from napari_he2st.core.expression import AS_STORED, LOG1P_CP10K, log1p_cp10k
from napari_he2st.core.schema import check_expression, provenance
from napari_he2st.core.types import Lattice, Transform
from napari_he2st.data.truth.genes import without_version
from napari_he2st.data.truth.lattice import FARTHEST_PX

if TYPE_CHECKING:
    from anndata import AnnData
    from pandas import DataFrame

X_SOURCE, Y_SOURCE = "x_source", "y_source"
"""Columns of a spot table with the vendor's positions, in pixels."""


@dataclass(frozen=True)
class Frame:
    """Where spots lie and how large things are.

    Attributes
    ----------
    mpp
        Micrometres per level-0 pixel of the slide.
    mpp_source
        Where that number comes from, in words.
    pitch_um, spot_um, lattice
        See :class:`napari_he2st.core.types.Grid`.
    to_slide
        From the vendor's pixels to level-0 pixels of the slide.
    """

    mpp: float
    mpp_source: str
    pitch_um: float
    spot_um: float
    lattice: Lattice
    to_slide: Transform


def check_counts(counts: Any, where: Path) -> None:
    """Refuse counts (CSR, spots × genes) that cannot be raw counts.

    Raises
    ------
    TruthError
        No spots, no genes, nothing counted, or a value that is NaN, negative or not whole.
    """
    values = counts.data
    if 0 in counts.shape:
        what = "spots" if counts.shape[0] == 0 else "genes"
        raise TruthError(f"The count matrix has no {what}", where=where, todo="Check that the file is complete")
    wrong = {
        "not a finite number": ~np.isfinite(values),
        "negative": values < 0,
        "not whole": values != np.floor(values),
    }
    for what, which in wrong.items():
        if which.any():
            message = f"{int(which.sum())} counts are {what} (the first is {values[which][0]:g})"
            raise TruthError(message, where=where, todo="Give raw counts, not normalised values")
    if not values.any():
        raise TruthError("The count matrix is empty: nothing was counted", where=where)


def check_unique(names: Any, what: str, where: Path) -> None:
    """Refuse repeated names of spots; the message shows some."""
    import pandas as pd

    index = pd.Index(names)
    twice = index[index.duplicated()].unique()
    if len(twice):
        message = f"{len(twice)} {what} appear more than once, such as {', '.join(map(str, twice[:3]))}"
        raise TruthError(message, where=where, todo="Each spot needs a name of its own")


def gene_table(symbols: list[str], ids: list[str] | None, where: Path) -> tuple[DataFrame, list[str]]:
    """Table of genes with unique symbols as index and ``ensembl`` where known, and notes on it.

    Rows that share a symbol but not the identifier are different genes: they get the suffixes -1, -2, …
    that scanpy gives.

    Raises
    ------
    GeneError
        Two rows have the same symbol and nothing to tell them apart.
    """
    import pandas as pd
    from anndata.utils import make_index_unique

    given = list(symbols) if ids is None else ids
    pairs = pd.MultiIndex.from_arrays([symbols, given])
    if pairs.has_duplicates:
        twice = sorted({str(symbol) for symbol, _ in pairs[pairs.duplicated()]})
        message = f"{len(twice)} genes appear more than once, such as {', '.join(twice[:3])}"
        raise GeneError(message, where=where, todo="Sum or remove the repeated columns")
    ensembl = [without_version(gene) or "" for gene in given]
    index = pd.Index(symbols, dtype=object)
    repeated = index[index.duplicated()].unique()
    notes = []
    if len(repeated):
        notes.append(f"{len(repeated)} symbols belong to several Ensembl genes and got suffixes ({repeated[0]}-1 …)")
    genes = pd.DataFrame(index=make_index_unique(index))
    if any(ensembl):
        genes[keys.ENSEMBL] = ensembl
    return genes, notes


def join(
    spots: DataFrame, counts: Any, names: list[str], where: Path, *, what: str = "spot"
) -> tuple[DataFrame, Any, list[str]]:
    """Spots in tissue that have counts, their counts, and what was left out, in words.

    Parameters
    ----------
    spots
        Table of the spots in tissue by name; its order is kept.
    counts, names
        CSR, and the names of its rows, in any order.
    where
        Position file, for messages.
    what
        Spot or cell, for messages.

    Raises
    ------
    TruthError
        There are no spots in tissue, or none of them has counts.
    """
    import pandas as pd

    place = " in tissue" if what == "spot" else ""
    if spots.empty:
        message = "No spot lies in tissue" if what == "spot" else f"There are no {what}s"
        raise TruthError(message, where=where, todo="Check that the position file is complete")
    check_unique(names, f"{what}s of the counts", where)
    rows = pd.Index(names, dtype=object).get_indexer(spots.index)
    found = rows >= 0
    if not found.any():
        message = f"Counts and positions have no {what} in common (counts {names[0]}, positions {spots.index[0]})"
        raise TruthError(message, where=where, todo="Check that both are of the same section")
    left_out = {
        f"{what}s{place} without counts": int((~found).sum()),
        f"rows of counts without a {what}{place}": len(names) - int(found.sum()),
    }
    notes = [f"{n} {said} left out" for said, n in left_out.items() if n]
    return spots[found], counts[rows[found]], notes


def assemble(
    counts: Any, spots: DataFrame, genes: DataFrame, frame: Frame, *, library: str, layout: str, stored: Any = None
) -> AnnData:
    """AnnData in our schema: ``X`` is log1p of counts per 10,000.

    Parameters
    ----------
    counts
        Checked raw counts, CSR, spots × genes; None where there are none.
    spots
        Index: unique names; columns :data:`X_SOURCE` and :data:`Y_SOURCE`, and what goes into ``obs``.
    genes
        From :func:`gene_table`.
    frame
        Where the spots lie.
    library, layout
        Names of the section and of its reader.
    stored
        Values that become ``X`` as they are, where there are no counts.

    Raises
    ------
    TruthError
        A position is not a finite number, or larger than any image.
    """
    from anndata import AnnData

    source: NDArray[np.float64] = spots[[X_SOURCE, Y_SOURCE]].to_numpy(dtype=np.float64)
    lost = np.flatnonzero(~(np.abs(source) <= FARTHEST_PX).all(axis=1))  # NaN is not below either
    if len(lost):
        message = f"{len(lost)} spots have no position, such as {spots.index[lost[0]]}"
        raise TruthError(message, where=library, todo="Complete or remove their rows in the position file")
    layers = {} if counts is None else {keys.COUNTS: counts.astype(np.float32)}
    adata = AnnData(
        X=stored.astype(np.float32) if counts is None else log1p_cp10k(counts),
        obs=spots.drop(columns=[X_SOURCE, Y_SOURCE]),
        var=genes,
        layers=layers,
        obsm={keys.SPATIAL: frame.to_slide(source), keys.SPATIAL_SOURCE: source},
        uns={
            keys.UNS: provenance(
                "measured",
                mpp=frame.mpp,
                mpp_source=frame.mpp_source,
                scale=AS_STORED if counts is None else LOG1P_CP10K,
                pitch_um=frame.pitch_um,
                spot_um=frame.spot_um,
                lattice=frame.lattice,
                library=library,
                layout=layout,
                transform=frame.to_slide.matrix,
            ),
            keys.SPATIAL: {
                library: {
                    "images": {},
                    "scalefactors": {"spot_diameter_fullres": frame.spot_um / frame.mpp},
                }
            },
        },
    )
    check_expression(adata)
    return adata
