"""Small measured sections on disk, in the layouts that the readers know."""

from __future__ import annotations

import gzip
import json
from collections.abc import Callable
from pathlib import Path

import h5py
import numpy as np
import pandas as pd
import pytest
from PIL import Image
from scipy.io import mmwrite
from scipy.sparse import csc_matrix

PITCH_PX = 50.0
"""Distance of the spots of a legacy section in pixels."""


def lattice_counts(n_spots: int, n_genes: int) -> np.ndarray:
    """Counts in which every row and column differs from all others."""
    return (np.arange(n_spots)[:, None] * 7 + np.arange(n_genes)[None, :] * 3) % 23


@pytest.fixture
def expected_counts() -> Callable[[int, int], np.ndarray]:
    """Counts (spots, genes) of a written section, in the order of its spots."""
    return lattice_counts


@pytest.fixture
def legacy(tmp_path: Path) -> Callable[..., Path]:
    """Write a legacy ST section of 5 × 4 spots in one folder; arguments replace parts of it."""

    def write(
        name: str = "B2",
        *,
        counts: str | bytes | None = None,
        spots: str | bytes | None = None,
        labels: str | None = None,
        genes: tuple[str, ...] = ("ERBB2", "CD74", "MUC1"),
        image: bool = True,
        by_kind: bool = False,
    ) -> Path:
        root = tmp_path / "section"
        x, y = (part.ravel() for part in np.meshgrid(np.arange(2, 7), np.arange(3, 7)))
        keys = [f"{a}x{b}" for a, b in zip(x, y, strict=True)]
        if counts is None:
            rows = [[key, *map(str, row)] for key, row in zip(keys, lattice_counts(len(keys), len(genes)), strict=True)]
            rows = rows[::-1]  # the order of the spot file means nothing
            counts = "\n".join("\t".join(row) for row in [["", *genes], *rows]) + "\n"
        if spots is None:
            table = pd.DataFrame({"x": x, "y": y, "new_x": x + 0.01, "new_y": y - 0.02})
            table["pixel_x"], table["pixel_y"] = x * PITCH_PX + 3, y * PITCH_PX - 4
            table["selected"] = 1
            spots = table.to_csv(sep="\t", index=False)
        where = {"counts": root / "ST-cnts", "spots": root / "ST-spotfiles", "images": root / "ST-imgs/B" / name}
        folder = {kind: path if by_kind else root for kind, path in where.items()}
        for path in (*folder.values(), root / "ST-pat/lbl"):
            path.mkdir(parents=True, exist_ok=True)
        data = counts.encode() if isinstance(counts, str) else counts
        (folder["counts"] / f"{name}.tsv.gz").write_bytes(gzip.compress(data))
        data = spots.encode() if isinstance(spots, str) else spots
        (folder["spots"] / f"{name}_selection.tsv").write_bytes(data)
        if labels is not None:
            (root / "ST-pat/lbl" / f"{name}_labeled_coordinates.tsv").write_text(labels)
        if image:
            Image.new("RGB", (400, 380), (230, 200, 220)).save(folder["images"] / "scan.jpg")
        return root

    return write


def hexagonal(rows: int, columns: int) -> pd.DataFrame:
    """Positions of a Visium slide at 0.5 µm per pixel; spots of the first row lie beside the tissue."""
    row, column = np.divmod(np.arange(rows * columns), columns)
    column = 2 * column + row % 2
    table = pd.DataFrame({"barcode": [f"AAAC{i:04d}-1" for i in range(len(row))], "in_tissue": (row > 0).astype(int)})
    table["array_row"], table["array_col"] = row, column
    table["pxl_row_in_fullres"] = row * 100 * np.sqrt(3) / 2 / 0.5 + 40
    table["pxl_col_in_fullres"] = column * 50 / 0.5 + 60
    return table


