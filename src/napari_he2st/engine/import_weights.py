"""Make a bundle of a published checkpoint."""

from __future__ import annotations

import inspect
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from napari_he2st.core.errors import He2stError, ModelError, WeightsError
from napari_he2st.core.types import GeneSet
from napari_he2st.engine.train import About
from napari_he2st.zoo.base import Expression, Predictor
from napari_he2st.zoo.bundle import Bundle
from napari_he2st.zoo.catalogue import cards, system
from napari_he2st.zoo.manifest import Manifest
from napari_he2st.zoo.weights import HUB, check_state, find_weights, hub_source, load_checkpoint, shapes_of

_WRAPPERS = ("state_dict", "model_state_dict", "model", "net", "teacher")
_PREFIXES = ("module.", "model.", "_orig_mod.")


def import_weights(
    name: str,
    checkpoint: str | Path,
    genes: Sequence[str],
    *,
    mpp: float,
    pitch_um: float,
    arguments: Mapping[str, Any] | None = None,
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
        The system is no predictor.
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
    model.genes = list(panel.symbols)
    target = model.targets["expression"]
    tiles = [spec for spec in model.inputs.values() if hasattr(spec, "px")]
    manifest = Manifest(
        name=about.name or f"{name}-{path.stem}".replace(" ", "-"),
        title=about.title or about.name or f"{cards()[name].title}, {path.name}",
        system=name,
        arguments=wanted,
        genes=panel.symbols,
        scale=target.scale if isinstance(target, Expression) else "log1p_cp10k",
        tile_px=max((spec.px for spec in tiles), default=0),
        mpp=mpp,
        pitch_um=pitch_um,
        encoder=tuple(dict.fromkeys(spec.encoder for spec in tiles if hasattr(spec, "encoder"))),
        organs=about.organs,
        species=about.species,
        licence=about.licence,
        notes=about.notes,
    )
    return Bundle([model.eval()], manifest)


def unwrap(content: Mapping[str, Any]) -> dict[str, Tensor]:
    """The state dict inside a checkpoint, without the wrappers and prefixes of training programs."""
    inner: Any = content
    while True:
        key = next((k for k in _WRAPPERS if isinstance(inner.get(k), Mapping)), None)
        if key is None:
            break
        inner = inner[key]
    state = {key: value for key, value in inner.items() if isinstance(value, Tensor)}
    for prefix in _PREFIXES:
        if state and all(key.startswith(prefix) for key in state):
            state = {key.removeprefix(prefix): value for key, value in state.items()}
    return state


def nearest_system(state: Mapping[str, Tensor]) -> str | None:
    """The system whose published network shares most keys with a state dict, if it shares half of them."""
    best, share = None, 0.5
    for slug in cards():
        try:
            cls: Any = system(slug)
            with torch.device("meta"):
                keys = set(cls(n_genes=2).state_dict()) if issubclass(cls, Predictor) else set()
        except (He2stError, TypeError):  # unavailable, or cannot be built from its defaults
            continue
        overlap = len(keys & set(state)) / max(len(keys | set(state)), 1)
        if overlap > share:
            best, share = slug, overlap
    return best
