"""Write a comparison down: its table as CSV, and all of it as one self-contained web page."""

from __future__ import annotations

import html
import math
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from napari_he2st.core import keys
from napari_he2st.core.atomic import atomic_write
from napari_he2st.data.export.table import inert
from napari_he2st.engine.figures import best_gene, figures
from napari_he2st.engine.page import page, picture, rows_of, text_of

if TYPE_CHECKING:
    from napari_he2st.engine.compare import Comparison
    from napari_he2st.engine.domain_agreement import DomainAgreement
    from napari_he2st.engine.ranking import Ranking

_LISTED = 25
_MOST_GENES = 2_000  # named at the end
_FACTS = {
    "predicted": (
        *("library", "kind", "bundle_title", "bundle", "bundle_sha256", "system", "slide_fingerprint", "colours"),
        *("tile_px", "tile_mpp", "scale", "mpp", "pitch_um", "seed", "device", "version", "date"),
    ),
    "measured": ("library", "kind", "layout", "scale", "mpp", "mpp_source", "pitch_um", "spot_um", "version", "date"),
}


def write_table(comparison: Comparison | Mapping[str, Comparison], path: str | Path, *, force: bool = False) -> Path:
    """Write the scores per gene as CSV; raises :class:`~napari_he2st.core.errors.OutputError`.

    Of several comparisons, by name, the rows follow one another, with the name in the column ``result``.
    """
    import pandas as pd

    if isinstance(comparison, Mapping) and len(comparison) == 1:
        (comparison,) = comparison.values()
    if isinstance(comparison, Mapping):
        parts = [c.table.assign(result=name) for name, c in comparison.items()]
        table = pd.concat(parts, ignore_index=True)
        table.insert(0, "result", inert(table.pop("result")))
    else:
        table = comparison.table
    table = table.assign(gene=inert(table["gene"]))
    with atomic_write(path, force=force) as aside:
        table.to_csv(aside, index=False, float_format="%.6g")
    return Path(path)


def write_report(
    comparison: Comparison,
    path: str | Path,
    *,
    gene: str | None = None,
    ranking: Ranking | None = None,
    domains: DomainAgreement | None = None,
    force: bool = False,
) -> Path:
    """Write one web page that needs no other file and no network.

    Parameters
    ----------
    comparison
        What to report.
    path
        The page.
    gene
        The gene whose maps are shown; by default the one that agrees best.
    ranking
        How this result stands among others, where several were compared.
    domains
        How groups of spots agree.
    force
        Replace an existing file.

    Raises
    ------
    OutputError
        The file exists or cannot be written.
    UnknownNameError
        The gene was not compared.
    """
    content = _page(comparison, gene or best_gene(comparison), ranking, domains)
    with atomic_write(path, force=force) as aside:
        aside.write_text(content, encoding="utf-8")
    return Path(path)


def _page(comparison: Comparison, gene: str, ranking: Ranking | None, domains: DomainAgreement | None) -> str:
    facts = comparison.facts_predicted
    title = f"{facts.get('bundle_title', facts['library'])} on {comparison.facts_measured['library']}"
    judged, reference = comparison.titles
    ranked = comparison.table.sort_values("pcc", ascending=False, na_position="last")
    known = ranked[ranked["pcc"].notna()]
    drawn = {
        name: picture(draw(), said)
        for name, (said, draw) in figures(comparison, gene, ranking=ranking, domains=domains).items()
    }
    parts = [
        f"<h1>{html.escape(title)}</h1>",
        f"<p class='note'>{html.escape(judged.capitalize())} against {html.escape(reference)} expression. "
        f"{html.escape(keys.RESEARCH_USE)}</p>",
        *(f"<p class='warning'>{html.escape(text)}</p>" for text in comparison.warnings),
        f"<p>{html.escape(_headline(comparison))}</p>",
        f"<h2>{html.escape(gene)}</h2>",
        drawn["maps"],
        f"<div class='columns'>{drawn['scatter']}{drawn['residual']}</div>",
        "<h2>All genes and all spots</h2>",
        f"<div class='columns'>{drawn['distribution']}{drawn['agreement']}</div>",
        *_ranking_parts(ranking),
        *_domain_parts(domains, drawn.get("domains", "")),
        "<div class='columns'>",
        _table_of("Figures", comparison.summary),
        "<div>",
        _table_of("Judged: " + judged, _chosen(facts)),
        _table_of("Reference: " + reference, _chosen(comparison.facts_measured)),
        "</div></div>",
        f"<h2>The {min(_LISTED, len(known))} genes that agree best</h2>",
        _gene_rows(known.head(_LISTED)),
        f"<h2>The {min(_LISTED, len(known))} genes that agree least</h2>",
        _gene_rows(known.tail(_LISTED).iloc[::-1]),
        f"<h2>All {len(comparison.genes):,} genes</h2>",
        f"<p class='note'>{html.escape(', '.join(comparison.genes[:_MOST_GENES]))}"
        f"{' …' if len(comparison.genes) > _MOST_GENES else ''}</p>",
    ]
    return page(title, parts)


