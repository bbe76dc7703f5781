"""Forty statistics of colour and texture per tile: cheap, nothing learned, hard to beat with few slides.

In this order: mean and standard deviation of R, G, B (6); for the haematoxylin and the eosin channel mean,
standard deviation and the 10, 25, 50, 75 and 90 % quantiles (14), mean and standard deviation of the
residual stain (2), of saturation (2) and of mean optical density (2); log energy of haematoxylin and eosin in
four bands of scale (8); log mean gradient of optical density, and how much gradients agree in direction
(2); skewness of haematoxylin and its correlation with eosin (2); share of clear and of white pixels (2).

Stains are separated with the matrix of Ruifrok and Johnston, Anal. Quant. Cytol. Histol. 23 (2001).
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

_STAINS = ((0.65, 0.70, 0.29), (0.07, 0.99, 0.11), (0.27, 0.57, 0.78))
"""Optical density in R, G, B of haematoxylin, eosin and the residual."""

_QUANTILES = (0.1, 0.25, 0.5, 0.75, 0.9)
_BANDS = 4
_STRIDE = 4
"""Quantiles and shape statistics use every fourth pixel."""

_TINY = 1e-6


class ColourTexture(nn.Module):
    """RGB tiles, floats in [0, 1] of shape (n, 3, px, px) → float32 of shape (n, 40)."""

    unmix: Tensor

    def __init__(self) -> None:
        super().__init__()
        with torch.device("cpu"):
            unmix = torch.linalg.inv(torch.tensor(_STAINS, dtype=torch.float64)).float()
        self.register_buffer("unmix", unmix, persistent=False)

    def forward(self, tiles: Tensor) -> Tensor:
        """The forty numbers, in the order of the module's description."""
        density = -tiles.clamp(min=1 / 255).log()
        stains = torch.einsum("ncyx,cs->nsyx", density, self.unmix)
        he, mean_density = stains[:, :2], density.mean(1)
        flat = he.flatten(2)[..., ::_STRIDE]
        quantiles = torch.quantile(flat, flat.new_tensor(_QUANTILES), dim=-1)  # (5, n, 2)
        brightest, darkest = tiles.amax(1), tiles.amin(1)
        saturation = (brightest - darkest) / brightest.clamp(min=1 / 255)
        columns = [
            *_moments(tiles),
            *_moments(he),
            *quantiles,
            *_moments(stains[:, 2:]),
            *_moments(saturation[:, None]),
            *_moments(mean_density[:, None]),
            _band_energies(he),
            *_gradients(mean_density),
            *_shape(flat),
            (mean_density < 0.15).float().mean((1, 2))[:, None],
            (darkest > 0.8).float().mean((1, 2))[:, None],
        ]
        return torch.cat(columns, dim=1)


def _moments(x: Tensor) -> tuple[Tensor, Tensor]:
    """Mean and standard deviation per channel of (n, c, y, x), each (n, c)."""
    return x.mean((2, 3)), x.std((2, 3), correction=0)


def _band_energies(x: Tensor) -> Tensor:
    """Log spread of (n, c, y, x) within blocks of 2, 4, 8 and 16 pixels of their halves' means, (n, c × 4).

    These are the energies of a Haar wavelet: what averaging over a block takes away from the variance.
    """
    variances = [x.var((2, 3), correction=0)]
    for _ in range(_BANDS):
        x = F.avg_pool2d(x, 2)
        variances.append(x.var((2, 3), correction=0))
    variance = torch.stack(variances, dim=-1)
    return ((variance[..., :-1] - variance[..., 1:]).clamp(min=0).sqrt() + 1e-4).log().flatten(1)


def _gradients(x: Tensor) -> tuple[Tensor, Tensor]:
    """Log mean gradient (Sobel's) and coherence of directions of (n, y, x), each (n, 1)."""
    down = x[:, :-2] + 2 * x[:, 1:-1] + x[:, 2:]
    across = x[:, :, :-2] + 2 * x[:, :, 1:-1] + x[:, :, 2:]
    gx, gy = down[:, :, 2:] - down[:, :, :-2], across[:, 2:] - across[:, :-2]
    strength = (torch.hypot(gx, gy).mean((1, 2)) + 1e-4).log()
    xx, yy, xy = (gx * gx).mean((1, 2)), (gy * gy).mean((1, 2)), (gx * gy).mean((1, 2))
    coherence = torch.sqrt((xx - yy) ** 2 + 4 * xy**2) / (xx + yy + _TINY)
    return strength[:, None], coherence[:, None]


def _shape(flat: Tensor) -> tuple[Tensor, Tensor]:
    """Skewness of the first and correlation of both channels of (n, 2, pixels), each (n, 1)."""
    centred = flat - flat.mean(-1, keepdim=True)
    z = centred / (centred.std(-1, correction=0, keepdim=True) + _TINY)
    return (z[:, 0] ** 3).mean(-1, keepdim=True), (z[:, 0] * z[:, 1]).mean(-1, keepdim=True)
