"""What a command's argument names on disk: a slide, a measured section, expression."""

from __future__ import annotations

from typing import TYPE_CHECKING

from napari_he2st.core.errors import SlideError

if TYPE_CHECKING:
    from anndata import AnnData

    from napari_he2st.data.slides import Slide
    from napari_he2st.data.truth import Section


def open_section(text: str, *, mpp: float | None = None) -> Section:
    """The measured section that ``PATH`` or ``PATH:NAME`` names."""
    from napari_he2st.data.truth import parse_section, read_section

    path, name = parse_section(text)
    return read_section(path, name, mpp=mpp)


def is_slide(text: str) -> bool:
    """Whether an argument names a slide: an address, a file or an OME-Zarr folder, and no measured section."""
    from napari_he2st.data.slides import is_address, is_slide_folder
    from napari_he2st.data.truth import parse_section

    if is_address(text):
        return True
    path, name = parse_section(text)
    return name is None and (is_slide_folder(path) if path.is_dir() else path.suffix.lower() != ".h5ad")


def open_slide(text: str, *, mpp: float | None = None) -> Slide:
    """The slide that a path names, or the image of the measured section that ``PATH:NAME`` names.

    Raises
    ------
    SlideError
        The section has no image, or the slide cannot be opened.
    """
    from napari_he2st.core.schema import facts_of
    from napari_he2st.data.slides import Slide

    if is_slide(text):
        return Slide.open(text, mpp=mpp)
    section = open_section(text, mpp=mpp)
    if section.slide_path is None:
        raise SlideError("The section has no image", where=text, todo="Name the slide itself and pass --spots")
    return Slide.open(section.slide_path, mpp=facts_of(section.adata)["mpp"])


def read_expression(text: str) -> AnnData:
    """Expression of a measured section, or of any h5ad file with spot positions, measured or predicted."""
    return open_section(text).adata
