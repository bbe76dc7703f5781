"""Many slides: here, and on two workers of which one is killed."""

from __future__ import annotations

import os
import signal
from pathlib import Path

import anndata
import numpy as np
import pytest
from tests.tiny.slides import SCANNER, tissue_image, write_slide

from napari_he2st.core.errors import OutputError, SlideError
from napari_he2st.data.samples import sample_section
from napari_he2st.engine import cohort
from napari_he2st.engine.cohort import Job, read_jobs, run_jobs
from napari_he2st.engine.train import train


@pytest.fixture(scope="module")
def bundle_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A linear predictor from the colours of the tile, trained on the sample."""
    arguments = {"fields": [["colour-texture", 112]], "standardise": None}
    bundle = train("ridge", [sample_section()], panel="hvg:10", arguments=arguments)
    return bundle.save(tmp_path_factory.mktemp("bundle") / "colour.he2st")


@pytest.fixture
def jobs(bundle_folder: Path, tmp_path: Path) -> list[Job]:
    """The sample, twice: coarse and fine."""
    slide = sample_section().slide_path
    assert slide is not None
    return [
        Job(str(slide), str(bundle_folder), tmp_path / name, mpp=0.69, pitch_um=pitch_um)
        for name, pitch_um in (("coarse.h5ad", 400.0), ("fine.h5ad", 150.0))
    ]


def test_a_list_names_slides_models_and_outputs(tmp_path: Path) -> None:
    table = tmp_path / "list.csv"
    table.write_text("slide,model,mpp,output\na.svs,,0.5,\nb.svs,mine,,x.h5ad\n")
    first, second = read_jobs(table, tmp_path / "out", model="starter")
    assert first == Job(str(tmp_path / "a.svs"), "starter", tmp_path / "out" / "a.h5ad", 0.5)
    assert second == Job(str(tmp_path / "b.svs"), "mine", tmp_path / "out" / "x.h5ad")


@pytest.mark.parametrize(
    ("text", "match"),
    [
        ("", "columns"),
        ("file\na.svs\n", "columns"),
        ("slide,mpp\na.svs,half\n", "line 2"),
        ("slide\na.svs\na.svs\n", "same file"),
        ("slide,model\n,starter\n", "line 2"),
    ],
)
def test_a_list_that_cannot_be_run_is_named(tmp_path: Path, text: str, match: str) -> None:
    table = tmp_path / "list.csv"
    table.write_text(text)
    with pytest.raises(OutputError, match=match):
        read_jobs(table, tmp_path, model="starter")


def test_a_slide_that_is_not_there_is_named(tmp_path: Path, bundle_folder: Path) -> None:
    with pytest.raises(SlideError, match="no such slide"):
        list(run_jobs([Job(str(tmp_path / "gone.svs"), str(bundle_folder), tmp_path / "x.h5ad")]))


def test_profiles_are_left_out_of_a_list(jobs, tmp_path: Path) -> None:
    slide = write_slide(tmp_path / "scan.tif", tissue_image(600, 500), iccprofile=SCANNER)
    (tmp_path / "list.csv").write_text(f"slide,mpp\n{slide},0.5\n", encoding="utf-8")
    (job,) = read_jobs(tmp_path / "list.csv", tmp_path, model=jobs[0].model, icc=False)
    with cohort._opened(job)[1] as opened:
        assert opened.colours == "as stored"


def test_slides_are_predicted_one_after_the_other(jobs) -> None:
    done = list(run_jobs(jobs))
    assert [job for job, _ in done] == jobs
    for job, adata in done:
        assert np.isfinite(adata.X).all()
        np.testing.assert_array_equal(anndata.read_h5ad(job.output).X, adata.X)
        assert not job.store.exists()


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_two_workers_of_which_one_is_killed(jobs) -> None:
    from distributed import Client, LocalCluster

    expected = {job.output.name: adata.X for job, adata in run_jobs(jobs)}
    with (
        LocalCluster(n_workers=2, threads_per_worker=1, dashboard_address=None) as cluster,
        Client(cluster) as client,
    ):
        victim = next(iter(client.run(os.getpid).values()))
        advanced = []

        class Killing:
            """Kills a worker once the third range is done."""

            def start(self, total, what) -> None:
                pass

            def advance(self, n: int = 1) -> None:
                advanced.append(n)
                if len(advanced) == 3:
                    os.kill(victim, signal.SIGKILL)

        done = {
            job.output.name: adata.X
            for job, adata in run_jobs(jobs, scheduler=cluster.scheduler_address, control=Killing())
        }
        assert victim not in client.run(os.getpid).values()
    assert len(advanced) > 3
    for name, values in expected.items():
        np.testing.assert_array_equal(done[name], values)
