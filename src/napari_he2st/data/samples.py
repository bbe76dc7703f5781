"""The section that ships with the package."""

from __future__ import annotations

from importlib.resources import files
from pathlib import Path

from napari_he2st.data.truth import Section, read_section


def sample_folder() -> Path:
    """Folder of the packaged section: image, counts, spots, and the notice that goes with them."""
    return Path(str(files("napari_he2st"))) / "samples" / "her2st_C5"


def sample_section() -> Section:
    """Section C5 of a HER2+ breast tumour, with its image (Andersson et al. 2021).

    Raises
    ------
    TruthError
        The package is incomplete.
    """
    return read_section(sample_folder(), "C5")
