"""What systems that are fitted to the very section they are asked about are given."""

from __future__ import annotations

import hashlib
from collections import OrderedDict
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from numpy.typing import NDArray

from napari_he2st.analysis.metrics.pairs import blocks
from napari_he2st.core import keys
from napari_he2st.core.errors import He2stError, ModelError, SchemaError
from napari_he2st.core.expression import COUNTS_SCALE, unit_of
from napari_he2st.core.schema import check_expression, facts_of, grid_of
from napari_he2st.core.types import Grid
from napari_he2st.engine.device import choose_device
from napari_he2st.engine.features import Scene
from napari_he2st.engine.inputs import Supply
from napari_he2st.zoo.inputs import Overview, TypedCells
from napari_he2st.zoo.scale import SCALES

if TYPE_CHECKING:
    from anndata import AnnData

    from napari_he2st.core.progress import Progress
    from napari_he2st.data.slides import Slide
    from napari_he2st.zoo.base import Fitted
    from napari_he2st.zoo.bundle import Bundle

_LEAST_SPOTS = 10
_TILE_PX = 224  # a tile of this width covers one pitch, whatever the slide's pixel size
_READ = 64
_REMEMBERED: OrderedDict[str, torch.Tensor] = OrderedDict()
_MOST_REMEMBERED = 6


@dataclass(frozen=True)
class Prepared:
    """A section as methods take it.

    Attributes
    ----------
    adata
        Linear expression of the kept spots and genes, positions in micrometres.
    kept
        Which spots these are, bool (spots,).
    report
        What was left out, for the parameters of the result.
    """

    adata: AnnData
    kept: NDArray[np.bool_]
    report: dict[str, int]


def prepare_section(adata: AnnData) -> Prepared:
    """Raw counts, or a prediction's linear units, without spots that have no value and genes that lack one.

    Raises
    ------
    SchemaError
        The data do not follow the schema, cannot be brought to linear units, or hold nothing that varies.
    He2stError
        There are too few spots.
    """
    import anndata as ad

    check_expression(adata)
    X = linear(adata)
    kept = np.zeros(adata.n_obs, dtype=bool)
    for block in blocks(X):
        kept |= np.isfinite(block).any(axis=1)
    if kept.sum() < _LEAST_SPOTS:
        message = f"There are {int(kept.sum())} spots with expression; at least {_LEAST_SPOTS} are needed"
        raise He2stError(message, todo="Choose a larger section or region")
    complete, varies = (np.concatenate(found) for found in zip(*_usable(X, kept), strict=True))
    if not (complete & varies).any():
        message = f"None of the {adata.n_vars} genes is known in all {int(kept.sum())} spots and varies"
        raise SchemaError(message, todo="Drop spots that are mostly unmeasured, or choose another result")
    facts = facts_of(adata)
    used = complete & varies
    columns = [name for name in (keys.ARRAY_ROW, keys.ARRAY_COL) if name in adata.obs]
    section = ad.AnnData(X[kept][:, used].astype(np.float32), obs=adata.obs.loc[kept, columns].copy())
    section.var_names = adata.var_names[used]
    section.obsm[keys.SPATIAL] = np.asarray(adata.obsm[keys.SPATIAL], dtype=np.float64)[kept] * facts["mpp"]
    section.uns[keys.UNS] = facts
    report = {
        "spots_dropped": int((~kept).sum()),
        "genes_used": int(used.sum()),
        "genes_incomplete": int((~complete).sum()),
        "genes_constant": int((complete & ~varies).sum()),
    }
    return Prepared(section, kept, report)


def _usable(X: Any, kept: NDArray[np.bool_]) -> Iterator[tuple[NDArray[np.bool_], NDArray[np.bool_]]]:
    """Which genes are known in every kept spot, and which of them vary."""
    for block in blocks(X):
        here = block[kept]
        complete = np.asarray(np.isfinite(here).all(axis=0))
        yield complete, complete & (np.nan_to_num(here).var(axis=0) > 1e-12)


def linear(adata: AnnData) -> Any:
    """Raw counts where there are any, else expression in the linear units that its scale was made from.

    Raises
    ------
    SchemaError
        Nothing is known of the scale that would lead back.
    """
    if keys.COUNTS in adata.layers:
        return adata.layers[keys.COUNTS]
    scale = facts_of(adata)["scale"]
    if scale == COUNTS_SCALE:
        return adata.X
    X = adata.X.toarray() if hasattr(adata.X, "toarray") else adata.X
    try:
        return np.maximum(SCALES[scale].inverse(np.asarray(X, dtype=np.float32), {}), 0)
    except KeyError:
        message = f"Expression in {unit_of(scale)} cannot be brought back to counts"
        raise SchemaError(message, todo="Use leiden, kmeans or mixture, which take any scale") from None


