"""Image encoders on a CPU through OpenVINO: the same features to rounding, faster than by torch."""

from __future__ import annotations

import threading
import warnings
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor, nn

from napari_he2st.core.errors import ModelError
from napari_he2st.zoo.encoders.build import Encoder

if TYPE_CHECKING:
    from napari_he2st.zoo.encoders.table import EncoderSpec

TOLERANCE = 1e-3
"""Largest difference to torch, in units of the largest feature; kernels of float32 differ by 1e-5."""


class CompiledEncoder:
    """An encoder compiled for the CPU, called like one of torch; from any number of threads.

    Parameters
    ----------
    encoder
        What is compiled: the network with its preprocessing, for uint8 tiles of the encoder's own width.

    Raises
    ------
    ModelError
        OpenVINO cannot compile it, or computes something else with it.
    """

    def __init__(self, encoder: Encoder) -> None:
        import openvino

        self.spec: EncoderSpec = encoder.spec
        self.sha256 = encoder.sha256
        px = self.spec.px
        generator = torch.Generator().manual_seed(0)
        example = torch.randint(0, 256, (2, px, px, 3), dtype=torch.uint8, generator=generator)
        try:
            with torch.inference_mode(), warnings.catch_warnings():
                # Tracing is on its way out, but torch.export imports triton, which a running viewer does not survive.
                warnings.simplefilter("ignore")
                model = openvino.convert_model(_ChannelsLast(encoder), example_input=example)
            model.reshape([-1, px, px, 3])
            settings = {"INFERENCE_PRECISION_HINT": "f32", "INFERENCE_NUM_THREADS": 1, "NUM_STREAMS": 1}
            self._compiled: Any = openvino.Core().compile_model(model, "CPU", settings)
        except RuntimeError as error:
            message = f"OpenVINO cannot compile the encoder ({str(error).strip().splitlines()[-1]})"
            raise ModelError(message, where=self.spec.name, todo="Choose --device cpu") from error
        self._local = threading.local()
        tiles = example.permute(0, 3, 1, 2)
        with torch.inference_mode():
            wanted = encoder(tiles)
        difference = float((self(tiles) - wanted).abs().max() / wanted.abs().max())
        if not difference <= TOLERANCE:
            message = f"OpenVINO computes other features than torch (by {difference:.1e} of the largest)"
            raise ModelError(message, where=self.spec.name, todo="Choose --device cpu")

    def __call__(self, tiles: Tensor) -> Tensor:
        """Features, float32 of shape (n, dim), of uint8 tiles (n, 3, px, px)."""
        request = getattr(self._local, "request", None)
        if request is None:
            request = self._local.request = self._compiled.create_infer_request()
        last = np.ascontiguousarray(tiles.permute(0, 2, 3, 1).numpy())
        (features,) = request.infer([last], share_inputs=True).values()
        return torch.from_numpy(np.array(features))


class _ChannelsLast(nn.Module):  # type: ignore[misc]
    """An encoder of tiles as they are read: (n, px, px, 3)."""

    def __init__(self, encoder: Encoder) -> None:
        super().__init__()
        self.encoder = encoder

    def forward(self, tiles: Tensor) -> Tensor:
        features: Tensor = self.encoder(tiles.permute(0, 3, 1, 2))
        return features
