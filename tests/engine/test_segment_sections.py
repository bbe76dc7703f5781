"""Domains that several sections share."""

from __future__ import annotations

import anndata as ad
import numpy as np
import pytest
from sklearn.metrics import adjusted_rand_score

from napari_he2st.core.errors import GeneError, He2stError
from napari_he2st.core.schema import provenance
from napari_he2st.data.truth import read_section
from napari_he2st.engine.align import align, placed
from napari_he2st.engine.segment import write_domains
from napari_he2st.engine.segment_sections import segment_sections


def striped(seed: int, depth: float, *, stripes: tuple[int, ...] = (0, 1, 2)) -> tuple[ad.AnnData, np.ndarray]:
    """Counts of stripes that ten genes mark each, sequenced to a depth of its own."""
    rng = np.random.default_rng(seed)
    index = np.indices((12, 4 * len(stripes))).reshape(2, -1).T
    truth = np.array(stripes)[index[:, 1] // 4]
    rate = np.full((len(index), 60), 2.0)
    for stripe in range(3):
        rate[truth == stripe, 10 * stripe : 10 * stripe + 10] = 12.0
    adata = ad.AnnData(rng.poisson(rate * depth).astype(np.float32), obsm={"spatial": index[:, ::-1] * 200.0})
    adata.var_names = [f"g{i}" for i in range(60)]
    facts = {"mpp": 0.5, "pitch_um": 100, "spot_um": 55, "lattice": "square", "library": "made"}
    adata.uns["he2st"] = provenance("measured", scale="counts", **facts)
    return adata, truth


OPTIONS = {"n_genes": 60, "dim": 16, "projection_dim": 16, "epochs": 60, "lr": 5e-3, "refine": 4}


def test_the_same_label_is_the_same_domain_in_every_section():
    (first, truth_a), (second, truth_b) = striped(0, 1.0), striped(1, 2.0, stripes=(0, 2))
    found = segment_sections([first, second], "staig", n_domains=3, **OPTIONS)
    labels, truth = np.concatenate([domains.labels for domains in found]), np.concatenate([truth_a, truth_b])
    assert adjusted_rand_score(truth, labels) > 0.7
    assert [domains.n_domains for domains in found] == [3, 3]  # also where a section has no spot of one
    assert found[0].titles == found[1].titles == ["D1", "D2", "D3"]
    assert len(found[1].labels) == len(found[1].embedding) == second.n_obs
    assert found[0].params["sections"] == 2
    assert "section" not in first.obs
    write_domains(second, found[1])
    assert second.obs["domain"].cat.categories.tolist() == ["D1", "D2", "D3"]


def test_genes_are_those_all_sections_have():
    (first, _), (second, _) = striped(0, 1.0), striped(1, 1.0)
    found = segment_sections([first, second[:, 20:]], "staig", n_domains=2, **OPTIONS)
    assert found[0].params["genes_used"] == 40
    second.var_names = [f"other{i}" for i in range(60)]
    with pytest.raises(GeneError, match="no gene in common"):
        segment_sections([first, second], "staig", n_domains=2, **OPTIONS)


def test_what_cannot_be_shared_is_said():
    section, _ = striped(0, 1.0)
    with pytest.raises(He2stError, match="leiden groups one section at a time"):
        segment_sections([section, section], "leiden", n_domains=2)
    with pytest.raises(He2stError, match="mucost groups one section at a time"):
        segment_sections([section, section], "mucost", n_domains=2)
    with pytest.raises(He2stError, match="1 sections share no domains"):
        segment_sections([section], "staig", n_domains=2)
    with pytest.raises(He2stError, match="domains"):
        segment_sections([section, section], "staig", n_domains=1000)
    alone = segment_sections([section, section], "staig", n_domains=1)
    assert all((domains.labels == 0).all() for domains in alone)


def test_domains_go_on_from_a_real_section_to_the_next(he2st_data):
    sections = [read_section(he2st_data / "her2st", name).adata for name in ("C2", "C3")]
    found = segment_sections(sections, "staig", n_domains=4, epochs=60)
    first, second = (placed(s, t) for s, t in zip(sections, align(sections, "paste"), strict=True))
    apart = np.linalg.norm(second[:, None] - first, axis=2)
    near, inside = apart.argmin(axis=1), apart.min(axis=1) < 200
    assert adjusted_rand_score(found[0].labels[near[inside]], found[1].labels[inside]) > 0.2
    codes = np.concatenate([domains.embedding for domains in found])
    section = np.repeat([0, 1], [len(s) for s in sections])
    nearest = np.linalg.norm(codes[:, None] - codes, axis=2).argsort(axis=1)[:, 1:31]
    own = (section[nearest] == section[:, None]).mean()
    assert own < 0.65  # 0.5 where the sections mix wholly, 1 where they lie apart
