"""Systems that see a slide as a bag of tiles: one result for the slide, and a map of what it rests on."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from napari_he2st.core import keys
from napari_he2st.core.errors import ModelError
from napari_he2st.core.noise import Noise
from napari_he2st.core.progress import Control
from napari_he2st.data.slides.grid import square_grid
from napari_he2st.data.slides.tissue import tissue_mask
from napari_he2st.engine.device import choose_device
from napari_he2st.engine.features import Scene
from napari_he2st.engine.inputs import Supply
from napari_he2st.engine.results import to_adata
from napari_he2st.engine.run import in_its_stain
from napari_he2st.engine.sampling import draws_of
from napari_he2st.zoo.base import Predictor
from napari_he2st.zoo.catalogue import load
from napari_he2st.zoo.inputs import Bag

if TYPE_CHECKING:
    from anndata import AnnData

    from napari_he2st.core.types import Grid
    from napari_he2st.data.slides import Slide
    from napari_he2st.zoo.bundle import Bundle

MAP = "attention"
"""Output that has one row per tile; the other one is the slide's."""


def predict_bag(
    bundle: Bundle | str | Path,
    slide: Slide,
    *,
    device: str = "auto",
    seed: int = 0,
    n_samples: int | None = None,
    stain: str | None = None,
    control: Control | None = None,
) -> AnnData:
    """Predict one result for a whole slide.

    Parameters
    ----------
    bundle, slide, device, seed, n_samples, stain, control
        As for :func:`~napari_he2st.engine.predict.predict`.

    Returns
    -------
    AnnData
        The tiles that were looked at, with what the result rests on in ``X``: attention or the score of a tile,
        or its own expression. The slide's result is in ``uns["he2st"]["slide_names"]`` and
        ``["slide_values"]``; see :func:`~napari_he2st.core.schema.slide_result`.

    Raises
    ------
    ModelError
        The system does not predict a slide as a whole, or there is no tissue.
    """
    bundle = load(bundle) if isinstance(bundle, str | Path) else bundle
    control = control or Control()
    where = choose_device(device)
    slide = in_its_stain(bundle, slide, stain)
    model = bundle.members[0]
    spec = bag_spec(model)
    grid = bag_grid(slide, spec, bundle.manifest.mpp)
    control.start(None, f"Reading {slide.name}")
    features, centres = resolve_bag(model, slide, bundle.manifest.mpp, where)
    control.start(len(bundle.members), f"Predicting {slide.name}")
    wholes, maps = [], []
    for member in bundle.members:
        member.to(where).eval()
        prepared = member.prepare(bag=(features, centres))
        for draw in range(draws_of(member, n_samples)):
            noise = {"noise": Noise(seed, draw, np.zeros(1, dtype=np.intp))} if member.draws else {}
            with torch.inference_mode():
                found = member.predict(**noise, **prepared)
            wholes.append(next(value for name, value in found.items() if name != MAP)[0].float().cpu())
            maps.append(found[MAP].float().cpu())
        control.advance()
    rows = _rows_of(centres, grid)
    shown = torch.stack(maps).mean(dim=0).numpy()
    adata = to_adata(
        bundle,
        slide,
        grid.take(rows),
        shown,
        genes=map_names(bundle.genes, shown.shape[1]),
        seed=seed,
        device=where.type,
        scale=bundle.manifest.scale if model.outputs[MAP].of == "expression" else MAP,
    )
    facts = adata.uns[keys.UNS]
    stacked = torch.stack(wholes)
    facts["slide_names"] = np.asarray(bundle.genes, dtype=object).astype(str)
    facts["slide_values"] = stacked.mean(dim=0).numpy()
    if len(stacked) > 1:
        facts["slide_std"] = stacked.std(dim=0).numpy()
    facts["unreadable_spots"] = len(grid) - len(rows)
    return adata


def sees_bag(model: Predictor) -> bool:
    """Whether a system predicts a slide as a whole from a bag of tiles."""
    return MAP in model.outputs and any(isinstance(spec, Bag) for spec in model.inputs.values())


def bag_spec(model: Predictor) -> Bag:
    """The bag that a system sees.

    Raises
    ------
    ModelError
        It sees none.
    """
    found = [spec for spec in model.inputs.values() if isinstance(spec, Bag)]
    if not found:
        raise ModelError(f"{type(model).__name__} does not see a slide as a bag of tiles")
    return found[0]


def bag_grid(slide: Slide, spec: Bag, mpp: float) -> Grid:
    """The tiles of a slide's bag.

    Raises
    ------
    ModelError
        There is no tissue.
    """
    tile_mpp = {None: mpp, "native": slide.mpp}.get(spec.mpp, spec.mpp)  # type: ignore[arg-type]
    tile_um = spec.px * float(tile_mpp)  # type: ignore[arg-type]
    grid = square_grid(slide, tile_um, mask=tissue_mask(slide), spot_um=tile_um)
    if not len(grid):
        raise ModelError("No tissue was found on the slide", where=slide.name, todo="Check the tissue mask")
    return grid


def resolve_bag(model: Predictor, slide: Slide, mpp: float, device: torch.device) -> tuple[Tensor, Tensor]:
    """Features (tiles, dim) and centres (tiles, 2) in micrometres of a slide's bag."""
    spec = bag_spec(model)
    scene = Scene(slide, bag_grid(slide, spec, mpp), mpp, device, model=model)
    for _, values, _ in Supply({"bag": spec}, scene, [np.zeros(1, dtype=np.intp)]):
        features, centres = values["bag"]
        if not len(features):
            raise ModelError("No tile of the slide can be read", where=slide.name)
        return features, centres
    raise ModelError("The slide has no tiles", where=slide.name)


def map_names(names: Sequence[str], n_maps: int) -> list[str]:
    """What the maps of a result are called: as its classes where there are as many, else attention."""
    if n_maps == len(names):
        return list(names)
    return [MAP] if n_maps == 1 else [f"{MAP} {number + 1}" for number in range(n_maps)]


def _rows_of(centres: Tensor, grid: Grid) -> NDArray[np.intp]:
    """Rows of the grid that tiles with these centres (µm) are."""
    from scipy.spatial import KDTree

    return np.asarray(KDTree(grid.xy * grid.mpp).query(centres.cpu().numpy())[1], dtype=np.intp)
