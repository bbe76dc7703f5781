"""``he2st predict``."""

from __future__ import annotations

from pathlib import Path

import anndata
import numpy as np
import pytest
from tests.tiny.slides import SCANNER, tissue_image, write_slide

from napari_he2st.engine.store import Store


def slide_of(sample: str) -> Path:
    from napari_he2st.data.samples import sample_section

    path = sample_section().slide_path
    assert path is not None
    return path


def test_spots_of_a_section(prediction: Path, sample: str) -> None:
    adata = anndata.read_h5ad(prediction)
    assert adata.shape == (181, 50)
    assert adata.uns["he2st"]["kind"] == "predicted"
    assert "research use" in adata.uns["he2st"]["note"]
    assert adata.uns["spatial"]  # scanpy draws it over the image
    assert not prediction.with_name("C5.h5ad.partial").exists()


def test_region_at_a_pitch(he2st, sample: str, mean_bundle: Path, tmp_path: Path) -> None:
    out = tmp_path / "corner.h5ad"
    outcome = he2st(
        *("predict", slide_of(sample), "--mpp", "0.69", "--model", mean_bundle),
        *("--region", "3000,3000,2000,1500", "--pitch", "100", "-o", out),
    )
    assert outcome.code == 0
    assert "research use" in outcome.err
    xy = anndata.read_h5ad(out).obsm["spatial"]
    assert len(xy) > 1
    assert (xy >= [3000, 3000]).all()
    assert (xy < [5000, 4500]).all()
    assert np.diff(np.unique(xy[:, 0])).min() == pytest.approx(100 / 0.69)


def test_panel(he2st, sample: str, mean_bundle: Path, prediction: Path, tmp_path: Path) -> None:
    wanted = list(anndata.read_h5ad(prediction).var_names[[3, 1]])
    panel = tmp_path / "panel.txt"
    panel.write_text("\n".join(wanted), encoding="utf-8")
    out = tmp_path / "x.h5ad"
    assert he2st("predict", sample, "--spots", sample, "--model", mean_bundle, "--genes", panel, "-o", out).code == 0
    assert set(anndata.read_h5ad(out).var_names) == set(wanted)

    panel.write_text("NOGENE", encoding="utf-8")
    outcome = he2st(
        "predict", sample, "--spots", sample, "--model", mean_bundle, "--genes", panel, "-o", tmp_path / "y"
    )
    assert outcome.code == 1
    assert "NOGENE" in outcome.err


def test_interrupted_run_goes_on(he2st, sample: str, mean_bundle: Path, tmp_path: Path, monkeypatch) -> None:
    command = ("predict", sample, "--spots", sample, "--model", mean_bundle, "-o")
    whole, parts = tmp_path / "whole.h5ad", tmp_path / "parts.h5ad"
    assert he2st(*command, whole).code == 0

    write, written = Store.write, []

    def stop_at_the_third(store: Store, chunk: object) -> None:
        if len(written) == 2:
            raise KeyboardInterrupt
        written.append(chunk)
        write(store, chunk)

    with monkeypatch.context() as patch:
        patch.setattr(Store, "write", stop_at_the_third)
        outcome = he2st(*command, parts)
    assert outcome.code == 130
    assert "parts.h5ad.partial" in outcome.err
    assert not parts.exists()

    again: list[object] = []
    monkeypatch.setattr(Store, "write", lambda store, chunk: (again.append(chunk), write(store, chunk)))
    assert he2st(*command, parts).code == 0
    assert again
    assert not tmp_path.joinpath("parts.h5ad.partial").exists()
    np.testing.assert_array_equal(anndata.read_h5ad(parts).X, anndata.read_h5ad(whole).X)
    assert sum(len(chunk.index) for chunk in [*written, *again]) == 181


def test_named_store_stays(he2st, sample: str, mean_bundle: Path, tmp_path: Path) -> None:
    store = tmp_path / "run"
    command = (
        "predict",
        sample,
        "--spots",
        sample,
        "--model",
        mean_bundle,
        "--store",
        store,
        "-o",
        tmp_path / "x.h5ad",
    )
    assert he2st(*command).code == 0
    assert (store / "he2st-store.json").exists()
    outcome = he2st(*command, "--seed", "1", "--force")
    assert outcome.code == 1
    assert "seed" in outcome.err


def test_existing_output_is_kept_unless_forced(he2st, sample: str, mean_bundle: Path, tmp_path: Path) -> None:
    out = tmp_path / "x.h5ad"
    out.write_text("precious", encoding="utf-8")
    command = ("predict", sample, "--spots", sample, "--model", mean_bundle, "-o", out)
    outcome = he2st(*command)
    assert outcome.code == 1
    assert "--force" in outcome.err
    assert out.read_text(encoding="utf-8") == "precious"
    assert he2st(*command, "--force").code == 0
    assert anndata.read_h5ad(out).n_obs == 181


def test_the_profile_of_a_slide_is_left_out(he2st, mean_bundle: Path, tmp_path: Path) -> None:
    slide = write_slide(tmp_path / "scan.tif", tissue_image(600, 500), iccprofile=SCANNER)
    found = []
    for name, switch in (("a", "--icc"), ("b", "--no-icc")):
        out = tmp_path / f"{name}.h5ad"
        assert he2st("predict", slide, "--mpp", 0.5, "--model", mean_bundle, switch, "-o", out).code == 0
        found.append(anndata.read_h5ad(out).uns["he2st"]["colours"])
    assert found[0].startswith("icc-")
    assert found[1] == "as stored"


def test_slide_without_pixel_size(he2st, sample: str, mean_bundle: Path, tmp_path: Path) -> None:
    outcome = he2st("predict", slide_of(sample), "--model", mean_bundle, "-o", tmp_path / "x.h5ad")
    assert outcome.code == 1
    assert "mpp" in outcome.err
    assert list(tmp_path.iterdir()) == []


def test_unknown_model_names_near_ones(he2st, sample: str, tmp_path: Path) -> None:
    outcome = he2st("predict", sample, "--model", "startr", "-o", tmp_path / "x.h5ad")
    assert outcome.code == 1
    assert "starter" in outcome.err


@pytest.mark.parametrize("region", ["1,2,3", "0,0,-5,5"])
def test_region_that_is_none(he2st, sample: str, mean_bundle: Path, tmp_path: Path, region: str) -> None:
    outcome = he2st("predict", sample, "--model", mean_bundle, "--region", region, "-o", tmp_path / "x.h5ad")
    assert outcome.code == 2
