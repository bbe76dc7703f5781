"""Lists of genes as people keep them: pasted text, files of one name a line, the first column of a table, GMT."""

from __future__ import annotations

import re
import tomllib
from dataclasses import dataclass
from functools import cache
from importlib.resources import files
from pathlib import Path

from napari_he2st.core.errors import GeneError

MAX_BYTES = 4 * 2**20
"""Largest file that is read as a list of genes."""

_BETWEEN = re.compile(r"[\s,;|]+")
_QUOTES = "\"'`"
_TITLES = frozenset(
    {"gene", "genes", "symbol", "symbols", "gene_symbol", "gene_name", "name", "ensembl", "id", "feature"}
)


def parse_genes(text: str) -> list[str]:
    """The names in a text, each once, in their order.

    Names are separated by blanks, commas, semicolons or lines. Of a table, whose lines have one number of columns that
    is above 1, the first column counts. A first name such as ``gene`` is a title, ``#`` begins a comment.
    """
    lines = [line.partition("#")[0].strip("\ufeff \r") for line in text.splitlines()]
    lines = [line for line in lines if line.strip()]
    for mark in ("\t", ",", ";"):
        widths = {line.count(mark) for line in lines}
        if len(lines) > 2 and len(widths) == 1 and widths != {0}:
            lines = [line.split(mark, 1)[0] for line in lines]
            break
    names = [name.strip(_QUOTES) for line in lines for name in _BETWEEN.split(line)]
    names = [name for name in names if name]
    if names and names[0].lower() in _TITLES:
        names = names[1:]
    return list(dict.fromkeys(names))


def parse_gmt(text: str) -> dict[str, list[str]]:
    """Sets of genes by name: a line holds the name, a description, then genes, separated by tabs.

    Raises
    ------
    GeneError
        No line looks so.
    """
    sets = {}
    for line in text.splitlines():
        fields = [field.strip(_QUOTES + " \r") for field in line.split("\t")]
        genes = list(dict.fromkeys(gene.split(",")[0] for gene in fields[2:] if gene))  # "GENE,1.0" has a weight
        if fields[0] and genes:
            sets[fields[0]] = genes
    if not sets:
        raise GeneError("This is no GMT file", todo="A line holds a name, a description and genes, separated by tabs")
    return sets


def read_text(path: str | Path) -> str:
    """A small text file.

    Raises
    ------
    GeneError
        It cannot be read, is no text, or is too large for a list of genes.
    """
    path = Path(path)
    try:
        if path.stat().st_size > MAX_BYTES:
            raise GeneError(f"The file is larger than {MAX_BYTES // 2**20} MB", where=path, todo="Give a list of genes")
        return path.read_text(encoding="utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        raise GeneError(f"The list of genes cannot be read ({error})", where=path, todo="Give a text file") from error


@dataclass(frozen=True)
class GeneSet:
    """Genes with a name, and where they come from."""

    name: str
    genes: tuple[str, ...]
    source: str


@cache
def builtin_sets() -> dict[str, GeneSet]:
    """Small published sets by name."""
    text = (files("napari_he2st.data.truth") / "gene_sets.toml").read_text(encoding="utf-8")
    return {name: GeneSet(name, tuple(s["genes"]), s["source"]) for name, s in tomllib.loads(text).items()}


@cache
def aliases() -> dict[str, tuple[str, ...]]:
    """Everyday names by approved symbol, ``{"ERBB2": ("HER2", …)}``."""
    text = (files("napari_he2st.data.truth") / "gene_aliases.toml").read_text(encoding="utf-8")
    return {symbol: tuple(names) for symbol, names in tomllib.loads(text).items()}


@cache
def symbol_of_alias() -> dict[str, str]:
    """Approved symbol by everyday name in upper case."""
    return {name.upper(): symbol for symbol, names in aliases().items() for name in names}
