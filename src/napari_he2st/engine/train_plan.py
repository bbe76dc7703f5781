"""What a training would do: whether its sections fit, how much they share, and about how long it takes."""

from __future__ import annotations

import csv
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from napari_he2st.core.errors import He2stError, TruthError
from napari_he2st.core.progress import Control

if TYPE_CHECKING:
    from napari_he2st.data.truth import Section
    from napari_he2st.engine.folds import Kind

ROLES = ("train", "validate", "holdout")
_TIMED_SPOTS = 48
_MAX_CSV_BYTES = 2**20


@dataclass(frozen=True)
class Plan:
    """What is known before a training begins.

    Attributes
    ----------
    genes
        Of the panel.
    shared, measured
        Genes that all sections measure, and that any of them does.
    spots
        To train on.
    fits
        How often the system is fitted: once, and once for each part that is left out.
    seconds
        About how long all of it takes on this machine, with the recipe's number of epochs.
    memory_bytes
        About how much memory the inputs of all sections and the network in training take.
    warnings
        What the user should look at first.
    """

    genes: int
    shared: int
    measured: int
    spots: int
    fits: int
    seconds: float
    memory_bytes: int
    warnings: list[str]


def plan_training(
    name: str,
    sections: Sequence[Section],
    *,
    holdout: Sequence[Section] = (),
    validate: Sequence[Section] = (),
    folds: Sequence[Kind] = (),
    arguments: Mapping[str, Any] | None = None,
    panel: str | Sequence[str] | None = None,
    recipe: Mapping[str, Any] | None = None,
    device: str = "auto",
    control: Control | None = None,
) -> Plan:
    """Check the sections, and time one epoch on a few spots of the first; parameters as for ``train``.

    Raises
    ------
    He2stError
        What ``train`` would refuse: no shared gene, no image, no counts, a split that is impossible.
    """
    from napari_he2st.engine.folds import make_folds, pitfalls
    from napari_he2st.engine.panel import choose_panel
    from napari_he2st.engine.train import train
    from napari_he2st.engine.trained import expression_of
    from napari_he2st.engine.training_data import check_counts
    from napari_he2st.zoo.catalogue import system

    if not sections:
        raise TruthError("There is no section to train on", todo="Give a section the role 'train'")
    control, every = control or Control(), [*sections, *holdout, *validate]
    warnings = [f"{s.name}: {said}" for s in every for said in [misfit(s)] if said]
    for section in every:
        check_counts(section)
    cls: Any = system(name)
    panel = panel if panel is not None else expression_of(cls).panel or "hvg:1000"
    genes = choose_panel([s.adata for s in sections], panel).symbols
    measured = [set(map(str, s.adata.var_names)) for s in every]
    shared, found = set.intersection(*measured), set.union(*measured)
    lost = [s.name for s in (*holdout, *validate) if not set(genes) & set(map(str, s.adata.var_names))]
    warnings += [f"{section} measures no gene of the panel." for section in lost]
    if len(shared) < len(found) / 2:
        warnings.append(f"The sections share only {len(shared):,} of {len(found):,} genes: are all named alike?")
    parts = [(kind, make_folds(sections, kind)) for kind in folds]
    warnings += [text for kind, some in parts if some for text in pitfalls(some, kind)]
    train_on = {s.patient for s in sections} - {None}
    serial = [s.name for s in holdout if s.patient in train_on]
    if serial:
        warnings.append(
            f"{', '.join(serial)} shares a patient with the training sections: scores are higher than on a new one."
        )
    epochs = int({**vars(cls.recipe), **(recipe or {})}["epochs"])
    timed = _few(sections[0])
    how: dict[str, Any] = {"arguments": arguments, "panel": list(genes), "device": device, "control": control}
    began = time.perf_counter()
    bundle = train(name, [timed], recipe=recipe, epochs=1, **how)  # also reads tiles and fetches weights once
    first = time.perf_counter() - began
    began = time.perf_counter()
    train(name, [timed], recipe=recipe, epochs=3, **how)
    epoch_s = max((time.perf_counter() - began - first) / 2, 1e-4) / timed.adata.n_obs
    read_s = first / timed.adata.n_obs
    spots, fits = sum(s.adata.n_obs for s in sections), 1 + sum(len(some) for _, some in parts)
    n_read = sum(s.adata.n_obs for s in every)
    model = bundle.members[0]
    parameters = sum(p.numel() for p in model.parameters())
    return Plan(
        len(genes),
        len(shared),
        len(found),
        spots,
        fits,
        n_read * read_s + spots * epochs * epoch_s * fits * cls.members,
        n_read * (_bytes_per_spot(model) + 4 * len(genes)) + 16 * parameters,
        list(dict.fromkeys(warnings)),
    )


