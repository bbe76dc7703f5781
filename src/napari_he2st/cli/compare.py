"""``he2st compare`` and ``he2st report``: results against one reference, gene by gene, as a table or as one page."""

from __future__ import annotations

import math
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from napari_he2st.cli import console
from napari_he2st.cli.inputs import read_expression
from napari_he2st.cli.options import AsJson, Force, Output, examples

if TYPE_CHECKING:
    from anndata import AnnData

    from napari_he2st.engine.compare import Comparison
    from napari_he2st.engine.domain_agreement import DomainAgreement
    from napari_he2st.engine.ranking import Ranking

app = typer.Typer()

Results = Annotated[
    list[str],
    typer.Argument(
        metavar="RESULT… REFERENCE",
        help="One or more results (h5ad), and last what they are judged by: a section (PATH or PATH:NAME) or an h5ad.",
        show_default=False,
    ),
]
Convert = Annotated[
    bool, typer.Option("--convert", help="Bring results of different expression scales to one, and say how.")
]
Gene = Annotated[str | None, typer.Option("--gene", help="Whose maps are shown; by default the best one.")]
Figures = Annotated[
    Path | None, typer.Option("--figures", metavar="FOLDER", help="Also write every figure as PNG and SVG.")
]


@app.command(
    epilog=examples(
        "he2st compare C5.h5ad her2st:C5 -o genes.csv",
        "he2st compare C5.h5ad her2st:C5 --report report.html -o genes.csv",
        "he2st compare one.h5ad two.h5ad her2st:C5 -o genes.csv",
        "he2st compare counts.h5ad measured.h5ad --convert --json -o genes.csv",
    )
)
def compare(
    results: Results,
    output: Output,
    report: Annotated[Path | None, typer.Option("--report", help="Also write an HTML report.")] = None,
    convert: Convert = False,
    as_json: AsJson = False,
    force: Force = False,
) -> None:
    """Score results against a reference, gene by gene; several results are ranked."""
    from napari_he2st.core.atomic import check_output
    from napari_he2st.engine.report import write_report, write_table

    for target in filter(None, (output, report)):
        check_output(target, force=force, inputs=tuple(results))
    found = _Found(results, convert=convert)
    write_table(found.comparisons, output, force=force)
    if report is not None:
        write_report(found.best, report, ranking=found.ranking, domains=found.domains, force=force)
    found.say(as_json=as_json)


@app.command(
    epilog=examples(
        "he2st report C5.h5ad her2st:C5 -o report.html",
        "he2st report one.h5ad two.h5ad her2st:C5 --gene ERBB2 --figures figures -o report.html",
    )
)
def report(
    results: Results,
    output: Output,
    gene: Gene = None,
    figures: Figures = None,
    convert: Convert = False,
    as_json: AsJson = False,
    force: Force = False,
) -> None:
    """Write one web page of a comparison that needs no other file: maps, scores, ranking, domains, provenance.

    Of several results, the page shows the one that agrees best, and ranks all.
    """
    from napari_he2st.core.atomic import check_output
    from napari_he2st.engine.figures import write_figures
    from napari_he2st.engine.report import write_report

    check_output(output, force=force, inputs=tuple(results))
    found = _Found(results, convert=convert)
    shown = {"gene": gene, "ranking": found.ranking, "domains": found.domains}
    if figures is not None:
        written = write_figures(found.best, figures, force=force, **shown)  # type: ignore[arg-type]
        console.note(f"{figures}: {len(written)} figures.")
    write_report(found.best, output, force=force, **shown)  # type: ignore[arg-type]
    found.say(as_json=as_json)


class _Found:
    """What the results that were named on the command line come to.

    Attributes
    ----------
    comparisons
        By name of the result.
    ranking
        The best one first.
    best
        The comparison of the best one.
    domains
        Its groups of spots against those of the reference, or None.
    """

    def __init__(self, results: list[str], *, convert: bool) -> None:
        from napari_he2st.engine.compare import compare
        from napari_he2st.engine.ranking import rank

        if len(results) < 2:
            message = "Name at least one result, and last what it is judged by"
            raise typer.BadParameter(message)
        *judged, last = results
        reference = read_expression(last)
        read = {name: read_expression(path) for name, path in zip(_names(judged), judged, strict=True)}
        self.comparisons: dict[str, Comparison] = {
            name: compare(adata, reference, convert=convert) for name, adata in read.items()
        }
        self.ranking: Ranking | None = rank(self.comparisons) if len(read) > 1 else None
        name = next(iter(read)) if self.ranking is None else self.ranking.names[0]
        self.best = self.comparisons[name]
        self.domains = _domains(self.best, read[name], reference)

    def say(self, *, as_json: bool) -> None:
        """Print warnings, and figures of the whole or the ranking."""
        for name, comparison in self.comparisons.items():
            for warning in comparison.warnings:
                console.warn(warning if len(self.comparisons) == 1 else f"{name}: {warning}")
        for warning in [] if self.ranking is None else self.ranking.warnings:
            console.warn(warning)
        if as_json and self.ranking is None:
            console.print_json(self.best.summary)
        elif as_json and self.ranking is not None:
            summaries = {name: comparison.summary for name, comparison in self.comparisons.items()}
            console.print_json({"ranking": self.ranking.table.to_dict("records"), "results": summaries})
        elif self.ranking is None:
            console.print_fields(self.best.summary)
        else:
            head = ["result", "mean r", "95 % interval", "median r", "best at", "p against the first"]
            console.print_rows(head, map(_row, self.ranking.table.to_dict("records")))


def _row(row: Mapping[Any, Any]) -> list[str]:
    interval = f"{row['pcc_low']:.3f} … {row['pcc_high']:.3f}"
    scores = [f"{row['pcc_mean']:.3f}", interval, f"{row['pcc_median']:.3f}", f"{row['wins']:.0%}"]
    return [row["name"], *scores, "–" if math.isnan(row["p"]) else f"{row['p']:.2g}"]


def _names(paths: list[str]) -> list[str]:
    """File names without suffix, or the paths themselves where these are not unique."""
    names = [Path(path).stem for path in paths]
    return names if len(set(names)) == len(names) else paths


def _domains(comparison: Comparison, judged: AnnData, reference: AnnData) -> DomainAgreement | None:
    from napari_he2st.engine.domain_agreement import agree_on_domains, group_columns

    groups = [next(iter(group_columns(adata)), None) for adata in (judged, reference)]
    if groups == [None, None]:
        return None
    labels = [
        None if name is None else adata.obs[name] for name, adata in zip(groups, (judged, reference), strict=True)
    ]
    return agree_on_domains(comparison, *labels)
