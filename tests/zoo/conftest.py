"""Small predictors for the tests of the zoo."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from napari_he2st.zoo.bundle import Bundle
from napari_he2st.zoo.manifest import Manifest
from napari_he2st.zoo.regression.ridge import Ridge

GENES = ("ERBB2", "GAPDH", "FASN")


def ridge(seed: int = 0) -> Ridge:
    arguments = {"n_genes": len(GENES), "fields": [["colour-texture", 224]]}
    member = Ridge(**arguments)
    generator = torch.Generator().manual_seed(seed)
    member.load_state_dict(
        {key: torch.randn(value.shape, generator=generator) for key, value in member.state_dict().items()}
    )
    member.extras = {"penalty": 3.0, "scale": {"shift": np.arange(3.0) + seed}}
    return member


@pytest.fixture
def bundle() -> Bundle:
    manifest = Manifest(
        name="small",
        title="A small ridge",
        system="ridge",
        arguments={"n_genes": 3, "fields": [["colour-texture", 224]]},
        genes=GENES,
        scale="log1p_cp10k",
        tile_px=224,
        mpp=0.5,
        pitch_um=100.0,
        encoder=("colour-texture",),
        organs=("breast",),
        species=("human",),
        scores={"pcc": (0.5, float("nan"), 0.1)},
    )
    return Bundle([ridge(0), ridge(1)], manifest)
