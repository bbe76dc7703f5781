"""Writes the parts of the manual that the package knows itself: command line, zoo, registries, reference."""

from __future__ import annotations

import inspect
import json
import re
import subprocess
import sys
from collections.abc import Iterable
from pathlib import Path

import napari_he2st
from napari_he2st.core.registry import Registry


def generate_all(folder: Path) -> None:
    """Write every generated page into ``folder``."""
    folder.mkdir(exist_ok=True)
    pages = {
        "cli.md": command_line(),
        "zoo.md": zoo(),
        "encoders.md": encoders(),
        "domains.md": domains(),
        "alignment.md": alignment(),
        "registries.md": registries(),
        "reference.md": reference(),
        "formats.md": formats(),
        "opened.md": opened(),
    }
    for name, text in pages.items():
        file = folder / name
        if not file.exists() or file.read_text(encoding="utf-8") != text:
            file.write_text(text, encoding="utf-8")


def command_line() -> str:
    """Every command with its arguments and options, as the commands describe themselves."""
    command = [sys.executable, "-m", "typer", "napari_he2st.cli.app", "utils", "docs", "--name", "he2st"]
    text = subprocess.run(command, check=True, text=True, stdout=subprocess.PIPE).stdout
    text = text.split("\n", 1)[1]  # the page has its own title
    return re.sub(r"Examples:\n\n((?:he2st .*\n\n?)+)", _as_code, text)


def _as_code(examples: re.Match[str]) -> str:
    lines = [line for line in examples[1].splitlines() if line]
    return "\n".join(["**Examples**:", "", "```bash", *lines, "```", "", ""])


def zoo() -> str:
    """One row per system."""
    from napari_he2st.zoo.catalogue import models

    columns = ("slug", "title", "year", "tasks", "status", "inputs", "licence", "weights")
    rows = [[row.get(column) for column in columns] for row in models()]
    return table(columns, rows) + figures()


def encoders() -> str:
    """Every patch encoder, from the table."""
    from napari_he2st.zoo.encoders.table import encoders as rows

    columns = ("name", "encoder", "input", "feature", "M parameters", "licence", "commercial use", "weights")
    return (
        table(
            columns,
            (
                (
                    f"`{name}`",
                    spec.title,
                    f"{spec.px} px at {spec.mpp:g} µm/px",
                    spec.dim,
                    f"{spec.parameters_m:g}",
                    spec.licence,
                    spec.commercial_use,
                    spec.note
                    or (spec.weights.repo or "comes with the package" if spec.weights else "downloaded when first used")
                    + (", on request" if spec.gated else ""),
                )
                for name, spec in rows().items()
            ),
        )
        + _encoder_parity()
    )


def _encoder_parity() -> str:
    """Parity of the encoders case by case, as ``python -m benchmarks.parity encoders`` measured it."""
    found = json.loads(Path(__file__).with_name("encoders.json").read_text(encoding="utf-8"))
    rows = (
        (
            f"`{case}`",
            "whole" if row["depth"] is None else f"{row['depth']} blocks",
            f"{row['max_abs']:.0e}",
            "yes" if row["passed"] else "no",
        )
        for case, row in found.items()
    )
    return f"\n## Parity\n\n{table(('case', 'network', 'largest difference', 'reproduced'), rows)}"


def figures() -> str:
    """Parity and learning of the systems, as ``benchmarks/parity.py`` and ``benchmarks/learning.py`` measured them."""
    from napari_he2st.zoo.catalogue import cards

    parity, learnt = (
        json.loads(Path(__file__).with_name(name).read_text(encoding="utf-8"))
        for name in ("parity.json", "learning.json")
    )
    columns = ("system", "parameters", "cases", "largest difference", "PCC", "p", "MSE / that of the mean", "minutes")
    columns += ("s per 1,000 spots", "learns", "status")
    slugs = sorted(learnt, key=lambda slug: (-learnt[slug]["pcc"], slug))
    slugs += sorted(slug for slug in parity if slug in cards() and slug not in learnt)
    rows = []
    for slug in slugs:
        size, *learning = _learning_cells(learnt.get(slug))
        rows.append((slug, size, *_parity_cells(parity.get(slug)), *learning, cards()[slug].status))
    ridge = f"{learnt['ridge']['pcc']:.3f}"
    told = f"\n## Parity and learning\n\n{_FIGURES.format(ridge=ridge)}\n\n{table(columns, rows)}"
    return told + _single_cells()


