"""A trained predictor: an ensemble of one system with its manifest, in memory and as a folder.

=======================  ==============================================================
``he2st.json``           the manifest, with the checksum of every other file
``model-0.safetensors``  state dict of a member, one file each
``extras.safetensors``   fitted arrays that are not in the state, where there are any
``reference.h5ad``       reference bank of the first member, where it has one; ``reference-1.h5ad`` of the next
``MODEL_CARD.md``        for readers; not part of the checksums
=======================  ==============================================================
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any, cast

import numpy as np
import torch
from numpy.typing import NDArray
from safetensors import SafetensorError, safe_open
from safetensors.numpy import load_file
from safetensors.numpy import save as pack_arrays
from safetensors.torch import load_file as load_tensors
from safetensors.torch import save as pack_tensors

from napari_he2st.core.atomic import atomic_write
from napari_he2st.core.errors import BundleError
from napari_he2st.zoo.bank import BANK, load_bank, pack_bank
from napari_he2st.zoo.base import Predictor
from napari_he2st.zoo.catalogue import system
from napari_he2st.zoo.manifest import FILE_NAME, FileRecord, Manifest, read_manifest
from napari_he2st.zoo.weights import check_state, shapes_of

_EXTRAS = "extras.safetensors"
_ARRAY = "array:"
_SCORE = "pcc"


@dataclass(eq=False)
class Bundle:
    """A trained predictor.

    Attributes
    ----------
    members
        The ensemble, all of one system, in evaluation mode.
    manifest
        What is known of it.
    """

    members: list[Predictor]
    manifest: Manifest

    def __post_init__(self) -> None:
        for member in self.members:
            _round(member, self.manifest.dtype, self.id)

    @property
    def id(self) -> str:
        """Its name."""
        return self.manifest.name

    @cached_property
    def genes(self) -> list[str]:
        """Panel, in the order of the output."""
        return list(self.manifest.genes)

    @cached_property
    def scores(self) -> dict[str, float]:
        """Held-out Pearson correlation per gene; NaN where unknown."""
        values = self.manifest.scores.get(_SCORE, (None,) * len(self.manifest.genes))
        return {
            gene: float("nan") if value is None else value
            for gene, value in zip(self.manifest.genes, values, strict=True)
        }

    @cached_property
    def doubtful(self) -> frozenset[str]:
        """Genes whose held-out correlation is below the bundle's ``trusted_pcc``, or unknown where others are known."""
        least = self.manifest.trusted_pcc
        return frozenset() if least is None else frozenset(g for g, score in self.scores.items() if not score >= least)

    @cached_property
    def sha256(self) -> str:
        """Checksum of the manifest, and through it of everything in the bundle."""
        return hashlib.sha256(self._complete(self._pack()).render()).hexdigest()

    def save(self, path: str | Path, *, force: bool = False, model_card: str | None = None) -> Path:
        """Write the bundle's folder, aside and then renamed.

        Parameters
        ----------
        path
            The folder to make.
        force
            Replace an existing one.
        model_card
            Text of ``MODEL_CARD.md``.

        Raises
        ------
        OutputError
            The folder exists, or cannot be written.
        BundleError
            Something in it cannot be stored.
        """
        packed = self._pack()
        manifest = self._complete(packed)
        with atomic_write(path, force=force) as aside:
            aside.mkdir()
            for name, content in packed.items():
                (aside / name).write_bytes(content)
            (aside / FILE_NAME).write_bytes(manifest.render())
            if model_card is not None:
                (aside / "MODEL_CARD.md").write_text(model_card, encoding="utf-8")
        return Path(path)

    def _pack(self) -> dict[str, bytes]:
        """Content of every file but the manifest."""
        packed, arrays = {}, {}  # type: dict[str, bytes], dict[str, NDArray]
        for i, member in enumerate(self.members):
            packed[_member_file(i)] = pack_tensors(_stored(member, self.manifest.dtype))
            _split(_without_bank(member.extras), f"{i}", arrays)
            if BANK in member.extras:
                packed[_bank_file(i)] = pack_bank(member.extras[BANK], member.genes)
        if arrays:
            packed[_EXTRAS] = pack_arrays(arrays)
        return packed

    def _complete(self, packed: Mapping[str, bytes]) -> Manifest:
        """The manifest with what only packing decides."""
        files = {name: FileRecord(bytes=len(b), sha256=hashlib.sha256(b).hexdigest()) for name, b in packed.items()}
        extras = tuple(_split(_without_bank(member.extras), f"{i}", {}) for i, member in enumerate(self.members))
        return replace(self.manifest, files=files, members=len(self.members), extras=extras)

    @classmethod
    def load(cls, path: str | Path) -> Bundle:
        """Load a bundle's folder; every file is checked before anything is built.

        Raises
        ------
        BundleError
            A file is missing or not what the manifest says, or the arguments do not fit the system.
        UnknownNameError
            The system is not in the zoo.
        WeightsError
            The state does not fit the network: names what is missing, left over or of another shape.
        """
        folder = Path(path)
        manifest = read_manifest(folder)
        for name, record in manifest.files.items():
            _verify(folder / name, record)
        needed = [_member_file(i) for i in range(manifest.members)]
        if len(manifest.extras) != manifest.members or not manifest.files.keys() >= set(needed):
            raise BundleError("The manifest does not list its members", where=folder / FILE_NAME)
        arrays = _load_arrays(folder / _EXTRAS) if _EXTRAS in manifest.files else {}
        members = []
        for i, (name, plain) in enumerate(zip(needed, manifest.extras, strict=True)):
            member = _load_member(manifest, folder, folder / name)
            member.genes = list(manifest.genes)
            member.extras = _join(plain, arrays)
            if _bank_file(i) in manifest.files:
                member.extras[BANK] = load_bank(folder / _bank_file(i))
            members.append(member.eval().requires_grad_(False))
        bundle = cls(members, manifest)
        bundle.__dict__["sha256"] = hashlib.sha256((folder / FILE_NAME).read_bytes()).hexdigest()
        return bundle


