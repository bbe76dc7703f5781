"""Make a bundle of a published checkpoint."""

from __future__ import annotations

import inspect
from collections.abc import Mapping, Sequence
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from napari_he2st.core.errors import He2stError, ModelError, WeightsError
from napari_he2st.core.types import GeneSet
from napari_he2st.engine.trained import About, encoders_of, output_scale, tile_px_of
from napari_he2st.zoo.base import Predictor
from napari_he2st.zoo.bundle import Bundle
from napari_he2st.zoo.catalogue import cards, system
from napari_he2st.zoo.manifest import Manifest
from napari_he2st.zoo.weights import HUB, check_state, find_weights, hub_source, load_checkpoint, shapes_of, unwrap


def import_weights(
    name: str,
    checkpoint: str | Path,
    genes: Sequence[str],
    *,
    mpp: float,
    pitch_um: float,
    arguments: Mapping[str, Any] | None = None,
    beside: Mapping[str, Any] | None = None,
    about: About = About(),  # noqa: B008 - frozen
) -> Bundle:
    """Load a published checkpoint into a system and describe it as a bundle.

    Parameters
    ----------
    name
        The system it was trained with.
    checkpoint
        safetensors, or a PyTorch file of tensors and plain values; also wrapped as training programs do. On the
        Hugging Face hub: ``hf:OWNER/REPOSITORY/FILE``.
    genes
        Symbols in the order of the outputs; the checkpoint does not know them.
    mpp, pitch_um
        Pixel size of the tiles and distance of the spots it was trained at.
    arguments
        Constructor arguments of the network, where they are not the published ones.
    beside
        What the network needs and the checkpoint lacks: arrays and numbers by the names that the system asks for
        (:attr:`~napari_he2st.zoo.base.Predictor.beside`), such as statistics of the training pixels.
    about
        What the bundle says of itself.

    Returns
    -------
    Bundle
        Without scores: none are known of it on data that this package has seen.

    Raises
    ------
    WeightsError
        The file cannot be reached, read or does not fit; names what is missing, left over or of another shape, and the
        system whose network is nearest.
    ModelError
        The system is no predictor; something is missing in ``beside``, too much, or of another shape.
    """
    cls = system(name)
    if not issubclass(cls, Predictor):
        raise ModelError("This system is no predictor", where=name)
    panel = GeneSet(tuple(genes), "checkpoint")
    on_hub = str(checkpoint).startswith(HUB)
    path = find_weights(name, hub_source(str(checkpoint))) if on_hub else Path(checkpoint)
    state = unwrap(load_checkpoint(path))
    wanted = {**(arguments or {})}
    if "n_genes" in inspect.signature(cls.__init__).parameters:
        wanted["n_genes"] = len(panel)
    model = cls(**wanted)
    try:
        check_state({key: tuple(tensor.shape) for key, tensor in state.items()}, shapes_of(model), path)
    except WeightsError as error:
        near = nearest_system(state)
        todo = "Check --argument and the number of genes"
        if near not in (None, name):
            todo = f"It looks most like a checkpoint of {near}"
        raise WeightsError(error.what, where=path, todo=todo) from error
    model.load_state_dict(state)
    _set_beside(model, name, dict(beside or {}))
    model.genes = list(panel.symbols)
    manifest = Manifest(
        name=about.name or f"{name}-{path.stem}".replace(" ", "-"),
        title=about.title or about.name or f"{cards()[name].title}, {path.name}",
        system=name,
        arguments=wanted,
        genes=panel.symbols,
        scale=output_scale(model),
        tile_px=tile_px_of(model),
        mpp=mpp,
        pitch_um=getattr(model.unit, "pitch_um", pitch_um),
        encoder=encoders_of(model),
        organs=about.organs,
        species=about.species,
        licence=about.licence,
        notes=about.notes,
    )
    return Bundle([model.eval()], manifest)


def _set_beside(model: Predictor, name: str, given: dict[str, Any]) -> None:
    """Put what lay beside a checkpoint into ``extras``."""
    for key, meaning in model.beside.items():
        if key not in given:
            message = f"A checkpoint of {name} needs {key!r} beside it: {meaning}"
            raise ModelError(message, todo=f"Give it with --beside {key}=FILE (.json, .npy or .npz)")
    for key, value in given.items():
        if key not in model.beside:
            known = ", ".join(model.beside) or "nothing"
            raise ModelError(f"{name} has no use for {key!r}; beside its checkpoints lies {known}")
        if key in model.extras:
            value = _like(model.extras[key], value, key)
        model.extras[key] = value


def _like(default: Any, value: Any, key: str) -> Any:
    """An array of the shape of ``default``, or a dict of arrays that may have any number of rows."""
    if not isinstance(default, Mapping):
        array = np.asarray(value, dtype=default.dtype)
        if array.shape != default.shape:
            raise ModelError(f"{key!r} has shape {array.shape}, not {default.shape}", where="beside")
        return array
    if not isinstance(value, Mapping) or value.keys() != default.keys():
        raise ModelError(f"{key!r} does not consist of {', '.join(default)}", where="beside")
    arrays = {part: np.asarray(value[part], dtype=default[part].dtype) for part in default}
    for part, array in arrays.items():
        if array.shape[1:] != default[part].shape[1:] or len(array) != len(arrays[next(iter(arrays))]):
            wanted = ("rows", *default[part].shape[1:])
            raise ModelError(f"{part!r} of {key!r} has shape {array.shape}, not {wanted}", where="beside")
    return arrays


def nearest_system(state: Mapping[str, Tensor]) -> str | None:
    """The system whose published network shares most keys with a state dict, if it shares half of them."""
    given = frozenset(state)
    known = {slug: keys for slug in cards() if (keys := _published_keys(slug))}
    shares = {slug: len(keys & given) / len(keys | given) for slug, keys in known.items()}
    best = max(shares, key=lambda slug: shares[slug], default=None)
    return best if best is not None and shares[best] > 0.5 else None


@lru_cache(maxsize=256)
def _published_keys(slug: str) -> frozenset[str]:
    """State-dict keys of a system's published network; none where it is unavailable or no predictor."""
    try:
        cls: Any = system(slug)
        if not issubclass(cls, Predictor):
            return frozenset()
        with torch.device("meta"):
            return frozenset(cls(n_genes=2).state_dict())
    except (He2stError, TypeError):  # unavailable, or cannot be built from its defaults
        return frozenset()
