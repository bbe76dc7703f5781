"""Names that end up in files: the only place where they are spelled."""

from __future__ import annotations

UNS = "he2st"
"""``uns[UNS]``: provenance, see :mod:`napari_he2st.core.schema`."""

SPATIAL = "spatial"
"""``obsm[SPATIAL]``: spot centres, level-0 pixels (x, y), float64. Also scanpy's ``uns`` key."""

SPATIAL_SOURCE = "spatial_source"
"""``obsm[SPATIAL_SOURCE]``: the vendor's own coordinates."""

COUNTS = "counts"
"""``layers[COUNTS]``: raw counts."""

STD = "std"
"""``layers[STD]``: spread over draws or members of a prediction."""

ENSEMBL = "ensembl"
"""``var[ENSEMBL]``: Ensembl gene identifiers where known."""

ARRAY_ROW, ARRAY_COL = "array_row", "array_col"
"""``obs``: integer position of a spot on its lattice."""

IN_TISSUE = "in_tissue"
"""``obs[IN_TISSUE]``: bool."""

POLYGON = "polygon"
"""``obs[POLYGON]``: outline of a cell in level-0 pixels, as well-known text."""

LABEL = "label"
"""``obs[LABEL]``: a pathologist's annotation."""

DOMAIN = "domain"
"""``obs[DOMAIN]``: tissue domain."""

HELD_OUT_PCC = "held_out_pcc"
"""``var[HELD_OUT_PCC]``: Pearson correlation on sections the predictor had not seen."""

AS_STORED = "as-stored"
"""Name of no stain normalisation, where leaving the method out means that of the predictor's training."""

RESEARCH_USE = "Predicted from H&E. For research use only; not for diagnosis."
"""Said on every prediction, export and report."""