def _single_cells() -> str:
    """How the systems for single cells learned a known cause, as ``benchmarks/cells.py`` measured it."""
    found = json.loads(Path(__file__).with_name("cells.json").read_text(encoding="utf-8"))
    rows = (
        (
            f"`{slug}`",
            " / ".join(map(str, f["cells"])),
            f"{f['pcc']:.3f}",
            f"{f['p']:.3f}",
            f"{f['ceiling']:.3f}",
            f"{f['mse'] / f['mse_mean']:.3f}",
            f"{f['minutes']:.1f}",
            "yes" if f["learns"] else "no",
        )
        for slug, f in sorted(found.items(), key=lambda item: -item[1]["pcc"])
    )
    columns = (
        "system",
        "cells learned / scored",
        "PCC",
        "p",
        "of the rates",
        "MSE / that of the mean",
        "minutes",
        "learns",
    )
    return f"\n## Single cells\n\n{_CELLS}\n\n{table(columns, rows)}"


def _parity_cells(found: dict | None) -> tuple[str | None, ...]:
    return (None, None) if found is None else (f"{found['passed']} of {found['cases']}", f"{found['max_abs']:.0e}")


def _learning_cells(found: dict | None) -> tuple[str | None, ...]:
    if found is None:
        return (None,) * 7
    return (
        f"{found['parameters']:,}",
        f"{found['pcc']:.3f}",
        f"{found['p']:.3f}",
        f"{found['mse'] / found['mse_mean']:.3f}",
        f"{found['minutes']:.1f}",
        f"{found['s_per_1000']:.1f}",
        "yes" if found["learns"] else "no",
    )


_CELLS = """\
Counts of 30 genes were generated for the real nuclei of a glioma: their rates follow from the size, darkness, shape and
crowding of a nucleus and the darkness of those around it, with noise. Each system, small as `benchmarks/cells.toml`
says, learned the cells in the left part of the picture and predicted those in the right part. PCC is the mean Pearson
correlation over genes; *of the rates* is that of the true rates with the same counts. Epochs and learning rates of
sCellST, SpatialEx and RedeHist were chosen by the left part alone, itself divided into two; those of GHIST and
SpatialEx+ with these figures in view, which flatters them; within the left part they learn, too, but less (PCC 0.164
and 0.245, 0.98 and 0.97 times the error of the mean). SpatialEx and SpatialEx+ were scored a second time, with the
same settings, after a fault was mended: the running averages of their batch normalisation missed the level of the
cells, at first 1.17 times the error of the mean for SpatialEx. This shows whether training works, not how well a
system predicts real expression."""

_FIGURES = """\
*Parity*: cases whose numbers the original code produced, how many of them are reproduced to 10⁻⁵ (relative to
the largest number of an array; a few arrays that are equal up to a renaming, or carry the rounding of their
original, have a rule of their own), and the largest absolute difference in them.

*Learning*: every system was trained briefly on one CPU thread, at reduced width where
`benchmarks/learning.toml` says so, on three sections of one HER2+ breast tumour and scored on a fourth of the
same patient, over the 250 genes most variable in the training sections. A system that is fitted to the slide it
predicts learned one half of the spots of that fourth section and is scored on the other half. PCC is the mean
Pearson correlation over spots, beside {ridge} of ridge regression; p is its probability when spots are
permuted; errors are in the system's own expression scale. Parameters, minutes of training (reading included)
and seconds per 1,000 predicted spots are those of this small network. It learns if its error is below that of
the training mean and p < 0.01. These are checks that training works, not a ranking: the published networks are
larger and trained for longer."""


def domains() -> str:
    """How well each domain method met known labels, as ``benchmarks/domains.py`` measured it."""
    figures = json.loads(Path(__file__).with_name("domains.json").read_text(encoding="utf-8"))
    parity = json.loads(Path(__file__).with_name("parity.json").read_text(encoding="utf-8"))
    parts = []
    for way, text in _DOMAINS.items():
        found = ((f[way], name) for name, f in figures.items() if way in f)
        rows = (
            (
                name,
                _cases(parity.get(name)),
                f"{f['ari']:.2f} ({f['ari_range'][0]:.2f} … {f['ari_range'][1]:.2f})",
                f"{f['nmi']:.2f} ({f['nmi_range'][0]:.2f} … {f['nmi_range'][1]:.2f})",
                f"{f['seconds']:.1f}",
                f"{1000 * f['seconds_per_epoch']:.0f} ms × {f['epochs']:.0f}" if "epochs" in f else "",
                f["settings"],
            )
            for f, name in sorted(found, key=lambda one: -one[0]["ari"])
        )
        head = ("method", "parity", "ARI", "NMI", "CPU s", "epochs", "settings")
        parts.append(f"{text}\n\n{table(head, rows)}")
    return "\n\n".join(parts)


