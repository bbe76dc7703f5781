"""Predict what is being looked at: the middle first, a coarse grid first, nothing twice."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from napari_he2st.core import keys
from napari_he2st.core.errors import ModelError
from napari_he2st.core.geometry import bounds_of, inside_box
from napari_he2st.core.progress import Control
from napari_he2st.core.types import Chunk, Grid, Region
from napari_he2st.data.slides.grid import square_grid
from napari_he2st.engine.predict import predict
from napari_he2st.engine.run import in_its_stain, is_dense, sees_a_slide
from napari_he2st.zoo.base import Spots

if TYPE_CHECKING:
    from napari_he2st.data.slides import Slide
    from napari_he2st.data.slides.tissue import TissueMask
    from napari_he2st.zoo.bundle import Bundle

COARSE = 4
"""Spots along each side of the blocks that the coarse grid shows as one."""

MAX_BYTES = 2**30
"""Values that a live map holds; where the tissue needs more, it is coarser than the predictor's own pitch."""

_FIRST, _BATCH = 4, 8  # spots of the first batch, which is seen soonest, and of the others


@dataclass(eq=False)
class LiveMap:
    """What a predictor has been seen to say of a slide.

    Spots that are predicted each by itself are kept: returning to them costs nothing, and they are what a run over
    the slide would give. Spots that see each other get other values in every view, so theirs are not kept.

    Attributes
    ----------
    bundle, slide
        What predicts where.
    grid
        A square lattice over all tissue.
    stain
        As for :func:`~napari_he2st.engine.predict.predict`.
    known
        Spots whose own value is there, bool, shape (spots,).
    """

    bundle: Bundle
    slide: Slide
    grid: Grid
    stain: str | None = None
    known: NDArray[np.bool_] = field(init=False)

    def __post_init__(self) -> None:
        if sees_a_slide(self.bundle.members[0]):
            raise ModelError("This predictor says one thing of a whole slide; there is no map of it to look at")
        self._coloured = in_its_stain(self.bundle, self.slide, self.stain)
        self.known = np.zeros(len(self.grid), dtype=bool)
        block = self.grid.index // COARSE
        _, self._block = np.unique(block, axis=0, return_inverse=True)
        self._block = self._block.ravel()
        middle = np.abs(self.grid.index % COARSE - (COARSE - 1) / 2).sum(axis=1)
        order = np.lexsort((middle, self._block))
        first = np.flatnonzero(np.diff(self._block[order], prepend=-1))
        self._speaker = order[first]  # of each block, the spot nearest to its middle
        self._members = np.split(order, first[1:])
        self._coarse = np.zeros(len(self._speaker), dtype=bool)

    @classmethod
    def over(
        cls,
        bundle: Bundle,
        slide: Slide,
        mask: TissueMask,
        pitch_um: float | None = None,
        stain: str | None = None,
    ) -> LiveMap:
        """A map of all tissue, at the predictor's or the given pitch, or twice that and so on until it fits memory."""
        pitch_um = pitch_um or bundle.manifest.pitch_um
        grid = square_grid(slide, pitch_um, mask=mask)
        while len(grid) * len(bundle.genes) * 4 > MAX_BYTES:
            pitch_um *= 2
            grid = square_grid(slide, pitch_um, mask=mask)
        if not len(grid):
            raise ModelError("No tissue was found on the slide", where=slide.name, todo="Check the tissue mask")
        return cls(bundle, slide, grid, stain)

    @property
    def view_only(self) -> bool:
        """Whether spots see each other, so that values belong to a view and not to the slide."""
        model = self.bundle.members[0]
        return not (is_dense(model) or isinstance(model.unit, Spots))

    def look(self, view: Region, *, device: str = "auto", control: Control | None = None) -> Iterator[Chunk]:
        """Predict what a view shows and is not known yet.

        Yields
        ------
        Chunk
            Rows of :attr:`grid`. Blocks of the coarse grid come first, each with the value of one of its spots;
            then every spot with its own.

        Raises
        ------
        Cancelled
            After the batch during which ``control`` was cancelled.
        """
        control = control or Control()
        box = bounds_of(view.polygon)
        inside = inside_box(self.grid.xy, box)
        middle = np.array([box[0] + box[2] / 2, box[1] + box[3] / 2])
        options: dict[str, Any] = {"device": device, "control": control, "stain": keys.AS_STORED}
        if self.view_only:
            rows = np.flatnonzero(inside)
            if len(rows):
                for chunk in predict(self.bundle, self._coloured, self.grid.take(rows), **options):
                    yield Chunk(chunk.output, rows[chunk.index], chunk.mean, chunk.std)
            return
        if isinstance(self.bundle.members[0].unit, Spots):
            blocks = np.unique(self._block[inside])
            speakers = self._speaker[blocks[~self._coarse[blocks]]]
            yield from self._spoken(self._outwards(speakers[~self.known[speakers]], middle), options)
        rows = self._outwards(np.flatnonzero(inside & ~self.known), middle)
        for chunk in self._batches(rows, options):
            self.known[chunk.index] = True
            yield chunk

    def _spoken(self, speakers: NDArray[np.intp], options: dict[str, Any]) -> Iterator[Chunk]:
        """Values of some spots, spread over what is unknown in their blocks."""
        for chunk in self._batches(speakers, options):
            self.known[chunk.index] = True
            blocks = self._block[chunk.index]
            self._coarse[blocks] = True
            rows, source = [chunk.index], [np.arange(len(chunk.index))]
            for i, block in enumerate(blocks):
                others = self._members[block][~self.known[self._members[block]]]
                rows.append(others)
                source.append(np.full(len(others), i))
            place = np.concatenate(source)
            std = None if chunk.std is None else chunk.std[place]
            yield Chunk(chunk.output, np.concatenate(rows), chunk.mean[place], std)

    def _batches(self, rows: NDArray[np.intp], options: dict[str, Any]) -> Iterator[Chunk]:
        """Predict some rows, a few at first."""
        for size, part in ((_FIRST, rows[:_FIRST]), (_BATCH, rows[_FIRST:])):
            if len(part):
                for chunk in predict(self.bundle, self._coloured, self.grid.take(part), batch_size=size, **options):
                    yield Chunk(chunk.output, part[chunk.index], chunk.mean, chunk.std)

    def _outwards(self, rows: NDArray[np.intp], middle: NDArray[np.float64]) -> NDArray[np.intp]:
        """Rows from the middle of the view outwards."""
        return rows[np.argsort(np.square(self.grid.xy[rows] - middle).sum(axis=1), kind="stable")]
