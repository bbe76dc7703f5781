"""``he2st info``: what a slide or a measured-ST folder holds, before anything is done with it."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from napari_he2st.cli import console
from napari_he2st.cli.options import AsJson, Mpp, examples

if TYPE_CHECKING:
    from napari_he2st.data.truth import Section

app = typer.Typer()


@app.command(
    epilog=examples(
        "he2st info slide.svs",
        "he2st info scan.png --mpp 0.5",
        "he2st info scan.png --mpp 0.5 --remember",
        "he2st info her2st --json",
        "he2st info her2st:C5 --json",
    )
)
def info(
    path: Annotated[
        str, typer.Argument(metavar="PATH", help="A slide, or measured ST: PATH or PATH:NAME.", show_default=False)
    ],
    mpp: Mpp = None,
    remember: Annotated[
        bool, typer.Option("--remember", help="Take --mpp for this slide from now on, wherever it lies.")
    ] = False,
    as_json: AsJson = False,
) -> None:
    """Say what a slide or a measured section holds."""
    from napari_he2st.cli.inputs import is_slide
    from napari_he2st.data.truth import parse_section

    if remember and mpp is None:
        raise typer.BadParameter("--remember needs --mpp")
    is_truth = not is_slide(path)
    if is_truth:
        file, name = parse_section(path)
        facts = truth_facts(file, name, mpp)
    else:
        facts = slide_facts(path, mpp, remember=remember)
    if as_json:
        console.print_json(facts)
        return
    console.print_fields(facts if is_truth else readable(facts))
    if facts.get("sections") and facts["section"] is None:
        console.note(f"Name one section to read it: he2st info {path}:{facts['sections'][0]}")


def slide_facts(path: str, mpp: float | None, *, remember: bool = False) -> dict[str, Any]:
    """Format, size and pixel size of a slide."""
    from napari_he2st.data.slides import Slide, probe
    from napari_he2st.data.slides.remembered import remember_mpp

    if mpp is not None:
        with Slide.open(path, mpp=mpp) as slide:
            if remember:
                remember_mpp(slide.fingerprint, mpp, "he2st info --remember")
            return slide.info()
    facts = probe(path)
    if facts["mpp"] is None:
        console.warn(
            f"{facts['name']} does not say how large its pixels are. Give it with --mpp: 0.25 for a 40× scan, "
            "0.5 for 20×, or a known distance in µm divided by its length in pixels."
        )
    return facts


def readable(facts: dict[str, Any]) -> dict[str, Any]:
    """The facts of a slide with its sizes as a person writes them."""
    levels = [f"{level['width']} × {level['height']} (1:{level['downsample']:.3g})" for level in facts["levels"]]
    return facts | {
        "size": "{} × {} px".format(*facts["size"]),
        "levels": levels,
        "tile": "{} × {} px".format(*facts["tile"]),
    }


def truth_facts(path: Path, name: str | None, mpp: float | None) -> dict[str, Any]:
    """Layout, sections and files of measured ST; spots, genes and fit of the section that is named or alone."""
    from napari_he2st.data.truth import detect, read_section

    found = detect(path)
    facts: dict[str, Any] = {
        "layout": found.layout,
        "section": name,
        "sections": list(found.sections),
        "spots": None,
        "genes": None,
        "patient": None,
        "mpp": mpp,
        "mpp_source": "given" if mpp is not None else None,
        "on_tissue": None,
        "found": [str(file) for file in found.found],
        "missing": [str(file) for file in found.missing],
    }
    if name is not None or len(found.sections) <= 1:
        facts.update(section_facts(read_section(path, name, mpp=mpp)))
    return facts


def section_facts(section: Section) -> dict[str, Any]:
    """Spots, genes and pixel size of a measured section, and how many of its spots lie on tissue."""
    from napari_he2st.core.schema import facts_of
    from napari_he2st.data.slides import Slide
    from napari_he2st.data.slides.tissue import tissue_mask
    from napari_he2st.data.truth.fit import check_fit

    facts = facts_of(section.adata)
    fields: dict[str, Any] = {
        "section": section.name,
        "spots": section.adata.n_obs,
        "genes": section.adata.n_vars,
        "patient": section.patient,
        "mpp": facts["mpp"],
        "mpp_source": facts.get("mpp_source"),
        "spot_um": facts["spot_um"],
        "pitch_um": facts["pitch_um"],
        "found": [str(file) for file in section.found],
        "missing": [str(file) for file in section.missing],
    }
    if section.slide_path is not None:
        with Slide.open(section.slide_path, mpp=facts["mpp"]) as slide:
            fit = check_fit(section.adata, tissue_mask(slide))
        fields |= {"slide": section.slide_path.name, "on_tissue": fit.on_tissue}
        if fit.message:
            console.warn(fit.message)
    return fields
