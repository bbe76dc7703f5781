"""What the Predict dock asks for, without a widget: runs in a worker, where model code may load."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import numpy as np

from napari_he2st.core import keys
from napari_he2st.core.geometry import bounds_of, inside_polygon
from napari_he2st.core.paths import cache_folder
from napari_he2st.core.types import Chunk, Grid, Region

if TYPE_CHECKING:
    from anndata import AnnData

    from napari_he2st.core.progress import Control
    from napari_he2st.data.slides import Slide
    from napari_he2st.data.slides.tissue import TissueMask
    from napari_he2st.engine.estimate import Estimate
    from napari_he2st.engine.session import Result
    from napari_he2st.zoo.base import Predictor
    from napari_he2st.zoo.bundle import Bundle
    from napari_he2st.zoo.manifest import Manifest


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
    """

    bundle: Bundle
    slide: Slide
    grid: Grid
    device: str = "auto"
    order: str = "raster"
    store: Path | None = None
    stain: str | None = None

    @cached_property
    def _slide(self) -> Slide:
        """The slide in the colours that the predictor gets."""
        return stained(self.slide, self.stain)

    def chunks(self, *, control: Control) -> Iterator[Chunk]:
        """Predict, batch by batch."""
        from napari_he2st.engine.predict import predict

        options: dict[str, Any] = {"device": self.device, "order": self.order, "store": self.store}
        yield from predict(self.bundle, self._slide, self.grid, stain=keys.AS_STORED, control=control, **options)

    def cost(self) -> Estimate:
        """What it will take, from a probe of a few tiles."""
        from napari_he2st.engine.estimate import estimate

        return estimate(self.bundle, self._slide, self.grid, device=self.device)

    def adata(self, result: Result) -> AnnData:
        """A result of this run in the schema; spots that were not reached are NaN."""
        from napari_he2st.engine.device import choose_device
        from napari_he2st.engine.results import to_adata

        device = str(choose_device(self.device))
        return to_adata(
            self.bundle, self._slide, self.grid, result.values, genes=result.genes, std=result.std, device=device
        )


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
    grid = square_grid(slide, pitch_um, mask=mask, region=around)
    inside = np.zeros(len(grid), dtype=bool)
    for region in regions:
        inside |= inside_polygon(grid.xy, region.polygon)
    return grid.take(inside)


def sees_bag(bundle: Bundle) -> bool:
    """Whether a predictor gives one result for a whole slide."""
    from napari_he2st.engine.slide_level import sees_bag

    return sees_bag(bundle.members[0])


def whole_slide(bundle: Bundle, slide: Slide, device: str, stain: str | None, *, control: Control) -> AnnData:
    """Result of a predictor that sees a slide as a whole."""
    from napari_he2st.engine.slide_level import predict_bag

    return predict_bag(bundle, slide, device=device, stain=stain or keys.AS_STORED, control=control)


def store_folder(bundle: Bundle, slide: Slide, pitch_um: float, stain: str | None = None) -> Path:
    """Where a whole-slide run of these is kept, so that the same run finds it again."""
    folder = cache_folder() / "runs"
    folder.mkdir(exist_ok=True)
    return folder / f"{slide.fingerprint[:16]}-{bundle.sha256[:16]}-{pitch_um:g}um{f'-{stain}' if stain else ''}"


def doubts(manifest: Manifest, slide: Slide, organ: str, species: str) -> list[str]:
    """Why a prediction of this slide may not be trusted; ``organ`` and ``species`` may be empty."""
    found = []
    for what, stated, known in (("organ", organ, manifest.organs), ("species", species, manifest.species)):
        if stated and known and stated.lower() not in [k.lower() for k in known]:
            found.append(f"{manifest.title} was trained on {what} {', '.join(known)}, not {stated}.")
    if any(section.get("fingerprint") == slide.fingerprint for section in manifest.training):
        found.append(f"{manifest.title} was trained on this very slide: how well it does here says nothing.")
    return found


def model_facts(row: dict[str, Any], manifest: Manifest | None) -> tuple[dict[str, str], dict[str, str]]:
    """The card of a predictor as lines for people: what decides, and the rest; more once its manifest is read."""
    facts = {
        "Predicts": row["output"],
        "Trained on": ", ".join([*row["organs"], *row["species"]]),
        "Genes": "" if row["genes"] is None else f"{row['genes']:,}",
    }
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
