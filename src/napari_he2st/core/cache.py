"""The cache folder as a whole: how large it is, how large it may get, and making room.

Whoever caches keeps a folder of its own there (``features/``, ``pyramids/`` …); what lies directly in
such a folder, a file or a folder, is one entry and goes as a whole. Whoever reads an entry touches it.
"""

from __future__ import annotations

import shutil
from dataclasses import dataclass
from pathlib import Path

from napari_he2st.core.atomic import atomic_write
from napari_he2st.core.errors import OutputError
from napari_he2st.core.paths import cache_folder

DEFAULT_LIMIT = 20 * 10**9
"""Bytes the cache may use unless the user says otherwise."""

_LIMIT_FILE = "limit.txt"


@dataclass(frozen=True)
class Entry:
    """One cached thing.

    Attributes
    ----------
    path
        File or folder.
    size
        Bytes.
    used
        When it was last written or touched, seconds since the epoch.
    """

    path: Path
    size: int
    used: float

    @property
    def kind(self) -> str:
        """Whose it is: the name of the folder it lies in."""
        return self.path.parent.name


def entries() -> list[Entry]:
    """All entries, the longest unused first."""
    found = [_entry(path) for kind in cache_folder().iterdir() if kind.is_dir() for path in kind.iterdir()]
    return sorted(found, key=lambda entry: entry.used)


def limit() -> int:
    """Bytes the cache may use."""
    file = cache_folder() / _LIMIT_FILE
    return int(file.read_text()) if file.exists() else DEFAULT_LIMIT


def set_limit(size: int) -> None:
    """Set how many bytes the cache may use, and make room at once."""
    if size < 0:
        raise OutputError(f"A cache cannot hold {size} bytes", todo="Give a size of 0 or more")
    with atomic_write(cache_folder() / _LIMIT_FILE, force=True) as file:
        file.write_text(str(size))
    trim()


def trim() -> int:
    """Remove the longest unused entries until the cache is within its limit; returns the bytes freed."""
    found = entries()
    excess = sum(entry.size for entry in found) - limit()
    freed = 0
    for entry in found:
        if freed >= excess:
            break
        try:
            _remove(entry)
        except PermissionError:  # Windows does not remove what is in use
            continue
        freed += entry.size
    return freed


def clear() -> int:
    """Remove all entries; returns the bytes freed."""
    found = entries()
    for entry in found:
        _remove(entry)
    return sum(entry.size for entry in found)


def _entry(path: Path) -> Entry:
    files = [path] if path.is_file() else [file for file in path.rglob("*") if file.is_file()]
    return Entry(path, sum(file.stat().st_size for file in files), path.stat().st_mtime)


def _remove(entry: Entry) -> None:
    if entry.path.is_dir() and not entry.path.is_symlink():
        shutil.rmtree(entry.path)
    else:
        entry.path.unlink(missing_ok=True)
