"""Miniatures of single-cell output folders, with the vendors' exact file names."""

from __future__ import annotations

import json
from pathlib import Path

import h5py
import numpy as np
import pandas as pd
from PIL import Image
from scipy.sparse import csc_matrix

N = 12
XY_UM = np.stack([50.0 + 30 * (np.arange(N) % 4), 70.0 + 40 * (np.arange(N) // 4)], axis=1)
GENES = ["EPCAM", "CD3E", "ACTA2"]
COUNTS = (np.arange(N)[:, None] * 3 + np.arange(3)[None, :] * 5) % 7 + (np.arange(3) == 0)
PIXEL_UM = 0.2125
H_AND_E = np.array([[1.6, 0.0, -40.0], [0.0, 1.6, 25.0], [0.0, 0.0, 1.0]])
"""From pixels of the H&E image to pixels of the morphology image."""


def stereo_seq(folder: Path, *, bins: bool = True, cells: bool = True) -> Path:
    """The output of SAW: N spots of the chip 30 and 40 bins apart per gene, and the same as cells; 500 nm apart."""
    folder.mkdir(parents=True)
    xy = (XY_UM * 2).astype(np.int64)
    names = np.array(
        [(f"ENSG0000000000{i}", gene) for i, gene in enumerate(GENES)], dtype=[("id", "S32"), ("s", "S32")]
    )
    if bins:
        with h5py.File(folder / "C04042E2.tissue.gef", "w") as file:
            gene, spot = np.nonzero(COUNTS.T)
            records = np.zeros(len(gene), dtype=[("x", "<i4"), ("y", "<i4"), ("count", "u1")])
            records["x"], records["y"], records["count"] = xy[spot, 0], xy[spot, 1], COUNTS.T[gene, spot]
            group = file.create_group("geneExp/bin1")
            expression = group.create_dataset("expression", data=records, chunks=True, compression="gzip")
            facts = {"minX": xy[:, 0].min(), "minY": xy[:, 1].min(), "maxX": xy[:, 0].max(), "maxY": xy[:, 1].max()}
            for name, value in {**facts, "resolution": 500}.items():
                expression.attrs[name] = np.array([value], "<u4")
            fields = [("geneID", "S64"), ("geneName", "S64"), ("offset", "<u4"), ("count", "<u4")]
            table = np.zeros(len(GENES), dtype=fields)
            table["geneID"], table["geneName"], table["count"] = names["id"], names["s"], np.bincount(gene)
            table["offset"] = np.cumsum(table["count"]) - table["count"]
            group["gene"] = table
    if cells:
        with h5py.File(folder / "C04042E2.adjusted.cellbin.gef", "w") as file:
            file.attrs["resolution"] = np.array([500], "<u4")
            spot, gene = np.nonzero(COUNTS)
            records = np.zeros(len(gene), dtype=[("geneID", "<u4"), ("count", "<u2")])
            records["geneID"], records["count"] = gene, COUNTS[spot, gene]
            fields = [
                ("id", "<u4"),
                ("x", "<i4"),
                ("y", "<i4"),
                ("offset", "<u4"),
                ("geneCount", "<u2"),
                ("area", "<u2"),
            ]
            table = np.zeros(N, dtype=fields)
            table["id"], table["x"], table["y"], table["area"] = np.arange(N) + 7, xy[:, 0], xy[:, 1], 320
            table["geneCount"] = np.bincount(spot, minlength=N)
            table["offset"] = np.cumsum(table["geneCount"]) - table["geneCount"]
            genes = np.zeros(len(GENES), dtype=[("geneName", "S64"), ("offset", "<u4"), ("cellCount", "<u4")])
            genes["geneName"] = names["s"]
            file["cellBin/cell"], file["cellBin/gene"], file["cellBin/cellExp"] = table, genes, records
    return folder


def xenium(folder: Path, *, matrix: str = "h5", cells: str = "cells.parquet", aligned: bool = True) -> Path:
    """A Xenium output folder; the last cell has no counts, a control probe is in the matrix."""
    folder.mkdir(parents=True)
    (folder / "experiment.xenium").write_text(json.dumps({"pixel_size": PIXEL_UM, "region_name": "mini"}))
    names = [f"aaaa{i:04d}-1" for i in range(N)]
    table = pd.DataFrame({"cell_id": names, "x_centroid": XY_UM[:, 0], "y_centroid": XY_UM[:, 1], "cell_area": 80.0})
    if cells.endswith(".parquet"):
        table.to_parquet(folder / cells)
    else:
        table.to_csv(folder / cells, index=False)
    if matrix == "h5":
        counts = np.concatenate([COUNTS, np.ones((N, 1), dtype=int)], axis=1)[: N - 1]
        write_10x(folder / "cell_feature_matrix.h5", counts, names[: N - 1], [*GENES, "NegControlProbe_00042"])
    else:
        cell, gene = np.repeat(np.arange(N), 3), np.tile(np.arange(3), N)
        repeat = COUNTS.ravel()
        good = pd.DataFrame({"cell_id": np.repeat(np.array(names)[cell], repeat),
                             "feature_name": np.repeat(np.array(GENES)[gene], repeat), "qv": 30.0})  # fmt: skip
        place = np.repeat(XY_UM[cell], repeat, axis=0)
        good["x_location"], good["y_location"] = place[:, 0], place[:, 1]
        bad = good.head(4).assign(qv=[5.0, 30, 30, 30], cell_id=[names[0], "UNASSIGNED", names[0], names[0]])
        bad["feature_name"] = ["EPCAM", "EPCAM", "NegControlProbe_1", "BLANK_0001"]
        pd.concat([good, bad]).to_parquet(folder / "transcripts.parquet")
    if aligned:
        np.savetxt(folder / "mini_he_imagealignment.csv", H_AND_E, delimiter=",")
        Image.new("RGB", (600, 500), (230, 190, 220)).save(folder / "mini_he_image.tif")
    return folder


def write_10x(path: Path, counts: np.ndarray, barcodes: list[str], names: list[str]) -> None:
    """Counts (cells × features) as 10x writes them; names that start with Neg are controls."""
    matrix = csc_matrix(counts.T)
    with h5py.File(path, "w") as file:
        group = file.create_group("matrix")
        for part in ("data", "indices", "indptr"):
            group[part] = getattr(matrix, part)
        group["shape"] = np.array(matrix.shape, dtype=np.int32)
        group["barcodes"] = np.array(barcodes, dtype="S")
        kinds = ["Negative Control Probe" if name.startswith("Neg") else "Gene Expression" for name in names]
        features = group.create_group("features")
        for part, values in (("name", names), ("id", names), ("feature_type", kinds)):
            features[part] = np.array(values, dtype="S")


def cosmx(folder: Path, *, matrix: bool = True, mm: bool = True) -> Path:
    """CosMx flat files of two fields of view; row 0 of each holds what lies outside cells."""
    folder.mkdir(parents=True)
    fov, cell = np.repeat([1, 2], N // 2), np.tile(np.arange(1, N // 2 + 1), 2)
    xy = XY_UM / 0.12028
    if matrix:
        counts = pd.DataFrame({"fov": fov, "cell_ID": cell, **dict(zip(GENES, COUNTS.T, strict=True)), "NegPrb1": 1})
        outside = pd.DataFrame({"fov": [1, 2], "cell_ID": 0, **dict.fromkeys(GENES, 9), "NegPrb1": 1})
        pd.concat([outside, counts]).to_csv(folder / "Mini_exprMat_file.csv", index=False)
        meta = pd.DataFrame({"fov": fov, "cell_ID": cell, "Area": 900})
        meta["CenterX_global_px"], meta["CenterY_global_px"] = xy[:, 0], xy[:, 1]
        meta.to_csv(folder / "Mini_metadata_file.csv", index=False)
    else:
        at, gene = np.nonzero(COUNTS)
        table = pd.DataFrame({"fov": fov[at], "cell_ID": cell[at], "x_global_px": xy[at, 0], "y_global_px": xy[at, 1]})
        table = table.assign(x_local_px=0.0, y_local_px=0.0, z=0, target=np.array(GENES)[gene])
        outside = table.head(3).assign(cell_ID=0)
        pd.concat([table, outside]).to_csv(folder / "Mini_tx_file.csv", index=False)
    fields = pd.DataFrame({"FOV": [1, 2], "x_global_px": [0.0, 4000.0], "y_global_px": [0.0, 0.0]})
    if mm:
        fields["x_global_mm"] = fields["x_global_px"] * 0.12028 / 1000
        fields["y_global_mm"] = 0.0
    fields.to_csv(folder / "Mini_fov_positions_file.csv", index=False)
    return folder


def merscope(folder: Path, *, mosaic: bool = True) -> Path:
    """A MERSCOPE region."""
    (folder / "images").mkdir(parents=True)
    names = [str(10**15 + i) for i in range(N)]
    counts = pd.DataFrame({"cell": names, **dict(zip(GENES, COUNTS.T, strict=True)), "Blank-1": 2})
    counts.to_csv(folder / "cell_by_gene.csv", index=False)
    meta = pd.DataFrame({"EntityID": names, "fov": 3, "center_x": XY_UM[:, 0], "center_y": XY_UM[:, 1]})
    meta.iloc[::-1].to_csv(folder / "cell_metadata.csv", index=False)
    if mosaic:
        matrix = np.array([[9.25, 0, 30.0], [0, 9.25, -12.0], [0, 0, 1]])
        np.savetxt(folder / "images/micron_to_mosaic_pixel_transform.csv", matrix, delimiter=" ")
    return folder


def visium_hd_cells(folder: Path) -> Path:
    """``segmented_outputs`` of Space Ranger 4: squares of 20 px, whose centres are four times ``XY_UM``."""
    (folder / "spatial").mkdir(parents=True)
    corners = np.array([(-10, -10), (10, -10), (10, 10), (-10, 10), (-10, -10)])
    features = [
        {"type": "Feature", "properties": {"cell_id": i + 1},
         "geometry": {"type": "Polygon", "coordinates": [(4 * XY_UM[i] + corners).tolist()]}}
        for i in range(N)
    ]  # fmt: skip
    content = {"type": "FeatureCollection", "features": features}
    (folder / "cell_segmentations.geojson").write_text(json.dumps(content))
    write_10x(folder / "filtered_feature_cell_matrix.h5", COUNTS, [f"cellid_{i + 1:09d}-1" for i in range(N)], GENES)
    factors = {"microns_per_pixel": 0.25, "tissue_hires_scalef": 0.5, "spot_diameter_fullres": 8.0}
    (folder / "spatial/scalefactors_json.json").write_text(json.dumps(factors))
    Image.new("RGB", (300, 250), (210, 150, 190)).save(folder / "spatial/tissue_hires_image.png")
    return folder


def spots(folder: Path, *, hd: bool) -> Path:
    """A Space Ranger folder of a few spots, or of bins of 16 µm."""
    root = folder / "binned_outputs/square_016um" if hd else folder
    (root / "spatial").mkdir(parents=True)
    row, column = np.divmod(np.arange(N), 4)
    column = column if hd else 2 * column + row % 2
    names = [f"s_016um_{r:05d}_{c:05d}-1" for r, c in zip(row, column, strict=True)] if hd else None
    names = names or [f"AAAC{i:04d}-1" for i in range(N)]
    table = pd.DataFrame({"barcode": names, "in_tissue": 1, "array_row": row, "array_col": column})
    table["pxl_row_in_fullres"] = row * (60.0 if hd else 100 * np.sqrt(3) / 2 / 0.5)
    table["pxl_col_in_fullres"] = column * (60.0 if hd else 100.0)
    if hd:
        table.to_parquet(root / "spatial/tissue_positions.parquet")
    else:
        table.to_csv(root / "spatial/tissue_positions.csv", index=False)
    factors = {"tissue_lowres_scalef": 0.1, "spot_diameter_fullres": 60.0}
    factors |= {"bin_size_um": 16.0, "microns_per_pixel": 0.2667} if hd else {}
    (root / "spatial/scalefactors_json.json").write_text(json.dumps(factors))
    write_10x(root / "filtered_feature_bc_matrix.h5", COUNTS, names, GENES)
    Image.new("RGB", (90, 80), (210, 150, 190)).save(root / "spatial/tissue_lowres_image.png")
    return folder
