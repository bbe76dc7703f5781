"""What the Predict dock asks of the engine."""

from __future__ import annotations

import numpy as np

from napari_he2st.core.types import Region
from napari_he2st.gui import prediction
from napari_he2st.gui.prediction import Run


def test_plan_keeps_the_tissue_inside_any_region(tissue_slide):
    from napari_he2st.data.slides.tissue import tissue_mask

    mask = tissue_mask(tissue_slide)
    whole = prediction.plan(tissue_slide, mask, 25.0, None)
    assert 0 < len(whole) < tissue_slide.size[0] * tissue_slide.size[1] / 50**2
    boxes = [Region.box(300, 250, 200, 200), Region.box(650, 450, 150, 100)]
    some = prediction.plan(tissue_slide, mask, 25.0, boxes)
    wanted = {
        tuple(xy)
        for xy in whole.xy
        for box in boxes
        if (xy >= box.polygon.min(axis=0)).all() and (xy < box.polygon.max(axis=0)).all()
    }
    assert {tuple(xy) for xy in some.xy} == wanted


def test_doubts_name_what_does_not_fit(bundle, tissue_slide):
    manifest = bundle.manifest
    assert prediction.doubts(manifest, tissue_slide, "", "") == []
    assert prediction.doubts(manifest, tissue_slide, "Breast", "human") == []
    organ, species = prediction.doubts(manifest, tissue_slide, "kidney", "mouse")
    assert "organ breast, not kidney" in organ
    assert "species human, not mouse" in species


def test_a_run_stopped_on_disk_goes_on(bundle, tissue_slide):
    from napari_he2st.core.progress import Control
    from napari_he2st.data.slides.tissue import tissue_mask

    grid = prediction.plan(tissue_slide, tissue_mask(tissue_slide), 25.0, None)
    folder = prediction.store_folder(bundle, tissue_slide, 25.0)
    assert folder == prediction.store_folder(bundle, tissue_slide, 25.0)
    work = Run(bundle, tissue_slide, grid, "cpu", "raster", folder)
    first = work.chunks(control=Control())
    start = next(first)
    first.close()
    rows = np.concatenate([chunk.index for chunk in work.chunks(control=Control())])
    np.testing.assert_array_equal(np.sort(rows), np.arange(len(grid)))
    assert set(start.index) <= set(rows)


def test_model_facts_tell_what_is_missing(bundle):
    rows = {row["slug"]: row for row in prediction.list_models()}
    facts, rest = prediction.model_facts(rows["ridge"], None)
    assert rest["Weights"].startswith("none yet")
    assert "Genes" not in {name for name, text in facts.items() if text}
    facts, rest = prediction.model_facts(rows["ridge"], bundle.manifest)
    assert facts["Resolution"] == "every 25 µm, from tiles of 56 µm at 0.5 µm/px"
    assert "median 0.30" in facts["Held-out r"]
