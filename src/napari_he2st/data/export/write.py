"""The one way to a written file: checked, written aside, then renamed."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from napari_he2st.core.atomic import atomic_write
from napari_he2st.core.registry import unknown_name
from napari_he2st.core.schema import check_expression
from napari_he2st.data.export.registry import EXPORTERS

if TYPE_CHECKING:
    from anndata import AnnData

    from napari_he2st.data.slides import Slide


def export(
    adata: AnnData,
    to: str,
    out: str | Path,
    *,
    force: bool = False,
    slide: Slide | None = None,
    inputs: tuple[str | Path, ...] = (),
    **options: Any,
) -> Path:
    """Write expression in another format.

    Parameters
    ----------
    adata
        Expression in our schema; it is not changed.
    to
        Name of a registered format.
    out
        File to write.
    force
        Replace ``out`` if it exists.
    slide
        Slide that the spots lie on, for formats with an image.
    inputs
        Files that ``out`` must not be; the slide and the file behind ``adata`` are always among them.
    options
        Options of the format.

    Returns
    -------
    Path
        ``out``.

    Raises
    ------
    UnknownNameError
        The format or an option is unknown.
    SchemaError
        ``adata`` does not follow the schema.
    OutputError
        ``out`` exists, is an input, or cannot be written.
    """
    entry = EXPORTERS[to]
    for name in options:
        if name not in entry.options:
            raise unknown_name(f"option of {to}", name, list(entry.options))
    check_expression(adata)
    own = [slide.path if slide is not None else None, getattr(adata, "filename", None)]
    guarded = (*inputs, *(path for path in own if path is not None))
    with atomic_write(out, force=force, inputs=guarded) as path:
        entry.function(adata, path, slide, **options)
    return Path(out)
