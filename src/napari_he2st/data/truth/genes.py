"""Finding genes by whatever name they were given: symbol, Ensembl identifier, with or without version."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from napari_he2st.core import keys
from napari_he2st.core.errors import GeneError

if TYPE_CHECKING:
    from anndata import AnnData
    from pandas import DataFrame

_ENSEMBL = re.compile(r"(ENS[A-Z]{0,6}G\d{11})(?:\.\d+)?(_PAR_Y)?")


def without_version(gene: str) -> str | None:
    """The Ensembl gene identifier without its version, or None if ``gene`` is none (``ENSG….5`` → ``ENSG…``)."""
    match = _ENSEMBL.fullmatch(gene.strip())
    return None if match is None else match[1] + (match[2] or "")


@dataclass(frozen=True)
class Match:
    """Which wanted genes a data set has.

    Attributes
    ----------
    wanted
        The genes asked for.
    indices
        Column of each wanted gene, intp, shape (wanted,); −1 where there is none.
    how
        How each was found: ``"symbol"``, ``"ensembl"``, ``"letter case"``, ``"repeat"`` (the column was
        taken by an earlier name) or ``"missing"``.
    """

    wanted: tuple[str, ...]
    indices: NDArray[np.intp]
    how: tuple[str, ...]

    @property
    def missing(self) -> tuple[str, ...]:
        """Wanted genes that the data set lacks."""
        return tuple(gene for gene, how in zip(self.wanted, self.how, strict=True) if how == "missing")

    @property
    def found(self) -> NDArray[np.intp]:
        """Columns that were found, in the wanted order."""
        return self.indices[self.indices >= 0]

    def __str__(self) -> str:
        counts = Counter(self.how)
        said = {"repeat": "repeated", "missing": "missing"}
        parts = [f"{n} {said.get(how, f'by {how}')}" for how, n in counts.items()]
        return f"{len(self.found)} of {len(self.wanted)} genes found: {', '.join(parts)}"


def match_genes(wanted: Iterable[str], genes: AnnData | DataFrame) -> Match:
    """Find genes in a data set.

    An exact symbol wins over an Ensembl identifier (versions do not matter), and that over a symbol that
    differs in letter case alone, as between mouse and human; the latter only where it is unambiguous.

    Parameters
    ----------
    wanted
        Symbols and Ensembl identifiers, also mixed.
    genes
        AnnData, or its ``var``: symbols as index and perhaps a column ``ensembl``.

    Raises
    ------
    GeneError
        Nothing is wanted, or nothing of it was found.
    """
    var: Any = genes.var if hasattr(genes, "var_names") else genes
    names = tuple(map(str, wanted))
    if not names:
        raise GeneError("The list of genes is empty", todo="Name at least one gene")
    symbols = [str(symbol) for symbol in var.index]
    identifiers = [str(gene) for gene in var[keys.ENSEMBL]] if keys.ENSEMBL in var else []
    by_symbol = _first(symbols)
    by_ensembl = _first([without_version(gene) or "" for gene in (identifiers or symbols)])
    folded = Counter(symbol.upper() for symbol in symbols)
    by_case = {symbol.upper(): i for symbol, i in by_symbol.items() if folded[symbol.upper()] == 1}

    taken: set[int] = set()
    indices, how = np.full(len(names), -1, dtype=np.intp), []
    for position, name in enumerate(map(str.strip, names)):
        lookups = (
            ("symbol", by_symbol.get(name)),
            ("ensembl", by_ensembl.get(without_version(name) or name)),
            ("letter case", by_case.get(name.upper())),
        )
        way, column = next((pair for pair in lookups if pair[1] is not None), ("missing", None))
        if column in taken:
            way, column = "repeat", None
        if column is not None:
            taken.add(column)
            indices[position] = column
        how.append(way)
    if not taken:
        raise GeneError(
            f"None of the {len(names)} genes is in the data",
            where=f"wanted {', '.join(names[:3])}; there are {', '.join(symbols[:3])}",
            todo="Check species and kind of gene names",
        )
    return Match(names, indices, tuple(how))


def _first(names: list[str]) -> dict[str, int]:
    return {name: i for i, name in reversed(list(enumerate(names))) if name}
