"""Genes that the user has starred, kept between sessions, and those that were looked at in this one."""

from __future__ import annotations

import json
import logging
from collections.abc import Iterable
from pathlib import Path

from psygnal import Signal

from napari_he2st.core.atomic import atomic_write
from napari_he2st.core.paths import config_folder

logger = logging.getLogger(__name__)

_MAX_BYTES = 2**20
_MOST_SEEN = 50


class GeneMarks:
    """Favourite genes and recently seen ones.

    Attributes
    ----------
    favourites
        Starred genes, in the order in which they were starred; read from the user's settings, and kept there.
    recent
        The last 50 genes that were shown, the latest first.
    """

    changed = Signal()

    def __init__(self) -> None:
        self.favourites = _stored()
        self.recent: list[str] = []

    def toggle(self, gene: str) -> None:
        """Star a gene, or take its star away."""
        if gene in self.favourites:
            self.set_favourites(name for name in self.favourites if name != gene)
        else:
            self.set_favourites([*self.favourites, gene])

    def set_favourites(self, genes: Iterable[str]) -> None:
        """Replace the starred genes."""
        self.favourites = list(dict.fromkeys(genes))
        with atomic_write(_file(), force=True) as aside:
            aside.write_text(json.dumps(self.favourites, ensure_ascii=False), encoding="utf-8")
        self.changed.emit()

    def see(self, gene: str | None) -> None:
        """Note that a gene is shown."""
        if gene is not None and self.recent[:1] != [gene]:
            self.recent = [gene, *(name for name in self.recent if name != gene)][:_MOST_SEEN]


def _file() -> Path:
    return config_folder() / "favourite_genes.json"


def _stored() -> list[str]:
    """What the settings hold; nothing where they cannot be read, which the log tells."""
    file = _file()
    try:
        if not file.exists() or file.stat().st_size > _MAX_BYTES:
            return []
        found = json.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        logger.warning("Favourite genes could not be read from %s: %s", file, error)
        return []
    return [gene for gene in found if isinstance(gene, str)] if isinstance(found, list) else []
