"""The layout of HEST-1k: ``st/ID.h5ad``, ``wsis/ID.tif`` and ``metadata/ID.json``, or all three in one folder."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

from napari_he2st.core.errors import MissingTruthMppError, TruthError
from napari_he2st.data.truth.h5ad import read_file
from napari_he2st.data.truth.images import images_in, only_image
from napari_he2st.data.truth.section import Detection, Section, Source, truth_reader
from napari_he2st.data.truth.tables import decode, read_bytes

_MPP = ("pixel_size_um_estimated", "pixel_size_um_embedded", "pixel_size_um")
"""Keys of the metadata, the one from the spot pitch first: scanners have been found to lie."""


def _folder(root: Path, name: str) -> Path:
    return root / name if (root / name).is_dir() else root


def _root(path: Path) -> Path | None:
    """The folder of the data set, from itself, a part of it, or one of its files."""
    here = path.parent if path.is_file() else path
    root = here.parent if here.name in ("st", "wsis", "metadata") else here
    return root if root.is_dir() else None


def _sections(root: Path) -> dict[str, Path]:
    """Files of expression that have metadata of the same name."""
    files = {path.stem: path for path in sorted(_folder(root, "st").glob("*.h5ad"))}
    return {name: path for name, path in files.items() if (_folder(root, "metadata") / f"{name}.json").is_file()}


def detect(path: Path) -> Detection | None:
    """Sections by name; a file names its own section alone."""
    root = _root(path)
    sections = {} if root is None else _sections(root)
    if path.is_file():
        sections = {path.stem: sections[path.stem]} if path.stem in sections else {}
    if root is None or not sections:
        return None
    missing = [f"image of {name}" for name in sections if not _images(root, name)]
    found = [f"{len(sections)} sections with metadata" if len(sections) > 1 else f"{next(iter(sections))}.h5ad, .json"]
    return Detection("hest", root, list(sections), found, missing)


def _images(root: Path, name: str) -> list[Path]:
    return [image for image in images_in(_folder(root, "wsis")) if image.name.partition(".")[0] == name]


@truth_reader(
    "hest",
    "HEST-1k: expression, slide and metadata",
    looks_for="st/ID.h5ad, wsis/ID.tif and metadata/ID.json, or the three in one folder",
    detect=detect,
    order=30,
)
def read(detection: Detection, name: str, source: Source) -> Section:
    """Read one section; the pixel size is that of the metadata unless given."""
    root = detection.root
    meta_path = _folder(root, "metadata") / f"{name}.json"
    metadata = _metadata(meta_path)
    missing: list[str] = []
    image = source.image or only_image(_images(root, name), missing)
    sizes = {key: float(metadata[key]) for key in _MPP if isinstance(metadata.get(key), int | float)}
    sizes = {key: value for key, value in sizes.items() if 0 < value < 100}
    said = "given"
    if source.mpp is None and sizes:
        said, mpp = next(iter(sizes.items()))
        source = replace(source, mpp=mpp / (source.image_scale or 1.0))
    try:
        section = read_file(
            Detection(detection.layout, _sections(root)[name], [name], [f"{name}.h5ad", meta_path.name]),
            name, replace(source, image=image), mpp_source=said,
        )  # fmt: skip
    except MissingTruthMppError as error:
        todo = "Give the pixel size (mpp): the metadata tells none"
        raise MissingTruthMppError(error.what, where=meta_path, todo=todo) from error
    warnings = []
    if len(sizes) > 1 and max(sizes.values()) > 1.05 * min(sizes.values()):
        parts = ", ".join(f"{key} {value:g} µm" for key, value in sizes.items())
        warnings = [f"The metadata contradicts itself on the pixel size: {parts}; {said} is used."]
    patient = metadata.get("patient")
    found = section.found + ([image.name] if image is not None else [])
    return replace(
        section, name=name, patient=str(patient) if patient else None, found=found, missing=missing, warnings=warnings
    )


def _metadata(path: Path) -> dict[str, Any]:
    try:
        content = json.loads(decode(read_bytes(path), path))
    except (ValueError, RecursionError) as error:
        raise TruthError(f"The metadata is damaged ({error})", where=path) from error
    if not isinstance(content, dict):
        raise TruthError("The metadata is no table of names and values", where=path)
    return content
