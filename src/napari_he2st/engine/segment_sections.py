"""Group the spots of several sections into tissue domains that they share."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from napari_he2st.analysis.domains.embedding import by_size, check_request
from napari_he2st.core import keys
from napari_he2st.core.errors import He2stError
from napari_he2st.core.types import Domains
from napari_he2st.engine.align import common_genes
from napari_he2st.engine.methods import method as find_method

if TYPE_CHECKING:
    from anndata import AnnData

    from napari_he2st.core.progress import Progress
    from napari_he2st.data.slides import Slide
    from napari_he2st.engine.fitted import Prepared
    from napari_he2st.zoo.base import DomainMethod

_APART = 10  # sections lie so many of their widths apart: no spot has a neighbour in another section


def segment_sections(
    sections: Sequence[AnnData],
    method: str = "staig",
    *,
    n_domains: int | None = None,
    seed: int = 0,
    slides: Sequence[Slide | None] | None = None,
    variant: str = "default",
    device: str = "auto",
    progress: Progress | None = None,
    **options: Any,
) -> list[Domains]:
    """Domains that several sections share, without aligning them.

    Parameters
    ----------
    sections
        At least two, in our schema; they are not changed.
    method
        Name of a published method that integrates sections.
    n_domains
        How many domains all sections have together.
    seed
        Start of the random numbers.
    slides
        The slide of each section; tiles count where all have one.
    variant
        Named settings of the method.
    device
        Where tiles are encoded.
    progress
        Told of the steps; work can be stopped there.
    options
        The method's own options.

    Returns
    -------
    list of Domains
        One for each section. The same label is the same domain in all, and every section names all domains, also
        those it has no spot of.

    Raises
    ------
    He2stError
        There are too few sections, they have no gene in common, or the method takes one section at a time.
    """
    from napari_he2st.engine.fitted import prepare_section, supply
    from napari_he2st.engine.segment import run_system

    chosen = find_method("domains", method)
    if chosen.card is None or not getattr(chosen.system, "several", False):
        raise He2stError(f"{method} groups one section at a time", todo="Choose staig, or one section")
    slides = list(slides) if slides is not None else [None] * len(sections)
    if len(sections) < 2 or len(slides) != len(sections):
        raise He2stError(f"{len(sections)} sections share no domains", todo="Choose at least two")
    system: DomainMethod = chosen.build(options, variant)  # type: ignore[assignment]
    system.progress = progress
    prepared = [prepare_section(section) for section in sections]
    joint = _side_by_side(prepared)
    check_request(n_domains, joint.n_obs)
    inputs: dict[str, Any] = dict.fromkeys(system.inputs)
    if all(slide is not None for slide in slides):
        import torch

        found = [
            supply(system, section, p.kept, slide=slide, device=device, progress=progress)
            for section, p, slide in zip(sections, prepared, slides, strict=True)
        ]
        inputs = {name: torch.cat([one[name] for one in found]) for name in inputs}
    together = (
        Domains(np.zeros(joint.n_obs, dtype=np.intp), {})
        if n_domains == 1
        else run_system(system, joint, method, n_domains, seed, inputs)
    )
    params = {"method": method, "seed": seed, **options, "sections": len(sections), "genes_used": joint.n_vars}
    if seen := [name for name, value in inputs.items() if value is not None]:
        params["inputs"] = "+".join(seen)
    return _apart(together, prepared, {**params, **together.params})


def _side_by_side(prepared: Sequence[Prepared]) -> AnnData:
    """All sections in one object, over the genes they share; ``obs["section"]`` has their numbers."""
    import anndata as ad

    shared = common_genes([p.adata for p in prepared])
    width = max(float(np.ptp(p.adata.obsm[keys.SPATIAL], axis=0).max()) for p in prepared)
    parts = []
    for number, p in enumerate(prepared):
        part = p.adata[:, shared].copy()
        part.obsm[keys.SPATIAL] = part.obsm[keys.SPATIAL] + [number * _APART * width, 0.0]
        parts.append(part)
    joint = ad.concat(parts, label="section", keys=list(range(len(parts))), index_unique="-")
    joint.uns[keys.UNS] = parts[0].uns[keys.UNS]
    return joint


def _apart(together: Domains, prepared: Sequence[Prepared], params: dict[str, Any]) -> list[Domains]:
    """The domains of each section, numbered by their size in all."""
    labels, found, start = by_size(together.labels), [], 0
    names = tuple(f"D{i + 1}" for i in range(int(labels.max()) + 1))
    for p in prepared:
        rows = slice(start, start := start + p.adata.n_obs)
        own = np.full(len(p.kept), -1, dtype=np.intp)
        own[p.kept] = labels[rows]
        embedding = None
        if together.embedding is not None:
            embedding = np.full((len(own), together.embedding.shape[1]), np.nan, dtype=np.float32)
            embedding[p.kept] = together.embedding[rows]
        found.append(Domains(own, {**p.report, **params, "n_domains": len(names)}, embedding, names))
    return found
