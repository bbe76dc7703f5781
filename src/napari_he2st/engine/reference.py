"""The training spots that a prediction by retrieval was made of, and what they look like."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import torch
from numpy.typing import NDArray

from napari_he2st.core.errors import ModelError
from napari_he2st.core.types import Grid
from napari_he2st.data.slides.pictures import PICTURE_PX, pictures
from napari_he2st.engine.device import choose_device
from napari_he2st.engine.features import Scene
from napari_he2st.engine.inputs import Supply
from napari_he2st.engine.training_data import TrainingSection
from napari_he2st.zoo.base import Predictor, Spots
from napari_he2st.zoo.blocks.retrieval import Retrieval

if TYPE_CHECKING:
    from napari_he2st.core.progress import Progress
    from napari_he2st.data.slides import Slide
    from napari_he2st.zoo.bundle import Bundle

_PICTURED = 20_000
"""Reference spots up to which a bundle keeps pictures of them."""
_AROUND = 256
"""Spots that a system sees beside the one that is asked about, where it sees any."""
_EMBEDDED = 64
"""Spots that go through a predictor together."""
_MEASURES = {"cosine": "cosine similarity", "dot": "similarity", "euclidean": "negative distance"}


@dataclass(frozen=True, eq=False)
class Matches:
    """The reference spots nearest to one spot, the nearest first.

    Attributes
    ----------
    query
        Picture of the spot itself, uint8 (px, px, 3).
    similarity
        float32, shape (n,); ``measure`` says of what kind.
    measure
        In words.
    sections
        Training section of each.
    xy
        Where each lies there, level-0 pixels, shape (n, 2).
    expression
        In the predictor's scale, float32 (n, genes).
    pictures
        uint8 (n, px, px, 3); None where the bundle keeps none.
    """

    query: NDArray[np.uint8]
    similarity: NDArray[np.float32]
    measure: str
    sections: list[str]
    xy: NDArray[np.float64]
    expression: NDArray[np.float32]
    pictures: NDArray[np.uint8] | None


def looks_up(bundle: Bundle) -> bool:
    """Whether a predictor answers with the training spots that look alike."""
    return isinstance(bundle.members[0], Retrieval)


def matches(bundle: Bundle, slide: Slide, grid: Grid, row: int, *, n: int = 12, device: str = "auto") -> Matches:
    """The reference spots that look most like one spot of a slide.

    Parameters
    ----------
    bundle
        A predictor that :func:`looks_up`.
    slide, grid, row
        The spot: a row of the grid.
    n
        Number of reference spots.
    device
        As for :func:`~napari_he2st.engine.predict.predict`.

    Raises
    ------
    ModelError
        The predictor has no reference, or the spot's tile cannot be read.
    """
    model, manifest, where = bundle.members[0], bundle.manifest, choose_device(device)
    if not isinstance(model, Retrieval):
        todo = "Choose one whose task is retrieval"
        raise ModelError(f"{manifest.title} does not look up training spots", todo=todo)
    alone = isinstance(model.unit, Spots)
    rows = np.array([row], dtype=np.intp) if alone else _around(grid, row)
    scene = Scene(slide, grid, manifest.mpp, where, manifest.pitch_um, model)
    model = model.to(where).eval()
    with torch.inference_mode():
        for _, values, ok in Supply(model.inputs, scene, [rows], together=not alone):
            place = int(np.flatnonzero(rows == row)[0])
            if not ok[place]:
                raise ModelError("The tile of this spot cannot be read", where=slide.name)
            found = model.retrieve(n_neighbours=n, **model.prepare(**values))
    bank = model.extras["reference"]
    here = found.rows[place].cpu().numpy()
    names = [str(section.get("section", "?")) for section in manifest.training]
    return Matches(
        query=pictures(slide, grid.xy[[row]], manifest.tile_px * manifest.mpp)[0],
        similarity=found.similarity[place].cpu().numpy(),
        measure=_MEASURES[model.metric],
        sections=[names[number] if number < len(names) else "?" for number in bank["slide"][here].tolist()],
        xy=np.asarray(bank["xy"])[here] if "xy" in bank else np.full((len(here), 2), np.nan),
        expression=np.asarray(bank["expression"])[here],
        pictures=np.asarray(bank["picture"])[here] if "picture" in bank else None,
    )


def embeddings(
    bundle: Bundle, slide: Slide, grid: Grid, *, device: str = "auto", progress: Progress | None = None
) -> NDArray[np.float32]:
    """What the images of spots look like to a predictor that :func:`looks_up`, float32 (spots, dim).

    Raises
    ------
    ModelError
        It does not look up training spots.
    """
    model, manifest, where = bundle.members[0], bundle.manifest, choose_device(device)
    if not isinstance(model, Retrieval):
        todo = "Choose one whose task is retrieval, or an encoder"
        raise ModelError(f"{manifest.title} does not embed what spots look like", todo=todo)
    alone = isinstance(model.unit, Spots)
    n = len(grid)
    parts = [np.arange(start, min(start + _EMBEDDED, n), dtype=np.intp) for start in range(0, n, _EMBEDDED)]
    scene = Scene(slide, grid, manifest.mpp, where, manifest.pitch_um, model)
    model = model.to(where).eval()
    if progress is not None:
        progress.start(n, "Embedding tiles")
    found: list[NDArray[np.float32]] = []
    with torch.inference_mode():
        for rows, values, _ in Supply(model.inputs, scene, parts if alone else [np.arange(n)], together=not alone):
            found.append(model.embed_images(**model.prepare(**values)).float().cpu().numpy())
            if progress is not None:
                progress.advance(len(rows))
    return np.concatenate(found)


def describe_reference(member: Predictor, sections: Sequence[TrainingSection], tile_um: float) -> None:
    """Add to the reference of a trained member where each spot lies, and a picture of it.

    Parameters
    ----------
    member
        Whose ``extras["reference"]`` says section and row of each spot; others are left alone.
    sections
        The training sections, in their order.
    tile_um
        Width of the field that a picture shows.
    """
    bank = member.extras.get("reference")
    if not isinstance(member, Retrieval) or bank is None:
        return
    of_section = [np.flatnonzero(bank["slide"] == number) for number in range(len(sections))]
    xy = np.full((len(bank["slide"]), 2), np.nan)
    for section, own in zip(sections, of_section, strict=True):
        xy[own] = section.grid.xy[bank["row"][own]]
    bank["xy"] = xy
    if len(xy) <= _PICTURED:
        bank["picture"] = np.zeros((len(xy), PICTURE_PX, PICTURE_PX, 3), dtype=np.uint8)
        for section, own in zip(sections, of_section, strict=True):
            bank["picture"][own] = pictures(section.slide, xy[own], tile_um)


def _around(grid: Grid, row: int) -> NDArray[np.intp]:
    """A spot and those around it, in the grid's order."""
    distance = np.square(grid.xy - grid.xy[row]).sum(axis=1)
    return np.sort(np.argsort(distance, kind="stable")[:_AROUND]).astype(np.intp)
