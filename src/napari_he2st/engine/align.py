"""Bring serial sections into register, say how well they lie on one another, and stack them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from napari_he2st.analysis.stack import gene_correlation, overlap, residual
from napari_he2st.core import keys
from napari_he2st.core.errors import GeneError, He2stError
from napari_he2st.core.expression import log1p_cp10k
from napari_he2st.core.schema import facts_of
from napari_he2st.core.types import Transform
from napari_he2st.engine.methods import Method
from napari_he2st.engine.methods import method as find_method

if TYPE_CHECKING:
    import pandas as pd
    from anndata import AnnData

    from napari_he2st.core.progress import Progress
    from napari_he2st.data.slides import Slide
    from napari_he2st.zoo.base import Aligner

SPATIAL_3D = "spatial_3d"
"""``obsm``: positions in a stack, micrometres (x, y, z)."""

_OVERVIEW_PX = 768
_GENES = 500


def align(
    sections: Sequence[AnnData],
    method: str = "paste",
    *,
    slides: Sequence[Slide | None] | None = None,
    variant: str = "default",
    seed: int = 0,
    device: str = "auto",
    progress: Progress | None = None,
    **options: Any,
) -> list[Transform]:
    """Transform of each section into the first one's frame.

    Parameters
    ----------
    sections
        At least two, in order, in our schema.
    method
        Name of a generic method, which registers images, or of a published one.
    slides
        The slide of each section; generic methods and those that see tiles need them.
    variant
        Named settings of a published method.
    seed
        Start of the random numbers.
    device
        Where tiles are encoded.
    progress
        Told of the steps; work can be stopped there.
    options
        The method's own options.

    Returns
    -------
    list of Transform
        From micrometres of each section's slide to micrometres of the first one's; the first is the identity.
        ``info["moved"]``, where it is there, is where a bent section's spots come to lie, micrometres (spots, 2).

    Raises
    ------
    He2stError
        There are too few sections, they have no gene in common, or an image is missing.
    """
    chosen = find_method("alignment", method)
    slides = list(slides) if slides is not None else [None] * len(sections)
    if len(sections) < 2 or len(slides) != len(sections):
        raise He2stError(f"{len(sections)} sections cannot be aligned", todo="Choose at least two, each with its slide")
    if chosen.entry is not None:
        return _by_images(chosen, slides, options, progress)
    return _by_system(chosen, sections, slides, variant, seed, device, options, progress)


def align_slides(
    slides: Sequence[Slide], method: str = "phase", *, progress: Progress | None = None, **options: Any
) -> list[Transform]:
    """Transform of each slide into the first one's frame, by a generic method; see :func:`align`."""
    chosen = find_method("alignment", method)
    if chosen.entry is None:
        raise He2stError(f"{method} aligns measured sections, not images", todo="Use phase, features or elastix")
    return _by_images(chosen, slides, options, progress)


def _by_images(
    method: Method, slides: Sequence[Slide | None], options: dict[str, Any], progress: Progress | None
) -> list[Transform]:
    """Each slide's overview onto the one before, by a generic method."""
    if method.entry is None or any(slide is None for slide in slides):
        raise He2stError(f"{method.name} registers images, and a section has none", todo="Use paste")
    method.check(options)
    known: list[Slide] = [slide for slide in slides if slide is not None]
    um = max(max(slide.size) * slide.mpp for slide in known) / _OVERVIEW_PX
    images = [_overview(slide, um) for slide in known]
    scale = np.diag([um, um, 1.0])
    found = [Transform(np.eye(3))]
    if progress is not None:
        progress.start(len(images) - 1, "Registering images")
    for moving, fixed in zip(images[1:], images[:-1], strict=True):
        step = method.entry.function(moving, fixed, mpp=um, **options)
        found.append(Transform(found[-1].matrix @ scale @ step.matrix @ np.linalg.inv(scale), step.info))
        if progress is not None:
            progress.advance()
    return found


def _overview(slide: Slide, um: float) -> NDArray[np.float64]:
    """The whole slide at ``um`` micrometres per pixel, RGB in 0 … 1."""
    width, height = (max(round(n * slide.mpp / um), 8) for n in slide.size)
    return slide.read(0, 0, width, height, mpp=um).astype(np.float64) / 255


def _by_system(
    method: Method,
    sections: Sequence[AnnData],
    slides: Sequence[Slide | None],
    variant: str,
    seed: int,
    device: str,
    options: dict[str, Any],
    progress: Progress | None,
) -> list[Transform]:
    from napari_he2st.engine.fitted import prepare_section, seeded, supply

    system: Aligner = method.build(options, variant)  # type: ignore[assignment]
    system.progress = progress
    prepared = [prepare_section(section) for section in sections]
    shared = common_genes([p.adata for p in prepared])
    given: dict[str, list[Any]] = {name: [] for name in system.inputs}
    for section, p, slide in zip(sections, prepared, slides, strict=True):
        for name, value in supply(system, section, p.kept, slide=slide, device=device, progress=progress).items():
            given[name].append(value)
    with seeded(seed):
        found = system.align([p.adata[:, shared].copy() for p in prepared], **given)
    whole = []
    for section, p, transform in zip(sections, prepared, found, strict=True):
        info = dict(transform.info)
        if "moved" in info:
            positions = transform(positions_um(section))
            positions[p.kept] = info["moved"]
            info["moved"] = positions
        whole.append(Transform(transform.matrix, info))
    return whole


