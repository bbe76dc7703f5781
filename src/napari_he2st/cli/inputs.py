"""What a command's argument names on disk: a slide, a measured section, expression."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from napari_he2st.cli import console
from napari_he2st.core.errors import SlideError, TruthError

if TYPE_CHECKING:
    from anndata import AnnData

    from napari_he2st.data.slides import Slide
    from napari_he2st.data.truth import Section
    from napari_he2st.engine.features import Given
    from napari_he2st.zoo.bundle import Bundle


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


def open_slide(text: str, *, mpp: float | None = None, icc: bool = True) -> Slide:
    """The slide that a path names, or the image of the measured section that ``PATH:NAME`` names.

    Its colours are converted to sRGB by its ICC profile, if it has one and ``icc`` says so.

    Raises
    ------
    SlideError
        The section has no image, or the slide cannot be opened.
    """
    from napari_he2st.core.schema import facts_of
    from napari_he2st.data.slides import Slide

    if is_slide(text):
        return Slide.open(text, mpp=mpp, icc=icc)
    section = open_section(text, mpp=mpp)
    if section.slide_path is None:
        raise SlideError("The section has no image", where=text, todo="Name the slide itself and pass --spots")
    return Slide.open(section.slide_path, mpp=facts_of(section.adata)["mpp"], icc=icc, name=section.name)


def read_expression(text: str) -> AnnData:
    """Expression of a measured section, or of any h5ad file with spot positions, measured or predicted."""
    return open_section(text).adata


def read_given(slide: Slide, *, nuclei: Path | None, cells: Path | None, measured: str | None) -> Given:
    """What the user names beside a slide."""
    from napari_he2st.data.nuclei import read_nuclei
    from napari_he2st.engine.features import Given

    return Given(
        measured=None if measured is None else open_section(measured, mpp=slide.mpp).adata,
        cells=None if cells is None else _read_cells(cells),
        nuclei=None if nuclei is None else read_nuclei(nuclei, slide),
    )


def load_or_fit(model: str, slide: Slide, given: Given, measured: str | None, *, seed: int, device: str) -> Bundle:
    """A bundle by name or path; or, of a system that learns the slide it predicts, one trained on measured spots."""
    from napari_he2st.engine.train import train
    from napari_he2st.zoo.base import Predictor
    from napari_he2st.zoo.catalogue import cards, load, system

    if measured is None or model not in cards():
        return load(model)
    cls = system(model)
    if not (issubclass(cls, Predictor) and cls.fitted == "slide"):
        raise TruthError(
            "This system learns many slides, not the one it predicts", where=model, todo="Train it with he2st train"
        )
    section = replace(open_section(measured, mpp=slide.mpp), slide_path=Path(slide.path))
    return train(model, [section], seed=seed, device=device, given=given)


def warn_of_misfit(section: Section) -> None:
    """Warn when the spots of a section do not lie on the tissue of its image."""
    from napari_he2st.core.schema import facts_of
    from napari_he2st.data.slides import Slide
    from napari_he2st.data.slides.tissue import tissue_mask
    from napari_he2st.data.truth.fit import check_fit

    if section.slide_path is None:
        return
    with Slide.open(section.slide_path, mpp=facts_of(section.adata)["mpp"]) as slide:
        fit = check_fit(section.adata, tissue_mask(slide))
    if fit.message:
        console.warn(f"{section.name}: {fit.message}")


def _read_cells(path: Path) -> AnnData:
    import anndata

    try:
        return anndata.read_h5ad(path)
    except (OSError, ValueError, KeyError) as error:
        raise TruthError(f"The single cells cannot be read ({error})", where=path, todo="Give an h5ad file") from error
