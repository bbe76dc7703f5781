"""Whatever permits half precision gives the same in it, shown on the CPU, which can do what a graphics card does."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from napari_he2st.data.samples import sample_section
from napari_he2st.data.slides import Slide
from napari_he2st.engine.device import precision
from napari_he2st.engine.features import encoder_on, tissue_sample
from napari_he2st.zoo.catalogue import cards, system
from napari_he2st.zoo.encoders.table import encoders
from napari_he2st.zoo.inputs import Tiles

CPU = torch.device("cpu")
ENCODERS = [name for name, spec in encoders().items() if spec.half]
SYSTEMS = [slug for slug, card in cards().items() if card.half]
N_TILES, N_GENES = 12, 30


def tiles(px: int) -> torch.Tensor:
    """Tiles of the sample section's tissue."""
    with Slide.open(sample_section().slide_path, mpp=0.69) as slide:
        centres = tissue_sample(slide, N_TILES)[:N_TILES]
        read = np.concatenate([batch.tiles for batch in slide.read_tiles(centres, px, 0.69)])
    return torch.from_numpy(read).permute(0, 3, 1, 2)


def departure(half: torch.Tensor, full: torch.Tensor) -> float:
    """Mean difference in units of the spread over tiles, of the median column: some columns hardly vary."""
    spread = full.std(dim=0)
    return float(((half.float() - full).abs().mean(dim=0) / spread)[spread > 0].median())


@pytest.mark.parametrize("name", ENCODERS)
def test_features_in_half_precision(name: str) -> None:
    encoder = encoder_on(name, CPU)
    some = tiles(encoder.spec.px)
    with torch.inference_mode():
        full = encoder(some)
        with precision(CPU, getattr(torch, encoder.spec.half)):
            half = encoder(some)
    assert 0 < departure(half, full) < 0.01


@pytest.mark.parametrize("slug", SYSTEMS)
def test_predictions_in_half_precision(slug: str) -> None:
    torch.manual_seed(0)
    model = system(slug)(n_genes=N_GENES, **cards()[slug].variants["tiny"]).eval()
    model.genes = [f"G{i}" for i in range(N_GENES)]
    ((name, spec),) = model.inputs.items()
    assert isinstance(spec, Tiles)
    prepared = model.prepare(**{name: tiles(spec.px)})
    with torch.inference_mode():
        full = model.predict(**prepared)
        with precision(CPU, getattr(torch, cards()[slug].half)):
            half = model.predict(**prepared)
    assert 0 < departure(half, full) < 0.01
