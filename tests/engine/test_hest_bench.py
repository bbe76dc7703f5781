"""The published protocol, on miniatures of the published layout."""

from __future__ import annotations

import json
from pathlib import Path

import anndata as ad
import h5py
import numpy as np
import pandas as pd
import pytest
from scipy.sparse import csr_matrix

from napari_he2st.cli.app import main
from napari_he2st.core.errors import TruthError
from napari_he2st.engine.hest_bench import COMPONENTS, TASKS, hest_bench, probe, summarise, tasks_in

ENCODER = "colour-texture"
GENES = [f"G{i}" for i in range(50)]


@pytest.fixture(scope="module")
def bench(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Ten tasks of three samples and three folds; the first half of the genes follow a patch's colour."""
    root = tmp_path_factory.mktemp("bench")
    for number, task in enumerate(TASKS):
        rng = np.random.default_rng(number)
        for part in ("splits", "patches", "adata"):
            (root / task / part).mkdir(parents=True)
        (root / task / "var_50genes.json").write_text(json.dumps({"genes": GENES}))
        names = [f"S{i}" for i in range(3)]
        for name in names:
            colour = rng.integers(40, 220, (30, 1, 1, 3))
            patches = (colour + rng.normal(0, 6, (30, 224, 224, 3))).clip(0, 255).astype(np.uint8)
            barcodes = [f"{name}-{i}" for i in range(30)]
            with h5py.File(root / task / "patches" / f"{name}.h5", "w") as file:
                file["img"] = patches
                file["barcode"] = np.array(barcodes, dtype="S")[:, None]
                file["coords"] = np.zeros((30, 2), int)
            rates = np.concatenate([np.repeat(colour[:, 0, 0, :1], 25, 1), np.full((30, 25), 100)], axis=1)
            order = rng.permutation(30)  # expression lies in another order, with further spots and genes
            counts = rng.poisson(rates)[order]
            adata = ad.AnnData(
                csr_matrix(np.c_[rng.poisson(5, 30), counts].astype(np.float32)),
                obs=pd.DataFrame(index=[barcodes[i] for i in order]),
                var=pd.DataFrame(index=["OTHER", *GENES]),
            )
            adata.write_h5ad(root / task / "adata" / f"{name}.h5ad")
        for fold, left in enumerate(names):
            for part, some in (("train", [n for n in names if n != left]), ("test", [left])):
                rows = [(n, f"patches/{n}.h5", f"adata/{n}.h5ad") for n in some]
                table = pd.DataFrame(rows, columns=["sample_id", "patches_path", "expr_path"])
                table.to_csv(root / task / "splits" / f"{part}_{fold}.csv")
    return root


def test_ten_tasks_are_scored_and_what_can_be_learnt_is(bench: Path) -> None:
    assert tasks_in(bench) == list(TASKS)
    scores = hest_bench(bench, [ENCODER], tasks=TASKS[:2])
    assert len(scores) == 2 * 3 * 50
    by_gene = scores.groupby("gene")["pcc"].mean()
    assert by_gene[GENES[:25]].min() > 0.8
    assert abs(by_gene[GENES[25:]].mean()) < 0.15
    head, rows = summarise(scores)
    assert head == ["encoder", "IDC", "PRAD", "average"]
    expected = scores[scores["task"] == "IDC"].groupby("fold")["pcc"].mean()
    assert rows[0][1] == f"{expected.mean():.4f} ± {expected.std(ddof=0):.4f}"


def test_the_probe_is_the_closed_form_of_the_publication() -> None:
    rng = np.random.default_rng(0)
    x, w = rng.normal(size=(400, 300)).astype(np.float32), rng.normal(size=(300, 50))
    y = x @ w + rng.normal(0, 5, (400, 50))
    z = (x - x.mean(0)) / x.std(0)
    centre = z.mean(0)
    _, _, axes = np.linalg.svd(z - centre, full_matrices=False)
    t = (z - centre) @ axes[:COMPONENTS].T
    weights = np.linalg.solve(t.T @ t + 100 / (COMPONENTS * 50) * np.eye(COMPONENTS), t.T @ (y - y.mean(0)))
    x_test = rng.normal(size=(80, 300)).astype(np.float32)
    y_test = x_test @ w + rng.normal(0, 5, (80, 50))
    predicted = (((x_test - x.mean(0)) / x.std(0)) - centre) @ axes[:COMPONENTS].T @ weights
    expected = [np.corrcoef(predicted[:, g], y_test[:, g])[0, 1] for g in range(50)]
    np.testing.assert_allclose(probe(x, y, x_test, y_test), expected, atol=2e-3)


def test_the_command_prints_the_table(bench: Path, tmp_path: Path, capsys) -> None:
    with pytest.raises(SystemExit) as stop:
        main(["benchmark", "--hest-bench", str(bench), "--encoders", ENCODER, "--tasks", "SKCM", "-o", str(tmp_path)])
    assert not stop.value.code
    assert "SKCM" in capsys.readouterr().out
    assert len(pd.read_parquet(tmp_path / "hest_bench.parquet")) == 150


def test_what_does_not_have_the_layout_is_named(bench: Path, tmp_path: Path) -> None:
    with pytest.raises(TruthError, match="no HEST-bench folder"):
        tasks_in(tmp_path)
    task = tmp_path / "IDC"
    (task / "splits").mkdir(parents=True)
    (task / "var_50genes.json").write_text('{"genes": ["G0"]}')
    for part in ("train", "test"):
        (task / "splits" / f"{part}_0.csv").write_text("sample_id,patches_path,expr_path\nX,../../x.h5,adata/X.h5ad\n")
    with pytest.raises(TruthError, match="outside the task"):
        hest_bench(tmp_path, [ENCODER])
    (task / "var_50genes.json").write_text("[]")
    with pytest.raises(TruthError, match="gene list is damaged"):
        hest_bench(tmp_path, [ENCODER])
