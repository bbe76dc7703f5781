from __future__ import annotations

import anndata as ad
import numpy as np
import pytest
from tests.zoo.alignment.test_aligners import pair

from napari_he2st.core.errors import GeneError, He2stError, ModelError, UnknownNameError, WeightsError
from napari_he2st.data.slides import Slide
from napari_he2st.data.truth import read_section
from napari_he2st.engine.align import align, placed, quality, stack
from napari_he2st.engine.methods import methods


def test_aligned_sections_are_scored_and_stacked(tmp_path):
    sections = pair()
    found = align(sections, "paste", variant="tiny")
    row = quality(sections, found).iloc[0]
    assert row.overlap > 0.95
    assert row.gene_correlation > row.gene_correlation_before
    assert row.residual_um < 45
    whole = stack(sections, found, spacing_um=16.0)
    assert whole.obs["section"].nunique() == 2
    np.testing.assert_allclose(whole.obsm["spatial_3d"][-1], [*placed(sections[1], found[1])[-1], 16.0])
    whole.write_h5ad(tmp_path / "stack.h5ad")
    np.testing.assert_allclose(ad.read_h5ad(tmp_path / "stack.h5ad").obsm["spatial_3d"], whole.obsm["spatial_3d"])


def test_slides_of_different_pixel_size_meet_in_micrometres():
    first, second = pair()
    second.obsm["spatial"] = second.obsm["spatial"] * 4
    second.uns["he2st"] = {**second.uns["he2st"], "mpp": 0.25}
    assert quality((first, second), align((first, second), "paste", variant="tiny")).iloc[0].overlap > 0.95


def test_sections_without_a_common_gene():
    first, second = pair()
    second.var_names = [f"mouse{i}" for i in range(second.n_vars)]
    with pytest.raises(GeneError, match="no gene in common: 0, 1, 2 and mouse0"):
        align((first, second), "paste")


def test_what_is_missing_is_said():
    sections = pair()
    with pytest.raises(He2stError, match="1 sections cannot be aligned"):
        align(sections[:1])
    with pytest.raises(He2stError, match="registers images, and a section has none"):
        align(sections, "phase")
    with pytest.raises(ModelError, match="Open the slide"):
        align(sections, "stacker")
    with pytest.raises(UnknownNameError, match="paste"):
        align(sections, "pastee")
    with pytest.raises(He2stError, match="cannot be 0.0 µm apart"):
        stack(sections, align(sections, "paste", variant="tiny"), 0.0)


def test_loki_aligns_by_what_tiles_look_like(he2st_data):
    section = read_section(he2st_data / "her2st", "C2")
    slide = Slide.open(section.slide_path, mpp=section.adata.uns["he2st"]["mpp"])
    pitch = 200 / slide.mpp
    moved = section.adata.copy()
    moved.obsm["spatial"] = moved.obsm["spatial"] + [pitch, 0]
    found = align((section.adata, moved), "loki", slides=[slide, slide], variant="tiny")
    assert found[0].matrix.tolist() == np.eye(3).tolist()
    assert quality((section.adata, moved), found).iloc[0].overlap > 0.9
    with pytest.raises(WeightsError, match="Loki"):
        align((section.adata, moved), "loki", slides=[slide, slide])


def test_generic_and_published_methods_are_one_list():
    found = methods("alignment")
    assert {"phase", "features", "elastix", "loki", "paste", "paste2", "stalign", "stacker"} <= set(found)
    assert found["paste"].card is not None
    assert "mirror" in found["phase"].options
    assert found["paste"].options["alpha"].annotation is float


@pytest.mark.parametrize(
    ("method", "options"), [("stalign", {}), ("paste2", {"overlap": None}), ("paste2", {"overlap": 0.7})]
)
@pytest.mark.parametrize("names", [("her2st", "C2", "C3"), ("st_mouse_olfactory_bulb_2k", "MOB1", "MOB2")])
def test_real_sections_lie_better_than_before(he2st_data, names, method, options):
    sections = [read_section(he2st_data / names[0], name).adata for name in names[1:]]
    row = quality(sections, align(sections, method, **options)).iloc[0]
    assert row.overlap > 0.94
    assert row.gene_correlation > row.gene_correlation_before
    assert row.residual_um < row.residual_um_before