def _member_file(i: int) -> str:
    return f"model-{i}.safetensors"


def _bank_file(i: int) -> str:
    return f"{BANK}.h5ad" if i == 0 else f"{BANK}-{i}.h5ad"


def _without_bank(extras: Mapping[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in extras.items() if key != BANK}


def _round(member: Predictor, dtype: str, name: str) -> None:
    """Give a member the very numbers that its file will hold."""
    if dtype == "float32":
        return
    with torch.no_grad():
        for key, tensor in member.state_dict().items():
            if tensor.is_floating_point():
                kept = tensor.to(getattr(torch, dtype))
                if bool((torch.isinf(kept) & torch.isfinite(tensor)).any()):
                    raise BundleError(f"Values of {key!r} are too large for {dtype}", where=name, todo="Store float32")
                tensor.copy_(kept)


def _stored(member: Predictor, dtype: str) -> dict[str, torch.Tensor]:
    """A member's state as its file holds it; cloned, for the format refuses shared memory."""
    kind = getattr(torch, dtype)
    state = {key: tensor.detach().cpu() for key, tensor in member.state_dict().items()}
    return {
        key: (tensor.to(kind) if tensor.is_floating_point() else tensor).contiguous().clone()
        for key, tensor in state.items()
    }


def _split(value: Any, path: str, arrays: dict[str, NDArray]) -> Any:
    """``value`` with its arrays moved into ``arrays`` and named in their place."""
    if isinstance(value, np.ndarray):
        arrays[path] = np.ascontiguousarray(value)
        return _ARRAY + path
    if isinstance(value, Mapping):
        return {str(key): _split(item, f"{path}/{key}", arrays) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_split(item, f"{path}/{i}", arrays) for i, item in enumerate(value)]
    if isinstance(value, np.generic):
        value = value.item()
    if value is None or isinstance(value, str | int) or (isinstance(value, float) and math.isfinite(value)):
        return value
    message = f"A fitted value is a {type(value).__name__}, not an array, finite number, text, list or dict"
    raise BundleError(message, where=path)


def _join(value: Any, arrays: Mapping[str, NDArray]) -> Any:
    """The inverse of :func:`_split`."""
    if isinstance(value, str) and value.startswith(_ARRAY):
        name = value.removeprefix(_ARRAY)
        if name not in arrays:
            raise BundleError("A fitted array is missing", where=name)
        return arrays[name]
    if isinstance(value, Mapping):
        return {key: _join(item, arrays) for key, item in value.items()}
    return [_join(item, arrays) for item in value] if isinstance(value, list) else value


def _load_arrays(path: Path) -> dict[str, NDArray]:
    try:
        return load_file(path)
    except SafetensorError as error:
        raise BundleError(f"A file of the bundle is damaged ({error})", where=path) from error


def _verify(path: Path, record: FileRecord) -> None:
    """Compare a file with its record, the size before anything is read."""
    if not path.is_file():
        raise BundleError("A file of the bundle is missing", where=path)
    size = path.stat().st_size
    if size != record.bytes:
        raise BundleError(f"A file of the bundle has {size:,} bytes, not {record.bytes:,}", where=path)
    with path.open("rb") as file:
        found = hashlib.file_digest(file, "sha256").hexdigest()
    if found != record.sha256:
        message = f"A file of the bundle has the wrong checksum ({found[:12]}…, not {record.sha256[:12]}…)"
        raise BundleError(message, where=path, todo="Get the bundle again from where it came from")


def _load_member(manifest: Manifest, folder: Path, path: Path) -> Predictor:
    """One member; its shapes are compared before any memory is taken for it."""
    where = folder / FILE_NAME
    cls = cast("type[Predictor]", system(manifest.system))
    n_genes = manifest.arguments.get("n_genes", len(manifest.genes))
    if n_genes != len(manifest.genes):
        raise BundleError(f"{n_genes} outputs do not match {len(manifest.genes)} genes", where=where)
    try:
        with safe_open(path, framework="pt") as file:
            found = {key: tuple(file.get_slice(key).get_shape()) for key in file.keys()}  # noqa: SIM118 - no dict
        with torch.device("meta"):
            check_state(found, shapes_of(cls(**manifest.arguments)), path)
        member = cls(**manifest.arguments)
        member.load_state_dict(load_tensors(path))
    except SafetensorError as error:
        raise BundleError(f"A file of the bundle is damaged ({error})", where=path) from error
    except (TypeError, ValueError, RuntimeError) as error:
        raise BundleError(f"The system {manifest.system!r} cannot be built ({error})", where=where) from error
    return member
