"""The live view with the starter: seconds of CPU until the first colours, and what returning costs."""

from __future__ import annotations

import time

import numpy as np
import torch

from napari_he2st.core.types import Region
from napari_he2st.data.samples import sample_section
from napari_he2st.data.slides import Slide
from napari_he2st.data.slides.tissue import tissue_mask
from napari_he2st.engine.estimate import estimate
from napari_he2st.engine.live import LiveMap
from napari_he2st.zoo.catalogue import load


def test_first_colours_and_returning(figure) -> None:
    torch.set_num_threads(1)
    bundle = load("starter")
    path = sample_section().slide_path
    assert path is not None
    with Slide.open(path, mpp=0.69) as slide:
        mask = tissue_mask(slide)
        estimate(bundle, slide, LiveMap.over(bundle, slide, mask).grid, device="cpu")  # what makes the dock ready
        start = time.process_time()
        live = LiveMap.over(bundle, slide, mask, 100.0)
        middle = live.grid.xy.mean(axis=0)
        view = Region.box(*(middle - 500), 1000, 1000)
        next(live.look(view, device="cpu"))
        figure("live view: first colours (starter)", time.process_time() - start, "s of CPU", at_most=1.0)
        chunks = list(live.look(view, device="cpu"))
        assert np.isfinite(np.concatenate([chunk.mean for chunk in chunks])).all()
        start = time.process_time()
        assert not list(live.look(view, device="cpu"))
        figure("live view: returning to a view", 1000 * (time.process_time() - start), "ms of CPU", at_most=20)