def misfit(section: Section) -> str | None:
    """What does not fit between a section and its image, in words; None where all is well."""
    from napari_he2st.core.schema import facts_of
    from napari_he2st.data.slides import Slide
    from napari_he2st.data.slides.tissue import tissue_mask
    from napari_he2st.data.truth.fit import check_fit

    if section.slide_path is None:
        raise TruthError("The section has no image to train on", where=section.name, todo="Put its H&E beside it")
    with Slide.open(section.slide_path, mpp=facts_of(section.adata)["mpp"]) as slide:
        return check_fit(section.adata, tissue_mask(slide), warnings=section.warnings).message


def read_pairs(path: str | Path) -> list[tuple[Section, str]]:
    """Sections of a table with a pair of slide and measured expression per row, and what each is for.

    Columns are ``st`` (``PATH`` or ``PATH:NAME``), and if wanted ``slide`` (image in place of the layout's own),
    ``patient`` and ``role`` (``train``, ``validate`` or ``holdout``). Paths are relative to the table.

    Raises
    ------
    TruthError
        The table cannot be read or lacks the column, a role is unknown, or a section cannot be read.
    """
    from napari_he2st.data.truth import parse_section, read_section

    path = Path(path)
    try:
        if path.stat().st_size > _MAX_CSV_BYTES:
            raise TruthError("The table is too large to be a list of sections", where=path)
        rows = list(csv.DictReader(path.read_text(encoding="utf-8-sig").splitlines()))
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise TruthError(f"The table cannot be read ({error})", where=path, todo="Give a CSV file") from error
    if not rows or "st" not in rows[0]:
        raise TruthError("The table has no column 'st'", where=path, todo="Name the columns st, slide, patient, role")
    found = []
    for number, row in enumerate(rows, 2):
        role = (row.get("role") or "train").strip()
        if role not in ROLES:
            raise TruthError(f"Row {number} has the role {role!r}", where=path, todo=f"Use {', '.join(ROLES)}")
        where, name = parse_section(str(path.parent / row["st"].strip()))
        image = (row.get("slide") or "").strip()
        try:
            section = read_section(where, name, image=path.parent / image if image else None)
        except He2stError as error:
            raise TruthError(f"Row {number}: {error}", where=path) from error
        found.append((replace(section, patient=(row.get("patient") or "").strip() or section.patient), role))
    return found


def _few(section: Section) -> Section:
    """A section of few spots that lie together."""
    xy = np.asarray(section.adata.obsm["spatial"])
    near = np.argsort(((xy - np.median(xy, axis=0)) ** 2).sum(axis=1), kind="stable")[:_TIMED_SPOTS]
    return replace(section, adata=section.adata[np.sort(near)].copy())


def _bytes_per_spot(model: Any) -> int:
    """Of what a system is given of a spot: tiles as bytes, features as floats."""
    total = 0
    for spec in model.inputs.values():
        encoder = getattr(spec, "encoder", None)
        if encoder is not None:
            from napari_he2st.zoo.encoders.table import encoders

            total += 4 * encoders()[encoder].dim * getattr(spec, "size", 1) ** 2
        else:
            total += 3 * (getattr(spec, "px", 0) or 0) ** 2
    return total
