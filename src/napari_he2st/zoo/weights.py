"""Where weight files come from, and how they are read: never by running what is in them."""

from __future__ import annotations

import hashlib
import os
import pickle
import tomllib
from dataclasses import dataclass
from functools import lru_cache
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

from napari_he2st.core.errors import MissingExtraError, WeightsError
from napari_he2st.core.paths import cache_folder

if TYPE_CHECKING:
    from torch import Tensor, nn

    Shapes = dict[str, tuple[int, ...]]


@dataclass(frozen=True, kw_only=True)
class WeightSource:
    """Where a published weight file lies: in an installed package, or in a repository of the Hugging Face hub.

    Attributes
    ----------
    file
        Path inside the package or repository.
    sha256
        Of the file.
    package, distribution
        Import name of the package that brings it, and what it is called where it is installed from, if other.
    repo, revision
        Hub repository and the commit that is pinned.
    """

    file: str
    sha256: str
    package: str | None = None
    distribution: str | None = None
    repo: str | None = None
    revision: str | None = None


def overrides_file() -> Path:
    """The user's own list of weight files: ``HE2ST_WEIGHTS`` if set, else ``weights.toml`` in the cache folder."""
    return Path(os.environ.get("HE2ST_WEIGHTS") or cache_folder() / "weights.toml")


def overrides() -> dict[str, Path]:
    """Weight files that the user names, as lines ``name = "/path/to/file"``.

    Raises
    ------
    WeightsError
        The list is no TOML, or an entry is not text.
    """
    path = overrides_file()
    if not path.exists():
        return {}
    try:
        table = tomllib.loads(path.read_text(encoding="utf-8"))
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise WeightsError(f"The list of weight files is not readable TOML ({error})", where=path) from error
    for name, value in table.items():
        if not isinstance(value, str):
            raise WeightsError(f"{name!r} is not the path of a file", where=path, todo=f'Write {name} = "/path"')
    return {name: path.parent / Path(value).expanduser() for name, value in table.items()}


def find_weights(name: str, source: WeightSource | None, *, address: str | None = None) -> Path:
    """The weight file of ``name``: the user's own if there is one, else the published one, checked.

    Parameters
    ----------
    name
        Of the encoder or system.
    source
        Where it is published; None if it can only come from the user.
    address
        Where the user can get it then.

    Raises
    ------
    WeightsError
        There is none, it cannot be reached, or its checksum is wrong.
    MissingExtraError
        It lies on the hub and ``huggingface_hub`` is not installed.
    """
    own = overrides().get(name)
    if own is not None:
        if not own.is_file():
            raise WeightsError(f"The weights of {name} are not where you said", where=own, todo=_own_file(name))
        return own
    if source is None:
        todo = f"Get them from {address}. {_own_file(name)}" if address else _own_file(name)
        raise WeightsError(f"There are no weights to load for {name}", where=address, todo=todo)
    path = _packaged(name, source) if source.package is not None else _hub(name, source)
    status = path.stat()
    found = _sha256(path, status.st_size, status.st_mtime_ns)
    if found != source.sha256:
        message = f"The weights of {name} have the wrong checksum ({found[:12]}…, not {source.sha256[:12]}…)"
        raise WeightsError(message, where=path, todo="Install or download them again")
    return path


def _own_file(name: str) -> str:
    return f'Write "{name}" = "/path/to/file" into {overrides_file()}'


def _packaged(name: str, source: WeightSource) -> Path:
    spec = find_spec(str(source.package))
    for folder in (spec.submodule_search_locations or []) if spec is not None else []:
        path = Path(folder, source.file)
        if path.is_file():
            return path
    todo = f"Run pip install {source.distribution or str(source.package).replace('_', '-')}"
    raise WeightsError(f"The package with the weights of {name} is not installed", where=source.package, todo=todo)


def _hub(name: str, source: WeightSource) -> Path:
    try:
        import huggingface_hub
        from huggingface_hub import errors
    except ImportError as error:
        todo = "Run pip install 'napari-he2st[foundation]'"
        raise MissingExtraError(
            f"The weights of {name} lie on the Hugging Face hub", where=source.repo, todo=todo
        ) from error
    try:
        return Path(huggingface_hub.hf_hub_download(str(source.repo), source.file, revision=source.revision))
    except errors.GatedRepoError as error:
        todo = f"Ask for access at https://huggingface.co/{source.repo}, then log in with 'hf auth login'"
        raise WeightsError(f"The weights of {name} are given on request only", where=source.repo, todo=todo) from error
    except (errors.HfHubHTTPError, errors.LocalEntryNotFoundError, OSError) as error:
        todo = f"Go online, or: {_own_file(name)}"
        raise WeightsError(f"The weights of {name} cannot be reached", where=source.repo, todo=todo) from error


@lru_cache(maxsize=64)
def _sha256(path: Path, size: int, modified_ns: int) -> str:
    """Checksum of a file, remembered while its size and time stay the same."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def load_checkpoint(path: str | Path) -> dict[str, Any]:
    """Read a safetensors file, or a PyTorch checkpoint that holds nothing but tensors and plain values.

    Returns
    -------
    dict
        Most often a state dict; what else a checkpoint holds is left as it is.

    Raises
    ------
    WeightsError
        The file is missing or damaged, holds objects that would run code, or is no dict.
    """
    path = Path(path)
    if not path.is_file():
        raise WeightsError("There is no such weight file", where=path)
    content = _read_safetensors(path) if path.suffix == ".safetensors" else _read_torch(path)
    if not isinstance(content, dict):
        raise WeightsError(f"The checkpoint is a {type(content).__name__}, not a dict of tensors", where=path)
    return content


def _read_safetensors(path: Path) -> dict[str, Tensor]:
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    try:
        return load_file(path)
    except SafetensorError as error:
        raise WeightsError(f"The weight file is damaged ({error})", where=path) from error


def _read_torch(path: Path) -> Any:
    import torch

    try:
        return torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        reason = str(error).split("\n\n")[-1].splitlines()[0] if "GLOBAL" not in str(error) else _refused(str(error))
        todo = "Where you trust it, save its state_dict alone: torch.save(model.state_dict(), FILE)"
        raise WeightsError(f"The checkpoint holds more than tensors ({reason})", where=path, todo=todo) from error
    except (RuntimeError, EOFError, OSError, ValueError) as error:
        raise WeightsError(f"The weight file is damaged ({str(error).splitlines()[0]})", where=path) from error


def _refused(message: str) -> str:
    """The class that PyTorch refused to load, out of its message."""
    return message.split("GLOBAL", 1)[1].split()[0]


def shapes_of(network: nn.Module) -> Shapes:
    """Key → shape of everything in a network's state dict, in its order."""
    return {key: tuple(tensor.shape) for key, tensor in network.state_dict().items()}


def check_state(found: Shapes, wanted: Shapes, where: Path) -> None:
    """Compare the shapes in a weight file with those of the network that it is for.

    Raises
    ------
    WeightsError
        Names what is missing, left over or of another shape.
    """
    other = [f"{key} {found[key]} for {wanted[key]}" for key in wanted if key in found and found[key] != wanted[key]]
    problems = [
        f"{what} {', '.join(names[:5])}{f' and {len(names) - 5} more' if len(names) > 5 else ''}"
        for what, names in (
            ("lacks", [key for key in wanted if key not in found]),
            ("has besides", [key for key in found if key not in wanted]),
            ("has in another shape", other),
        )
        if names
    ]
    if problems:
        todo = "Take the weights of this very network"
        raise WeightsError(f"The weights do not fit: the file {'; '.join(problems)}", where=where, todo=todo)
