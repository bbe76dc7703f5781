"""Imputation of a section from a measured one beside it."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from anndata import AnnData

from napari_he2st.core import keys
from napari_he2st.core.errors import GeneError, ModelError
from napari_he2st.core.schema import provenance
from napari_he2st.core.types import Grid, Transform
from napari_he2st.data.slides import Slide
from napari_he2st.data.slides.grid import square_grid
from napari_he2st.data.truth import Section
from napari_he2st.engine.impute import impute
from napari_he2st.engine.train import train
from napari_he2st.zoo.bundle import Bundle
from napari_he2st.zoo.catalogue import cards

GENES = ["RISES", "FALLS", "FLAT"]


def section(slide_path: Path, grid: Grid, name: str, genes: list[str] = GENES) -> Section:
    """Counts that follow the position on the slide."""
    share = grid.xy[:, 0] / 640
    counts = np.stack([200 * share, 200 * (1 - share), np.full(len(grid), 100.0)], axis=1).round()[:, : len(genes)]
    adata = AnnData(counts.astype(np.float32), layers={keys.COUNTS: counts.astype(np.float32)})
    adata.var_names = genes
    adata.obsm[keys.SPATIAL] = grid.xy
    adata.obs[keys.ARRAY_ROW], adata.obs[keys.ARRAY_COL] = grid.index.T
    adata.uns[keys.UNS] = provenance(
        "measured", mpp=0.5, scale="counts", pitch_um=40.0, spot_um=40.0, lattice="square", library=name
    )
    return Section(adata=adata, slide_path=slide_path, name=name, patient="P", layout="made here")


@pytest.fixture(scope="module")
def grid(slide_path: Path) -> Grid:
    with Slide.open(slide_path, mpp=0.5) as slide:
        return square_grid(slide, 40.0)


@pytest.fixture(scope="module")
def bundle(slide_path: Path, grid: Grid, tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    trained = train(
        "asign",
        [section(slide_path, grid, "A"), section(slide_path, grid, "B")],
        arguments={**cards()["asign"].variants["tiny"], "volume": True, "tile_px": 32},
        panel=GENES,
        recipe={"optimizer": "adam", "lr": 1e-3},
        epochs=3,
        device="cpu",
    )
    torch.set_num_threads(before)
    trained.save(tmp_path_factory.mktemp("volume") / "bundle")
    return trained


def test_a_section_beside_a_measured_one_takes_over_its_pattern(bundle, slide_path, slide, grid) -> None:
    measured = section(slide_path, grid, "A")
    imputed = impute(bundle, slide, [measured], grid=grid, transforms=[Transform.scale(1.0)], device="cpu")
    assert imputed.uns[keys.UNS]["imputed_from"] == ["A"]
    assert imputed.uns[keys.UNS]["kind"] == "predicted"
    assert np.isfinite(imputed.X).all()
    assert np.corrcoef(imputed.X[:, 0], grid.xy[:, 0])[0, 1] > 0.7
    assert np.corrcoef(imputed.X[:, 1], grid.xy[:, 0])[0, 1] < -0.7


def test_a_wrong_transform_lends_from_the_wrong_place(bundle, slide_path, slide, grid) -> None:
    measured = section(slide_path, grid, "A")
    mirror = Transform(np.array([[-1.0, 0, 640], [0, 1, 0], [0, 0, 1]]))
    right, wrong = (
        impute(bundle, slide, [measured], grid=grid, transforms=[t], device="cpu").X[:, 0]
        for t in (Transform.scale(1.0), mirror)
    )
    assert np.corrcoef(right, grid.xy[:, 0])[0, 1] > np.corrcoef(wrong, grid.xy[:, 0])[0, 1]


def test_without_a_transform_alike_images_lend(bundle, slide_path, slide, grid) -> None:
    imputed = impute(bundle, slide, [section(slide_path, grid, "A")], grid=grid, device="cpu")
    assert np.isfinite(imputed.X).all()
    assert np.corrcoef(imputed.X[:, 0], grid.xy[:, 0])[0, 1] > 0.3


def test_what_cannot_be_imputed_is_refused(bundle, slide_path, slide, grid) -> None:
    measured = section(slide_path, grid, "A")
    with pytest.raises(ModelError, match="no measured section"):
        impute(bundle, slide, [], grid=grid, device="cpu")
    with pytest.raises(ModelError, match="2 transforms for 1 measured"):
        impute(bundle, slide, [measured], grid=grid, transforms=[Transform.scale(1.0)] * 2, device="cpu")
    with pytest.raises(GeneError, match="lacks 1 of the bundle's genes, such as FLAT"):
        impute(bundle, slide, [section(slide_path, grid, "A", GENES[:2])], grid=grid, device="cpu")
    plain = Bundle([type(bundle.members[0])(3, **cards()["asign"].variants["tiny"])], replace(bundle.manifest))
    with pytest.raises(ModelError, match="does not impute"):
        impute(plain, slide, [measured], grid=grid, device="cpu")
