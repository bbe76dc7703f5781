"""Measured spatial transcriptomics: one file per layout, all read into one schema."""

from __future__ import annotations

from napari_he2st.data.truth.read import detect, parse_section, read_section, read_truth
from napari_he2st.data.truth.section import TRUTH_READERS, Detection, Section, Source, truth_reader

__all__ = [
    "TRUTH_READERS",
    "Detection",
    "Section",
    "Source",
    "detect",
    "parse_section",
    "read_section",
    "read_truth",
    "truth_reader",
]
