"""What is open in one viewer (or one script): slides, results, domains, regions. No Qt.

Docks observe a session and hold no data; they call its methods and never each other. Every change is
announced by a psygnal signal, in the thread that made the change: only the GUI thread changes a session
that a window shows.
"""

from __future__ import annotations

import itertools
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray
from psygnal import Signal
from scipy.sparse import issparse

from napari_he2st.core import keys
from napari_he2st.core.errors import He2stError, UnknownNameError
from napari_he2st.core.schema import facts_of, grid_of
from napari_he2st.core.types import Chunk, Grid, Nuclei, Transform
from napari_he2st.data.truth.fit import Warp, move
from napari_he2st.engine.gene_marks import GeneMarks
from napari_he2st.engine.session_items import DENSE_BYTES, Derived, Made, Result, SlideItem, first_gene
from napari_he2st.engine.session_marks import SessionMarks

if TYPE_CHECKING:
    import pandas as pd
    from anndata import AnnData

    from napari_he2st.data.slides import Slide
    from napari_he2st.data.slides.tissue import TissueMask
    from napari_he2st.engine.compare import Comparison


class Session(SessionMarks):
    """Everything that is open together.

    Signals carry names, so that a listener that no longer finds the item can ignore it:
    ``slide_added/slide_removed/slide_changed(name)``, ``result_added/result_removed(name)``,
    ``result_filled(name, rows)`` while a run goes on, ``result_finished(name)``, ``result_moved(name)``,
    ``domains_changed(result_name)``, ``regions_changed(slide_name)``, ``nuclei_changed(slide_name)``,
    ``landmarks_changed(slide_name)``, and ``landmarks_restored`` when they come from elsewhere than the window,
    ``comparison_changed()``, ``slide_registered(moving, fixed)``,
    ``selection_changed()`` when the current slide, result or gene changes,
    ``spots_chosen()`` when spots of the current result are, ``derived_changed(result_name)`` when a map is added to
    a result or taken away, ``predictor_added(folder)``.
    """

    slide_added = Signal(str)
    slide_changed = Signal(str)
    slide_removed = Signal(str)
    result_added = Signal(str)
    result_filled = Signal(str, object)
    result_finished = Signal(str)
    result_moved = Signal(str)
    result_removed = Signal(str)
    nuclei_changed = Signal(str)
    comparison_changed = Signal()
    slide_registered = Signal(str, str)
    selection_changed = Signal()
    derived_changed = Signal(str)
    predictor_added = Signal(str)

    def __init__(self) -> None:
        super().__init__()
        self.slides: dict[str, SlideItem] = {}
        self.predictors: list[str] = []
        self._moves: dict[str, list[tuple[NDArray[np.float64], dict[str, Any], pd.Series | None]]] = {}
        self.registrations: dict[tuple[str, str], Transform] = {}
        self.comparisons: dict[str, Comparison] = {}
        self.compared = ("", "")
        self.slide: str | None = None
        self.gene: str | None = None
        self.marks = GeneMarks()

    # --- slides

    def add_slide(self, slide: Slide) -> SlideItem:
        """Add an open slide and make it the current one; the same content twice gives the first item."""
        for item in self.slides.values():
            if item.slide.fingerprint == slide.fingerprint:
                self.select(slide=item.name)
                return item
        item = SlideItem(_unique(slide.name, self.slides), slide)
        self.slides[item.name] = item
        self.regions[item.name] = []
        self.slide_added.emit(item.name)
        self.select(slide=item.name)
        return item

    def set_mask(self, slide: str, mask: TissueMask) -> None:
        """Keep the tissue mask of a slide."""
        self.slides[slide].mask = mask
        self.slide_changed.emit(slide)

    def set_profiled(self, slide: str, on: bool) -> None:
        """Convert the colours of a slide by its ICC profile, or leave them as stored; its tissue is unknown then."""
        item = self.slides[slide]
        item.slide, item.mask = item.slide.by_profile(on), None
        self.slide_changed.emit(slide)

    def set_nuclei(self, slide: str, nuclei: Nuclei) -> None:
        """Keep the nuclei of a slide, in place of those it had."""
        self.slides[slide].nuclei = nuclei
        self.nuclei_changed.emit(slide)

    def remove_slide(self, name: str) -> None:
        """Close a slide with all its results."""
        for result in [r.name for r in self.results.values() if r.slide == name]:
            self.remove_result(result)
        item = self.slides.pop(name)
        for kept in (self.regions, self._past_regions, self.landmarks):
            kept.pop(name, None)
        self.registrations = {pair: found for pair, found in self.registrations.items() if name not in pair}
        item.slide.original.close()
        if self.slide == name:
            self.select(slide=next(iter(self.slides), None))
        self.slide_removed.emit(name)

    def register_slide(self, moving: str, fixed: str, transform: Transform) -> None:
        """Keep how a slide comes to lie on another: from its micrometres (x, y) to those of the other."""
        self.registrations[moving, fixed] = transform
        self.registrations[fixed, moving] = transform.inverse()
        self.slide_registered.emit(moving, fixed)

    def add_predictor(self, folder: str) -> None:
        """Keep the folder of a predictor that was trained here."""
        if folder not in self.predictors:
            self.predictors.append(folder)
        self.predictor_added.emit(folder)

    # --- results

    def begin_result(self, name: str, slide: str, grid: Grid, genes: list[str], **facts: Any) -> Result:
        """Add a predicted result that :meth:`fill` will complete; ``facts`` are fields of :class:`Result`."""
        facts.setdefault("scores", np.full(len(genes), np.nan, dtype=np.float32))
        result = Result(
            _unique(name, self.results),
            "predicted",
            slide,
            grid,
            list(genes),
            np.full((len(grid), len(genes)), np.nan, dtype=np.float32),
            **facts,
        )
        self._add_result(result)
        return result

    def fill(self, name: str, chunk: Chunk) -> None:
        """Write a chunk of a running prediction into its result, in place."""
        result = self.results.get(name)
        if result is None:  # the user removed it while it ran
            return
        result.values[chunk.index] = chunk.mean
        if chunk.std is not None:
            if result.std is None:
                result.std = np.full_like(result.values, np.nan)
            result.std[chunk.index] = chunk.std
        self.result_filled.emit(name, chunk.index)

    def forget(self, name: str) -> None:
        """Make all values of a result unknown again."""
        result = self.results[name]
        result.values[:] = np.nan
        if result.std is not None:
            result.std[:] = np.nan
        self.result_filled.emit(name, np.arange(len(result.grid), dtype=np.intp))

    def finish(self, name: str, adata: AnnData | None) -> None:
        """Say that a running prediction is complete (or stopped: then ``adata`` is None)."""
        if name in self.results:
            self.results[name].adata = adata
            self.result_finished.emit(name)

    def add_adata(
        self,
        adata: AnnData,
        slide: str,
        *,
        name: str | None = None,
        warnings: tuple[str, ...] = (),
        made: Made | None = None,
    ) -> Result:
        """Add measured or predicted expression that follows the schema; ``made`` is how it came to be."""
        facts = facts_of(adata)
        X = adata.X
        if issparse(X) and 4 * X.shape[0] * X.shape[1] > DENSE_BYTES:
            values = X.tocsc().astype(np.float32)
        else:
            values = np.asarray(X.toarray() if issparse(X) else X, dtype=np.float32)
        scores = adata.var[keys.HELD_OUT_PCC] if keys.HELD_OUT_PCC in adata.var else np.full(adata.n_vars, np.nan)
        result = Result(
            _unique(name or facts["library"], self.results),
            facts["kind"],
            slide,
            grid_of(adata),
            list(map(str, adata.var_names)),
            values,
            facts["scale"],
            np.asarray(scores, dtype=np.float32),
            adata=adata,
            warnings=list(warnings),
            made=made,
            std=None if keys.STD not in adata.layers else np.asarray(adata.layers[keys.STD], dtype=np.float32),
        )
        self._add_result(result)
        return result

    def move_spots(self, name: str, transform: Transform | Warp, said: str) -> None:
        """Bring the spots of a measured result into register with its slide; see
        :func:`napari_he2st.data.truth.fit.move`.

        A comparison that they were part of is dropped, as it no longer holds.

        Raises
        ------
        He2stError
            The result has no positions of its own.
        """
        adata = self.results[name].adata
        if adata is None or self.results[name].kind != "measured":
            raise He2stError("Only measured spots can be moved", where=name)
        before = np.array(adata.obsm[keys.SPATIAL]), facts_of(adata), adata.obs.get(keys.POLYGON)
        move(adata, transform, said)
        self._moves.setdefault(name, []).append(before)
        self._moved(name)

    def undo_move(self, name: str) -> bool:
        """Take back the last move of a result's spots; False if there was none."""
        moves, adata = self._moves.get(name), self.results[name].adata
        if not moves or adata is None:
            return False
        adata.obsm[keys.SPATIAL], adata.uns[keys.UNS], outlines = moves.pop()
        if outlines is not None:
            adata.obs[keys.POLYGON] = outlines
        self._moved(name)
        return True

    def n_moves(self, name: str) -> int:
        """How many moves of a result's spots can be taken back."""
        return len(self._moves.get(name, []))

    def way_of(self, name: str) -> NDArray[np.float64] | None:
        """By which matrix, shape (3, 3), a result's spots were moved in all; None if they were bent.

        Returns
        -------
            From level-0 pixels (x, y) as they were read to those now.
        """
        moves, adata = self._moves.get(name), self.results[name].adata
        if not moves or adata is None:
            return np.eye(3)
        before, after = moves[0][1].get("transform"), facts_of(adata).get("transform")
        if after is None:
            return None
        return np.asarray(after, dtype=np.float64) @ np.linalg.inv(np.eye(3) if before is None else np.asarray(before))

    def _moved(self, name: str) -> None:
        result = self.results[name]
        result.grid, result.file = grid_of(result.adata), None
        self._forget_compared(name)
        self.result_moved.emit(name)

    def add_derived(self, result: str, label: str, derived: Derived) -> str:
        """Keep a map that was computed from a result's genes, and show it; returns the name it has got."""
        found = self.results[result]
        label = label if not found.shows(label) or label in found.derived else f"{label} (map)"
        found.derived[label] = derived
        self.derived_changed.emit(result)
        self.select(result=result, gene=label)
        return label

    def remove_derived(self, result: str, label: str) -> None:
        """Forget such a map."""
        found = self.results[result]
        if found.derived.pop(label, None) is not None:
            self.derived_changed.emit(result)
            if self.result == result and self.gene == label:
                self.select(gene=first_gene(found))

    def remove_result(self, name: str) -> None:
        """Forget a result and its domains."""
        del self.results[name]
        self._moves.pop(name, None)
        self.domains.pop(name, None)
        self._past_domains.pop(name, None)
        self._forget_compared(name)
        if self.result == name:
            self.select(result=next(iter(self.results), None))
        self.result_removed.emit(name)

    def _add_result(self, result: Result) -> None:
        self.results[result.name] = result
        self.result_added.emit(result.name)
        gene = self.gene if self.gene in result.genes else first_gene(result)
        self.select(result=result.name, gene=gene)

    # --- comparison, selection

    @property
    def comparison(self) -> Comparison | None:
        """The comparison that is shown."""
        return self.comparisons.get(self.compared[0])

    def set_comparison(self, comparison: Comparison | None, *, predicted: str = "", measured: str = "") -> None:
        """Keep one comparison, and the names of the two results that were compared; None forgets all."""
        self.set_comparisons({} if comparison is None else {predicted: comparison}, measured)

    def set_comparisons(self, comparisons: dict[str, Comparison], reference: str) -> None:
        """Keep comparisons of several results, by name, with one reference; the first of them is shown."""
        self.comparisons = dict(comparisons)
        self.compared = (next(iter(comparisons)), reference) if comparisons else ("", "")
        self.comparison_changed.emit()

    def show_comparison(self, judged: str) -> None:
        """Show another one of the comparisons that are kept."""
        if judged in self.comparisons and judged != self.compared[0]:
            self.compared = (judged, self.compared[1])
            self.comparison_changed.emit()

    def _forget_compared(self, name: str) -> None:
        """Drop the comparisons that a result was part of."""
        if name == self.compared[1]:
            self.set_comparison(None)
        elif name in self.comparisons:
            self.set_comparisons({n: c for n, c in self.comparisons.items() if n != name}, self.compared[1])

    def select(self, **current: str | None) -> None:
        """Change the current ``slide``, ``result`` or ``gene``; announced once, and only if it changed."""
        changed = {key: value for key, value in current.items() if getattr(self, key) != value}
        for key, value in changed.items():
            if (key == "slide" and value is not None and value not in self.slides) or (
                key == "result" and value is not None and value not in self.results
            ):
                raise UnknownNameError(f"There is no {key} named {value!r} in this session")
            setattr(self, key, value)
        if "result" in changed and self.spots is not None:
            self.choose_spots(None)
        if "gene" in changed:
            self.marks.see(self.gene)
        if changed:
            self.selection_changed.emit()

    @property
    def current_slide(self) -> SlideItem | None:
        """The current slide's item."""
        return self.slides.get(self.slide) if self.slide is not None else None


def _unique(name: str, taken: dict[str, Any]) -> str:
    if name not in taken:
        return name
    return next(f"{name} {i}" for i in itertools.count(2) if f"{name} {i}" not in taken)
