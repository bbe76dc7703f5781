"""Encoder features of tiles, and their statistics over a slide's tissue."""

from __future__ import annotations

import hashlib
import queue
import threading
from collections.abc import Generator, Iterator, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from typing import TYPE_CHECKING, Any, TypeVar

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from napari_he2st.core.atomic import atomic_write
from napari_he2st.core.cache import trim
from napari_he2st.core.errors import ModelError
from napari_he2st.core.paths import cache_folder
from napari_he2st.core.types import Grid, Nuclei
from napari_he2st.data.slides.grid import square_grid
from napari_he2st.data.slides.tissue import tissue_mask
from napari_he2st.engine.device import Halving, auto_workers, half_on, placed, precision, to_device
from napari_he2st.engine.feature_cache import FeatureCache, feature_cache
from napari_he2st.engine.workers import in_order
from napari_he2st.zoo import inputs as kinds
from napari_he2st.zoo.encoders.build import Encoder, build, spec_of

if TYPE_CHECKING:
    from anndata import AnnData

    from napari_he2st.data.slides import Slide
    from napari_he2st.engine.backend import CompiledEncoder
    from napari_he2st.zoo.base import Predictor, Unit

T = TypeVar("T")
ENCODED = 8
"""Tiles that go through an encoder together where they are not a batch already."""

SAMPLE_TILES = 256
"""Tiles of the tissue from which ``standardise="slide"`` takes its statistics."""


@dataclass(frozen=True)
class Given:
    """What the user supplies beside the slide.

    Attributes
    ----------
    measured
        Expression measured on this slide, in the schema, or None.
    cells
        Single cells with known types and raw counts, or None.
    nuclei
        Segmented nuclei of this slide, or None.
    """

    measured: AnnData | None = None
    cells: AnnData | None = None
    nuclei: Nuclei | None = None


NOTHING_GIVEN = Given()


@dataclass(frozen=True)
class Scene:
    """What inputs are resolved against.

    Attributes
    ----------
    slide, grid
        A slide and its spots.
    mpp
        Pixel size the predictor was trained at.
    device
        Where tensors go.
    pitch_um
        Distance of spots it was trained at, the unit of array positions; None is the grid's own. At a finer
        grid several spots share a position, which is how array-based systems predict super-resolved.
    model
        Whose inputs they are, where that matters: genes, scale, unit.
    given
        What the user supplied.
    members
        Of regions, which are the grid then: the rows of spots, or of the given nuclei, that belong to each.
    compiled
        Whether encoders run compiled by OpenVINO.
    cached
        Whether features are taken from the cache and kept there.
    halving
        Puts what does not fit into memory through an encoder in pieces.
    """

    slide: Slide
    grid: Grid
    mpp: float
    device: torch.device
    pitch_um: float | None = None
    model: Predictor | None = None
    given: Given = NOTHING_GIVEN
    members: Sequence[NDArray[np.intp]] = ()
    compiled: bool = False
    cached: bool = True
    halving: Halving = field(default_factory=Halving)

    @property
    def unit(self) -> Unit | None:
        """What a batch of the model is made of."""
        return None if self.model is None else self.model.unit

    @property
    def array_step(self) -> float:
        """Array positions of the predictor per step of the grid."""
        return 1.0 if self.pitch_um is None else self.grid.pitch_um / self.pitch_um

    def tile_mpp(self, mpp: float | str | None) -> float:
        """Micrometres per pixel of a tile whose spec says ``mpp``."""
        if mpp == "native":
            return self.slide.mpp
        return self.mpp if mpp is None else float(mpp)

    def encode(self, encoder: str, tiles: Tensor) -> Tensor:
        """Features of uint8 tiles (n, 3, px, px), float32 (n, dim), on the scene's device."""
        model = encoder_on(encoder, self.device, self.compiled)
        tiles = to_device(tiles, self.device)
        return torch.cat(self.halving(lambda rows: encode(model, tiles[rows]), len(tiles)))

    def known(self, encoder: str, px: int, mpp: float) -> FeatureCache:
        """What is known already of an encoder's features on the slide."""
        model = encoder_on(encoder, self.device, self.compiled)
        if not self.cached:
            return FeatureCache(None, model.spec.dim)
        return feature_cache(self.slide, model, self.device, px, mpp)


