"""Training and scoring of predictors whose units are not spots: a constant that they all have to find."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import anndata as ad
import numpy as np
import pandas as pd
import pytest
from tests.tiny import predictors
from tests.tiny.predictors import GENES, bundle_of

from napari_he2st.core.schema import provenance
from napari_he2st.core.types import Grid, Region
from napari_he2st.data.slides import Slide
from napari_he2st.data.slides.grid import square_grid
from napari_he2st.data.slides.stain import normalised
from napari_he2st.data.truth import Section
from napari_he2st.engine.predict import predict
from napari_he2st.engine.train import train
from napari_he2st.zoo.bundle import Bundle

SHIFT = 0.3


def section_at(grid: Grid, slide_path: Path, values: np.ndarray) -> Section:
    """A section whose raw counts are given numbers."""
    adata = ad.AnnData(values, var=pd.DataFrame(index=list(GENES)), layers={"counts": values})
    adata.obsm["spatial"] = grid.xy
    adata.obs["array_row"], adata.obs["array_col"] = grid.index[:, 0], grid.index[:, 1]
    adata.uns["he2st"] = provenance(
        "measured",
        mpp=0.5,
        scale="counts",
        pitch_um=grid.pitch_um,
        spot_um=grid.spot_um,
        lattice="square",
        library="X",
    )
    return Section("X", adata, slide_path, layout="generated")


@pytest.fixture
def learn(monkeypatch, slide_path: Path):
    """Train one of the predictors on their own answer plus a constant, over some grid."""

    def run(cls: type, slide: Slide, grid: Grid, **options):
        values = np.full((len(grid), 3), np.nan, dtype=np.float32)
        for chunk in predict(bundle_of(predictors.DenseColour), slide, grid):
            values[chunk.index] = chunk.mean
        monkeypatch.setattr(
            cls, "targets", {"expression": type(cls.targets["expression"])("counts", per=cls.targets["expression"].per)}
        )
        monkeypatch.setattr("napari_he2st.engine.train.system", lambda name: cls)
        section = section_at(grid, slide_path, values + SHIFT)
        recipe = {"lr": 0.05, "batch_size": 8}
        other = replace(section, name="Y")
        return train("tiny", [section], holdout=[other], panel="all", epochs=30, recipe=recipe, **options)

    return run


@pytest.mark.parametrize(
    ("cls", "pitch_um", "spot_um"),
    [
        (predictors.DenseColour, 2.0, 2.0),
        (predictors.OwnedRegions, 12.0, 8.0),
        (predictors.PixelColour, 12.0, 8.0),
    ],
)
def test_a_constant_is_learned_and_scored(learn, slide, cls, pitch_um: float, spot_um: float) -> None:
    grid = square_grid(slide, pitch_um, spot_um=spot_um, region=Region.box(240, 180, 90, 80))
    bundle = learn(cls, slide, grid)
    np.testing.assert_allclose(bundle.members[0].bias.detach(), SHIFT, atol=0.01)
    assert bundle.manifest.history[-1]["loss"] < 1e-3
    np.testing.assert_allclose(bundle.manifest.scores["pcc"], 1.0, atol=1e-3)


def test_a_bank_holds_the_training_spots_and_predicts_held_out_ones(learn, slide) -> None:
    grid = square_grid(slide, 12.0, region=Region.box(240, 180, 90, 80))
    bundle = learn(predictors.Lookup, slide, grid)
    bank = bundle.members[0].extras["reference"]
    assert bank["expression"].shape == (len(grid), 3)
    np.testing.assert_allclose(bundle.manifest.scores["pcc"], 1.0, atol=1e-3)


def test_a_stain_is_learned_in_and_kept_by_the_bundle(learn, slide) -> None:
    """What is learned on normalised slides is right only where the slide predicted on is normalised too."""
    grid = square_grid(slide, 2.0, spot_um=2.0, region=Region.box(240, 180, 90, 80))
    other = normalised(slide, "macenko")
    bundle = learn(predictors.DenseColour, other, grid, stain="macenko")
    assert bundle.manifest.stain == "macenko"
    np.testing.assert_allclose(bundle.members[0].bias.detach(), SHIFT, atol=0.01)
    np.testing.assert_allclose(bundle.manifest.scores["pcc"], 1.0, atol=1e-3)
    bundle = Bundle(bundle.members, replace(bundle.manifest, system="mean"))  # one that has a card
    wanted, seen = (
        np.concatenate([chunk.mean for chunk in predict(one, on, grid)])
        for one, on in ((bundle_of(predictors.DenseColour), other), (bundle, slide))
    )
    np.testing.assert_allclose(seen, wanted + SHIFT, atol=0.02)
