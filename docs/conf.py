"""Sphinx configuration; the tables and the command reference are generated from the package itself."""

from __future__ import annotations

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))

import napari_he2st
from generate import generate_all

project = "napari-he2st"
author = "The napari-he2st developers"
copyright = author
version = release = napari_he2st.__version__

extensions = ["myst_parser", "sphinx.ext.autodoc", "sphinx.ext.napoleon", "sphinx.ext.viewcode"]
exclude_patterns = ["_build", "_generated"]
myst_enable_extensions = ["colon_fence", "deflist"]
myst_heading_anchors = 3
autodoc_member_order = "bysource"
autodoc_typehints = "signature"
napoleon_google_docstring = False
napoleon_use_rtype = False

html_theme = "furo"
html_title = "napari-he2st"


def setup(app: object) -> None:
    """Write the generated pages before Sphinx reads any."""
    generate_all(Path(__file__).parent / "_generated")
