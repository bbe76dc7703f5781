"""Hand a trained predictor on: to a folder or to a repository on the Hugging Face hub, and from there."""

from __future__ import annotations

import re
import shutil
import tempfile
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from napari_he2st.core.atomic import atomic_write
from napari_he2st.core.errors import BundleError, MissingExtraError, OutputError
from napari_he2st.zoo.bundle import Bundle
from napari_he2st.zoo.manifest import FILE_NAME, read_manifest

_REPO = re.compile(r"hf://([\w.-]+/[\w.-]+)(?:@([\w.-]+))?")
_CARD = "MODEL_CARD.md"


def push(bundle: str | Path, where: str, *, force: bool = False) -> str:
    """Copy a bundle to a folder, or upload it to ``hf://OWNER/NAME``, after checking that it is whole.

    Returns
    -------
    str
        Where it lies now; of the hub with its revision, which is what others should pull.

    Raises
    ------
    BundleError
        It is damaged.
    OutputError
        The folder exists, or the hub does not take it.
    """
    folder = Path(bundle)
    files = _checked(folder)
    repo, _ = _parse(where)
    if repo is None:
        with atomic_write(where, force=force, inputs=(folder,)) as aside:
            aside.mkdir()
            for name in files:
                shutil.copyfile(folder / name, aside / name)
        return str(Path(where))
    hub = _library()
    try:
        api = hub.HfApi()
        api.create_repo(repo, exist_ok=True)
        done = api.upload_folder(repo_id=repo, folder_path=str(folder), allow_patterns=files)
    except (hub.errors.HfHubHTTPError, hub.errors.HFValidationError, OSError, ValueError) as error:
        todo = "Log in with 'hf auth login' and check the name"
        raise OutputError(f"The hub does not take the predictor ({error})", where=where, todo=todo) from error
    return f"hf://{repo}@{done.oid}"


def pull(where: str, output: str | Path, *, force: bool = False) -> Path:
    """Copy a bundle from a folder or from ``hf://OWNER/NAME[@REVISION]``, and check every file of it.

    Nothing that comes with it is run.

    Raises
    ------
    BundleError
        There is none, or it is damaged.
    OutputError
        The folder exists or cannot be written.
    """
    repo, revision = _parse(where)
    with tempfile.TemporaryDirectory() as scratch:
        source = Path(where) if repo is None else _download(repo, revision, Path(scratch))
        files = _checked(source)
        with atomic_write(output, force=force, inputs=(source,)) as aside:
            aside.mkdir()
            for name in files:
                shutil.copyfile(source / name, aside / name)
    return Path(output)


def _download(repo: str, revision: str | None, folder: Path) -> Path:
    """The files that the manifest names, and nothing else of the repository."""
    hub = _library()
    try:
        revision = hub.HfApi().repo_info(repo, revision=revision).sha  # the same for all files
        hub.hf_hub_download(repo, FILE_NAME, revision=revision, local_dir=folder)
        for name in read_manifest(folder).files:
            hub.hf_hub_download(repo, name, revision=revision, local_dir=folder)
        hub.hf_hub_download(repo, _CARD, revision=revision, local_dir=folder)
    except hub.errors.EntryNotFoundError as error:
        if not (folder / FILE_NAME).is_file() or _CARD not in str(error):
            raise BundleError(f"The repository lacks a file ({error})", where=repo) from error
    except (hub.errors.HfHubHTTPError, hub.errors.HFValidationError, OSError, ValueError) as error:
        todo = "Check name, revision and connection; a private one needs 'hf auth login'"
        raise BundleError(f"The predictor cannot be fetched ({error})", where=repo, todo=todo) from error
    return folder


def _checked(folder: Path) -> list[str]:
    """Files of a bundle that is whole."""
    manifest = read_manifest(folder)
    Bundle.load(folder)  # checks sizes, checksums and shapes
    card = [_CARD] if (folder / _CARD).is_file() else []
    return [FILE_NAME, *manifest.files, *card]


def _parse(where: str) -> tuple[str | None, str | None]:
    """Repository and revision of an address; both None for a folder."""
    if not where.startswith("hf://"):
        return None, None
    found = _REPO.fullmatch(where)
    if found is None:
        raise BundleError("This is no address of a repository", where=where, todo="Write hf://OWNER/NAME")
    return found[1], found[2]


def _library() -> Any:
    if find_spec("huggingface_hub") is None:
        raise MissingExtraError("The Hugging Face hub needs a library", todo="Run pip install napari-he2st[foundation]")
    import huggingface_hub
    import huggingface_hub.errors

    return huggingface_hub
