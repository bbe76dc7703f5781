"""MV-Hybrid: a state-space and transformer backbone with ridge regression (MICCAI COMPAYL workshop 2025)."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from napari_he2st.core.noise import Noise
from napari_he2st.zoo.base import Batches, Expression, Predictor, Spots
from napari_he2st.zoo.blocks.pixels import standardise
from napari_he2st.zoo.blocks.state_space import selective_scan
from napari_he2st.zoo.blocks.vit import join_heads, split_heads
from napari_he2st.zoo.inputs import Tiles
from napari_he2st.zoo.recipe import Recipe

_EINFFT_BLOCKS, _SPARSITY = 4, 0.01


class MVHybrid(Predictor):
    """First half state-space layers that mix in the frequency domain, second half attention; ridge on top.

    Parameters
    ----------
    n_genes
        Size of the panel; None is the bare backbone, as published.
    dim, depth, heads, mlp_ratio, patch_px
        Of the backbone; ``dim`` is a multiple of 4.
    qkv_bias
        Of the attention layers.
    einfft
        Which layers mix channels in the frequency domain; the others have two linear layers.
    tile_px
        Width of the tile, a multiple of ``patch_px``.
    penalty
        Of the ridge regression, in units of the mean squared length of a centred feature vector.

    Notes
    -----
    The backbone is frozen: its weights come from self-supervised training on tiles, which is not part of
    this system. Where a training spot lacks a gene, the gene's mean stands in.
    """

    unit = Spots()
    targets = {"expression": Expression("log1p_cp10k", panel="hvg:200")}
    recipe = Recipe(epochs=1, batch_size=64)

    def __init__(
        self,
        n_genes: int | None = None,
        *,
        dim: int = 384,
        depth: int = 24,
        heads: int = 6,
        mlp_ratio: float = 4.0,
        patch_px: int = 16,
        qkv_bias: bool = True,
        einfft: Literal["mamba", "all", "none"] = "mamba",
        tile_px: int = 224,
        penalty: float = 1.0,
    ) -> None:
        super().__init__()
        self.inputs = {"tiles": Tiles(px=tile_px)}
        self.penalty = penalty
        self.cls_token = nn.Parameter(torch.randn(1, 1, dim) * 0.02)
        self.mask_token = nn.Parameter(torch.zeros(1, dim))
        self.patch_embed = nn.ModuleDict({"proj": nn.Conv2d(3, dim, patch_px, stride=patch_px)})
        layers = []
        for number in range(depth):
            mamba = number < depth // 2
            mixer = _MambaMixer(dim) if mamba else _Attention(dim, heads, qkv_bias)
            frequency = einfft == "all" or (einfft == "mamba" and mamba)
            layers.append(_Block(dim, mixer, EinFFT(dim) if frequency else _Mlp(dim, int(dim * mlp_ratio))))
        self.blocks = nn.ModuleDict({"blocks": nn.ModuleList(layers)})
        self.norm = nn.LayerNorm(dim)
        self.requires_grad_(False)
        if n_genes is not None:
            self.register_buffer("ridge_weight", torch.zeros(n_genes, 2 * dim))
            self.register_buffer("ridge_bias", torch.zeros(n_genes))

    def prepare(self, *, tiles: Tensor) -> dict[str, Tensor]:
        """Tiles standardised as ImageNet's."""
        return {"images": standardise(tiles)}

    def tokens(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """Class token (n, dim) and patch tokens (n, patches, dim); the class token sits amid the patches."""
        x = self.patch_embed["proj"](images).flatten(2).transpose(1, 2)
        middle = x.shape[1] // 2
        x = torch.cat([x[:, :middle], self.cls_token.expand(len(x), -1, -1), x[:, middle:]], dim=1)
        for block in self.blocks["blocks"]:
            x = block(x)
        x = self.norm(x)
        return x[:, middle], torch.cat([x[:, :middle], x[:, middle + 1 :]], dim=1)

    def forward(self, images: Tensor) -> Tensor:
        """Features: class token beside the mean patch token, float32 (n, 2 · dim)."""
        cls, patches = self.tokens(images)
        return torch.cat([cls, patches.mean(1)], dim=1)

    def predict(self, *, images: Tensor, noise: Noise | None = None) -> Tensor:
        """log1p CP10k, float32 (n, genes), by the ridge regression."""
        return self(images) @ self.ridge_weight.T + self.ridge_bias

    def fit(self, batches: Batches, recipe: Recipe) -> Iterator[dict[str, float]]:
        """Solve the ridge regression in one pass."""
        self.eval()
        parts = []
        with torch.no_grad():
            for targets, prepared in batches:
                parts.append((self(**prepared).double().cpu(), targets["expression"].double().cpu()))
        x, y = (torch.cat(part) for part in zip(*parts, strict=True))
        x_mean, y_mean = x.mean(0), y.nanmean(0).nan_to_num()
        x, y = x - x_mean, torch.where(y.isfinite(), y - y_mean, 0)
        gram = x.T @ x
        shift = self.penalty * gram.trace().clamp(min=1e-12) / len(x)
        weight = torch.linalg.solve(gram + shift * torch.eye(len(gram), dtype=gram.dtype), x.T @ y)
        self.ridge_weight.copy_(weight.T)
        self.ridge_bias.copy_(y_mean - x_mean @ weight)
        yield {"epoch": 0, "loss": float((y - x @ weight).square().mean())}


class _Block(nn.Module):
    """Mixing of tokens, then of channels, each added to its input."""

    def __init__(self, dim: int, mixer: nn.Module, channel_mixer: nn.Module) -> None:
        super().__init__()
        self.norm1, self.mixer = nn.LayerNorm(dim), mixer
        self.norm2, self.channel_mixer = nn.LayerNorm(dim), channel_mixer

    def forward(self, x: Tensor) -> Tensor:
        x = x + self.mixer(self.norm1(x))
        return x + self.channel_mixer(self.norm2(x))


class _MambaMixer(nn.Module):
    """Selective state space beside a plain convolution of the same tokens."""

    def __init__(self, dim: int, state: int = 16, kernel: int = 4) -> None:
        super().__init__()
        self.rank, self.state = -(-dim // 16), state
        self.A_log = nn.Parameter(torch.arange(1, state + 1).float().log().repeat(dim, 1))
        self.D = nn.Parameter(torch.ones(dim))
        self.in_proj = nn.Linear(dim, 2 * dim, bias=False)
        self.x_proj = nn.Linear(dim, self.rank + 2 * state, bias=False)
        self.dt_proj = nn.Linear(self.rank, dim)
        self.out_proj = nn.Linear(2 * dim, dim, bias=False)
        self.conv1d_x, self.conv1d_z = (nn.Conv1d(dim, dim, kernel, groups=dim, bias=False) for _ in range(2))

    def forward(self, tokens: Tensor) -> Tensor:
        kernel = self.conv1d_x.kernel_size[0]
        around = ((kernel - 1) // 2, kernel // 2)
        x, z = F.pad(self.in_proj(tokens).transpose(1, 2), around).chunk(2, dim=1)
        x, z = F.silu(self.conv1d_x(x)).transpose(1, 2), F.silu(self.conv1d_z(z)).transpose(1, 2)
        low, into, out_of = self.x_proj(x).split([self.rank, self.state, self.state], dim=2)
        # The published code adds the bias of dt_proj in the layer and again in the scan.
        step = F.softplus(self.dt_proj(low) + self.dt_proj.bias)
        y = selective_scan(x, step, self.A_log, into, out_of, self.D)
        return self.out_proj(torch.cat([y, z], dim=2))


class EinFFT(nn.Module):
    """Channel mixing in the frequency domain: two complex linear layers per block of channels."""

    def __init__(self, dim: int) -> None:
        super().__init__()
        width = dim // _EINFFT_BLOCKS
        for name, shape in (("weight", (width, width)), ("bias", (width,))):
            for layer in (1, 2):
                initial = 0.02 * torch.randn(2, _EINFFT_BLOCKS, *shape)
                self.register_parameter(f"complex_{name}_{layer}", nn.Parameter(initial))

    def forward(self, x: Tensor) -> Tensor:
        """Tokens (n, tokens, dim) of unchanged shape; the transform runs over tokens and blocks."""
        n, tokens, dim = x.shape
        waves = torch.fft.fft2(x.float().view(n, tokens, _EINFFT_BLOCKS, -1), dim=(1, 2), norm="ortho")
        re, im = self._layer(waves.real, waves.imag, self.complex_weight_1, self.complex_bias_1)
        re, im = self._layer(re.relu(), im.relu(), self.complex_weight_2, self.complex_bias_2)
        waves = torch.complex(F.softshrink(re, _SPARSITY), F.softshrink(im, _SPARSITY))
        return torch.fft.ifft2(waves, dim=(1, 2), norm="ortho").real.reshape(n, tokens, dim).to(x.dtype)

    @staticmethod
    def _layer(re: Tensor, im: Tensor, weight: Tensor, bias: Tensor) -> tuple[Tensor, Tensor]:
        def times(part: Tensor, k: int) -> Tensor:
            return torch.einsum("ntbc,bcd->ntbd", part, weight[k])

        return times(re, 0) - times(im, 1) + bias[0], times(re, 1) + times(im, 0) + bias[1]


class _Attention(nn.Module):
    def __init__(self, dim: int, heads: int, qkv_bias: bool) -> None:
        super().__init__()
        self.heads = heads
        self.qkv = nn.Linear(dim, 3 * dim, bias=qkv_bias)
        self.proj = nn.Linear(dim, dim)

    def forward(self, x: Tensor) -> Tensor:
        q, k, v = (split_heads(part, self.heads) for part in self.qkv(x).chunk(3, dim=-1))
        return self.proj(join_heads(F.scaled_dot_product_attention(q, k, v)))


class _Mlp(nn.Module):
    def __init__(self, dim: int, mlp_dim: int) -> None:
        super().__init__()
        self.fc1, self.fc2 = nn.Linear(dim, mlp_dim), nn.Linear(mlp_dim, dim)

    def forward(self, x: Tensor) -> Tensor:
        return self.fc2(F.gelu(self.fc1(x)))