def _headline(comparison: Comparison) -> str:
    found = comparison.summary
    mean, low, high = (text_of(found[name]) for name in ("pcc_mean", "pcc_mean_low", "pcc_mean_high"))
    return (
        f"Mean Pearson correlation {mean} [{low}, {high}] over {found['genes'] - found['genes_without_pcc']:,} genes "
        f"and {found['spots_matched']:,} spots, matched by {found['matched_by']}; without a partner "
        f"{found['spots_measured_unmatched']:,} of {found['spots_measured']:,} of the reference and "
        f"{found['spots_predicted_unmatched']:,} of {found['spots_predicted']:,} of the other. Intervals hold 95 % of "
        "resamples of squares of tissue."
    )


def _p_text(p: float) -> str:
    return "–" if math.isnan(p) else f"{p:.2g}"


def _ranking_parts(ranking: Ranking | None) -> list[str]:
    if ranking is None or len(ranking.names) < 2:
        return []
    head = ("result", "mean r", "from", "to", "median r", "best at", "p against the first")
    rows = [
        [r["name"], r["pcc_mean"], r["pcc_low"], r["pcc_high"], r["pcc_median"], f"{r['wins']:.0%}", _p_text(r["p"])]
        for r in ranking.table.to_dict("records")
    ]
    said = (
        f"Over {len(ranking.genes):,} genes and {ranking.spots:,} spots that all have. Wilcoxon's signed-rank test "
        "over genes, corrected by Holm; genes are not independent of each other: read small p values with care."
    )
    note = html.escape(" ".join([said, *ranking.warnings]))
    return ["<h2>Ranking</h2>", rows_of(head, rows), f"<p class='note'>{note}</p>"]


def _domain_parts(domains: DomainAgreement | None, drawn: str) -> list[str]:
    if domains is None:
        return []
    parts = ["<h2>Domains</h2>"]
    if domains.scores is not None:
        s = domains.scores
        parts.append(f"<p>ARI {s.ari:.3f}, NMI {s.nmi:.3f} over {s.n:,} spots (p = {s.p:.3f} by permutation).</p>")
    rows = ([r.group, r.n, r.pcc, r.profile_pcc, r.mse] for r in domains.table.itertuples())
    head = ("group", "spots", "mean r in group", "r of profile", "mse")
    return [*parts, f"<div class='columns'>{drawn}{rows_of(head, rows)}</div>"]


def _chosen(facts: Mapping[str, Any]) -> dict[str, Any]:
    """Provenance that is worth printing; what is not named here, such as a path, stays out."""
    return {name: facts[name] for name in _FACTS[str(facts["kind"])] if name in facts}


def _table_of(title: str, values: Mapping[str, Any]) -> str:
    rows = "".join(
        f"<tr><td>{html.escape(name.replace('_', ' '))}</td><td>{html.escape(text_of(value))}</td></tr>"
        for name, value in values.items()
    )
    return f"<div><h2>{html.escape(title)}</h2><table>{rows}</table></div>"


def _gene_rows(table: Any) -> str:
    columns = [name for name in table.columns if name != "constant"]
    return rows_of(columns, ([row[name] for name in columns] for row in table.to_dict("records")))
