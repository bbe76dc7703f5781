"""``he2st impute``."""

from __future__ import annotations

import json
from pathlib import Path

import anndata
import numpy as np
import pytest
import torch

from napari_he2st.core.schema import grid_of
from napari_he2st.data.samples import sample_section
from napari_he2st.zoo.bundle import Bundle
from napari_he2st.zoo.catalogue import cards, system
from napari_he2st.zoo.manifest import Manifest


@pytest.fixture(scope="module")
def volume(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A small network for serial sections that nobody trained."""
    section = sample_section()
    genes = tuple(section.adata.var_names[:5])
    arguments = {**cards()["asign"].variants["tiny"], "volume": True, "tile_px": 32, "n_genes": len(genes)}
    torch.manual_seed(0)
    model = system("asign")(**arguments).eval()
    model.genes = list(genes)
    manifest = Manifest(
        name="volume",
        title="A volume",
        system="asign",
        arguments=arguments,
        genes=genes,
        scale="log_share_panel",
        tile_px=1024,
        mpp=0.69,
        pitch_um=grid_of(section.adata).pitch_um,
        encoder=("colour-texture",),
    )
    return Bundle([model], manifest).save(tmp_path_factory.mktemp("volume") / "bundle")


@pytest.mark.slow
def test_a_section_beside_another(he2st, sample: str, volume: Path, tmp_path: Path) -> None:
    transform = tmp_path / "same.json"
    transform.write_text(json.dumps(np.eye(3).tolist()), encoding="utf-8")
    out = tmp_path / "imputed.h5ad"
    outcome = he2st(
        *("impute", sample, "--spots", sample, "--beside", sample, "--transform", transform),
        *("--model", volume, "-o", out),
    )
    assert outcome.code == 0
    assert "research use" in outcome.err
    adata = anndata.read_h5ad(out)
    assert adata.shape == (181, 5)
    assert list(adata.uns["he2st"]["imputed_from"]) == [sample_section().name]


def test_what_does_not_fit_is_refused(he2st, sample: str, volume: Path, mean_bundle: Path, tmp_path: Path) -> None:
    command = ("impute", sample, "--beside", sample, "-o", tmp_path / "x.h5ad", "--model")
    outcome = he2st(*command, mean_bundle)
    assert outcome.code == 1
    assert "does not impute" in outcome.err
    wrong = tmp_path / "wrong.json"
    wrong.write_text("[[1, 0], [0, 1]]", encoding="utf-8")
    outcome = he2st(*command, volume, "--transform", wrong)
    assert outcome.code == 1
    assert "not an affine 3 × 3 matrix" in outcome.err


@pytest.mark.parametrize(("task", "slugs"), [("superres", {"histogene", "deepspace"}), ("imputation", {"asign"})])
def test_further_tasks_are_listed(he2st, task: str, slugs: set[str]) -> None:
    assert slugs <= {row["slug"] for row in he2st("models", "--task", task, "--json").json}
