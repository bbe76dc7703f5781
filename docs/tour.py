"""A tour on the sample section: predict, compare, export; what comes out is kept in a folder."""

from __future__ import annotations

import argparse
from pathlib import Path

import napari_he2st as he
from napari_he2st.core.schema import facts_of, grid_of
from napari_he2st.data.samples import sample_section
from napari_he2st.engine.report import write_report


def main() -> None:
    """Run the tour."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, default=Path("demo"), help="folder for what comes out")
    folder: Path = parser.parse_args().out
    folder.mkdir(parents=True, exist_ok=True)

    section = sample_section()
    with he.Slide.open(section.slide_path, mpp=facts_of(section.adata)["mpp"]) as slide:
        print(f"{slide.name}: {slide.size[0]} × {slide.size[1]} px at {slide.mpp:.3f} µm per px")
        predicted = he.predict_slide("starter", slide, grid=grid_of(section.adata))
        he.export(predicted, "h5ad", folder / "predicted.h5ad", force=True, slide=slide)
    comparison = he.compare(predicted, section.adata)
    write_report(comparison, folder / "report.html", force=True)
    best = comparison.table.sort_values("pcc", ascending=False).head()
    print("Best predicted genes of the sample (Pearson): ", end="")
    print(", ".join(f"{row.gene} {row.pcc:.2f}" for row in best.itertuples()))
    print(f"Look into {folder}. Everything in there that is predicted is for research use only.")


if __name__ == "__main__":
    main()
