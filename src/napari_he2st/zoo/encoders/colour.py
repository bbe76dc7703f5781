"""Forty statistics of colour and texture per tile: cheap, nothing learned, hard to beat with few slides.

In this order: mean and standard deviation of R, G, B (6); for the haematoxylin and the eosin channel mean,
standard deviation and the 10, 25, 50, 75 and 90 % quantiles (14), mean and standard deviation of the
residual stain (2), of saturation (2) and of mean optical density (2); log energy of haematoxylin and eosin in
four bands of scales (8); log mean gradient of optical density, and how much gradients agree in direction
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
_SIGMAS_PX = (1, 2, 4, 8)
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


def _blur(x: Tensor, sigma_px: float) -> Tensor:
    """Gaussian blur of (n, c, y, x), mirrored at the border."""
    radius = 4 * int(sigma_px)
    at = torch.arange(-radius, radius + 1, dtype=x.dtype, device=x.device)
    kernel = torch.exp(-0.5 * (at / sigma_px) ** 2)
    kernel = (kernel / kernel.sum()).expand(x.shape[1], 1, -1)
    padded = F.pad(x, (radius,) * 4, mode="reflect")
    rows = F.conv2d(padded, kernel[..., None, :], groups=x.shape[1])
    return F.conv2d(rows, kernel[..., :, None], groups=x.shape[1])


def _band_energies(x: Tensor) -> Tensor:
    """Log standard deviation of differences between blurs, (n, channels × bands)."""
    blurs = [x, *(_blur(x, sigma) for sigma in _SIGMAS_PX)]
    bands = [(fine - coarse).std((2, 3), correction=0) for fine, coarse in zip(blurs, blurs[1:], strict=False)]
    return (torch.stack(bands, dim=-1) + 1e-4).log().flatten(1)


def _gradients(x: Tensor) -> tuple[Tensor, Tensor]:
    """Log mean gradient and coherence of directions of (n, y, x), each (n, 1)."""
    smooth, differ = x.new_tensor([1.0, 2.0, 1.0]), x.new_tensor([-1.0, 0.0, 1.0])
    padded = F.pad(x[:, None], (1,) * 4, mode="reflect")
    gx = F.conv2d(padded, torch.outer(smooth, differ)[None, None])
    gy = F.conv2d(padded, torch.outer(differ, smooth)[None, None])
    strength = (torch.hypot(gx, gy).mean((2, 3)) + 1e-4).log()
    xx, yy, xy = (gx * gx).mean((2, 3)), (gy * gy).mean((2, 3)), (gx * gy).mean((2, 3))
    coherence = torch.sqrt((xx - yy) ** 2 + 4 * xy**2) / (xx + yy + _TINY)
    return strength, coherence


def _shape(flat: Tensor) -> tuple[Tensor, Tensor]:
    """Skewness of the first and correlation of both channels of (n, 2, pixels), each (n, 1)."""
    centred = flat - flat.mean(-1, keepdim=True)
    z = centred / (centred.std(-1, correction=0, keepdim=True) + _TINY)
    return (z[:, 0] ** 3).mean(-1, keepdim=True), (z[:, 0] * z[:, 1]).mean(-1, keepdim=True)
