"""What training leaves behind: a bundle with its provenance and honest scores."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from napari_he2st.core import keys
from napari_he2st.core.errors import ModelError
from napari_he2st.engine.intervals import interval
from napari_he2st.engine.training_data import TrainingSection
from napari_he2st.zoo.base import Expression, Predictor
from napari_he2st.zoo.bundle import Bundle
from napari_he2st.zoo.manifest import Manifest


@dataclass(frozen=True)
class About:
    """What the user says of a bundle; the rest is filled in by training.

    Attributes
    ----------
    name
        Its id, without spaces; by default the system and the number of genes.
    title
        For people.
    organs, species
        Of the training data.
    licence
        Of the bundle.
    notes
        What it must not be used for.
    trusted_pcc
        Genes that score below are marked wherever the bundle is used.
    """

    name: str | None = None
    title: str | None = None
    organs: tuple[str, ...] = ()
    species: tuple[str, ...] = ()
    licence: str = ""
    notes: str = ""
    trusted_pcc: float = 0.2


SHOWN = ("patient", "holdout", "section", "block", "spot")
"""Kinds of splits, the hardest first: the score beside genes is of the first of them that was made."""

HVG_SCORED = 250
"""Genes in the headline score: the most variable ones in the training sections of each split."""


@dataclass(frozen=True)
class Split:
    """One honest split: what was trained on, what was scored, and how well.

    Attributes
    ----------
    kind
        ``"section"``, ``"patient"``, ``"holdout"``, ``"block"`` or ``"spot"``.
    trained, scored
        Names of sections.
    pcc
        Pearson correlation over the scored spots, float64 (genes,), mean over the scored sections.
    mean_pcc, median_pcc
        Over the 250 genes most variable in this split's training sections.
    draws
        The correlations over tissue drawn anew, float64 (draws, genes).
    calibration
        See :func:`~napari_he2st.engine.intervals.calibration`; empty where predictions have no spread.
    """

    kind: str
    trained: tuple[str, ...]
    scored: tuple[str, ...]
    pcc: NDArray[np.float64]
    mean_pcc: float
    median_pcc: float
    draws: NDArray[np.float64]
    calibration: Mapping[str, float]


def expression_of(model: Predictor | type[Predictor]) -> Expression:
    """The expression that a system learns; raises ModelError where it learns none."""
    target = model.targets.get("expression")
    if not isinstance(target, Expression):
        raise ModelError("This system does not learn expression", todo="Choose a system whose task is expression")
    return target


def output_scale(model: Predictor) -> str:
    """Scale of what a system predicts: the output's own, or that of what it learns."""
    output = model.outputs.get("expression")
    return (None if output is None else output.scale) or expression_of(model).scale


def mean_known(scores: Sequence[NDArray[np.float64]]) -> NDArray[np.float64]:
    """Mean of each over the sections in which it has a score; NaN without any, as for a constant prediction."""
    stacked = np.stack(scores)
    known = np.isfinite(stacked)
    total = np.where(known, stacked, 0).sum(axis=0)
    return np.divide(total, known.sum(axis=0), out=np.full(stacked.shape[1:], np.nan), where=known.any(axis=0))


def tile_px_of(model: Predictor) -> int:
    """Width of the widest tile or region that a model sees."""
    sizes = [getattr(spec, "px", None) for spec in (*model.inputs.values(), model.unit)]
    return max((px for px in sizes if px), default=0)


def encoders_of(model: Predictor) -> tuple[str, ...]:
    """Patch encoders that a model's inputs name."""
    specs: list[Any] = [*model.inputs.values(), model.unit]
    named = (spec.encoder for spec in specs if getattr(spec, "px", None) and hasattr(spec, "encoder"))
    return tuple(dict.fromkeys(named))


def trained_bundle(
    name: str,
    members: list[Predictor],
    sections: list[TrainingSection],
    splits: list[Split],
    about: About,
    *,
    arguments: Mapping[str, Any],
    mpp: float,
    history: Sequence[Mapping[str, Any]],
    stain: str | None = None,
) -> Bundle:
    """The bundle of a training run, with its provenance and honest scores.

    Parameters
    ----------
    name
        Of the system.
    members
        The fitted ensemble.
    sections, splits
        What it was fitted on, and how it did on others.
    about
        What the user says of it.
    arguments, mpp
        Constructor arguments, and pixel size of its tiles.
    history
        Records of the last fit.
    stain
        How the stain of the slides was normalised, or None.
    """
    model, genes = members[0], members[0].genes
    adata = sections[0].adata
    ensembl = adata.var[keys.ENSEMBL].reindex(genes) if keys.ENSEMBL in adata.var else None
    scores = {
        f"pcc_{kind}": mean_known([s.pcc for s in splits if s.kind == kind]).tolist()
        for kind in dict.fromkeys(s.kind for s in splits)
    }
    # The score shown beside genes is the hardest split there is: another patient, then another section.
    shown = next((kind for kind in SHOWN if f"pcc_{kind}" in scores), None)
    if shown is not None:
        scores["pcc"] = scores[f"pcc_{shown}"]
        bounds = interval(mean_known([s.draws for s in splits if s.kind == shown]))
        scores["pcc_low"], scores["pcc_high"] = (bound.tolist() for bound in bounds)
    manifest = Manifest(
        name=about.name or f"{name}-{len(genes)}",
        title=about.title or about.name or f"{type(model).__name__} on {', '.join(s.name for s in sections)}",
        organs=about.organs,
        species=about.species,
        licence=about.licence,
        notes=about.notes,
        system=name,
        arguments=dict(arguments),
        genes=tuple(genes),
        ensembl=() if ensembl is None else tuple(None if not e else str(e) for e in ensembl.fillna("")),
        scale=output_scale(model),
        tile_px=tile_px_of(model),
        mpp=mpp,
        pitch_um=getattr(model.unit, "pitch_um", sections[0].grid.pitch_um),
        stain="" if stain is None else stain.removeprefix(keys.AS_STORED),
        encoder=encoders_of(model),
        training=tuple(
            {
                "section": s.name,
                "patient": s.patient,
                "fingerprint": s.slide.fingerprint,
                "spots": len(s.grid),
            }
            for s in sections
        ),
        scores=scores,
        splits=tuple(
            {
                "kind": s.kind,
                "trained": list(s.trained),
                "scored": list(s.scored),
                "genes": min(HVG_SCORED, len(genes)),
                "mean_pcc": s.mean_pcc,
                "median_pcc": s.median_pcc,
                **s.calibration,
            }
            for s in splits
        ),
        history=tuple(dict(record) for record in history),
        members=len(members),
        trusted_pcc=about.trusted_pcc if scores else None,
    )
    return Bundle(members, manifest)
