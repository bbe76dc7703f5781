"""Metrics of the field: one file with one decorated function each.

A metric declares what it is ``of``:

``"pairs"``
    ``f(predicted, measured, *, …)``, both spots × genes, gives one number per gene (float64).
    Metrics with ``spatial=True`` also take ``grid``, the spots' :class:`~napari_he2st.core.types.Grid`.
``"map"``
    ``f(values, *, grid)`` gives one number per gene for the predicted or the measured map alone.
``"labels"``
    ``f(predicted, measured)`` gives one number for two groupings of the same spots.

Matrices are dense or SciPy sparse. Entries that are not finite are unmeasured: a pair with one of them is
skipped, gene by gene. A metric that is undefined (a correlation with a constant, fewer than two pairs) is
NaN, never 0.
"""

from __future__ import annotations

from typing import Any

from napari_he2st.core.registry import Registry

METRICS: Registry[Any] = Registry("metric", "napari_he2st.analysis.metrics", "napari_he2st.metrics")

metric = METRICS.register
