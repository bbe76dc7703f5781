"""Slides: opening, reading, tissue, grids."""

from napari_he2st.data.slides.opening import is_address, is_slide_folder, probe
from napari_he2st.data.slides.slide import Level, Slide
from napari_he2st.data.slides.source import SLIDE_READERS, slide_reader
from napari_he2st.data.slides.stream import TileBatch

__all__ = ["SLIDE_READERS", "Level", "Slide", "TileBatch", "is_address", "is_slide_folder", "probe", "slide_reader"]
