"""HEST-bench: how much of the expression of 50 genes patch encoders hold (Jaume et al., NeurIPS 2024).

The published protocol, on the published layout of a task's folder::

    TASK/var_50genes.json          {"genes": […]}
    TASK/splits/train_0.csv        sample_id, patches_path, expr_path; one pair of files per fold
    TASK/splits/test_0.csv
    TASK/patches/ID.h5             img (n, 224, 224, 3) uint8, barcode (n, 1)
    TASK/adata/ID.h5ad             raw counts

Features are standardised and reduced to 256 principal components on the training spots; ridge regression with a penalty
of 100 / (components × genes) predicts log1p of the counts. A fold's score is the mean Pearson correlation over genes.
"""

from __future__ import annotations

import csv
import json
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from napari_he2st.core.errors import TruthError
from napari_he2st.core.progress import Control
from napari_he2st.engine.device import choose_device

if TYPE_CHECKING:
    import pandas as pd

TASKS = ("IDC", "PRAD", "PAAD", "SKCM", "COAD", "READ", "CCRCC", "HCC", "LUNG", "LYMPH_IDC")
"""The published ones; a folder may hold some of them, or others of the same layout."""

COMPONENTS = 256
_BATCH = 64
_MAX_TEXT = 16 * 2**20
_MAX_PATCHES = 2_000_000


@dataclass(frozen=True)
class Fold:
    """Samples to learn and to score: name, patches, expression."""

    train: list[tuple[str, Path, Path]]
    test: list[tuple[str, Path, Path]]


def tasks_in(folder: str | Path) -> list[str]:
    """Names of the tasks that lie in a folder, published ones first.

    Raises
    ------
    TruthError
        There is none.
    """
    folder = Path(folder)
    found = [path.parent.parent.name for path in folder.glob("*/splits/train_0.csv")]
    if not found:
        todo = "Give the folder that holds IDC, PRAD and so on, each with splits/train_0.csv"
        raise TruthError("This is no HEST-bench folder", where=folder, todo=todo)
    return sorted(found, key=lambda name: (TASKS.index(name) if name in TASKS else len(TASKS), name))


def hest_bench(
    folder: str | Path,
    encoders: Sequence[str],
    *,
    tasks: Sequence[str] | None = None,
    device: str = "auto",
    control: Control | None = None,
) -> pd.DataFrame:
    """Score encoders on the tasks of a folder.

    Parameters
    ----------
    folder
        That holds the tasks' folders.
    encoders
        Names of patch encoders.
    tasks
        Some of them; by default all that are there.
    device
        Where tiles are encoded.
    control
        Progress and cancel.

    Returns
    -------
    pandas.DataFrame
        ``task``, ``encoder``, ``fold``, ``gene``, ``pcc``: one row per gene and fold.

    Raises
    ------
    TruthError
        The folder does not have the layout, or a file of it is missing or damaged.
    """
    import pandas as pd

    control, rows = control or Control(), []
    for task in tasks or tasks_in(folder):
        root = Path(folder) / task
        genes, folds = _genes(root), _folds(root)
        samples = {sample[0]: sample for fold in folds for sample in (*fold.train, *fold.test)}
        known: dict[str, tuple[list[str], NDArray[np.float64]]] = {}
        for encoder in encoders:
            features: dict[str, NDArray[np.float32]] = {}
            for name, (_, patches, expression) in samples.items():
                barcodes, features[name] = _encode(patches, encoder, device, control)
                if name not in known:
                    known[name] = barcodes, _expression(expression, genes, barcodes)
            for number, fold in enumerate(folds):
                x, y = (
                    tuple(np.concatenate([part[s[0]] for s in some]) for part in (features, _second(known)))
                    for some in (fold.train, fold.test)
                )
                scores = probe(x[0], x[1], y[0], y[1])
                rows += [(task, encoder, number, g, float(v)) for g, v in zip(genes, scores, strict=True)]
    return pd.DataFrame(rows, columns=["task", "encoder", "fold", "gene", "pcc"])


def probe(
    x: NDArray[np.float32], y: NDArray[np.float64], x_test: NDArray[np.float32], y_test: NDArray[np.float64]
) -> NDArray[np.float64]:
    """Pearson correlation per gene of the published probe; a constant one counts as 0.

    Parameters
    ----------
    x, y, x_test, y_test
        Features (spots, dim) and log1p counts (spots, genes).
    """
    from sklearn.decomposition import PCA
    from sklearn.linear_model import Ridge
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    from napari_he2st.analysis.metrics import METRICS

    n = min(COMPONENTS, *x.shape)
    reduce = make_pipeline(StandardScaler(), PCA(n_components=n, random_state=1))
    z = reduce.fit_transform(x.astype(np.float64))
    ridge = Ridge(alpha=100 / (n * y.shape[1])).fit(z, y)
    predicted = ridge.predict(reduce.transform(x_test.astype(np.float64)))
    scores: NDArray[np.float64] = np.nan_to_num(METRICS["pcc"].function(predicted, y_test))
    return scores


