"""What the Predict dock asks for, without a widget: runs in a worker, where model code may load."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, cast

import numpy as np

from napari_he2st.core import keys
from napari_he2st.core.geometry import bounds_of, inside_polygon
from napari_he2st.core.paths import cache_folder
from napari_he2st.core.types import Chunk, Grid, Nuclei, Region

if TYPE_CHECKING:
    from anndata import AnnData

    from napari_he2st.core.progress import Control
    from napari_he2st.data.slides import Slide
    from napari_he2st.data.slides.tissue import TissueMask
    from napari_he2st.engine.estimate import Estimate
    from napari_he2st.engine.features import Given
    from napari_he2st.engine.session_items import Result
    from napari_he2st.engine.shards import Precision
    from napari_he2st.zoo.base import Predictor
    from napari_he2st.zoo.bundle import Bundle
    from napari_he2st.zoo.manifest import Manifest

Kind = Literal["spots", "cells", "slide"]
"""What a predictor gives a row for: each spot, each nucleus, or the slide."""


@dataclass(frozen=True)
class Run:
    """One prediction to make.

    Attributes
    ----------
    bundle, slide, grid
        What predicts, and where.
    device
        As for :func:`~napari_he2st.engine.predict.predict`.
    order
        ``"raster"`` or ``"centre"``.
    store
        Folder that makes it possible to go on after a stop, or None.
    stain
        How the slide's stain is normalised, or None.
    nuclei
        Those of the slide, or None.
    sampling
        ``n_samples``, ``seed`` and ``options``.
    precision
        Of the values that are kept in the store.
    """

    bundle: Bundle
    slide: Slide
    grid: Grid
    device: str = "auto"
    order: str = "raster"
    store: Path | None = None
    stain: str | None = None
    nuclei: Nuclei | None = None
    sampling: Mapping[str, Any] = field(default_factory=dict)
    precision: Precision = "float32"

    @property
    def cells(self) -> Nuclei | None:
        """The nuclei that are the spots of the grid, if they are."""
        return self.nuclei if self.nuclei is not None and self.nuclei.are(self.grid) else None

    @property
    def _given(self) -> Given:
        from napari_he2st.engine.features import Given

        return Given(nuclei=self.nuclei)

    @cached_property
    def _slide(self) -> Slide:
        """The slide in the colours that the predictor gets."""
        return stained(self.slide, self.stain)

    def chunks(self, *, control: Control) -> Iterator[Chunk]:
        """Predict, batch by batch."""
        from napari_he2st.engine.predict import predict

        how: dict[str, Any] = {"device": self.device, "order": self.order, "store": self.store, "given": self._given}
        how["precision"] = self.precision
        how["stain"] = keys.AS_STORED  # the slide has its colours already
        yield from predict(self.bundle, self._slide, self.grid, control=control, **how, **self.sampling)

    def cost(self) -> Estimate:
        """What it will take, from a probe of a few tiles."""
        from napari_he2st.engine.estimate import estimate

        drawn = {name: value for name, value in self.sampling.items() if name != "seed"}
        return estimate(
            self.bundle,
            self._slide,
            self.grid,
            device=self.device,
            given=self._given,
            precision=self.precision,
            **drawn,
        )

    def adata(self, result: Result, notes: Sequence[str] = ()) -> AnnData:
        """A result of this run in the schema, with what was said of the run; spots that were not reached are NaN."""
        from napari_he2st.engine.device import device_name
        from napari_he2st.engine.results import to_adata

        facts: dict[str, Any] = {"std": result.std, "device": device_name(self.device), "notes": notes}
        facts |= {"genes": result.genes, "nuclei": self.cells, "seed": self.sampling.get("seed", 0)}
        return to_adata(self.bundle, self._slide, self.grid, result.values, **facts)


@dataclass(frozen=True)
class Fit:
    """How a system is fitted to a slide.

    Attributes
    ----------
    n_genes
        Size of the panel, chosen by the system's own rule.
    epochs
        None for the published number.
    device, stain
        As for training.
    """

    n_genes: int
    epochs: int | None = None
    device: str = "auto"
    stain: str | None = None


def stained(slide: Slide, method: str | None) -> Slide:
    """The slide with its stain normalised."""
    from napari_he2st.data.slides.stain import normalised

    return normalised(slide, method)


def list_models() -> list[dict[str, Any]]:
    """Predictors among the rows of :func:`~napari_he2st.zoo.catalogue.models`: trained ones, then systems to train.

    Bundles have a ``path`` beside: the name or folder to load.
    """
    from napari_he2st.zoo.catalogue import models

    bundles = [{**row, "path": row["slug"]} for row in models() if row["kind"] == "bundle"]
    systems = [row for row in models() if row["kind"] == "system" and row["tasks"][0] not in ("domains", "alignment")]
    return bundles + systems


def load_bundle(name_or_path: str) -> tuple[Bundle, dict[str, Any]]:
    """Load a trained predictor, and the model code with it; also its row as in :func:`list_models`."""
    from napari_he2st.zoo.catalogue import bundle_row, load

    bundle = load(name_or_path)  # its guard comes before anything that imports torch
    kind_of(bundle)  # loads the engine, which the window would wait for
    return bundle, {**bundle_row(bundle.id, bundle.manifest), "path": name_or_path}


def fit_to_slide(
    slug: str, variant: str, measured: AnnData, slide: Slide, fit: Fit, *, control: Control
) -> tuple[Bundle, dict[str, Any]]:
    """Train a system on spots measured on a slide, keep it in the cache folder, and load it as :func:`load_bundle`."""
    from napari_he2st.data.truth import Section
    from napari_he2st.engine.train import train
    from napari_he2st.engine.trained import About
    from napari_he2st.zoo.catalogue import card_of, system, variant_arguments

    card, cls = card_of(slug), cast("type[Predictor]", system(slug))
    rule = (getattr(cls.targets["expression"], "panel", None) or "hvg:1000").partition(":")[0]
    name = f"{slug}-{slide.fingerprint[:8]}{f'-{fit.stain}' if fit.stain else ''}"
    bundle = train(
        slug,
        [Section(slide.name, measured, Path(slide.path), "session")],
        arguments=variant_arguments(slug, variant),
        panel=f"{rule}:{fit.n_genes}",
        epochs=fit.epochs,
        device=fit.device,
        stain=fit.stain,
        about=About(name=name, title=f"{card.title} fitted to {slide.name}"),
        control=control,
    )
    folder = cache_folder() / "fitted" / name
    folder.parent.mkdir(exist_ok=True)
    bundle.save(folder, force=True)
    return load_bundle(str(folder))


def plan(slide: Slide, mask: TissueMask, pitch_um: float, regions: Sequence[Region] | None) -> Grid:
    """The square lattice over a slide's tissue, all of it or inside any of the regions (at least one)."""
    from napari_he2st.data.slides.grid import square_grid

    if regions is None:
        return square_grid(slide, pitch_um, mask=mask)
    around = Region.box(*bounds_of(np.concatenate([region.polygon for region in regions])))
    return _inside(square_grid(slide, pitch_um, mask=mask, region=around), regions)


