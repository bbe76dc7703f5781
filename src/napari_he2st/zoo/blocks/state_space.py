"""Selective state spaces (Mamba, Gu and Dao 2023) in plain torch, one step after the other."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F


def selective_scan(x: Tensor, step: Tensor, A_log: Tensor, into: Tensor, out_of: Tensor, D: Tensor) -> Tensor:
    """h(t) = exp(step · A) · h(t − 1) + step · B(t) · x(t); y(t) = C(t) · h(t) + D · x(t), with A = −exp(A_log).

    Parameters
    ----------
    x, step
        (n, length, dim).
    A_log
        (dim, state).
    into, out_of
        B and C, (n, length, state).
    D
        (dim,).

    Returns
    -------
    Tensor
        (n, length, dim).
    """
    A = -A_log.exp()
    h, ys = x.new_zeros(len(x), *A.shape), []
    for t in range(x.shape[1]):
        driven = (step[:, t] * x[:, t])[..., None] * into[:, t, None]
        h = (step[:, t, :, None] * A).exp() * h + driven
        ys.append((h * out_of[:, t, None]).sum(2))
    return torch.stack(ys, dim=1) + D * x


class Mamba(nn.Module):
    """A Mamba layer, with the state-dict keys of mamba-ssm.

    Parameters
    ----------
    dim
        Width of a token.
    state, kernel, expand
        Size of the state, width of the convolution that looks back, and how much wider it is inside.
    """

    def __init__(self, dim: int, *, state: int = 16, kernel: int = 4, expand: int = 2) -> None:
        super().__init__()
        self.rank, self.state, inner = -(-dim // 16), state, expand * dim
        self.A_log = nn.Parameter(torch.arange(1, state + 1).float().log().repeat(inner, 1))
        self.D = nn.Parameter(torch.ones(inner))
        self.in_proj = nn.Linear(dim, 2 * inner, bias=False)
        self.conv1d = nn.Conv1d(inner, inner, kernel, groups=inner, padding=kernel - 1)
        self.x_proj = nn.Linear(inner, self.rank + 2 * state, bias=False)
        self.dt_proj = nn.Linear(self.rank, inner)
        self.out_proj = nn.Linear(inner, dim, bias=False)

    def forward(self, tokens: Tensor) -> Tensor:
        """Tokens (n, length, dim) of unchanged shape; each sees those before it."""
        x, z = self.in_proj(tokens).chunk(2, dim=-1)
        x = F.silu(self.conv1d(x.transpose(1, 2))[..., : x.shape[1]]).transpose(1, 2)
        low, into, out_of = self.x_proj(x).split([self.rank, self.state, self.state], dim=-1)
        y = selective_scan(x, F.softplus(self.dt_proj(low)), self.A_log, into, out_of, self.D)
        return self.out_proj(y * F.silu(z))
