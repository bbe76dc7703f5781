"""Statistics of drawn regions."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import stats
from scipy.sparse import csc_matrix

from napari_he2st.analysis.regions import area_mm2, compare_spots, inside_any, region_table
from napari_he2st.core.errors import He2stError
from napari_he2st.core.types import Region

XY = np.stack(np.meshgrid(np.arange(10.0), np.arange(10.0)), -1).reshape(-1, 2) * 100
LEFT, RIGHT = (
    Region.box(
        -50,
        -50,
        500,
        1000,
        "left",
    ),
    Region.box(450, -50, 500, 1000, "right"),
)


def test_area_in_mm2() -> None:
    assert area_mm2(Region.box(90_000, 10, 2000, 1000), 0.5) == pytest.approx(0.5)
    triangle = Region(np.array([(0.0, 0.0), (1000, 0), (0, 1000)]))
    assert area_mm2(triangle, 1.0) == pytest.approx(0.5)


def test_a_row_per_region_and_source() -> None:
    values = np.arange(100.0)
    values[0] = np.nan
    table = region_table([LEFT, RIGHT], {"measured": (values, XY), "run": (2 * values, XY)}, mpp=0.5)
    assert table["region"].tolist() == ["left", "left", "right", "right"]
    assert table["source"].tolist() == ["measured", "run"] * 2
    assert table["n"].tolist() == [49, 49, 50, 50]
    own = values[XY[:, 0] < 450][1:]
    first = table.iloc[0]
    assert first["mean"] == pytest.approx(own.mean())
    assert first["sd"] == pytest.approx(own.std(ddof=1))
    assert first["p25"] == pytest.approx(np.percentile(own, 25))
    assert first["area_mm2"] == pytest.approx(500 * 1000 * 0.25e-6)


def test_a_region_without_spots_has_no_numbers() -> None:
    table = region_table([Region.box(5000, 0, 10, 10)], {"measured": (np.ones(100), XY)}, mpp=0.5)
    assert table["n"].item() == 0
    assert table[["mean", "sd", "p50"]].isna().all(axis=None)


@pytest.mark.parametrize("sparse", [False, True])
def test_wilcoxon_with_ties_as_scipy_has_it(sparse: bool) -> None:
    values = np.random.default_rng(0).poisson(1, (100, 20)).astype(np.float32)
    first, second = inside_any(XY, [LEFT]), inside_any(XY, [RIGHT])
    values[first, 7] += 2
    table = compare_spots(csc_matrix(values) if sparse else values, [f"g{i}" for i in range(20)], first, second)
    assert table["gene"][0] == "g7"
    for _, row in table.iterrows():
        column = values[:, int(row["gene"][1:])]
        expected = stats.ranksums(column[first], column[second]).statistic
        assert np.sign(row["effect"]) == np.sign(expected)
        tested = stats.mannwhitneyu(column[first], column[second], method="asymptotic")
        assert row["p"] == pytest.approx(tested.pvalue)
        assert row["difference"] == pytest.approx(column[first].mean() - column[second].mean(), abs=1e-6)
    np.testing.assert_allclose(table["fdr"], stats.false_discovery_control(table["p"]))


def test_unmeasured_is_left_out_gene_by_gene() -> None:
    values = np.random.default_rng(0).normal(size=(100, 3))
    first, second = inside_any(XY, [LEFT]), inside_any(XY, [RIGHT])
    values[np.flatnonzero(first)[:10], 0] = np.nan
    values[:, 1] = np.nan
    values[:, 2] = 4.0
    table = compare_spots(values, ["some", "none", "flat"], first, second).set_index("gene")
    column = values[:, 0]
    known = column[first][10:]
    assert table["p"]["some"] == pytest.approx(stats.mannwhitneyu(known, column[second], method="asymptotic").pvalue)
    assert table.loc["none", ["effect", "p", "fdr"]].isna().all()
    assert table["p"]["flat"] == 1
    assert table["effect"]["flat"] == 0


def test_full_separation_is_an_effect_of_one_and_shared_spots_count_for_neither() -> None:
    values = (XY[:, :1] < 450).astype(float)
    both = inside_any(XY, [LEFT, RIGHT])
    table = compare_spots(values, ["g"], inside_any(XY, [LEFT]), inside_any(XY, [RIGHT]))
    assert table["effect"].item() == pytest.approx(1)
    with pytest.raises(He2stError, match="only 0 spots"):
        compare_spots(values, ["g"], inside_any(XY, [LEFT]), both)
