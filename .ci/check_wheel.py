"""Run by an environment that holds the wheel alone: manifest, cards, sample, starter and command work there."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import napari_he2st
from napari_he2st.data.samples import sample_section
from napari_he2st.zoo.catalogue import cards, load


def he2st(*arguments: str) -> str:
    """Standard output of the installed command."""
    command = [Path(sys.executable).with_name("he2st"), *arguments]
    return subprocess.run(command, check=True, text=True, stdout=subprocess.PIPE).stdout


def main() -> None:
    """Stop with an error at the first thing that is missing."""
    assert Path(napari_he2st.__file__).is_relative_to(sys.prefix), "the source tree is in the way"
    subprocess.run([Path(sys.executable).with_name("npe2"), "validate", "--imports", "napari-he2st"], check=True)

    section = sample_section()
    assert section.adata.n_obs > 0
    assert section.slide_path.is_file()

    assert {"mean", "ridge"} <= set(cards())
    assert len(load("starter").genes) >= 1000

    assert json.loads(he2st("models", "--json"))
    output = Path("sample.h5ad")
    x, y = section.adata.obsm["spatial"].mean(axis=0)
    he2st(
        *("predict", str(section.slide_path), "--mpp", str(section.adata.uns["he2st"]["mpp"])),
        *("--model", "starter", "--region", f"{x - 1000},{y - 1000},2000,2000", "-o", str(output)),
    )
    assert output.stat().st_size > 0
    print(f"napari-he2st {napari_he2st.__version__} works from its wheel")


if __name__ == "__main__":
    main()