def plan_cells(nuclei: Nuclei, mpp: float, regions: Sequence[Region] | None) -> Grid:
    """The nuclei of a slide of that pixel size, all of them or those inside any of the regions."""
    grid = nuclei.grid(mpp)
    return grid if regions is None else _inside(grid, regions)


def _inside(grid: Grid, regions: Sequence[Region]) -> Grid:
    return grid.take(np.any([inside_polygon(grid.xy, region.polygon) for region in regions], axis=0))


def kind_of(bundle: Bundle) -> Kind:
    """What a predictor gives a row for."""
    from napari_he2st.engine.run import predicts_cells
    from napari_he2st.engine.slide_level import sees_bag

    model = bundle.members[0]
    return "slide" if sees_bag(model) else "cells" if predicts_cells(model) else "spots"


def whole_slide(bundle: Bundle, slide: Slide, device: str, stain: str | None, *, control: Control) -> AnnData:
    """Result of a predictor that sees a slide as a whole."""
    from napari_he2st.engine.slide_level import predict_bag

    return predict_bag(bundle, slide, device=device, stain=stain or keys.AS_STORED, control=control)


def store_folder(
    bundle: Bundle,
    slide: Slide,
    pitch_um: float,
    stain: str | None = None,
    sampling: Mapping[str, Any] | None = None,
    precision: Precision = "float32",
) -> Path:
    """Where a whole-slide run of these is kept, so that the same run finds it again."""
    folder = cache_folder() / "runs"
    folder.mkdir(exist_ok=True)
    how = hashlib.sha256(json.dumps([slide.colours, stain, sampling, precision], sort_keys=True).encode()).hexdigest()
    return folder / f"{slide.fingerprint[:16]}-{bundle.sha256[:16]}-{pitch_um:g}um-{how[:8]}"


def doubts(manifest: Manifest, slide: Slide, organ: str, species: str) -> list[str]:
    """Why a prediction of this slide may not be trusted; ``organ`` and ``species`` may be empty."""
    found = []
    for what, stated, known in (("organ", organ, manifest.organs), ("species", species, manifest.species)):
        if stated and known and stated.lower() not in [k.lower() for k in known]:
            found.append(f"{manifest.title} was trained on {what} {', '.join(known)}, not {stated}.")
    if any(section.get("fingerprint") == slide.fingerprint for section in manifest.training):
        found.append(f"{manifest.title} was trained on this very slide: how well it does here says nothing.")
    return found


def panel_of(row: dict[str, Any]) -> tuple[str, str]:
    """What a trained predictor's values are of, and how many: ``("Classes", "2")``; both empty before training."""
    if row["genes"] is None:
        return "", ""
    return "Classes" if row["scale"] == "probability" else "Genes", f"{row['genes']:,}"


def model_facts(row: dict[str, Any], manifest: Manifest | None) -> tuple[dict[str, str], dict[str, str]]:
    """The card of a predictor as lines for people: what decides, and the rest; more once its manifest is read."""
    facts = {"Predicts": row["output"], "Trained on": ", ".join([*row["organs"], *row["species"]])}
    what, number = panel_of(row)
    if what:
        facts[what] = number
    rest = {
        "From": row["inputs"],
        "Weights": "none yet: train it on your own sections" if row["kind"] == "system" else row["weights"],
        "Licence": row["licence"],
        "Status": ": ".join(filter(None, (row["status"], row["reason"]))),
    }
    if manifest is None:
        return facts, rest
    scores = np.array([np.nan if s is None else s for s in manifest.scores.get("pcc", ())], dtype=float)
    known = scores[np.isfinite(scores)]
    if known.size:
        facts["Held-out r"] = f"median {np.median(known):.2f}, best {known.max():.2f} (per gene, unseen sections)"
    tile_um = manifest.tile_px * manifest.mpp
    facts["Resolution"] = f"every {manifest.pitch_um:g} µm, from tiles of {tile_um:.0f} µm at {manifest.mpp:.3g} µm/px"
    rest["Note"] = manifest.notes
    return facts, rest
