"""Checks before a training, and what it says of data that do not fit."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import anndata as ad
import numpy as np
import pandas as pd
import pytest
from PIL import Image

from napari_he2st.core.errors import GeneError, ModelError, TruthError
from napari_he2st.core.progress import Control
from napari_he2st.core.schema import provenance
from napari_he2st.data.slides import Slide
from napari_he2st.data.slides.grid import square_grid
from napari_he2st.data.truth import Section
from napari_he2st.engine.panel import choose_panel
from napari_he2st.engine.train import train
from napari_he2st.engine.train_plan import plan_training, read_pairs

GENES = [f"G{i}" for i in range(8)]
RIDGE = {"fields": [["colour-texture", 32]], "standardise": None}


def section(folder: Path, name: str, patient: str | None, seed: int, genes: list[str] = GENES) -> Section:
    """Tissue in which the first half of the genes follows the colour, the rest is noise."""
    rng = np.random.default_rng(seed)
    y, x = np.mgrid[:360, :480]
    pixels = np.full((360, 480, 3), 243, dtype=np.uint8)
    tissue = ((x - 240) / 220) ** 2 + ((y - 180) / 160) ** 2 < 1
    colour = np.stack([150 + 45 * np.sin(x / 50 + seed), 100 + 45 * np.cos(y / 40), np.full(x.shape, 160)], -1)
    pixels[tissue] = (colour + rng.normal(0, 6, colour.shape))[tissue].clip(0, 215).astype(np.uint8)
    path = folder / f"{name}.png"
    Image.fromarray(pixels).save(path)
    with Slide.open(path, mpp=4.0) as slide:
        grid = square_grid(slide, 96.0)
    red = pixels[grid.xy[:, 1].astype(int), grid.xy[:, 0].astype(int), 0].astype(float)
    half = len(genes) // 2
    rates = np.concatenate([np.repeat(red[:, None], half, 1), np.full((len(red), len(genes) - half), 120.0)], axis=1)
    rates[:, -1] = 20_000.0  # so that the size of a library does not depend on the others
    counts = rng.poisson(rates).astype(np.float32)
    adata = ad.AnnData(counts, var=pd.DataFrame(index=genes), layers={"counts": counts})
    adata.obsm["spatial"] = grid.xy
    adata.obs["array_row"], adata.obs["array_col"] = grid.index[:, 0], grid.index[:, 1]
    facts = {"mpp": 4.0, "scale": "counts", "pitch_um": 96.0, "spot_um": 96.0, "lattice": "square"}
    adata.uns["he2st"] = provenance("measured", library=name, **facts)
    return Section(name, adata, path, "generated", patient)


@pytest.fixture
def sections(tmp_path: Path) -> list[Section]:
    return [section(tmp_path, "A1", "A", 0), section(tmp_path, "A2", "A", 1), section(tmp_path, "B1", "B", 2)]


def changed(one: Section, **layers: np.ndarray) -> Section:
    """A section with other counts."""
    adata = one.adata.copy()
    adata.layers["counts"] = adata.X = layers["counts"]
    return replace(one, adata=adata)


def ridge(sections: list[Section], **options):
    return train("ridge", sections, arguments=RIDGE, panel=options.pop("panel", "all"), **options)


def test_a_plan_counts_times_and_warns(sections) -> None:
    plan = plan_training(
        "ridge",
        sections[:1],
        holdout=sections[1:2],
        validate=sections[2:],
        arguments=RIDGE,
        panel="hvg:6",
        folds=["block"],
    )
    assert (plan.genes, plan.shared, plan.measured, plan.fits) == (6, 8, 8, 5)
    assert plan.spots == sections[0].adata.n_obs
    assert plan.seconds > 0
    assert plan.memory_bytes > 4 * 6 * plan.spots
    assert any("A2 shares a patient" in text for text in plan.warnings)
    assert any("one section" in text for text in plan.warnings)
    assert not any("outside the image" in text for text in plan.warnings)


def test_a_pair_that_does_not_fit_is_named(sections) -> None:
    moved = sections[0].adata.copy()
    moved.obsm["spatial"] = moved.obsm["spatial"] + [150, 110]
    plan = plan_training("ridge", [replace(sections[0], adata=moved)], arguments=RIDGE, panel="all")
    assert any("A1" in text and "outside the image" in text for text in plan.warnings)


def test_random_spots_are_never_left_out_without_a_warning(sections) -> None:
    plan = plan_training("ridge", sections[:1], arguments=RIDGE, panel="all", folds=["spot"])
    assert any("drawn at random" in text for text in plan.warnings)
    control = Control()
    bundle = ridge(sections[:1], folds=["spot"], control=control)
    assert any("drawn at random" in text for text in control.notes)
    assert bundle.manifest.scores["pcc"] == bundle.manifest.scores["pcc_spot"]


def test_scores_have_intervals_and_doubtful_genes_are_those_that_are_noise(sections) -> None:
    bundle = ridge(sections, folds=["patient", "section"])
    scores = {name: np.array(values, dtype=float) for name, values in bundle.manifest.scores.items()}
    assert (scores["pcc"] == scores["pcc_patient"]).all()
    assert (scores["pcc_low"] < scores["pcc"]).all()
    assert (scores["pcc"] < scores["pcc_high"]).all()
    assert bundle.manifest.trusted_pcc == 0.2
    assert set(GENES[:4]).isdisjoint(bundle.doubtful)
    assert bundle.doubtful >= set(GENES[4:6])


def test_other_gene_ids_are_refused_or_counted(sections, tmp_path: Path) -> None:
    other = section(tmp_path, "X", "X", 5, [f"ENSG{i:011d}" for i in range(8)])
    with pytest.raises(GeneError, match="share no gene"):
        ridge([sections[0], other])
    plan = plan_training("ridge", sections[:1], holdout=[other], arguments=RIDGE, panel="all")
    assert "X measures no gene of the panel." in plan.warnings
    assert any("share only 0 of 16" in text for text in plan.warnings)


def test_counts_shuffled_against_spots_are_found_out(sections) -> None:
    control = Control()
    ridge(sections[:2], holdout=sections[2:], control=control)
    assert not any("chance" in note for note in control.notes)
    order = np.random.default_rng(0).permutation(sections[2].adata.n_obs)
    shuffled = changed(sections[2], counts=np.asarray(sections[2].adata.layers["counts"])[order])
    bundle = ridge(sections[:2], holdout=[shuffled], control=control)
    assert any("B1" in note and "no better than chance" in note for note in control.notes)
    assert abs(bundle.manifest.splits[0]["mean_pcc"]) < 0.2


def test_a_patient_split_of_one_patient_is_refused(sections) -> None:
    with pytest.raises(TruthError, match="at least two; there is only A"):
        ridge(sections[:2], folds=["patient"])


def test_counts_that_are_not_numbers_are_refused(sections) -> None:
    counts = np.array(sections[0].adata.layers["counts"])
    counts[3, 2] = np.nan
    with pytest.raises(TruthError, match="Counts of 1 genes are not numbers.*G2"):
        ridge([changed(sections[0], counts=counts)])


def test_genes_without_variance_are_named_and_none_at_all_refused(sections) -> None:
    counts = np.array(sections[0].adata.layers["counts"])
    counts[:, 2] = 7
    control = Control()
    ridge([changed(sections[0], counts=counts)], control=control)
    assert "1 genes do not vary over the training spots: G2" in control.notes
    with pytest.raises(GeneError, match="No gene varies"):
        ridge([changed(sections[0], counts=np.full_like(counts, 7))])


def test_the_smoothest_maps_make_a_panel(sections) -> None:
    chosen = set(choose_panel([s.adata for s in sections], "moran:5").symbols)
    assert chosen >= set(GENES[:4])  # and one of the others


def test_what_a_system_cannot_do_is_said(sections) -> None:
    from napari_he2st.engine.train_fit import Departures

    start = ridge(sections[:1])
    with pytest.raises(ModelError, match="trains in a way of its own"):
        train("ridge", sections[:1], departures=Departures(start))
    with pytest.raises(ModelError, match="does not see tiles as they are"):
        ridge(sections[:1], departures=Departures(augment=("stain",)))
    with pytest.raises(ModelError, match="is of ridge and cannot be gone on from with mean"):
        train("mean", sections[:1], departures=Departures(start))


def test_a_table_of_pairs_is_read(sections, tmp_path: Path) -> None:
    for one in sections[:2]:
        one.adata.write_h5ad(tmp_path / f"{one.name}.h5ad")
    table = tmp_path / "pairs.csv"
    table.write_text("st,slide,patient,role\nA1.h5ad,A1.png,P1,\nA2.h5ad,A2.png,,holdout\n", encoding="utf-8")
    (first, role), (second, other) = read_pairs(table)
    assert (first.patient, role, other) == ("P1", "train", "holdout")
    assert first.slide_path == tmp_path / "A1.png"
    assert second.adata.n_obs == sections[1].adata.n_obs
    table.write_text("st,role\nA1.h5ad,learn\n", encoding="utf-8")
    with pytest.raises(TruthError, match="Row 2 has the role 'learn'"):
        read_pairs(table)
    table.write_text("slide\nA1.png\n", encoding="utf-8")
    with pytest.raises(TruthError, match="no column 'st'"):
        read_pairs(table)
