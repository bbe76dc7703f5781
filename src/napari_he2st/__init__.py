"""Turn routine H&E slides into spatial transcriptomics on screen.

The public names below load on first use, so ``import napari_he2st`` costs next to nothing::

    import napari_he2st as he

    slide = he.Slide.open("section.svs")
    predictor = he.load("starter")
    adata = he.predict_slide(predictor, slide)
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

from napari_he2st._version import __version__

if TYPE_CHECKING:
    from napari_he2st.core.types import Chunk as Chunk
    from napari_he2st.core.types import Domains as Domains
    from napari_he2st.core.types import Grid as Grid
    from napari_he2st.data.export import export as export
    from napari_he2st.data.slides import Slide as Slide
    from napari_he2st.data.truth import read_truth as read_truth
    from napari_he2st.engine.compare import compare as compare
    from napari_he2st.engine.impute import impute as impute
    from napari_he2st.engine.predict import predict as predict
    from napari_he2st.engine.predict import predict_slide as predict_slide
    from napari_he2st.engine.segment import segment as segment
    from napari_he2st.engine.session import Session as Session
    from napari_he2st.engine.train import train as train
    from napari_he2st.zoo.catalogue import load as load
    from napari_he2st.zoo.catalogue import models as models

_PUBLIC = {
    "Chunk": "core.types",
    "Domains": "core.types",
    "Grid": "core.types",
    "Session": "engine.session",
    "Slide": "data.slides",
    "compare": "engine.compare",
    "export": "data.export",
    "impute": "engine.impute",
    "load": "zoo.catalogue",
    "models": "zoo.catalogue",
    "predict": "engine.predict",
    "predict_slide": "engine.predict",
    "read_truth": "data.truth",
    "segment": "engine.segment",
    "train": "engine.train",
}

__all__ = ["__version__", *_PUBLIC]


def __getattr__(name: str) -> Any:
    if name not in _PUBLIC:
        message = f"module {__name__!r} has no attribute {name!r}"
        raise AttributeError(message)
    return getattr(import_module(f"{__name__}.{_PUBLIC[name]}"), name)


def __dir__() -> list[str]:
    return sorted(__all__)
