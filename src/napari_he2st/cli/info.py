"""``he2st info``: what a slide or a measured-ST folder holds, before anything is done with it."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from napari_he2st.cli import console
from napari_he2st.cli.options import AsJson, Force, Mpp, examples

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
        "he2st info her2st:A2 --image A2.png --image-scale 0.287 --picture fit.png --correct A2.h5ad",
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
    image: Annotated[Path | None, typer.Option("--image", help="Image that a measured section lies on.")] = None,
    image_scale: Annotated[
        float | None, typer.Option("--image-scale", help="Pixels of that image per pixel of the section's positions.")
    ] = None,
    picture: Annotated[
        Path | None, typer.Option("--picture", help="Write the spots over their image to this PNG file.")
    ] = None,
    correct: Annotated[
        Path | None,
        typer.Option("--correct", help="Write the section with its spots moved as the fit check proposes (h5ad)."),
    ] = None,
    force: Force = False,
    as_json: AsJson = False,
) -> None:
    """Say what a slide or a measured section holds, and how well the section fits its image."""
    from napari_he2st.cli.inputs import is_slide
    from napari_he2st.data.truth import parse_section

    if remember and mpp is None:
        raise typer.BadParameter("--remember needs --mpp")
    is_truth = not is_slide(path)
    if is_truth:
        file, name = parse_section(path)
        asked = {"mpp": mpp, "image": image, "image_scale": image_scale}
        facts = truth_facts(file, name, asked, _Outputs(picture, correct, force))
    elif image is None and picture is None and correct is None:
        facts = slide_facts(path, mpp, remember=remember)
    else:
        raise typer.BadParameter("--image, --picture and --correct are for measured sections")
    if as_json:
        console.print_json(facts)
        return
    console.print_fields(facts if is_truth else readable(facts))
    if facts.get("sections") and facts["section"] is None:
        console.note(f"Name one section to read it: he2st info {path}:{facts['sections'][0]}")


@dataclass(frozen=True)
class _Outputs:
    """Files that the check of the fit is asked to write."""

    picture: Path | None
    corrected: Path | None
    force: bool


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


def truth_facts(path: Path, name: str | None, asked: dict[str, Any], outputs: _Outputs) -> dict[str, Any]:
    """Layout, sections and files of measured ST; spots, genes and fit of the section that is named or alone."""
    from napari_he2st.data.truth import detect, read_section

    found = detect(path)
    mpp = asked["mpp"]
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
    if name is not None or found.default is not None or len(found.sections) <= 1:
        facts.update(section_facts(read_section(path, name, **asked, stand_in=True), outputs))
    return facts


def section_facts(section: Section, outputs: _Outputs) -> dict[str, Any]:
    """Spots, genes and pixel size of a measured section, and how well its spots fit the image.

    Raises
    ------
    TruthError
        A picture or a correction is asked for, and there is no image.
    """
    from napari_he2st.core.errors import TruthError
    from napari_he2st.core.schema import facts_of

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
        fields |= {"slide": section.slide_path.name, **fit_facts(section, section.slide_path, outputs)}
    elif outputs.picture is not None or outputs.corrected is not None:
        raise TruthError("The section comes without an image to fit", where=section.name, todo="Name it with --image")
    elif section.warnings:
        console.warn(" ".join(section.warnings))
    return fields


def fit_facts(section: Section, image: Path, outputs: _Outputs) -> dict[str, Any]:
    """How well a section fits its image; writes the picture and the corrected section that are asked for.

    Raises
    ------
    TruthError
        A corrected section is asked for, and there is nothing to correct.
    """
    from napari_he2st.core.errors import TruthError
    from napari_he2st.core.schema import facts_of
    from napari_he2st.data.export import export
    from napari_he2st.data.slides import Slide
    from napari_he2st.data.slides.tissue import tissue_mask
    from napari_he2st.data.truth.fit import check_fit, correct
    from napari_he2st.data.truth.fit_picture import fit_picture, write_picture

    with Slide.open(image, mpp=facts_of(section.adata)["mpp"]) as slide:
        mask = tissue_mask(slide)
        fit = check_fit(section.adata, mask, warnings=section.warnings)
        if outputs.picture is not None:
            drawn = fit_picture(section.adata, mask, fit, slide.thumbnail(1024), side_px=720)
            write_picture(drawn, outputs.picture, force=outputs.force)
        if fit.message:
            console.warn(fit.message)
        if outputs.corrected is not None:
            if fit.correction is None:
                raise TruthError("The fit check proposes no correction", where=section.name)
            correct(section.adata, fit.correction)
            export(section.adata, "h5ad", outputs.corrected, force=outputs.force, slide=slide)
            console.note(f"{outputs.corrected}: {section.name} with {fit.correction.said}.")
    proposed = fit.correction
    return {
        "on_tissue": fit.on_tissue,
        "outside_image": fit.outside,
        "contrast": fit.contrast,
        "correction": None if proposed is None else proposed.said,
        "on_tissue_corrected": None if proposed is None else proposed.on_tissue,
    }
