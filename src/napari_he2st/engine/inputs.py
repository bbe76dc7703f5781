"""Resolve the inputs that a system declares: one resolver per kind.

A :class:`Supply` goes through the batches of one run in order and yields, for each, what every input
needs. Tiles of the same size and pixel size are read once, whichever inputs use them.
"""

from __future__ import annotations

import hashlib
import queue
import threading
from collections.abc import Callable, Generator, Iterator, Mapping
from dataclasses import dataclass
from functools import lru_cache
from typing import TYPE_CHECKING, Any, TypeVar

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from napari_he2st.core.atomic import atomic_write
from napari_he2st.core.errors import ModelError
from napari_he2st.core.paths import cache_folder
from napari_he2st.core.types import Grid
from napari_he2st.data.slides.grid import square_grid
from napari_he2st.data.slides.tissue import tissue_mask
from napari_he2st.zoo import inputs as kinds
from napari_he2st.zoo.base import Input
from napari_he2st.zoo.encoders.build import Encoder, build, spec_of

if TYPE_CHECKING:
    from napari_he2st.data.slides import Slide, TileBatch

T = TypeVar("T")
SAMPLE_TILES = 256
"""Tiles of the tissue from which ``standardise="slide"`` takes its statistics."""


@dataclass(frozen=True)
class Scene:
    """What inputs are resolved against: a slide, its spots, the bundle's pixel size, a device."""

    slide: Slide
    grid: Grid
    mpp: float
    device: torch.device

    def tile_mpp(self, mpp: float | str | None) -> float:
        """Micrometres per pixel of a tile whose spec says ``mpp``."""
        if mpp == "native":
            return self.slide.mpp
        return self.mpp if mpp is None else float(mpp)


class Supply:
    """Everything a system's inputs need, batch by batch, in the given order of spots.

    Parameters
    ----------
    inputs
        Name → spec, as the system declares them.
    scene
        Slide, grid, device.
    batches
        Grid rows of each batch.

    Yields
    ------
    rows : NDArray[np.intp]
        Grid rows of the batch.
    values : dict
        Name → tensor on the device (or what its kind documents).
    ok : NDArray[np.bool_]
        False where a tile could not be read.
    """

    def __init__(self, inputs: Mapping[str, Input], scene: Scene, batches: list[NDArray[np.intp]]) -> None:
        self._scene, self._batches = scene, batches
        self._tiles: dict[tuple[int, float], _TileStream] = {}
        self._resolvers = {name: self._resolver(spec) for name, spec in inputs.items()}

    def __iter__(self) -> Iterator[tuple[NDArray[np.intp], dict[str, Any], NDArray[np.bool_]]]:
        try:
            for number, rows in enumerate(self._batches):
                values = {name: resolve(number, rows) for name, resolve in self._resolvers.items()}
                ok = np.ones(len(rows), dtype=bool)
                for stream in self._tiles.values():
                    ok &= stream.ok
                yield rows, values, ok
        finally:
            for stream in self._tiles.values():
                stream.close()

    def _resolver(self, spec: Input) -> Callable[[int, NDArray[np.intp]], Any]:
        for kind, make in _RESOLVERS.items():
            if type(spec) is kind:
                return make(self, spec)
        message = f"No resolver for inputs of kind {type(spec).__name__}"
        raise ModelError(message)

    def tiles(self, px: int, mpp: float) -> _TileStream:
        """The stream of tiles of one size, shared by all inputs that need it."""
        key = (px, mpp)
        if key not in self._tiles:
            self._tiles[key] = _TileStream(self._scene, self._batches, px, mpp)
        return self._tiles[key]

    @property
    def scene(self) -> Scene:
        """What the inputs are resolved against."""
        return self._scene


class _TileStream:
    """Tiles of one size, read ahead by a thread, one batch at a time."""

    def __init__(self, scene: Scene, batches: list[NDArray[np.intp]], px: int, mpp: float) -> None:
        order = np.concatenate(batches) if batches else np.zeros(0, dtype=np.intp)
        size = len(batches[0]) if batches else 1
        centres = scene.grid.xy[order]
        self._source = ahead(scene.slide.read_tiles(centres, px, mpp, batch_size=size), depth=2)
        self._number, self._device = -1, scene.device
        self.ok: NDArray[np.bool_] = np.zeros(0, dtype=bool)
        self._tensor: Tensor = torch.empty(0)

    def get(self, number: int) -> Tensor:
        """Tiles of batch ``number``: uint8 (n, 3, px, px) on the device."""
        if number != self._number:
            batch: TileBatch = next(self._source)
            self._number, self.ok = number, batch.ok
            self._tensor = torch.from_numpy(batch.tiles).to(self._device).permute(0, 3, 1, 2)
        return self._tensor

    def close(self) -> None:
        """End the reading thread."""
        self._source.close()


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