def write_matrix_h5(path: Path, counts: np.ndarray, barcodes: list[str], symbols: list[str], ids: list[str]) -> None:
    """Counts (barcodes × genes) in the form of Space Ranger."""
    matrix = csc_matrix(counts.T)
    with h5py.File(path, "w") as file:
        group = file.create_group("matrix")
        for name in ("data", "indices", "indptr"):
            group[name] = getattr(matrix, name)
        group["shape"] = np.array(matrix.shape, dtype=np.int32)
        group["barcodes"] = np.array(barcodes, dtype="S")
        features = group.create_group("features")
        features["name"], features["id"] = np.array(symbols, dtype="S"), np.array(ids, dtype="S")
        features["feature_type"] = np.array(["Gene Expression"] * len(ids), dtype="S")


def write_matrix_mex(folder: Path, counts: np.ndarray, barcodes: list[str], features: list[str], *, gz: bool) -> None:
    """Counts (barcodes × genes) as a Matrix Market folder."""
    folder.mkdir(parents=True)
    mmwrite(folder / "matrix.mtx", csc_matrix(counts.T.astype(int)), field="integer")
    (folder / "barcodes.tsv").write_text("\n".join(barcodes) + "\n")
    (folder / "features.tsv").write_text("\n".join(features) + "\n")
    for path in list(folder.iterdir()) if gz else []:
        path.with_name(f"{path.name}.gz").write_bytes(gzip.compress(path.read_bytes()))
        path.unlink()


SYMBOLS = ["Xkr4", "Rp1", "Rp1", "Sox17"]
IDS = ["ENSMUSG00000051951", "ENSMUSG00000025900", "ENSMUSG00000109048", "ENSMUSG00000025902"]


@pytest.fixture
def visium_positions() -> pd.DataFrame:
    """The position table of the written Visium section."""
    return hexagonal(6, 5)


@pytest.fixture
def visium(tmp_path: Path) -> Callable[..., Path]:
    """Write the ``outs`` folder of a Visium section of 6 × 5 spots; arguments choose its generation."""

    def write(
        sample: str = "brain",
        *,
        positions: str = "tissue_positions_list.csv",
        matrix: str = "filtered_feature_bc_matrix.h5",
        gz: bool = True,
        pictures: tuple[str, ...] = ("hires", "lowres"),
        counts: np.ndarray | None = None,
        barcodes: list[str] | None = None,
        table: pd.DataFrame | None = None,
    ) -> Path:
        outs = tmp_path / sample / "outs"
        (outs / "spatial").mkdir(parents=True)
        table = hexagonal(6, 5) if table is None else table
        place = outs / "spatial" / positions
        if positions.endswith(".parquet"):
            table.to_parquet(place)
        else:
            table.to_csv(place, index=False, header=positions == "tissue_positions.csv")
        in_matrix = table if "raw" in matrix else table[table["in_tissue"] == 1]
        barcodes = list(in_matrix["barcode"])[::-1] if barcodes is None else barcodes
        counts = lattice_counts(len(barcodes), 4) if counts is None else counts
        if matrix.endswith(".h5"):
            write_matrix_h5(outs / matrix, counts, barcodes, SYMBOLS, IDS)
        else:
            features = [f"{i}\t{name}\tGene Expression" for i, name in zip(IDS, SYMBOLS, strict=True)]
            write_matrix_mex(outs / matrix, counts, barcodes, features, gz=gz)
        factors = {"spot_diameter_fullres": 130.0, "fiducial_diameter_fullres": 210.0}
        for name, scale in (("hires", 0.5), ("lowres", 0.1)):
            factors[f"tissue_{name}_scalef"] = scale
            if name in pictures:
                size = (round(1200 * scale), round(1000 * scale))
                Image.new("RGB", size, (200, 150, 190)).save(outs / f"spatial/tissue_{name}_image.png")
        (outs / "spatial/scalefactors_json.json").write_text(json.dumps(factors))
        return outs

    return write
