"""The AnnData schema of measured and predicted expression, checked by attributes alone.

==============================  ==========================================================================
``X``                           float32, dense or CSR, spots × genes; NaN is unmeasured, never 0
``var_names``                   gene symbols, unique; ``var["ensembl"]`` where known
``obs_names``                   spot names, unique
``layers["counts"]``            raw counts where they are measured
``obsm["spatial"]``             spot centres, level-0 pixels (x, y), float64, of the slide in ``uns["he2st"]``
``obsm["spatial_source"]``      the vendor's coordinates; ``uns["he2st"]["transform"]`` leads to ``spatial``
``uns["spatial"][library]``     scanpy's form: ``images`` and ``scalefactors``
``uns["he2st"]``                provenance, a flat dict: see :func:`provenance`
==============================  ==========================================================================

Keys of ``uns["he2st"]`` that are always there: ``kind`` (``"measured"`` or ``"predicted"``), ``mpp``
(micrometres per level-0 pixel), ``scale`` (expression scale, such as ``"log1p_cp10k"``), ``pitch_um``,
``spot_um``, ``lattice``, ``library``, ``version``, ``date``, ``note``. Predictions add ``bundle``,
``bundle_sha256``, ``slide_fingerprint``, ``mpp_source``, ``colours`` (what was done to the slide's colours, such as
``icc-… + macenko``), ``tile_px``, ``tile_mpp``, ``seed``, ``device``; those of a whole slide ``slide_names`` and
``slide_values``, see :func:`slide_result`.
"""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any, Literal

import numpy as np

from napari_he2st.core import keys
from napari_he2st.core.errors import SchemaError
from napari_he2st.core.types import Grid

_REQUIRED = ("kind", "mpp", "scale", "pitch_um", "spot_um", "lattice", "library")


def provenance(
    kind: Literal["measured", "predicted"],
    *,
    mpp: float,
    scale: str,
    pitch_um: float,
    spot_um: float,
    lattice: str,
    library: str,
    **facts: Any,
) -> dict[str, Any]:
    """The dict that goes into ``uns["he2st"]``; ``facts`` that are None are left out."""
    from napari_he2st._version import __version__

    known = {name: value for name, value in facts.items() if value is not None}
    return {
        "kind": kind,
        "mpp": float(mpp),
        "scale": scale,
        "pitch_um": float(pitch_um),
        "spot_um": float(spot_um),
        "lattice": lattice,
        "library": library,
        "version": __version__,
        "date": datetime.now(UTC).isoformat(timespec="seconds"),
        "note": keys.RESEARCH_USE if kind == "predicted" else "Measured expression.",
        **known,
    }


def check_expression(adata: Any) -> None:
    """Check an AnnData object against the schema.

    Raises
    ------
    SchemaError
        Names the first field that is missing or wrong.
    """
    facts = adata.uns.get(keys.UNS)
    if facts is None:
        raise SchemaError(
            "There is no provenance in the data", where=f"uns[{keys.UNS!r}]", todo="Read it with read_truth"
        )
    missing = [name for name in _REQUIRED if name not in facts]
    if missing:
        raise SchemaError(f"Provenance lacks {', '.join(missing)}", where=f"uns[{keys.UNS!r}]")
    if keys.SPATIAL not in adata.obsm:
        raise SchemaError("There are no spot positions", where=f"obsm[{keys.SPATIAL!r}]")
    positions = np.asarray(adata.obsm[keys.SPATIAL])
    if positions.shape != (adata.n_obs, 2) or not np.issubdtype(positions.dtype, np.floating):
        message = f"Spot positions have shape {positions.shape} and type {positions.dtype}, not (n, 2) and float64"
        raise SchemaError(message, where=f"obsm[{keys.SPATIAL!r}]")
    if not np.isfinite(positions).all():
        raise SchemaError("Spot positions are not all finite", where=f"obsm[{keys.SPATIAL!r}]")
    if not adata.var_names.is_unique:
        raise SchemaError("Gene names are not unique", where="var_names")
    if not adata.obs_names.is_unique:
        raise SchemaError("Spot names are not unique", where="obs_names")


def facts_of(adata: Any) -> dict[str, Any]:
    """Provenance of an AnnData object; raises :class:`SchemaError` without one."""
    if keys.UNS not in adata.uns:
        raise SchemaError(
            "There is no provenance in the data", where=f"uns[{keys.UNS!r}]", todo="Read it with read_truth"
        )
    return dict(adata.uns[keys.UNS])


def slide_result(adata: Any) -> dict[str, float]:
    """What a prediction says of its slide as a whole, by name: class probabilities, or expression; empty without."""
    facts = facts_of(adata)
    names, values = facts.get("slide_names", ()), facts.get("slide_values", ())
    return {str(name): float(value) for name, value in zip(names, values, strict=True)}


def grid_of(adata: Any) -> Grid:
    """The :class:`Grid` on which an AnnData object's spots lie."""
    check_expression(adata)
    facts = facts_of(adata)
    n = adata.n_obs
    if keys.ARRAY_ROW in adata.obs and keys.ARRAY_COL in adata.obs:
        rows_cols = np.stack([np.asarray(adata.obs[keys.ARRAY_ROW]), np.asarray(adata.obs[keys.ARRAY_COL])], axis=1)
        index = rows_cols.astype(np.intp)
    else:
        index = np.stack([np.arange(n), np.zeros(n)], axis=1).astype(np.intp)
    in_tissue = np.asarray(adata.obs[keys.IN_TISSUE], dtype=bool) if keys.IN_TISSUE in adata.obs else np.ones(n, bool)
    shape = tuple((index.max(axis=0) + 1).tolist()) if n else (0, 0)
    return Grid(
        xy=np.asarray(adata.obsm[keys.SPATIAL], dtype=np.float64),
        pitch_um=float(facts["pitch_um"]),
        lattice=facts["lattice"],
        spot_um=float(facts["spot_um"]),
        mpp=float(facts["mpp"]),
        index=index,
        shape=(int(shape[0]), int(shape[1])),
        in_tissue=in_tissue,
        names=tuple(map(str, adata.obs_names)),
    )
