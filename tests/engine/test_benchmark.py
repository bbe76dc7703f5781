"""Benchmarks on generated sections in which the colour of the tissue decides three of four genes."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import anndata as ad
import numpy as np
import pandas as pd
import pytest
from PIL import Image

from napari_he2st.core.errors import GeneError, ModelError, TruthError, UnknownNameError
from napari_he2st.core.schema import provenance
from napari_he2st.data.slides import Slide
from napari_he2st.data.slides.grid import square_grid
from napari_he2st.data.truth import Section
from napari_he2st.engine import benchmark as module
from napari_he2st.engine.benchmark import COLUMNS, Contestant, benchmark
from napari_he2st.engine.benchmark_report import differences, per_gene_scores, summarise, write_report
from napari_he2st.engine.folds import make_folds, pitfalls

PITCH_UM = 24.0
GENES = ["RED", "GREEN", "BOTH", "NOISE", "REST"]
TINY = Contestant("ridge:tiny", "ridge", {"fields": [["colour-texture", 32]], "standardise": None})


@pytest.fixture(scope="module")
def section_of(tmp_path_factory: pytest.TempPathFactory) -> Callable[..., Section]:
    """A section of 640 × 480 px whose counts follow from the colours under its spots."""
    folder = tmp_path_factory.mktemp("sections")

    def make(name: str, patient: str | None, seed: int) -> Section:
        rng = np.random.default_rng(seed)
        y, x = np.mgrid[:480, :640]
        pixels = np.full((480, 640, 3), 243, dtype=np.uint8)
        tissue = ((x - 320) / 280) ** 2 + ((y - 240) / 210) ** 2 < 1
        waves = np.sin(x / 60 + seed), np.cos(y / 50 + seed), np.zeros(x.shape)
        colour = np.stack(waves, axis=-1) * (40, 40, 0) + (150, 100, 160) + rng.normal(0, 8, (480, 640, 3))
        pixels[tissue] = colour[tissue].clip(0, 220).astype(np.uint8)
        path = folder / f"{name}.png"
        Image.fromarray(pixels).save(path)
        with Slide.open(path, mpp=0.5) as slide:
            grid = square_grid(slide, PITCH_UM)
        rows, columns = grid.xy[:, 1].astype(int), grid.xy[:, 0].astype(int)
        red, green = (pixels[rows, columns, i].astype(float) for i in (0, 1))
        rates = np.stack([red, green, (red + green) / 2, np.full(len(red), 120.0), np.full(len(red), 400.0)], axis=1)
        counts = rng.poisson(rates).astype(np.float32)
        adata = ad.AnnData(counts, var=pd.DataFrame(index=GENES), layers={"counts": counts})
        adata.obsm["spatial"] = grid.xy
        adata.obs["array_row"], adata.obs["array_col"] = grid.index[:, 0], grid.index[:, 1]
        facts = {"mpp": 0.5, "scale": "counts", "pitch_um": PITCH_UM, "spot_um": PITCH_UM, "lattice": "square"}
        adata.uns["he2st"] = provenance("measured", library=name, **facts)
        return Section(name, adata, path, "generated", patient)

    return make


@pytest.fixture(scope="module")
def sections(section_of) -> list[Section]:
    """Two sections of one patient, one of another."""
    return [section_of("A1", "A", 0), section_of("A2", "A", 1), section_of("B1", "B", 2)]


@pytest.fixture(autouse=True)
def light_baselines(monkeypatch: pytest.MonkeyPatch) -> None:
    """The mean alone; tests/cli runs all of them."""
    monkeypatch.setattr(module, "BASELINES", ("mean",))


def test_what_can_be_learnt_beats_the_mean_and_is_reported(sections, tmp_path: Path) -> None:
    result = benchmark([TINY], sections, tmp_path / "out", panel=GENES[:4])
    assert list(result.scores) == COLUMNS
    assert result.scores.equals(pd.read_parquet(tmp_path / "out" / "scores.parquet"))
    assert result.folds == ["A", "B"]
    assert not result.missing
    assert not result.failed
    assert not [text for text in result.warnings if "patient" in text]
    of_a = result.scores[(result.scores["fold"] == "A") & (result.scores["section"] != "")]
    assert set(of_a["section"]) == {"A1", "A2"}
    table = summarise(result)
    assert list(table.index) == ["ridge:tiny", "mean"]
    assert table.loc["mean", "pcc_gene"] == 0
    assert table.loc["mean", "mse_ratio"] == pytest.approx(1, abs=1e-6)
    assert table.loc["ridge:tiny", "mse_ratio"] < 0.9
    assert per_gene_scores(result)["ridge:tiny"]["RED"] > 0.5
    assert (table["peak_mb"] > 50).all()
    assert (table["seconds_training"] > 0).all()
    assert differences(result)["p"].between(0, 1).all()
    page = write_report(result, tmp_path / "report.html").read_text(encoding="utf-8")
    assert "data:image/png;base64," in page
    assert "ridge:tiny" in page
    assert "src='http" not in page


def test_the_panel_is_chosen_without_the_scored_section(sections, tmp_path: Path) -> None:
    loud = sections[2].adata.copy()
    loud.layers["counts"][::2, GENES.index("NOISE")] = 900
    changed = [*sections[:2], replace(sections[2], adata=loud)]
    result = benchmark([], changed, tmp_path, panel="hvg:2")
    genes = result.scores[result.scores["gene"] != ""].groupby("fold")["gene"].unique()
    assert "NOISE" in genes["A"]
    assert "NOISE" not in genes["B"]


def test_a_stopped_run_goes_on(sections, tmp_path: Path, monkeypatch) -> None:
    stopped = benchmark([TINY], sections, tmp_path, panel=GENES[:4], budget_minutes=0)
    assert stopped.scores.empty
    assert len(stopped.missing) == 4
    with pytest.raises(TruthError, match="No fit was finished"):
        write_report(stopped, tmp_path / "report.html")
    made = []
    true_train = module.train

    def train_then_die(name: str, *arguments, **options):
        if len(made) == 3:
            raise KeyboardInterrupt
        made.append(name)
        return true_train(name, *arguments, **options)

    monkeypatch.setattr(module, "train", train_then_die)
    with pytest.raises(KeyboardInterrupt):
        benchmark([TINY], sections, tmp_path, panel=GENES[:4])
    done = {path: path.stat().st_mtime_ns for path in (tmp_path / "fits").iterdir()}
    assert len(done) == 3
    made.clear()
    result = benchmark([TINY], sections, tmp_path, panel=GENES[:4])
    assert made == ["ridge"]
    assert {path: path.stat().st_mtime_ns for path in done} == done
    assert summarise(result)["folds"].eq(2).all()
    made.clear()
    benchmark([replace(TINY, recipe={"epochs": 2})], sections, tmp_path, panel=GENES[:4])
    assert made == ["ridge", "ridge"], "other settings are another fit; the mean is not made again"


def test_a_budget_finishes_folds_in_order_and_names_the_rest(sections, tmp_path: Path, monkeypatch) -> None:
    clock = iter(range(0, 10_000, 40))
    monkeypatch.setattr(module.time, "monotonic", lambda: float(next(clock)))
    result = benchmark([TINY], sections, tmp_path, panel=GENES[:4], budget_minutes=1.5)
    assert result.missing == [("mean", "B"), ("ridge:tiny", "B")]
    page = write_report(result, tmp_path / "report.html").read_text(encoding="utf-8")
    assert "Not done, for the budget was spent: mean without B" in page


def test_shuffled_labels_are_noticed(sections, tmp_path: Path) -> None:
    order = np.random.default_rng(0).permutation(sections[2].adata.n_obs)
    shuffled = sections[2].adata.copy()
    shuffled.X = shuffled.X[order]
    shuffled.layers["counts"] = shuffled.layers["counts"][order]
    result = benchmark([TINY], [*sections[:2], replace(sections[2], adata=shuffled)], tmp_path, kind="section")
    doubted = [text for text in result.warnings if "better than chance" in text]
    assert len(doubted) == 1
    assert "B1" in doubted[0]


def test_flat_genes_have_no_score_and_failures_are_kept(sections, tmp_path: Path) -> None:
    flat = sections[2].adata.copy()
    flat.layers["counts"][:, GENES.index("NOISE")] = 0
    broken = Contestant("ridge:broken", "ridge", {"rank": 99})
    result = benchmark([broken], [*sections[:2], replace(sections[2], adata=flat)], tmp_path, panel=GENES[:4])
    of_b = result.scores[(result.scores["section"] == "B1") & (result.scores["gene"] == "NOISE")]
    assert of_b.empty
    assert any("1 genes of a panel do not vary in B1" in text for text in result.warnings)
    assert [(system, fold) for system, fold, _ in result.failed] == [("ridge:broken", "A"), ("ridge:broken", "B")]


def test_folds_and_their_pitfalls(sections) -> None:
    by_patient = make_folds(sections, "patient")
    assert [(f.name, [s.name for s in f.train], [s.name for s in f.test]) for f in by_patient] == [
        ("A", ["B1"], ["A1", "A2"]),
        ("B", ["A1", "A2"], ["B1"]),
    ]
    assert pitfalls(by_patient, "patient") == []
    (serial,) = pitfalls(make_folds(sections, "section"), "section")
    assert "both sides of 2 of 3 folds" in serial
    twin = replace(sections[2], name="B1 again", patient="C")
    shared = pitfalls(make_folds([*sections, twin], "patient"), "patient")
    assert any(f"{sections[2].adata.n_obs} spots of fold C" in text for text in shared)
    unknown = replace(sections[2], patient=None)
    assert "unknown" in pitfalls(make_folds([*sections[:2], unknown], "patient"), "patient")[0]


def test_blocks_cover_the_section_once_with_a_margin(sections) -> None:
    section = sections[0]
    folds = make_folds([section], "block")
    tested = np.concatenate([fold.test[0].adata.obsm["spatial"] for fold in folds])
    assert len(folds) == 4
    assert len(np.unique(tested, axis=0)) == len(tested) == section.adata.n_obs
    for fold in folds:
        train, test = (part[0].adata.obsm["spatial"] for part in (fold.train, fold.test))
        distance_px = np.linalg.norm(train[:, None] - test[None], axis=2).min()
        assert distance_px > 2 * PITCH_UM / 0.5
    assert "one section" in pitfalls(folds, "block")[0]


def test_a_single_patient_cannot_be_left_out(sections, tmp_path: Path) -> None:
    with pytest.raises(TruthError, match="there is only A.*--folds section"):
        benchmark([TINY], sections[:2], tmp_path)


def test_sections_that_cannot_take_part(sections, tmp_path: Path) -> None:
    with pytest.raises(TruthError, match="no image"):
        benchmark([TINY], [sections[0], replace(sections[2], slide_path=None)], tmp_path)
    other = sections[2].adata.copy()
    other.var_names = [f"MM{i}" for i in range(other.n_vars)]
    with pytest.raises(GeneError, match="share no gene"):
        benchmark([TINY], [sections[0], replace(sections[2], adata=other)], tmp_path)
    with pytest.raises(TruthError, match="no section"):
        benchmark([TINY], [], tmp_path)


@pytest.mark.parametrize(
    ("label", "reason"),
    [("istar", "fitted to the slide"), ("clam", "whole slides"), ("spagcn", "groups spots"), ("ghist", "single cells")],
)
def test_systems_that_cannot_take_part(label: str, reason: str) -> None:
    with pytest.raises(ModelError, match=reason):
        Contestant.parse(label)


def test_names_and_settings_are_checked(sections, tmp_path: Path) -> None:
    with pytest.raises(UnknownNameError, match="ridge"):
        Contestant.parse("ridg")
    with pytest.raises(UnknownNameError, match="tiny"):
        Contestant.parse("stnet:tinny")
    with pytest.raises(ModelError, match="no setting impute"):
        Contestant.parse("stnet", {"impute": 2})
    given = Contestant.parse("ridge", {"variant": "tiny", "arguments": {"rank": 1}, "recipe": {"epochs": 1}})
    assert (given.arguments["rank"], given.recipe) == (1, {"epochs": 1})
    with pytest.raises(ModelError, match="named twice"):
        benchmark([TINY, TINY], sections, tmp_path)
