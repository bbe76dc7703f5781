"""Draw the picture of docs/howto/superres.md: spots as measured, the dense map, and its sums over the spots.

``python docs/superres.py SECTION MAP GENE -o PICTURE`` with a map that ``he2st predict`` wrote after
``he2st train istar --data SECTION``.
"""

from __future__ import annotations

import argparse

import anndata as ad
import matplotlib as mpl
import matplotlib.pyplot as plt
import numpy as np
from scipy.spatial import cKDTree

from napari_he2st.cli.inputs import open_section
from napari_he2st.core import keys
from napari_he2st.core.schema import grid_of

mpl.use("agg")


def main() -> None:
    """Read, compare, draw, and print the figures that the page quotes."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("section")
    parser.add_argument("map")
    parser.add_argument("gene")
    parser.add_argument("-o", "--output", required=True)
    given = parser.parse_args()
    measured, dense = open_section(given.section).adata, ad.read_h5ad(given.map)
    grid, cells = grid_of(measured), grid_of(dense)
    counts = measured[:, dense.var_names].layers[keys.COUNTS]
    counts = np.asarray(counts.todense() if hasattr(counts, "todense") else counts, dtype=np.float64)
    inside = cKDTree(cells.xy).query_ball_point(grid.xy, grid.spot_um / 2 / grid.mpp)
    sums = np.stack([np.asarray(dense.X[some]).sum(axis=0) for some in inside])
    whole = np.array([len(some) for some in inside]) > 0
    ratio = sums[whole].sum(axis=0) / counts[whole].sum(axis=0)
    pcc = [np.corrcoef(sums[whole, i], counts[whole, i])[0, 1] for i in range(counts.shape[1])]
    print(f"{len(cells):,} cells of {cells.pitch_um:g} µm; {whole.sum()} spots; {counts.shape[1]} genes")
    print(
        f"sum over spots, predicted / measured: median {np.median(ratio):.3f}, {ratio.min():.3f} to {ratio.max():.3f}"
    )
    print(f"correlation over spots: median {np.median(pcc):.3f}")

    column = list(dense.var_names).index(given.gene)
    figure, axes = plt.subplots(1, 3, figsize=(15, 4.6), layout="constrained")
    um = grid.xy * grid.mpp
    shown = axes[0].scatter(*um.T, c=counts[:, column], s=14, cmap="viridis")
    figure.colorbar(shown, ax=axes[0], label="counts of a spot")
    axes[0].set_title(f"{given.gene}, measured: {len(grid)} spots of {grid.spot_um:.0f} µm")
    raster = np.full(cells.shape, np.nan)
    raster[cells.index[:, 0], cells.index[:, 1]] = np.asarray(dense.X[:, column]).ravel()
    extent = (0, cells.shape[1] * cells.pitch_um, cells.shape[0] * cells.pitch_um, 0)
    shown = axes[1].imshow(raster, extent=extent, vmax=np.nanquantile(raster, 0.995), cmap="viridis")
    figure.colorbar(shown, ax=axes[1], label="counts of a cell")
    axes[1].set_title(f"predicted: {len(cells):,} cells of {cells.pitch_um:g} µm (research use)")
    for axis in axes[:2]:
        axis.set(xlim=extent[:2], ylim=extent[2:], aspect="equal", xlabel="µm")
    axes[2].plot(counts[whole, column], sums[whole, column], ".", ms=5)
    top = counts[:, column].max() * 1.05
    axes[2].plot([0, top], [0, top], lw=1, color="0.6")
    axes[2].set(xlabel="measured counts of a spot", ylabel="predicted, summed over its cells", title="the same spots")
    figure.savefig(given.output, dpi=80)


if __name__ == "__main__":
    main()
