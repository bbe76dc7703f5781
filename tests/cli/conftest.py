"""Running ``he2st`` inside the test process."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from napari_he2st.cli.app import main


@dataclass(frozen=True)
class Outcome:
    """How a command ended and what it printed."""

    code: int
    out: str
    err: str

    @property
    def json(self) -> Any:
        """Standard output, read as JSON."""
        return json.loads(self.out)


@pytest.fixture
def he2st(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Callable[..., Outcome]:
    """Run the command line with some arguments."""
    monkeypatch.setenv("COLUMNS", "200")

    def run(*arguments: object) -> Outcome:
        capsys.readouterr()
        with pytest.raises(SystemExit) as stop:
            main([str(argument) for argument in arguments])
        return Outcome(int(stop.value.code or 0), *capsys.readouterr())

    return run


@pytest.fixture(scope="session")
def sample() -> str:
    """The packaged section as the command line names it."""
    from napari_he2st.data.samples import sample_folder

    return f"{sample_folder()}:C5"


@pytest.fixture(scope="session")
def mean_bundle(sample: str, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The mean predictor, trained by the command line on the packaged section."""
    path = tmp_path_factory.mktemp("bundle") / "mean.he2st"
    with pytest.raises(SystemExit) as stop:
        main(["train", "mean", "--data", sample, "--panel", "hvg:50", "-o", str(path)])
    assert not stop.value.code
    return path


@pytest.fixture(scope="session")
def prediction(sample: str, mean_bundle: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Its prediction at the spots of that section, with a gradient added so that there is something to compare."""
    import anndata
    import numpy as np

    path = tmp_path_factory.mktemp("prediction") / "C5.h5ad"
    with pytest.raises(SystemExit) as stop:
        main(["predict", sample, "--spots", sample, "--model", str(mean_bundle), "-o", str(path)])
    assert not stop.value.code
    adata = anndata.read_h5ad(path)
    slope = np.linspace(0, 1, adata.n_obs, dtype=np.float32)
    adata.X = adata.X + slope[:, None]
    adata.write_h5ad(path)
    return path