def supply(
    system: Fitted,
    adata: AnnData,
    kept: NDArray[np.bool_],
    *,
    slide: Slide | None,
    device: str = "auto",
    cells: tuple[NDArray, NDArray] | None = None,
    progress: Progress | None = None,
) -> dict[str, Any]:
    """What a system's inputs name, for the kept spots of a section; None where it can do without and must.

    Parameters
    ----------
    system
        The system.
    adata, kept
        The section, and which of its spots.
    slide
        The slide it lies on.
    device
        Where tiles are encoded.
    cells
        Positions in level-0 pixels and kinds of single nuclei.
    progress
        Told of the tiles that are read.

    Raises
    ------
    ModelError
        An input is missing that the system cannot do without.
    """
    found: dict[str, Any] = {}
    mpp = facts_of(adata)["mpp"]
    for name, spec in system.inputs.items():
        if isinstance(spec, TypedCells):
            found[name] = (
                None if cells is None else (np.asarray(cells[0], dtype=np.float64) * mpp, np.asarray(cells[1]))
            )
            missing, todo = cells is None, "Give the nuclei's positions and kinds"
        else:
            missing, todo = slide is None, "Open the slide that the section lies on"
            if slide is not None and isinstance(spec, Overview):
                found[name] = _overview(slide, spec.px)
            elif slide is not None:
                found[name] = _of_tiles(spec, slide, grid_of(adata).take(kept), choose_device(device), progress)
        if missing and name not in system.optional:
            message = f"{type(system).__name__} needs {name!r}, and there is nothing to take it from"
            raise ModelError(message, todo=todo)
        found.setdefault(name, None)
    return found


def _of_tiles(spec: Any, slide: Slide, grid: Grid, device: torch.device, progress: Progress | None) -> torch.Tensor:
    """An input of tiles for every spot of a grid; the last few are remembered."""
    where = hashlib.sha256(np.ascontiguousarray(grid.xy).tobytes()).hexdigest()
    key = f"{slide.fingerprint}|{slide.colours}|{slide.mpp}|{spec!r}|{where}|{grid.pitch_um}"
    if key in _REMEMBERED:
        _REMEMBERED.move_to_end(key)
        return _REMEMBERED[key]
    rows = np.arange(len(grid), dtype=np.intp)
    parts = [rows[start : start + _READ] for start in range(0, len(rows), _READ)]
    scene = Scene(slide, grid, grid.pitch_um / _TILE_PX, device)
    if progress is not None:
        progress.start(len(rows), "Reading tiles")
    found = []
    for some, values, _ in Supply({"tiles": spec}, scene, parts):
        found.append(values["tiles"].cpu())
        if progress is not None:
            progress.advance(len(some))
    _REMEMBERED[key] = torch.cat(found)
    while len(_REMEMBERED) > _MOST_REMEMBERED:
        _REMEMBERED.popitem(last=False)
    return _REMEMBERED[key]


def _overview(slide: Slide, px: int) -> tuple[torch.Tensor, float]:
    """The whole slide, uint8 (3, height, width), and its micrometres per pixel."""
    image = torch.from_numpy(slide.thumbnail(px)).permute(2, 0, 1)
    return image, max(slide.size) * slide.mpp / max(image.shape[1:])


def by_looks(
    adata: AnnData, slide: Slide, on: str | Bundle, *, device: str = "auto", progress: Progress | None = None
) -> AnnData:
    """A section whose expression is replaced by what the tile around each spot looks like.

    Parameters
    ----------
    on
        Name of an encoder, whose features these are; or a predictor that looks training spots up (a bundle, its name
        or folder), whose embeddings they are.
    """
    import anndata as ad

    from napari_he2st.engine.reference import embeddings
    from napari_he2st.zoo.catalogue import load
    from napari_he2st.zoo.encoders.table import encoders
    from napari_he2st.zoo.inputs import Features

    grid = grid_of(adata)
    if isinstance(on, str) and on in encoders():
        name = on
        values = _of_tiles(Features(encoder=on), slide, grid, choose_device(device), progress).float().numpy()
    else:
        bundle = load(on) if isinstance(on, str) else on
        name = bundle.id
        values = embeddings(bundle, slide, grid, device=device, progress=progress)
    result = ad.AnnData(values, obs=adata.obs.copy(), obsm={keys.SPATIAL: adata.obsm[keys.SPATIAL]})
    result.uns[keys.UNS] = {**facts_of(adata), "scale": f"features of {name}"}
    return result


@contextmanager
def seeded(seed: int) -> Iterator[None]:
    """Torch's random numbers from a seed, and afterwards where they were before."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        yield
