"""Generic methods that group spots into tissue domains: one file with one decorated function each.

A method is ``f(adata, *, n_domains, seed, …) -> Domains``: expression as in :mod:`napari_he2st.core.schema`,
predicted or measured. Its other keyword arguments have defaults: they are the user's options.
"""

from __future__ import annotations

from typing import Any

from napari_he2st.core.registry import Registry

DOMAIN_METHODS: Registry[Any] = Registry("domain method", "napari_he2st.analysis.domains", "napari_he2st.domains")

domain_method = DOMAIN_METHODS.register