def summarise(scores: pd.DataFrame) -> tuple[list[str], list[list[str]]]:
    """Head and rows of the published table: encoders × tasks, mean ± standard deviation over folds, and the average."""
    folds = scores.groupby(["encoder", "task", "fold"])["pcc"].mean().reset_index()
    mean = folds.pivot_table("pcc", "encoder", "task", "mean")
    spread = folds.pivot_table("pcc", "encoder", "task", lambda v: float(np.std(v)))
    mean = mean[list(dict.fromkeys(scores["task"]))]
    order = mean.mean(axis=1).sort_values(ascending=False).index
    rows = [
        [
            str(encoder),
            *(f"{mean[task][encoder]:.4f} ± {spread[task][encoder]:.4f}" for task in mean),
            f"{mean.loc[encoder].mean():.4f}",
        ]
        for encoder in order
    ]
    return ["encoder", *map(str, mean), "average"], rows


def _second(known: dict[str, tuple[list[str], NDArray[np.float64]]]) -> dict[str, NDArray[np.float64]]:
    return {name: value for name, (_, value) in known.items()}


def _text(path: Path) -> str:
    try:
        if path.stat().st_size > _MAX_TEXT:
            raise TruthError("The file is too large for what it should hold", where=path)
        return path.read_text(encoding="utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        raise TruthError(f"A file of the task cannot be read ({error})", where=path) from error


def _genes(root: Path) -> list[str]:
    path = root / "var_50genes.json"
    try:
        genes = json.loads(_text(path))["genes"]
    except (ValueError, KeyError, TypeError) as error:
        raise TruthError("The gene list is damaged", where=path, todo='It holds {"genes": [...]}') from error
    return list(map(str, genes))


def _folds(root: Path) -> list[Fold]:
    names = [path.name for path in (root / "splits").glob("train_*.csv")]
    numbers = sorted(int(found[1]) for name in names if (found := re.fullmatch(r"train_(\d+)\.csv", name)))
    return [Fold(*(_samples(root, root / "splits" / f"{part}_{n}.csv") for part in ("train", "test"))) for n in numbers]


def _samples(root: Path, path: Path) -> list[tuple[str, Path, Path]]:
    found = []
    for row in csv.DictReader(_text(path).splitlines()):
        try:
            sample, patches, expression = row["sample_id"], root / row["patches_path"], root / row["expr_path"]
        except KeyError as error:
            raise TruthError(f"The split has no column {error}", where=path) from error
        for file in (patches, expression):
            if not file.resolve().is_relative_to(root.resolve()):
                raise TruthError(f"The split names a file outside the task ({file})", where=path)
        found.append((sample, patches, expression))
    if not found:
        raise TruthError("The split names no sample", where=path)
    return found


def _encode(path: Path, encoder: str, device: str, control: Control) -> tuple[list[str], NDArray[np.float32]]:
    """Barcodes and features of a sample's patches, in the file's order."""
    import h5py
    import torch

    from napari_he2st.engine.features import encoder_on

    where = choose_device(device)
    model = encoder_on(encoder, where)
    try:
        with h5py.File(path) as file, torch.inference_mode():
            images, names = file["img"], file["barcode"][:].ravel()
            if images.ndim != 4 or images.shape[-1] != 3 or images.dtype != np.uint8 or len(images) > _MAX_PATCHES:
                raise TruthError(f"'img' has shape {images.shape} and type {images.dtype}", where=path)
            barcodes = [name.decode() if isinstance(name, bytes) else str(name) for name in names.tolist()]
            control.start(len(images), f"Encoding {path.stem} with {encoder}")
            parts: list[Any] = []
            for start in range(0, len(images), _BATCH):
                tiles = torch.from_numpy(images[start : start + _BATCH]).permute(0, 3, 1, 2).to(where)
                parts.append(model(tiles).float().cpu().numpy())
                control.advance(len(tiles))
    except (OSError, KeyError) as error:
        raise TruthError(f"The patches cannot be read ({error})", where=path) from error
    if len(barcodes) != sum(map(len, parts)):
        raise TruthError(f"{len(barcodes)} barcodes for {sum(map(len, parts))} patches", where=path)
    return barcodes, np.concatenate(parts)


def _expression(path: Path, genes: list[str], barcodes: list[str]) -> NDArray[np.float64]:
    """log1p of the counts of some genes, in the order of the barcodes: float64 (spots, genes)."""
    import anndata as ad

    try:
        adata = ad.read_h5ad(path)
    except (OSError, ValueError, KeyError) as error:
        raise TruthError(f"The expression cannot be read ({error})", where=path) from error
    rows, columns = adata.obs_names.get_indexer(barcodes), adata.var_names.get_indexer(genes)
    for what, found, wanted in (("patches", rows, barcodes), ("genes", columns, genes)):
        if (found < 0).any():
            message = f"{int((found < 0).sum())} of {len(wanted)} {what} have no expression"
            raise TruthError(message, where=path, todo="Check that patches and expression are of one sample")
    X = adata.X[rows][:, columns]
    counts: NDArray[np.float64] = np.asarray(X.toarray() if hasattr(X, "toarray") else X, dtype=np.float64)
    return np.log1p(counts)
