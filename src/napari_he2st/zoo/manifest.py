"""``he2st.json``, what a bundle says of itself; readable without loading any weights."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import Any, Literal

from napari_he2st.core.errors import BundleError
from napari_he2st.zoo.fields import read_fields

FILE_NAME = "he2st.json"
FORMAT = 1
_MAX_BYTES = 64 * 2**20
_PLAIN_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*")
_LIBRARIES = ("napari-he2st", "torch", "timm", "numpy")


@dataclass(frozen=True, kw_only=True)
class FileRecord:
    """Size in bytes and checksum of one file of a bundle."""

    bytes: int
    sha256: str


@dataclass(frozen=True, kw_only=True)
class Manifest:
    """The facts about a trained predictor.

    Attributes
    ----------
    name
        Its id: letters, digits, dots, hyphens and underscores.
    title
        For people.
    system, variant, arguments
        The system's slug, the variant it was built from (or None), and all constructor arguments.
    genes, ensembl
        Symbols in the order of the output, and their Ensembl identifiers (empty, or None where unknown).
    scale
        Expression scale of the output.
    tile_px, mpp
        Tile width in pixels and micrometres per pixel that it was trained at.
    pitch_um
        Distance of neighbouring spots it was trained at, and predicts at by default.
    stain
        How the stain of its training slides was normalised, and that of a slide is when it predicts: ``"macenko"``,
        ``"reinhard"``, or empty for colours as they are.
    encoder
        Names of the encoders it needs.
    organs, species, licence
        Of its training data and weights.
    training
        One record per section: ``section``, ``patient``, ``fingerprint``, ``spots``, ``source``.
    scores
        Metric → one held-out value per gene, None where unknown. ``"pcc"`` is the one shown beside genes;
        ``"pcc_low"`` and ``"pcc_high"`` bound it (95 %); ``notes`` say how each was obtained.
    trusted_pcc
        Genes whose ``"pcc"`` is lower, or unknown, are not to be trusted; None where nothing was scored.
    splits
        One record per honest split: ``kind``, ``trained``, ``scored``, ``genes``, ``mean_pcc``,
        ``median_pcc`` (None where no gene can be scored); of predictions with a spread also ``within_95``, the share
        of values within 1.96 of it, and ``spread_factor``, what makes it right on average.
    history
        One record per epoch of the last fit: ``loss``, ``val_pcc`` and what the system adds.
    notes
        What a user has to know.
    members
        Size of the ensemble.
    dtype
        How floats of the state are stored; always computed in float32.
    extras
        Per member, fitted values that are not in the state: plain ones here, arrays in their own file.
    created, versions
        When, and with which libraries.
    files
        Size and checksum of every file beside this one.
    format
        Version of this layout.
    """

    name: str
    title: str
    system: str
    arguments: Mapping[str, Any]
    genes: tuple[str, ...]
    scale: str
    tile_px: int
    mpp: float
    pitch_um: float
    variant: str | None = None
    ensembl: tuple[str | None, ...] = ()
    stain: str = ""
    encoder: tuple[str, ...] = ()
    organs: tuple[str, ...] = ()
    species: tuple[str, ...] = ()
    licence: str = ""
    training: tuple[Mapping[str, Any], ...] = ()
    scores: Mapping[str, tuple[float | None, ...]] = field(default_factory=dict)
    trusted_pcc: float | None = None
    splits: tuple[Mapping[str, Any], ...] = ()
    history: tuple[Mapping[str, Any], ...] = ()
    notes: str = ""
    members: int = 1
    dtype: Literal["float32", "float16"] = "float32"
    extras: tuple[Mapping[str, Any], ...] = ()
    created: str = field(default_factory=lambda: datetime.now(UTC).isoformat(timespec="seconds"))
    versions: Mapping[str, str] = field(default_factory=lambda: {name: version(name) for name in _LIBRARIES})
    files: Mapping[str, FileRecord] = field(default_factory=dict)
    format: int = FORMAT

    def __post_init__(self) -> None:
        if not _PLAIN_NAME.fullmatch(self.name):
            todo = "Use letters, digits, dots, hyphens and underscores"
            raise BundleError(f"{self.name!r} is no name for a bundle", todo=todo)
        scores = {metric: _numbers_or_none(values) for metric, values in self.scores.items()}
        object.__setattr__(self, "scores", scores)
        object.__setattr__(self, "splits", tuple(_finite(record) for record in self.splits))
        object.__setattr__(self, "history", tuple(_finite(record) for record in self.history))
        if len(set(self.genes)) != len(self.genes):
            raise BundleError("Gene symbols appear more than once", where=self.name)
        for what, values in {"ensembl": self.ensembl or self.genes, **scores}.items():
            if len(values) != len(self.genes):
                raise BundleError(f"{what!r} has {len(values)} values for {len(self.genes)} genes", where=self.name)

    def render(self) -> bytes:
        """The file's content; the same facts always give the same bytes."""
        return json.dumps(asdict(self), indent=1, ensure_ascii=False, allow_nan=False).encode()


def _finite(record: Mapping[str, Any]) -> dict[str, Any]:
    """A record whose numbers that are not finite are None, as the score of a constant prediction."""
    return {
        key: None if isinstance(value, float) and not math.isfinite(value) else value for key, value in record.items()
    }


def _numbers_or_none(values: Iterable[float | None]) -> tuple[float | None, ...]:
    return tuple(None if value is None or not math.isfinite(value) else float(value) for value in values)


def read_manifest(folder: Path) -> Manifest:
    """Read and check the manifest of a bundle's folder, without touching its other files.

    Raises
    ------
    BundleError
        It is missing, too large, not JSON, of a newer format, or names a file outside the folder.
    """
    path = folder / FILE_NAME
    try:
        size = path.stat().st_size
        if size > _MAX_BYTES:
            raise BundleError(f"The manifest is too large ({size:,} bytes)", where=path)
        table = json.loads(path.read_bytes())
    except FileNotFoundError as error:
        raise BundleError(f"This is no bundle, for it has no {FILE_NAME}", where=folder) from error
    except (json.JSONDecodeError, UnicodeDecodeError, RecursionError) as error:
        raise BundleError(f"The manifest is not readable JSON ({error})", where=path) from error
    if not isinstance(table, dict):
        raise BundleError("The manifest is not a JSON object", where=path)
    if table.get("format") != FORMAT:
        todo = "Update napari-he2st" if isinstance(table.get("format"), int) else "Make the bundle again"
        raise BundleError(f"The bundle has format {table.get('format')!r}, not {FORMAT}", where=path, todo=todo)
    manifest = read_fields(Manifest, table, where=path, error=BundleError)
    for name in manifest.files:
        if not _PLAIN_NAME.fullmatch(name):
            raise BundleError(f"The manifest names a file outside the folder ({name!r})", where=path)
    return manifest
