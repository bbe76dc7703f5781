"""Whole-slide systems on a generated cohort in which only a known patch of tissue carries the label."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from napari_he2st.core import keys
from napari_he2st.core.errors import ModelError, TruthError
from napari_he2st.core.schema import check_expression, slide_result
from napari_he2st.data.slides import Slide
from napari_he2st.engine import slide_level
from napari_he2st.engine.predict import predict, predict_slide
from napari_he2st.engine.train_slides import read_table, train_slides
from napari_he2st.zoo.bundle import Bundle
from napari_he2st.zoo.catalogue import cards

TILE = 32
SIDE = 12
PATCH = 5
"""Tiles along a slide and along the patch that tells."""
N_SLIDES = 12
SETTINGS = {"encoder": "efficientnet-lite0-early", "tile_px": TILE, "tile_mpp": 1.0}
EXPRESSION = ("sequoia",)
SYSTEMS = [slug for slug, card in cards().items() if card.tasks[0] == "slide_level" and card.status != "unavailable"]
RECIPES = {
    "cervical-cms": {"lr": 1e-2, "epochs": 12},
    "fgfr3mut": {"lr": 3e-3, "epochs": 40},
    "receptor-mil": {"lr": 1e-3, "epochs": 40},
    "deepgem": {"lr": 1e-3, "epochs": 25, "clip": None},
    "gigapath": {"lr": 1e-3, "epochs": 15},
    "bpgt": {"epochs": 12, "schedule": None},
}
"""What departs from lr 1e-3 and 30 epochs."""
QUICK = ("pathorich",)
"""What learns in seconds; the others are for the slow step."""
CASES = [slug if slug in QUICK else pytest.param(slug, marks=pytest.mark.slow) for slug in SYSTEMS]
LOOKS = {"bpgt", "gigapath", "receptor-mil", "screen-them-all", "pathorich", "sequoia"}
"""Systems whose map need not be highest where the label is: it says what was looked at, or windows of tiles."""


def _place(number: int) -> tuple[int, int]:
    rng = np.random.default_rng(100 + number)
    return tuple(rng.integers(1, SIDE - PATCH - 1, 2).tolist())


def _paint(number: int, *, positive: bool) -> np.ndarray:
    """Pink stroma within a rim of glass; on positive slides a patch of dense dark nuclei."""
    rng = np.random.default_rng(number)
    image = np.full((SIDE * TILE, SIDE * TILE, 3), (224, 160, 190), np.float64)
    image += rng.normal(0, 6, image.shape)
    image[rng.random(image.shape[:2]) < 0.02] = (110, 70, 140)
    if positive:
        column, row = _place(number)
        part = image[row * TILE : (row + PATCH) * TILE, column * TILE : (column + PATCH) * TILE]
        part[rng.random(part.shape[:2]) < 0.6] = (90, 50, 130)
    glass = np.ones(image.shape[:2], dtype=bool)
    glass[TILE:-TILE, TILE:-TILE] = False
    image[glass] = 245
    return image.clip(0, 255).astype(np.uint8)


@pytest.fixture(scope="module")
def cohort(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("cohort")
    lines = ["slide,patient,mutated,grade,GENE1,GENE2"]
    for number in range(N_SLIDES):
        positive = number % 2 == 1
        Image.fromarray(_paint(number, positive=positive)).save(folder / f"s{number}.png")
        # Two slides of each patient, of both classes.
        status, gene = ("yes" if positive else "no"), (3.0 if positive else 1.0) + 0.01 * number
        lines.append(f"s{number}.png,p{number // 2},{status},{int(positive)},{gene},{4 - gene}")
    (folder / "cohort.csv").write_text("\n".join(lines) + "\n", encoding="utf-8")
    return folder


_BAGS: dict[str, object] = {}


@pytest.fixture(autouse=True)
def encoded_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """All systems here see the same tiles by the same encoder, so each slide is encoded once."""

    def resolve(model: object, slide: Slide, *rest: object) -> object:
        if slide.fingerprint not in _BAGS:
            _BAGS[slide.fingerprint] = slide_level.resolve_bag(model, slide, *rest)
        return _BAGS[slide.fingerprint]

    monkeypatch.setattr("napari_he2st.engine.train_slides.resolve_bag", resolve)


def _train(slug: str, cohort: Path, **kwargs: object) -> Bundle:
    arguments = {key: value for key, value in cards()[slug].variants["tiny"].items() if key != "encoder"}
    recipe = {"lr": 1e-3, "epochs": 30, **RECIPES.get(slug, {})}
    labels = (
        ["GENE1", "GENE2"] if slug in EXPRESSION else ["grade"] if slug in ("bpgt", "screen-them-all") else ["mutated"]
    )
    table = read_table(cohort / "cohort.csv")
    options = {"folds": 2, "arguments": arguments | SETTINGS, "recipe": recipe, "mpp": 1.0, **kwargs}
    return train_slides(slug, table, labels, **options)


@pytest.mark.parametrize(
    "slug", [slug if slug in QUICK else pytest.param(slug, marks=pytest.mark.slow) for slug in SYSTEMS]
)
def test_the_label_is_learned_and_found(slug: str, cohort: Path, tmp_path: Path) -> None:
    bundle = _train(slug, cohort)
    (scores,) = bundle.manifest.scores.values()
    assert min(score for score in scores if score is not None) > 0.8
    bundle.save(tmp_path / "b.he2st")
    number = 1
    with Slide.open(cohort / f"s{number}.png", mpp=1.0) as slide:
        adata = predict_slide(Bundle.load(tmp_path / "b.he2st"), slide)
        again = predict_slide(bundle, slide)
    with Slide.open(cohort / "s0.png", mpp=1.0) as slide:
        other = slide_result(predict_slide(bundle, slide))
    check_expression(adata)
    np.testing.assert_allclose(adata.X, again.X, rtol=1e-5, atol=1e-5)
    result = slide_result(adata)
    assert list(result) == bundle.genes
    positive = bundle.genes[0 if slug in EXPRESSION else -1]
    assert result[positive] > other[positive]
    column, row = _place(number)
    tile = adata.obsm[keys.SPATIAL] / TILE
    inside = (abs(tile - (column + PATCH / 2, row + PATCH / 2)) < PATCH / 2).all(axis=1)
    assert inside.sum() == PATCH**2
    if slug not in LOOKS:
        shown = np.nan_to_num(adata.X[:, -1], nan=adata.X[:, -1].min(initial=-1e3, where=np.isfinite(adata.X[:, -1])))
        assert shown[inside].mean() > shown[~inside].mean()  # tiles that are not looked at count least


def test_the_same_seed_gives_the_same(cohort: Path) -> None:
    first, second = (_train("clam", cohort, folds=0, recipe={"epochs": 2}) for _ in range(2))
    assert first.manifest.history == second.manifest.history
    assert first.manifest.scores == {}


def test_what_a_whole_slide_cannot_heed_is_refused(cohort: Path) -> None:
    bundle = _train("clam", cohort, folds=0, recipe={"epochs": 1})
    with Slide.open(cohort / "s0.png", mpp=1.0) as slide:
        for given in ({"genes": ["yes"]}, {"pitch_um": 20.0}, {"store": cohort / "store"}):
            with pytest.raises(ModelError, match=f"one result for the whole slide, whatever {next(iter(given))} say"):
                predict_slide(bundle, slide, **given)


def test_a_slide_has_no_chunks(cohort: Path) -> None:
    bundle = _train("clam", cohort, folds=0, recipe={"epochs": 1})
    with Slide.open(cohort / "s0.png", mpp=1.0) as slide, pytest.raises(ModelError, match="one result for a slide"):
        next(iter(predict(bundle, slide, None)))


@pytest.mark.parametrize(
    ("text", "labels", "message"),
    [
        ("image,status\na.png,1\n", ["status"], "no column slide"),
        ("slide,status\nnone.png,1\n", ["status"], "not there, first .*none.png"),
        ("slide,status\ns0.png,1\ns1.png,1\n", ["status"], "one class"),
        ("slide,status\ns0.png,1\ns1.png,0\n", ["grade"], "no column grade"),
        ("slide,patient,status\ns0.png,p,1\ns1.png,p,0\n", ["status"], "1 patients cannot be split"),
    ],
)
def test_a_table_that_cannot_be_learned(cohort: Path, text: str, labels: list[str], message: str) -> None:
    path = cohort / "bad.csv"
    path.write_text(text, encoding="utf-8")
    with pytest.raises(TruthError, match=message):
        train_slides("clam", read_table(path), labels, folds=2, mpp=1.0, arguments=SETTINGS, recipe={"epochs": 1})


def test_a_system_for_spots_is_refused(cohort: Path) -> None:
    with pytest.raises(ModelError, match="does not predict slides"):
        train_slides("stnet", read_table(cohort / "cohort.csv"), ["status"], mpp=1.0)
