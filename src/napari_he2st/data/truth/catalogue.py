"""Public data sets: what is known of them, where they lie, and how their files come here."""

from __future__ import annotations

import fnmatch
import hashlib
import os
import tomllib
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from urllib.error import HTTPError, URLError
from urllib.request import Request, urlopen

import platformdirs

from napari_he2st.core.errors import TruthError
from napari_he2st.core.progress import Progress
from napari_he2st.core.registry import unknown_name
from napari_he2st.data.truth.read import detect
from napari_he2st.data.truth.section import TRUTH_READERS, Detection

_BLOCK = 1 << 20
_SECURE = ("https://", "http://127.0.0.1:", "http://localhost:")
_TIMEOUT_S = 60


@dataclass(frozen=True)
class RemoteFile:
    """A file of a data set.

    Attributes
    ----------
    path
        Where it goes, relative to the folder of the set.
    url
        Where it comes from.
    bytes, sha256
        Its size and checksum.
    """

    path: str
    url: str
    bytes: int
    sha256: str


@dataclass(frozen=True)
class Dataset:
    """A public data set; what is None is not known.

    Attributes
    ----------
    name, title
        What users type, and what they read.
    organ, species, technology, resolution
        In words.
    layout
        Name of the reader that loads it.
    samples, slides, spots
        How many there are.
    citation, doi, address, licence
        Where it comes from and on which terms.
    place
        How its files have to lie, for those who download them by hand.
    files
        What can be downloaded from here; empty where the address asks for a login, a request, or a choice.
    """

    name: str
    title: str
    organ: str
    species: str
    technology: str
    resolution: str
    layout: str
    citation: str
    address: str
    place: str
    samples: int | None = None
    slides: int | None = None
    spots: int | None = None
    doi: str | None = None
    licence: str | None = None
    files: tuple[RemoteFile, ...] = ()

    @property
    def folder(self) -> Path:
        """Where its files lie or have to be put on this machine."""
        return datasets_folder() / self.name

    @property
    def bytes(self) -> int | None:
        """Size of what can be downloaded from here, or None where there is nothing."""
        return sum(file.bytes for file in self.files) or None

    def detect(self) -> Detection:
        """What lies in its folder.

        Raises
        ------
        TruthError
            Nothing lies there yet, or something else; the message says what has to be put there.
        """
        todo = f"Download {self.address} and put it there by hand. {self.place.rstrip('.')}"
        if self.files:
            todo = f"Run he2st datasets get {self.name}, or: {todo}"
        if not self.folder.is_dir():
            raise TruthError(f"{self.title} is not on this machine", where=self.folder, todo=todo)
        found: Detection | None = TRUTH_READERS[self.layout].facts["detect"](self.folder)
        if found is not None and found.sections:
            return found
        try:
            return detect(self.folder)
        except TruthError as error:
            raise TruthError(f"{self.title} is not complete ({error.what})", where=self.folder, todo=todo) from error

    def fetch(self, progress: Progress, *, only: str = "*") -> list[Path]:
        """Download what is not here yet; what was cut off goes on where it stopped.

        Parameters
        ----------
        progress
            Counts bytes.
        only
            Pattern of the paths to download, such as ``*C5*``.

        Raises
        ------
        TruthError
            Nothing can be downloaded from here, the net cannot be reached, or a checksum is wrong.
        """
        wanted = [file for file in self.files if fnmatch.fnmatch(file.path, only)]
        if not wanted:
            why = f"No file of {self.title} is called {only}" if self.files else f"{self.title} has no open address"
            todo = f"Download {self.address} by hand into {self.folder}. {self.place.rstrip('.')}"
            raise TruthError(why, where=self.address, todo=todo)
        progress.start(sum(file.bytes for file in wanted), f"Downloading {self.title}")
        return [_fetch(file, self.folder, progress.advance) for file in wanted]


def datasets_folder() -> Path:
    """The folder of all data sets: ``HE2ST_DATASETS`` if set, else a folder of the user's data."""
    named = os.environ.get("HE2ST_DATASETS")
    return Path(named) if named else Path(platformdirs.user_data_dir("napari-he2st", appauthor=False)) / "datasets"


@cache
def catalogue() -> dict[str, Dataset]:
    """All data sets by name, as ``catalogue.toml`` lists them."""
    content = tomllib.loads(Path(__file__).with_name("catalogue.toml").read_text(encoding="utf-8"))
    return {
        name: Dataset(name=name, **(facts | {"files": tuple(RemoteFile(**file) for file in facts.get("files", []))}))
        for name, facts in content.items()
    }


def dataset(name: str) -> Dataset:
    """The data set of that name, whatever the letter case.

    Raises
    ------
    UnknownNameError
        There is none; the message lists near matches.
    """
    known = {key.lower(): value for key, value in catalogue().items()}
    if name.lower() not in known:
        raise unknown_name("data set", name, list(catalogue()))
    return known[name.lower()]


def sha256_of(path: Path) -> str:
    """Checksum of a file, as hexadecimal digits."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _fetch(file: RemoteFile, folder: Path, advance: Callable[[int], None]) -> Path:
    """Bring one file here, whole and checked, or not at all."""
    target = folder / file.path
    if folder.resolve() not in target.resolve().parents:
        raise TruthError("A file of the data set would leave its folder", where=file.path)
    if target.is_file() and target.stat().st_size == file.bytes:
        advance(file.bytes)
        return target
    target.parent.mkdir(parents=True, exist_ok=True)
    part = target.with_name(f".{target.name}.part")
    there = part.stat().st_size if part.exists() else 0
    if there > file.bytes:
        part.unlink()
        there = 0
    advance(there)
    if there < file.bytes:
        _download(file, part, there, advance)
    if sha256_of(part) != file.sha256:
        part.unlink()
        raise TruthError("The file is not what it should be (checksum)", where=file.url, todo="Download it again")
    part.replace(target)
    return target


def _download(file: RemoteFile, part: Path, there: int, advance: Callable[[int], None]) -> None:
    """Append what is missing; a server that cannot resume starts anew."""
    if not file.url.startswith(_SECURE):
        raise TruthError("Data sets are downloaded over https only", where=file.url)
    request = Request(file.url, headers={"Range": f"bytes={there}-"} if there else {})  # noqa: S310 - checked above
    try:
        with urlopen(request, timeout=_TIMEOUT_S) as answer:  # noqa: S310
            resumed = answer.status == 206
            with part.open("ab" if resumed else "wb") as out:
                while block := answer.read(_BLOCK):
                    if out.tell() + len(block) > file.bytes:
                        raise TruthError("The server sends more than the file has", where=file.url)
                    out.write(block)
                    advance(len(block))
    except (HTTPError, URLError, OSError) as error:
        reason = getattr(error, "reason", None) or error
        todo = f"Try again later: it goes on where it stopped. Or put the file by hand to {part.parent}"
        raise TruthError(f"The file cannot be downloaded ({reason})", where=file.url, todo=todo) from error
