"""The model card of a bundle, in Markdown: what it was trained on, how well it does, what it is not for."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from napari_he2st.zoo.bundle import Bundle

_SPLITS = {
    "section": "one section left out",
    "patient": "one patient left out",
    "holdout": "sections held out",
    "block": "a quarter of a section left out",
    "spot": "random spots left out (scores are too high)",
}
_LISTED = 20


def model_card(bundle: Bundle) -> str:
    """The card's text."""
    facts = bundle.manifest
    patients = list(dict.fromkeys(str(section["patient"]) for section in facts.training))
    lines = [
        f"# {facts.title}",
        "",
        "Predicts gene expression from H&E. **For research use only; not for diagnosis.**",
        "",
        "| | |",
        "|---|---|",
        f"| system | {facts.system} |",
        f"| genes | {len(facts.genes):,} ({facts.scale}) |",
        f"| organ, species | {', '.join(facts.organs) or 'not stated'}; {', '.join(facts.species) or 'not stated'} |",
        f"| trained on | {len(facts.training)} sections of {len(patients)} patient{'s' if len(patients) > 1 else ''} |",
        f"| field | up to {facts.tile_px} px at {facts.mpp:.3f} µm/px |",
        f"| spots | {facts.pitch_um:g} µm apart |",
        f"| encoders | {', '.join(facts.encoder) or 'none'} |",
        f"| licence | {facts.licence or 'not stated'} |",
        f"| made | {facts.created} |",
        "",
        "## What it must not be used for",
        "",
        facts.notes or f"It knows the tissue of {len(patients)} patients only; elsewhere its maps mean nothing.",
        "",
        "## Training sections",
        "",
        "| section | patient | spots |",
        "|---|---|---|",
        *(f"| {s['section']} | {s['patient']} | {s['spots']} |" for s in facts.training),
    ]
    if facts.splits:
        n = facts.splits[0]["genes"]
        lines += [
            "",
            "## Scores on sections it had not seen",
            "",
            f"Pearson correlation over the spots of a section, over the {n} genes most variable in the training "
            "sections of each split. Every split was trained anew without the sections it scores.",
            "",
            "| split | scored | trained on | mean | median |",
            "|---|---|---|---|---|",
            *(
                f"| {_SPLITS[s['kind']]} | {', '.join(s['scored'])} | {', '.join(s['trained'])} "
                f"| {_number(s['mean_pcc'])} | {_number(s['median_pcc'])} |"
                for s in facts.splits
            ),
        ]
    scores = {metric: np.array([np.nan if v is None else v for v in values]) for metric, values in facts.scores.items()}
    by_split = {kind: scores[f"pcc_{kind}"] for kind in _SPLITS if f"pcc_{kind}" in scores}
    if by_split:
        ranked = np.argsort(-np.nan_to_num(scores["pcc"], nan=-np.inf), kind="stable")[:_LISTED]
        bounds = [scores[name] for name in ("pcc_low", "pcc_high") if name in scores]
        lines += [
            "",
            f"## The {len(ranked)} genes it predicts best",
            "",
            "All genes with their scores are in `he2st.json`. The interval holds 95 % of the scores over tissue drawn "
            "anew, in squares of 4 × 4 spots, of the first of these splits.",
            "",
            f"| gene | {' | '.join(_SPLITS[kind] for kind in by_split)} | 95 % interval |",
            f"|---|{'---|' * (1 + len(by_split))}",
            *(
                f"| {facts.genes[i]} | {' | '.join(_number(values[i]) for values in by_split.values())} "
                f"| {' to '.join(_number(bound[i]) for bound in bounds) or '–'} |"
                for i in ranked
            ),
        ]
    if facts.trusted_pcc is not None and bundle.doubtful:
        lines += [
            "",
            "## Genes that should not be trusted",
            "",
            f"{len(bundle.doubtful):,} of {len(facts.genes):,} genes score below {facts.trusted_pcc:g} on sections it "
            "had not seen, or not at all. They are marked wherever it is used.",
        ]
    spread = [s for s in facts.splits if s.get("within_95") is not None]
    if spread:
        within, factor = (float(np.mean([s[name] for s in spread])) for name in ("within_95", "spread_factor"))
        lines += [
            "",
            "## How sure it is",
            "",
            f"Its spread holds {within:.0%} of the measured values within 1.96 standard deviations, where 95 % would "
            f"be right; multiply it by {factor:.2f} to be right on average.",
        ]
    return "\n".join(lines) + "\n"


def _number(score: float | None) -> str:
    """A score as text; a constant prediction has none."""
    return "–" if score is None or np.isnan(score) else f"{score:.3f}"
