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


_REFERENCE = re.compile(r"(?:GRCh3[78]|hg19|hg38|GRCm3[89]|mm10|mm39)_+", re.IGNORECASE)


def without_reference(gene: str) -> str:
    """The gene without the genome that joint references put before it (``GRCh38_GAPDH`` → ``GAPDH``)."""
    return _REFERENCE.sub("", gene.strip(), count=1) if _REFERENCE.match(gene.strip()) else gene.strip()


def species_of(names: Iterable[str]) -> str | None:
    """``"human"`` or ``"mouse"``, by identifiers or by the letter case of symbols; None where it cannot be told."""
    counts = Counter(_species(without_reference(name)) for name in names)
    human, mouse = counts["human"], counts["mouse"]
    if max(human, mouse) < 3 or min(human, mouse) > 0.2 * max(human, mouse):
        return None
    return "human" if human > mouse else "mouse"


def _species(name: str) -> str | None:
    identifier = without_version(name)
    if identifier is not None:
        return {"ENSG": "human", "ENSMUSG": "mouse"}.get(identifier.rstrip("0123456789_PARY"))
    letters = "".join(filter(str.isalpha, name))
    if len(letters) < 3 or re.search(r"orf|^LOC|Rik$", name):
        return "mouse" if name.endswith("Rik") else None
    return "human" if letters.isupper() else "mouse" if letters[0].isupper() and letters[1:].islower() else None


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
    note
        What to know of the match as a whole, such as that species differ, or None.
    """

    wanted: tuple[str, ...]
    indices: NDArray[np.intp]
    how: tuple[str, ...]
    note: str | None = None

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
        words = {"repeat": "repeated", "missing": "missing"}
        parts = [f"{n} {words.get(how, f'by {how}')}" for how, n in counts.items()]
        said = f"{len(self.found)} of {len(self.wanted)} genes found: {', '.join(parts)}"
        return said if self.note is None else f"{said}. {self.note}"


def match_genes(wanted: Iterable[str], genes: AnnData | DataFrame) -> Match:
    """Find genes in a data set.

    An exact symbol wins over an Ensembl identifier (versions do not matter), and that over a symbol that
    differs in letter case alone, as between mouse and human; the latter only where it is unambiguous. Genomes
    that joint references put before a gene are left out of account.

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
    symbols = [without_reference(str(symbol)) for symbol in var.index]
    identifiers = [str(gene) for gene in var[keys.ENSEMBL]] if keys.ENSEMBL in var else []
    by_symbol = _first(symbols)
    by_ensembl = _first([without_version(gene) or "" for gene in map(without_reference, identifiers or symbols)])
    folded = Counter(symbol.upper() for symbol in symbols)
    by_case = {symbol.upper(): i for symbol, i in by_symbol.items() if folded[symbol.upper()] == 1}

    taken: set[int] = set()
    indices, how = np.full(len(names), -1, dtype=np.intp), []
    for position, name in enumerate(map(without_reference, names)):
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
    asked, there = species_of(names), species_of([*symbols, *identifiers])
    note = None
    if asked is not None and there is not None and asked != there:
        note = f"The genes asked for look {asked}, the data {there}: equal names are not always orthologues"
    return Match(names, indices, tuple(how), note)


def _first(names: list[str]) -> dict[str, int]:
    return {name: i for i, name in reversed(list(enumerate(names))) if name}
