"""DICOM whole-slide images, through wsidicom (an extra; without it they are left to OpenSlide)."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from napari_he2st.core.errors import SlideError
from napari_he2st.data.slides.pixel_size import PixelSize
from napari_he2st.data.slides.source import (
    MAX_TILE_BYTES,
    PARSE_ERRORS,
    DamagedSlideError,
    Facts,
    OtherFormatError,
    Source,
    TileError,
    TileLevel,
    laid_on_white,
    slide_reader,
)

_MAX_SIBLINGS = 2000  # files of a folder whose headers are looked at
_SYNTAXES = {
    "1.2.840.10008.1.2": "none",
    "1.2.840.10008.1.2.1": "none",
    "1.2.840.10008.1.2.4.50": "JPEG",
    "1.2.840.10008.1.2.4.51": "JPEG",
    "1.2.840.10008.1.2.4.80": "JPEG-LS",
    "1.2.840.10008.1.2.4.90": "JPEG 2000, lossless",
    "1.2.840.10008.1.2.4.91": "JPEG 2000",
    "1.2.840.10008.1.2.5": "RLE",
}


@slide_reader(
    "dicom", "DICOM whole-slide images, all files of a series (extra: slides)", order=15, formats={"DICOM": "real file"}
)
def read_dicom(path: Path) -> Source:
    """Open the series that a DICOM file belongs to; its other files lie in the same folder.

    Raises
    ------
    SlideError
        It is no DICOM slide, or wsidicom is not installed.
    DamagedSlideError
        It is a DICOM slide whose frames cannot be placed.
    """
    with path.open("rb") as file:
        if file.read(132)[128:] != b"DICM":
            raise OtherFormatError("not a DICOM file")
    try:
        import wsidicom
        from pydicom.config import disable_value_validation
    except ImportError as error:
        raise SlideError("wsidicom is not installed", todo="pip install 'napari-he2st[slides]'") from error
    try:
        with disable_value_validation():  # identifiers that are too long are no harm
            return DicomSource(wsidicom.WsiDicom.open(_series(path)), _series_of(path))
    except SlideError:
        raise
    except _errors() as error:
        raise SlideError(f"not a readable DICOM slide ({str(error).replace(str(path), path.name)})") from error


class DicomSource(Source):
    """The volume images of a series; frames are decoded one by one."""

    def __init__(self, wsi: Any, series: str | None) -> None:
        self._wsi, self._errors = wsi, _errors()
        levels = [level for level in wsi.levels if level.default_instance.image_data.bits == 8]
        if not levels:
            raise SlideError("its pixels are not 8 bits per colour")
        self._numbers = [level.level for level in levels]
        full = levels[0]
        for level in levels:
            if level.tile_size.width * level.tile_size.height * 3 > MAX_TILE_BYTES:
                raise DamagedSlideError(f"It declares tiles of {level.tile_size}", todo="Check where it comes from")
        self.levels = tuple(
            TileLevel(
                v.size.width, v.size.height, v.tile_size.width, v.tile_size.height, float(2 ** (v.level - full.level))
            )
            for v in levels
        )
        syntax = str(full.default_instance.image_data.transfer_syntax)
        optics = wsi.pyramid.metadata.optical_paths
        objective = optics[0].objective if optics else None
        self.facts = Facts(
            format="DICOM WSI",
            compression=_SYNTAXES.get(syntax, syntax),
            pixel_sizes=(PixelSize("DICOM pixel spacing", full.mpp.width, full.mpp.height),),
            objective_power=None if objective is None else objective.objective_power,
            identity=series or "",
            icc=optics[0].icc_profile if optics else None,
            associated=tuple(name for name in ("labels", "overviews") if getattr(wsi, name)),
        )

    def decode_tile(
        self, level: int, column: int, row: int, out: NDArray[np.uint8] | None = None
    ) -> NDArray[np.uint8] | None:
        """See :meth:`Source.decode_tile`."""
        try:
            pixels = self._wsi.read_tile(self._numbers[level], (column, row), as_array=True)
        except self._errors as error:
            message = f"Tile at column {column}, row {row} of level {level} is damaged ({error})"
            raise TileError(message, todo="Copy the file again if this happens often") from error
        return laid_on_white(np.atleast_3d(pixels))

    def close(self) -> None:
        """Close all files of the series."""
        self._wsi.close()


def _errors() -> tuple[type[Exception], ...]:
    """What wsidicom raises: its errors have no base of their own."""
    from wsidicom import errors

    own = [kind for kind in vars(errors).values() if isinstance(kind, type) and issubclass(kind, Exception)]
    return (*own, *PARSE_ERRORS)


def _series(path: Path) -> list[Path]:
    """The DICOM files of the folder that belong to the same series as ``path``."""
    series = _series_of(path)
    siblings = sorted(file for file in path.parent.glob(f"*{path.suffix}") if file != path and file.is_file())
    return [path, *(file for file in siblings[:_MAX_SIBLINGS] if series and _series_of(file) == series)]


def _series_of(path: Path) -> str | None:
    import pydicom

    try:
        header = pydicom.dcmread(path, stop_before_pixels=True, specific_tags=["SeriesInstanceUID"])
    except (pydicom.errors.InvalidDicomError, *PARSE_ERRORS):
        return None
    return str(header.get("SeriesInstanceUID", "")) or None
