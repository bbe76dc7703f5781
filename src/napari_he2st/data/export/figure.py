"""Figures: one gene over the H&E, as pixels or as shapes that can be edited."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from napari_he2st.core import geometry, keys
from napari_he2st.core.errors import GeneError, UnknownNameError
from napari_he2st.core.expression import unit_of
from napari_he2st.core.schema import facts_of
from napari_he2st.core.wkt import from_wkt
from napari_he2st.data.export.columns import variance_of
from napari_he2st.data.export.registry import exporter
from napari_he2st.data.truth.genes import match_genes

if TYPE_CHECKING:
    from anndata import AnnData
    from matplotlib.figure import Figure

    from napari_he2st.data.slides import Slide

_MOST_SHAPES = 20_000


@exporter("png", "Map of one gene over the H&E, with colour bar and scale bar; cells in their own shape", suffix=".png")
def write_png(
    adata: AnnData,
    path: Path,
    slide: Slide | None,
    *,
    gene: str | None = None,
    dpi: int = 200,
    cmap: str = "viridis",
) -> None:
    """Draw one gene.

    Parameters
    ----------
    adata, path
        See :func:`~napari_he2st.data.export.registry.exporter`.
    slide
        Slide to draw on; without one the picture in ``uns["spatial"]``, or plain white.
    gene
        Symbol or Ensembl identifier; by default the gene that varies most.
    dpi
        Dots per inch of a figure 7 inches wide.
    cmap
        Name of a matplotlib colour map.

    Raises
    ------
    GeneError
        The gene is not in the data.
    UnknownNameError
        There is no such colour map.
    """
    figure, about = _figure(adata, slide, gene, dpi, cmap)
    figure.savefig(path, format="png", metadata=about)


@exporter("svg", "The figure of png as shapes and text for drawing programs; the H&E stays pixels", suffix=".svg")
def write_svg(
    adata: AnnData,
    path: Path,
    slide: Slide | None,
    *,
    gene: str | None = None,
    dpi: int = 200,
    cmap: str = "viridis",
) -> None:
    """Draw one gene; more spots than 20,000 are drawn as pixels too.

    Parameters
    ----------
    adata, path
        See :func:`~napari_he2st.data.export.registry.exporter`.
    slide
        Slide to draw on; without one the picture in ``uns["spatial"]``, or plain white.
    gene
        Symbol or Ensembl identifier; by default the gene that varies most.
    dpi
        Dots per inch of what is drawn as pixels.
    cmap
        Name of a matplotlib colour map.

    Raises
    ------
    GeneError
        The gene is not in the data.
    UnknownNameError
        There is no such colour map.
    """
    import matplotlib as mpl

    figure, about = _figure(adata, slide, gene, dpi, cmap)
    with mpl.rc_context({"svg.fonttype": "none"}):  # text that can be edited and searched
        figure.savefig(path, format="svg", dpi=dpi, metadata=about)


def _figure(
    adata: AnnData, slide: Slide | None, gene: str | None, dpi: int, cmap: str
) -> tuple[Figure, dict[str, str]]:
    """The figure of one gene, and what it shows in words."""
    import matplotlib as mpl
    from matplotlib.figure import Figure

    if cmap not in mpl.colormaps:
        raise UnknownNameError(f"There is no colour map named {cmap!r}", todo="Try viridis, magma or cividis")
    facts = facts_of(adata)
    column = int(variance_of(adata).argmax()) if gene is None else int(match_genes([gene], adata).found[0])
    values, xy_px = _column(adata, column), np.asarray(adata.obsm[keys.SPATIAL], dtype=np.float64)
    known = np.isfinite(values)
    if not known.any():
        raise GeneError("The gene has no value anywhere", where=str(adata.var_names[column]))
    x, y, width, height = geometry.bounds_of(xy_px, margin_px=facts["pitch_um"] / facts["mpp"])

    figure = Figure(figsize=(7, float(np.clip(6 * height / width, 2, 14)) + 0.6), dpi=dpi, layout="constrained")
    axes = figure.add_subplot()
    _draw_tissue(axes, adata, slide, (x, y, width, height), facts)
    spots = _spots(axes, adata, known, facts)
    spots.set_cmap(cmap)
    low, high = np.percentile(values[known], (1, 99))
    spots.set_array(values[known])
    spots.set_clim(low, high if high > low else low + 1)
    spots.set_rasterized(int(known.sum()) > _MOST_SHAPES)
    axes.add_collection(spots)
    unit = unit_of(facts["scale"])
    figure.colorbar(spots, ax=axes, label=unit, shrink=0.7)
    said = ("measured" if facts["kind"] == "measured" else "predicted from H&E") + ", research use only"
    axes.set_title(f"{adata.var_names[column]} ({unit})\n{said}", fontsize=10)
    axes.set(xlim=(x, x + width), ylim=(y + height, y), aspect="equal", xticks=[], yticks=[])
    _draw_scale_bar(axes, (x, y, width, height), facts["mpp"])
    return figure, {"Title": f"{adata.var_names[column]}, {said}", "Description": facts["note"]}


def _column(adata: AnnData, column: int) -> NDArray[np.float64]:
    values = adata.X[:, [column]]
    return np.asarray(values.toarray() if hasattr(values, "toarray") else values, dtype=np.float64).ravel()


def _spots(axes: Any, adata: AnnData, shown: NDArray[np.bool_], facts: dict[str, Any]) -> Any:
    """Cells in their own shape, other spots as discs, to be coloured."""
    from matplotlib.collections import EllipseCollection, PolyCollection

    if keys.POLYGON in adata.obs:
        return PolyCollection([from_wkt(text) for text in adata.obs[keys.POLYGON][shown]], linewidths=0)
    size = np.full(int(shown.sum()), facts["spot_um"] / facts["mpp"])
    offsets = np.asarray(adata.obsm[keys.SPATIAL], dtype=np.float64)[shown]
    where = {"offsets": offsets, "transOffset": axes.transData}
    return EllipseCollection(size, size, np.zeros_like(size), units="xy", linewidths=0, **where)


def _draw_tissue(
    axes: Any, adata: AnnData, slide: Slide | None, box: tuple[float, float, float, float], facts: dict[str, Any]
) -> None:
    """The H&E behind the spots, placed in level-0 pixels."""
    x, y, width, height = box
    if slide is not None:
        coarse = max(1.0, max(width, height) / 2000)
        n_x, n_y = max(1, round(width / coarse)), max(1, round(height / coarse))
        picture = slide.read(x, y, n_x, n_y, mpp=slide.mpp * coarse)
        axes.imshow(picture, extent=(x, x + n_x * coarse, y + n_y * coarse, y))
        return
    entry = adata.uns.get(keys.SPATIAL, {}).get(facts["library"], {})
    for name in ("hires", "lowres"):
        factor = entry.get("scalefactors", {}).get(f"tissue_{name}_scalef")
        if factor is not None and name in entry.get("images", {}):
            picture = np.asarray(entry["images"][name])
            axes.imshow(picture, extent=(0, picture.shape[1] / factor, picture.shape[0] / factor, 0))
            return


def _draw_scale_bar(axes: Any, box: tuple[float, float, float, float], mpp: float) -> None:
    """A bar of a round length, about a fifth of the width, in the lower left corner."""
    x, y, width, height = box
    wanted_um = 0.2 * width * mpp
    power = 10.0 ** np.floor(np.log10(wanted_um))
    length_um = power * max(step for step in (1, 2, 5) if step * power <= wanted_um)
    left, bottom = x + 0.04 * width, y + 0.96 * height
    length_px = float(geometry.px_from_um(length_um, mpp))
    said = f"{length_um:g} µm" if length_um < 1000 else f"{length_um / 1000:g} mm"
    for colour, thick in (("white", 5), ("black", 2.5)):  # readable on tissue and on glass
        axes.plot([left, left + length_px], [bottom, bottom], color=colour, linewidth=thick, solid_capstyle="butt")
    box_style = {"facecolor": "white", "alpha": 0.7, "linewidth": 0, "pad": 1.5}
    axes.text(left, bottom - 0.02 * height, said, va="bottom", fontsize=9, color="black", bbox=box_style)