def alignment() -> str:
    """How well each method brought serial sections into register, as ``benchmarks/alignment.py`` measured it."""
    figures = json.loads(Path(__file__).with_name("alignment.json").read_text(encoding="utf-8"))
    rows = []
    for name, pairs in sorted(figures.items()):
        for pair, f in sorted(pairs.items()):
            if "refused" in f:
                rows.append((name, pair, f["refused"], "", "", ""))
                continue
            overlap, correlation, residual = (
                f"{f[f'{key}_before']:{how}} → {f[key]:{how}}"
                for key, how in (("overlap", ".0%"), ("gene_correlation", ".3f"), ("residual_um", ".0f"))
            )
            rows.append((name, pair, overlap, correlation, residual, f"{f['seconds']:.1f}"))
    return table(("method", "sections", "overlap", "gene correlation", "residual, µm", "CPU s"), rows)


def _cases(found: dict | None) -> str:
    """Parity cases that hold, of those there are."""
    return "generic" if found is None else f"{found['passed']} of {found['cases']}"


_DOMAINS = {
    "expression": """By expression and position alone: median (range) over the her2st sections B1, C1, D1, F1 and G2
with three seeds each; as many domains as there are labels, "undetermined" spots left out.""",
    "image": """With the image: median (range) over three seeds on her2st A1, whose picture has 3.2 µm per pixel;
generic methods by the features of an encoder alone. Tiles are read once, and the median leaves that run out.""",
}


def formats() -> str:
    """Every slide format, who reads it, and how that was tried."""
    from napari_he2st.data.slides import SLIDE_READERS

    readers = sorted(SLIDE_READERS, key=lambda entry: entry.facts.get("order", 50))
    rows = [
        (name, f"`{reader.name}`", how if how != "untested here" else "*untested here*")
        for reader in readers
        for name, how in reader.facts.get("formats", {}).items()
    ]
    return table(("format", "reader", "tried on a"), rows)


def opened() -> str:
    """How real files were opened, as ``benchmarks/formats.py`` found it."""
    found = json.loads(Path(__file__).with_name("formats.json").read_text(encoding="utf-8"))
    columns = ("file", "opened as", "pixel size", "from", "ms", "openslide", "tiffslide", "fastslide")
    rows = []
    for row in found:
        us = row["us"]
        ours = (us["format"], us["mpp"], us["source"], us["ms"]) if us["opened"] else ("refused", None, us["why"], None)
        rows.append((row["file"], *ours, row["openslide"], row["tiffslide"], row["fastslide"]))
    return table(columns, rows)


def registries() -> str:
    """What can be read, measured, grouped and written."""
    from napari_he2st.analysis.alignment import ALIGNMENT_METHODS
    from napari_he2st.analysis.domains import DOMAIN_METHODS
    from napari_he2st.analysis.metrics import METRICS
    from napari_he2st.data.export import EXPORTERS
    from napari_he2st.data.slides import SLIDE_READERS
    from napari_he2st.data.truth import TRUTH_READERS

    titles: dict[str, Registry] = {
        "Slide formats": SLIDE_READERS,
        "Layouts of measured ST": TRUTH_READERS,
        "Metrics": METRICS,
        "Domain methods": DOMAIN_METHODS,
        "Registration of images": ALIGNMENT_METHODS,
        "Export formats": EXPORTERS,
    }
    parts = []
    for title, registry in titles.items():
        rows = ([f"`{entry.name}`", entry.description, ", ".join(entry.options)] for entry in registry)
        parts += [f"## {title}", "", table(("name", "what it is", "options"), rows)]
    return "\n".join(parts)


def reference() -> str:
    """The public functions and classes."""
    parts = []
    for name in napari_he2st.__all__:
        item = getattr(napari_he2st, name)
        if name.startswith("__"):
            continue
        directive = "autoclass" if inspect.isclass(item) else "autofunction"
        members = ["   :members:"] if inspect.isclass(item) else []
        parts += ["```{eval-rst}", f".. {directive}:: {item.__module__}.{item.__qualname__}", *members, "```", ""]
    return "\n".join(parts)


def table(columns: Iterable[str], rows: Iterable[Iterable[object]]) -> str:
    """A Markdown table."""
    columns = list(columns)
    lines = [columns, ["---"] * len(columns), *([cell(value) for value in row] for row in rows)]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines) + "\n"


def cell(value: object) -> str:
    """A value as the text of one table cell."""
    if value is None:
        return "–"
    if isinstance(value, list | tuple):
        return ", ".join(map(str, value))
    return str(value).replace("|", "\\|").replace("\n", " ")
