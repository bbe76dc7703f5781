"""``he2st train-slides``, and predicting with what it trained."""

from __future__ import annotations

from pathlib import Path

import anndata
import numpy as np
import pytest
from PIL import Image

from napari_he2st.core.schema import slide_result


@pytest.fixture(scope="module")
def table(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Four slides of two patients; half of them purple."""
    folder = tmp_path_factory.mktemp("slides")
    lines = ["slide,patient,purple"]
    for number in range(4):
        image = np.full((800, 800, 3), 244, np.uint8)
        noise = np.random.default_rng(number).integers(0, 60, (736, 736, 3))
        image[32:-32, 32:-32] = noise + np.array((120, 70, 140) if number % 2 else (200, 130, 160))
        Image.fromarray(image).save(folder / f"s{number}.png")
        lines.append(f"s{number}.png,p{number // 2},{'yes' if number % 2 else 'no'}")
    (folder / "table.csv").write_text("\n".join(lines) + "\n", encoding="utf-8")
    return folder / "table.csv"


@pytest.fixture(scope="module")
def bundle(table: Path) -> Path:
    return table.parent / "purple.he2st"


def test_train_then_predict(he2st, table: Path, bundle: Path, tmp_path: Path) -> None:
    tiny = ("--variant", "tiny", "--argument", "encoder=colour-texture", "--argument", "tile_px=128")
    training = ("--label", "purple", "--folds", 2, "--epochs", 3, "--mpp", 0.5, "-o", bundle)
    trained = he2st("train-slides", "clam", table, *tiny, *training)
    assert trained.code == 0, trained.err
    assert "AUC on patients left out" in trained.err
    options = ("--mpp", 0.5, "--model", bundle, "-o", tmp_path / "s1.h5ad")
    predicted = he2st("predict", table.parent / "s1.png", *options)
    assert predicted.code == 0, predicted.err
    assert "The slide:" in predicted.err
    result = slide_result(anndata.read_h5ad(tmp_path / "s1.h5ad"))
    assert set(result) == {"yes", "no"}
    assert sum(result.values()) == pytest.approx(1)
    assert not list(tmp_path.glob("*.partial"))
    for option in (("--pitch", 20), ("--plan",), ("--region", "0,0,100,100")):
        assert he2st("predict", table.parent / "s1.png", *options, "--force", *option).code != 0


def test_a_label_that_is_missing_is_named(he2st, table: Path, tmp_path: Path) -> None:
    outcome = he2st("train-slides", "clam", table, "--label", "grade", "--mpp", 0.5, "-o", tmp_path / "b")
    assert outcome.code == 1
    assert "no column grade" in outcome.err
