"""``he2st domains``: tissue domains of measured or predicted expression."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from napari_he2st.cli import console
from napari_he2st.cli.inputs import open_section, open_slide
from napari_he2st.cli.options import Device, Force, Options, Output, Seed, examples, read_pairs

app = typer.Typer()


@app.command(
    epilog=examples(
        "he2st domains slide.h5ad --method leiden -o domains.h5ad",
        "he2st domains slide.h5ad --method kmeans --n 7 -o domains.h5ad",
        "he2st domains her2st:C2 --method staig --n 6 --option epochs=100 -o domains.h5ad",
        "he2st domains her2st:C2 --method leiden --on efficientnet-lite0 -o looks.h5ad",
        "he2st domains her2st:C2 her2st:C3 --method staig --n 5 -o shared/",
    )
)
def domains(
    sources: Annotated[
        list[str],
        typer.Argument(
            metavar="IN.h5ad...",
            help="Expression: an h5ad or a section. Several get domains they share; --output is a folder then.",
            show_default=False,
        ),
    ],
    method: Annotated[str, typer.Option("--method", help="How to group spots: he2st models --task domains lists all.")],
    output: Output,
    n: Annotated[
        int | None, typer.Option("--n", "-n", min=1, help="How many domains, where the method can be told.")
    ] = None,
    slide: Annotated[
        str | None, typer.Option("--slide", help="The slide, for methods that see tiles; by default the section's.")
    ] = None,
    on: Annotated[str, typer.Option("--on", help="Generic methods: expression, an encoder, or a retrieval bundle.")] = (
        "expression"
    ),
    cells: Annotated[
        Path | None, typer.Option("--cells", help="CSV of nuclei: x, y (level-0 pixels) and kind, for iimpact.")
    ] = None,
    variant: Annotated[str, typer.Option("--variant", help="Named settings of a published method.")] = "default",
    option: Options = None,
    seed: Seed = 0,
    device: Device = "auto",
    force: Force = False,
) -> None:
    """Group spots into tissue domains, written into the h5ad as obs["domain"]."""
    from napari_he2st.core.atomic import check_output
    from napari_he2st.data.export import export
    from napari_he2st.engine.methods import method as find_method
    from napari_he2st.engine.segment import pace, segment, write_domains

    options = read_pairs(option)
    if len(sources) > 1:
        if on != "expression" or cells or slide:
            raise typer.BadParameter("Several sections take none of --on, --cells and --slide")
        run = {"n_domains": n, "seed": seed, "variant": variant, "device": device, **options}
        _group_together(sources, output, method, run, force=force)
        return
    check_output(output, force=force, inputs=tuple(sources))
    section = open_section(sources[0])
    sees = on != "expression" or find_method("domains", method).card is not None
    where = slide or (section.slide_path and str(section.slide_path))
    image = open_slide(where, mpp=section.adata.uns["he2st"]["mpp"]) if sees and where else None
    found = segment(
        section.adata,
        method,
        n_domains=n,
        seed=seed,
        on=on,
        slide=image,
        cells=None if cells is None else _read_cells(cells),
        variant=variant,
        device=device,
        **options,
    )
    write_domains(section.adata, found)
    export(section.adata, "h5ad", output, force=force)
    console.note(f"{output}: {found.n_domains} domains ({method}{pace(found)}).")


def _group_together(sources: list[str], folder: Path, method: str, run: dict[str, Any], *, force: bool) -> None:
    """Domains that several sections share, an h5ad for each."""
    from napari_he2st.core.atomic import check_output
    from napari_he2st.core.errors import OutputError
    from napari_he2st.data.export import export
    from napari_he2st.engine.segment import pace, write_domains
    from napari_he2st.engine.segment_sections import segment_sections

    if folder.exists() and not folder.is_dir():
        raise OutputError("Several sections are written into a folder, and this is a file", where=folder)
    sections = [open_section(source) for source in sources]
    names = [section.name for section in sections]
    names = [name if names.count(name) == 1 else f"{name}-{i + 1}" for i, name in enumerate(names)]
    outputs = [folder / f"{name}.h5ad" for name in names]
    folder.mkdir(exist_ok=True)
    for file in outputs:
        check_output(file, force=force, inputs=tuple(sources))
    slides = [
        None if s.slide_path is None else open_slide(str(s.slide_path), mpp=s.adata.uns["he2st"]["mpp"])
        for s in sections
    ]
    found = segment_sections([section.adata for section in sections], method, slides=slides, **run)
    for section, domains, file in zip(sections, found, outputs, strict=True):
        write_domains(section.adata, domains)
        export(section.adata, "h5ad", file, force=force)
        here = len(set(domains.labels.tolist()) - {-1})
        console.note(f"{file}: {here} of {domains.n_domains} shared domains ({method}{pace(domains)}).")


def _read_cells(path: Path) -> tuple:
    """Positions and kinds from a CSV with columns x, y and kind."""
    import pandas as pd

    from napari_he2st.core.errors import TruthError

    try:
        table = pd.read_csv(path, usecols=["x", "y", "kind"])
    except (OSError, ValueError) as error:
        raise TruthError(
            f"The nuclei cannot be read ({error})", where=path, todo="Give columns x, y and kind"
        ) from error
    return table[["x", "y"]].to_numpy(dtype=float), table["kind"].astype(str).to_numpy()