# --- resolvers: (supply, spec) -> function of (batch number, rows)


def _tiles(supply: Supply, spec: kinds.Tiles) -> Callable[[int, NDArray[np.intp]], Tensor]:
    stream = supply.tiles(spec.px, supply.scene.tile_mpp(spec.mpp))
    return lambda number, rows: stream.get(number)


def _features(supply: Supply, spec: kinds.Features) -> Callable[[int, NDArray[np.intp]], Tensor]:
    scene = supply.scene
    encoder = encoder_on(spec.encoder, scene.device)
    px, mpp = encoder_tile(scene, spec)
    stream = supply.tiles(px, mpp)
    if spec.standardise == "slide":
        mean, std = (t.to(scene.device) for t in slide_statistics(scene, spec.encoder, px, mpp))
        return lambda number, rows: (encode(encoder, stream.get(number)) - mean) / std
    return lambda number, rows: encode(encoder, stream.get(number))


def encoder_tile(scene: Scene, spec: kinds.Features) -> tuple[int, float]:
    """Width in pixels and pixel size at which a field is read: the encoder's own width.

    Reading it so costs a fraction of resizing it afterwards, and encoders at one width share their tiles.
    """
    px = spec_of(spec.encoder).px
    return px, scene.tile_mpp(spec.mpp) * spec.px / px


def _positions(supply: Supply, spec: kinds.Positions) -> Callable[[int, NDArray[np.intp]], Tensor]:
    grid, device = supply.scene.grid, supply.scene.device
    if spec.kind == "um":
        um = torch.from_numpy((grid.xy * grid.mpp).astype(np.float32)).to(device)
        return lambda number, rows: um[torch.from_numpy(rows).to(device)]
    column_row = grid.index[:, ::-1] - grid.index[:, ::-1].min(axis=0)
    positions = torch.from_numpy(np.ascontiguousarray(column_row, dtype=np.int64)).to(device)
    if spec.bins is not None and len(grid) and int(positions.max()) >= spec.bins:
        message = f"The spots span {int(positions.max()) + 1} array positions; this predictor knows {spec.bins}"
        raise ModelError(message, todo="Predict a smaller region, or a coarser pitch")
    return lambda number, rows: positions[torch.from_numpy(rows).to(device)]


def _index(supply: Supply, spec: kinds.Index) -> Callable[[int, NDArray[np.intp]], Tensor]:
    device = supply.scene.device
    return lambda number, rows: torch.from_numpy(rows.astype(np.int64)).to(device)


_RESOLVERS: dict[type[Input], Callable[[Supply, Any], Callable[[int, NDArray[np.intp]], Any]]] = {
    kinds.Tiles: _tiles,
    kinds.Features: _features,
    kinds.Positions: _positions,
    kinds.Index: _index,
}


# --- encoders


@lru_cache(maxsize=4)
def encoder_on(name: str, device: torch.device) -> Encoder:
    """An encoder, ready for inference on a device; the last few stay loaded."""
    return build(name).to(device).eval()


@torch.inference_mode()
def encode(encoder: Encoder, tiles: Tensor) -> Tensor:
    """Features of uint8 tiles (n, 3, px, px): float32 (n, dim)."""
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
    key = f"{scene.slide.fingerprint}|{scene.slide.mpp:.6f}|{encoder}|{px}|{mpp:.6f}|{SAMPLE_TILES}"
    file = cache_folder() / "statistics" / f"{hashlib.sha256(key.encode()).hexdigest()[:32]}.npz"
    if file.exists():
        with np.load(file, allow_pickle=False) as stored:
            return torch.from_numpy(stored["mean"]), torch.from_numpy(stored["std"])
    centres = tissue_sample(scene.slide)
    model = encoder_on(encoder, scene.device)
    tiles = scene.slide.read_tiles(centres, px, mpp, batch_size=16)
    features = torch.cat(
        [
            encode(model, torch.from_numpy(batch.tiles[batch.ok]).to(scene.device).permute(0, 3, 1, 2)).cpu()
            for batch in ahead(tiles, depth=2)
        ]
    ).double()
    mean, std = features.mean(dim=0).float(), features.std(dim=0, correction=0).float()
    std = torch.where(std > 1e-6, std, torch.ones_like(std))
    file.parent.mkdir(parents=True, exist_ok=True)
    with atomic_write(file, force=True) as aside, aside.open("wb") as stream:
        np.savez(stream, mean=mean.numpy(), std=std.numpy())
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
