"""Where the published sets of Spatial Transcriptomics arrays keep their files.

=================  =========================================  ==========================================
set                counts, spots x genes                      positions
=================  =========================================  ==========================================
her2st             ``NAME.tsv``, also in ``ST-cnts``           ``NAME_selection.tsv``, also in ``ST-spotfiles``
STUtility (MOB)    ``NAME.tsv``                                ``alignment_table_NAME.tsv``
cSCC (GSE144240)   ``GSM…_NAME_stdata.tsv``                    ``GSM…_spot_data-selection-NAME.tsv``
ST-Net, Breast-ST  ``NAME_stdata.tsv``                         ``spots_NAME.csv``
MOB (2016)         ``NAME_count_matrix-1.tsv``                 ``NAME_transformation.txt``
=================  =========================================  ==========================================

Every table may be gzipped.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

from napari_he2st.data.truth.images import images_in

_FOLDERS = ("ST-cnts", "ST-spotfiles", "ST-imgs", "ST-pat", "lbl")
_GSM = r"(?:GSM\d+_)?"
_SPOTS = tuple(
    re.compile(pattern)
    for pattern in (
        r"(?P<name>.+)_selection\.tsv",
        r"alignment_table_(?P<name>.+)\.tsv",
        _GSM + r"spot_data-(?:selection|all)-(?P<name>.+)\.tsv",
        r"spots_(?P<name>.+)\.csv",
        r"(?P<name>.+)_transformation\.txt",
    )
)
_COUNTS = tuple(
    re.compile(pattern) for pattern in (_GSM + r"(?P<name>.+)_(?:stdata|count_matrix-1)\.tsv", r"(?P<name>.+)\.tsv")
)
_LABELS = tuple(
    re.compile(pattern) for pattern in (r"(?P<name>.+)_labeled_coordinates\.tsv", r"(?P<name>.+)_Coords\.tsv")
)


@dataclass(frozen=True)
class Parts:
    """Files of one section."""

    counts: Path | None = None
    spots: Path | None = None
    labels: Path | None = None
    images: tuple[Path, ...] = ()

    @property
    def complete(self) -> bool:
        """Whether the section can be read."""
        return self.counts is not None and self.spots is not None


def root_of(path: Path) -> Path:
    """The folder of the data set, from itself, its parent, or one of its parts."""
    here = path.parent if path.is_file() else path
    while here.name in _FOLDERS:
        here = here.parent
    return next((folder for folder in (here, here / "data") if (folder / "ST-spotfiles").is_dir()), here)


def find(root: Path) -> dict[str, Parts]:
    """Sections with positions, by name; counts may be missing."""
    spots = _matching(_part(root, "ST-spotfiles"), _SPOTS)
    labels = _matching(_part(root, "ST-pat/lbl"), _LABELS)
    taken = {*spots.values(), *labels.values()}
    counts = _matching(_part(root, "ST-cnts"), _COUNTS, without=taken)
    images = images_in(root)
    return {
        name: Parts(counts.get(name), path, labels.get(name), _images(root, images, name, alone=len(spots) == 1))
        for name, path in sorted(spots.items())
    }


def counts_without_spots(root: Path) -> list[str]:
    """Names of counts in a folder of their own that have no positions."""
    if not (root / "ST-cnts").is_dir():
        return []
    spots = _matching(_part(root, "ST-spotfiles"), _SPOTS)
    return sorted(_matching(root / "ST-cnts", _COUNTS).keys() - spots.keys())


def gene_names(root: Path) -> Path | None:
    """A table of gene identifiers and symbols beside the counts."""
    return next(iter(sorted([*root.glob("*_genes.tsv"), *root.glob("*_genes.tsv.gz")])), None)


def _part(root: Path, name: str) -> Path:
    return root / name if (root / name).is_dir() else root


def _matching(folder: Path, patterns: tuple[re.Pattern[str], ...], without: set[Path] | None = None) -> dict[str, Path]:
    """Files by the section's name, as the first pattern that fits tells it."""
    found: dict[str, Path] = {}
    for path in sorted(folder.iterdir()) if folder.is_dir() else []:
        if path in (without or set()) or not path.is_file():
            continue
        name = path.name.removesuffix(".gz")
        match = next((match for pattern in patterns if (match := pattern.fullmatch(name))), None)
        if match is not None:
            found.setdefault(match["name"], path)
    return found


def _images(root: Path, images: list[Path], name: str, *, alone: bool) -> tuple[Path, ...]:
    """Images of a section: in a folder of its name, or with its name as a word of theirs."""
    if (root / "ST-imgs").is_dir():
        return tuple(image for folder in sorted((root / "ST-imgs").rglob(name)) for image in images_in(folder))
    words = {name, name.removesuffix("_MOB")}
    word = "|".join(re.escape(part) for part in sorted(words))
    own = tuple(path for path in images if re.search(rf"(?<![0-9A-Za-z])(?:{word})(?![0-9A-Za-z])", path.stem))
    return own or (tuple(images) if alone else ())