def ahead(source: Iterator[T], depth: int) -> Generator[T]:
    """Iterate ``source`` in a thread that runs at most ``depth`` items ahead; errors come through."""
    items: queue.Queue[tuple[str, Any]] = queue.Queue(maxsize=depth)
    stop = threading.Event()

    def put(kind: str, value: Any) -> bool:
        while not stop.is_set():
            try:
                items.put((kind, value), timeout=0.1)
            except queue.Full:
                continue
            return True
        return False

    def work() -> None:
        try:
            for item in source:
                if not put("item", item):
                    break
            put("end", None)
        except BaseException as error:  # noqa: BLE001 - raised again in the consuming thread
            put("error", error)
        finally:
            close = getattr(source, "close", None)
            if close is not None:
                close()

    thread = threading.Thread(target=work, daemon=True, name="he2st-reader")

    def iterate() -> Generator[T]:
        thread.start()
        try:
            while True:
                kind, value = items.get()
                if kind == "end":
                    return
                if kind == "error":
                    raise value
                yield value
        finally:
            stop.set()
            thread.join(timeout=10)

    return iterate()


def encoder_tile(scene: Scene, spec: kinds.Features) -> tuple[int, float]:
    """Width in pixels and pixel size at which a field is read: the encoder's own width.

    Reading it so costs a fraction of resizing it afterwards, and encoders at one width share their tiles.
    """
    px = spec_of(spec.encoder).px
    return px, scene.tile_mpp(spec.mpp) * spec.px / px


@lru_cache(maxsize=4)
def encoder_on(name: str, device: torch.device, compiled: bool = False) -> Encoder | CompiledEncoder:
    """An encoder, ready for inference on a device; the last few stay loaded.

    Parameters
    ----------
    name
        As for :func:`~napari_he2st.zoo.encoders.build.build`.
    device
        Where it runs.
    compiled
        By OpenVINO rather than torch, unless it has no weights and with that nothing that would gain.
    """
    encoder = build(name)
    if compiled and next(encoder.network.parameters(), None) is not None:
        from napari_he2st.engine.backend import CompiledEncoder

        return CompiledEncoder(encoder)
    placed(encoder, device)
    return encoder


@torch.inference_mode()
def encode(encoder: Encoder | CompiledEncoder, tiles: Tensor) -> Tensor:
    """Features of uint8 tiles (n, 3, px, px): float32 (n, dim)."""
    with precision(tiles.device, half_on(tiles.device, encoder.spec.half)):
        return encoder(tiles).float()


def slide_statistics(scene: Scene, encoder: str, px: int, mpp: float) -> tuple[Tensor, Tensor]:
    """Mean and standard deviation of an encoder's features over a fixed sample of the slide's tissue.

    The sample depends on the slide alone, so training and every prediction, of whatever region, use the
    same numbers. They are kept in the cache folder.

    Returns
    -------
    mean, std
        float32, shape (dim,); a standard deviation of 0 is replaced by 1.
    """
    slide = scene.slide
    weights = encoder_on(encoder, scene.device, scene.compiled).sha256
    key = f"{slide.fingerprint}|{slide.colours}|{slide.mpp:.6f}|{encoder}|{weights}|{px}|{mpp:.6f}|{SAMPLE_TILES}"
    file = cache_folder() / "statistics" / f"{hashlib.sha256(key.encode()).hexdigest()[:32]}.npz"
    if file.exists():
        with np.load(file, allow_pickle=False) as stored:
            return torch.from_numpy(stored["mean"]), torch.from_numpy(stored["std"])
    centres = tissue_sample(slide)
    read = ahead(slide.read_tiles(centres, px, mpp, batch_size=ENCODED), depth=2)
    tiles = (torch.from_numpy(batch.tiles[batch.ok]).permute(0, 3, 1, 2) for batch in read)
    n_workers = auto_workers(scene.device)
    features = torch.cat(list(in_order(lambda some: scene.encode(encoder, some).cpu(), tiles, n_workers))).double()
    mean, std = features.mean(dim=0).float(), features.std(dim=0, correction=0).float()
    std = torch.where(std > 1e-6, std, torch.ones_like(std))
    file.parent.mkdir(parents=True, exist_ok=True)
    with atomic_write(file, force=True) as aside, aside.open("wb") as stream:
        np.savez(stream, mean=mean.numpy(), std=std.numpy())
    trim()
    return mean, std


def tissue_sample(slide: Slide, n: int = SAMPLE_TILES) -> NDArray[np.float64]:
    """About ``n`` positions (x, y), level-0 pixels, spread evenly over a slide's tissue.

    Raises
    ------
    ModelError
        There is no tissue on the slide.
    """
    mask = tissue_mask(slide)
    width, height = slide.size
    area_um2 = max(mask.fraction, 1e-6) * width * height * slide.mpp**2
    pitch_um = float(np.sqrt(area_um2 / n))
    grid = square_grid(slide, pitch_um, mask=mask)
    if not len(grid):
        raise ModelError("No tissue was found on the slide", where=slide.name, todo="Check the tissue mask")
    return grid.xy
