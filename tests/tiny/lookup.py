"""A small retrieval predictor whose reference are the spots of a slide, each with an expression of its own."""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np
import torch

from napari_he2st.core.types import Grid
from napari_he2st.engine.reference import describe_reference
from napari_he2st.zoo.bundle import Bundle
from napari_he2st.zoo.manifest import Manifest
from napari_he2st.zoo.retrieval.bleep import BLEEP

GENES = ("ERBB2", "GAPDH", "CD3E")
TILE_PX = 32


def lookup_bundle(slide, grid: Grid) -> Bundle:
    """BLEEP whose spots are embedded as their own images are, so that every spot finds itself first."""
    torch.manual_seed(0)
    arguments = {"n_genes": 3, "trunk": "resnet10", "dim": 8, "tile_px": TILE_PX, "imagenet": False}
    member = BLEEP(**arguments).eval()
    member.genes = list(GENES)
    n = len(grid)
    tiles = np.concatenate([batch.tiles for batch in slide.read_tiles(grid.xy, TILE_PX, 0.5)])
    with torch.inference_mode():
        own = member.embed_images(**member.prepare(tiles=torch.from_numpy(tiles).permute(0, 3, 1, 2)))
    member.extras["reference"] = {
        "expression": np.arange(3 * n, dtype=np.float32).reshape(n, 3),
        "embedding": own.numpy(),
        "slide": np.zeros(n, dtype=np.int64),
        "row": np.arange(n),
    }
    describe_reference(member, [SimpleNamespace(slide=slide, grid=grid)], TILE_PX * 0.5)
    manifest = Manifest(
        name="lookup",
        title="Lookup",
        system="bleep",
        arguments=arguments,
        genes=GENES,
        scale="log1p_cp10k",
        tile_px=TILE_PX,
        mpp=0.5,
        pitch_um=grid.pitch_um,
        training=({"section": "S1", "spots": n},),
    )
    return Bundle([member], manifest)
