"""Writing that never leaves a half-written file and never overwrites unasked."""

from __future__ import annotations

import os
import secrets
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from napari_he2st.core.errors import OutputError


def check_output(path: str | Path, *, force: bool = False, inputs: tuple[str | Path, ...] = ()) -> Path:
    """Refuse an output that exists (unless forced) or that is one of the inputs.

    Raises
    ------
    OutputError
        The path exists, is an input, or its folder does not.
    """
    target = Path(path)
    for source in inputs:
        if target.exists() and Path(source).exists() and target.samefile(source):
            raise OutputError("The output would overwrite its own input", where=target, todo="Choose another name")
    if not target.parent.exists():
        raise OutputError("The folder of the output does not exist", where=target.parent, todo="Create it first")
    if target.exists() and not force:
        raise OutputError("The output exists already", where=target, todo="Choose another name or pass --force")
    return target


@contextmanager
def atomic_write(path: str | Path, *, force: bool = False, inputs: tuple[str | Path, ...] = ()) -> Iterator[Path]:
    """Yield a path beside ``path`` to write to (a file or a folder); rename it when the block ends well.

    If the block raises, what was written is removed and an existing target stays untouched.

    Raises
    ------
    OutputError
        See :func:`check_output`; also when the disk is full or the folder is read-only.
    """
    target = check_output(path, force=force, inputs=inputs)
    # The suffix stays last, since many writers choose the format by it.
    aside = target.with_name(f".{target.stem}.{secrets.token_hex(4)}{target.suffix}")
    try:
        yield aside
        if target.exists() and (target.is_dir() or aside.is_dir()) and not target.is_symlink():
            old = target.with_name(f".{target.name}.{secrets.token_hex(4)}.old")
            target.rename(old)
            aside.rename(target)
            _remove(old)
        else:
            aside.replace(target)
    except OSError as error:
        _remove(aside)
        message = f"Cannot write the output ({error.strerror or error})"
        raise OutputError(message, where=target, todo="Check free disk space and permissions") from error
    except BaseException:
        _remove(aside)
        raise


def _remove(path: Path) -> None:
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path, ignore_errors=True)
    elif path.exists():
        os.unlink(path)  # noqa: PTH108 - also removes a broken link
