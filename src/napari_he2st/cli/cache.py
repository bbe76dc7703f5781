"""``he2st cache``: what is kept on disk to be faster the next time."""

from __future__ import annotations

import re
from collections import Counter
from typing import Annotated, Any

import typer

from napari_he2st.cli import console
from napari_he2st.cli.options import AsJson, examples
from napari_he2st.core import cache
from napari_he2st.core.paths import cache_folder

app = typer.Typer(
    epilog=examples("he2st cache", "he2st cache clear", "he2st cache limit 5GB"),
    invoke_without_command=True,
)

_UNITS = {"": 1, "K": 10**3, "M": 10**6, "G": 10**9, "T": 10**12}


@app.callback()
def show(ctx: typer.Context, as_json: AsJson = False) -> None:
    """Show, empty or limit what is kept on disk."""
    if ctx.invoked_subcommand is not None:
        return
    sizes: Counter[str] = Counter()
    for entry in cache.entries():
        sizes[entry.kind] += entry.size
    facts: dict[str, Any] = {
        "folder": str(cache_folder()),
        "size": sum(sizes.values()),
        "limit": cache.limit(),
        "kinds": dict(sizes),
    }
    if as_json:
        console.print_json(facts)
    else:
        named = {kind: as_size(size) for kind, size in sizes.items()}
        console.print_fields(facts | {"size": as_size(facts["size"]), "limit": as_size(facts["limit"]), "kinds": named})


@app.command()
def clear() -> None:
    """Remove everything that is cached."""
    console.note(f"Freed {as_size(cache.clear())}.")


@app.command(epilog=examples("he2st cache limit 5GB", "he2st cache limit 0"))
def limit(
    size: Annotated[str, typer.Argument(metavar="SIZE", help="Such as 500MB or 20GB.", show_default=False)],
) -> None:
    """Set how large the cache may get; what was unused the longest goes first."""
    cache.set_limit(read_size(size))
    console.note(f"The cache may use {as_size(cache.limit())}.")


def read_size(text: str) -> int:
    """Bytes of a text such as ``20GB``.

    Raises
    ------
    typer.BadParameter
        The text is no size.
    """
    match = re.fullmatch(r"\s*(\d+(?:\.\d+)?)\s*([KMGT]?)B?\s*", text, flags=re.IGNORECASE)
    if match is None:
        message = f"{text!r} is no size such as 500MB or 20GB"
        raise typer.BadParameter(message)
    return int(float(match[1]) * _UNITS[match[2].upper()])


def as_size(size: float) -> str:
    """Bytes as a person reads them."""
    for unit in ("B", "KB", "MB", "GB"):
        if size < 1000:
            return f"{size:.3g} {unit}"
        size /= 1000
    return f"{size:.3g} TB"