def common_genes(sections: Sequence[AnnData]) -> list[str]:
    """Genes that all sections have, in the first one's order.

    Raises
    ------
    GeneError
        There is none.
    """
    shared = set.intersection(*(set(section.var_names) for section in sections))
    if not shared:
        names = " and ".join(", ".join(map(str, s.var_names[:3])) for s in sections[:2])
        raise GeneError("The sections have no gene in common", where=names, todo="Give both the same gene symbols")
    return [gene for gene in sections[0].var_names if gene in shared]


def positions_um(section: AnnData) -> NDArray[np.float64]:
    """Positions of a section's spots in micrometres (x, y) of its own slide."""
    return np.asarray(section.obsm[keys.SPATIAL], dtype=np.float64) * facts_of(section)["mpp"]


def placed(section: AnnData, transform: Transform) -> NDArray[np.float64]:
    """Where a section's spots come to lie, micrometres (x, y)."""
    moved = transform.info.get("moved")
    return transform(positions_um(section)) if moved is None else np.asarray(moved)


def quality(sections: Sequence[AnnData], transforms: Sequence[Transform]) -> pd.DataFrame:
    """How well each section lies on the one before.

    Returns
    -------
    DataFrame
        One row per pair: ``pair``, ``overlap`` (share of spots with one of the other section within a pitch),
        ``residual_um``, ``gene_correlation`` (over the 500 genes most variable in the section before), and the
        same before alignment, with both sections centred.
    """
    import pandas as pd

    shared = common_genes(sections)
    rows = []
    places = [placed(s, t) for s, t in zip(sections, transforms, strict=True)]
    for number in range(1, len(sections)):
        pair = sections[number - 1], sections[number]
        reach = float(facts_of(pair[0])["pitch_um"])
        values = [_logged(s, shared) for s in pair]
        top = np.sort(np.argsort(-values[0].var(axis=0), kind="stable")[:_GENES])
        values = [v[:, top] for v in values]
        before = [positions_um(s) - positions_um(s).mean(axis=0) for s in pair]
        row: dict[str, Any] = {"pair": f"{_name(pair[0], number - 1)} → {_name(pair[1], number)}"}
        for suffix, (fixed, moved) in (("", places[number - 1 : number + 1]), ("_before", before)):
            row[f"overlap{suffix}"] = overlap(fixed, moved, reach)
            row[f"residual_um{suffix}"] = residual(fixed, moved, reach)
            row[f"gene_correlation{suffix}"] = gene_correlation(fixed, values[0], moved, values[1], reach)
        rows.append(row)
    return pd.DataFrame(rows)


def _logged(section: AnnData, genes: Sequence[str]) -> NDArray[np.float32]:
    from napari_he2st.engine.fitted import linear

    X = linear(section)
    X = X.toarray() if hasattr(X, "toarray") else np.asarray(X)
    totals = np.nansum(X, axis=1)
    columns = section.var_names.get_indexer(list(genes))
    return np.nan_to_num(log1p_cp10k(np.asarray(X[:, columns], dtype=np.float32), totals))


def _name(section: AnnData, number: int) -> str:
    return str(facts_of(section).get("library") or number + 1)


def stack(
    sections: Sequence[AnnData],
    transforms: Sequence[Transform],
    spacing_um: float,
    *,
    how: Mapping[str, Any] | None = None,
) -> AnnData:
    """All sections in one object, over the genes they share.

    Parameters
    ----------
    sections, transforms
        What was aligned, and what :func:`align` returned.
    spacing_um
        Distance of neighbouring sections.
    how
        Method and options of the alignment, to be kept with it.

    Returns
    -------
    AnnData
        ``obsm["spatial_3d"]`` has positions in micrometres (x, y, z), ``obs["section"]`` the section, and
        ``uns["he2st_stack"]`` each section's matrix and how
        it was found.

    Raises
    ------
    He2stError
        The spacing is not above zero.
    """
    import anndata as ad

    if not spacing_um > 0:
        raise He2stError(f"Sections cannot be {spacing_um} µm apart", todo="Give their distance in micrometres")
    shared = common_genes(sections)
    names = [_name(section, i) for i, section in enumerate(sections)]
    names = [name if names.count(name) == 1 else f"{name} {i + 1}" for i, name in enumerate(names)]
    parts = []
    for i, (section, transform) in enumerate(zip(sections, transforms, strict=True)):
        part = section[:, shared].copy()
        xy = placed(section, transform)
        part.obsm[SPATIAL_3D] = np.column_stack([xy, np.full(len(xy), i * spacing_um)])
        parts.append(part)
    result = ad.concat(parts, label="section", keys=names, index_unique="-")
    matrices = {name: t.matrix for name, t in zip(names, transforms, strict=True)}
    result.uns["he2st_stack"] = {"spacing_um": spacing_um, "unit": "micrometre", "matrices": matrices}
    result.uns["he2st_stack"]["how"] = ", ".join(f"{name}={value}" for name, value in (how or {}).items())
    return result
