"""Two linear layers with a normalisation between them."""

from __future__ import annotations

from typing import Literal

from torch import Tensor, nn
from torch.nn import functional as F

Activation = Literal["swiglu", "gelu", "silu", "relu"]

_PLAIN = {"gelu": F.gelu, "silu": F.silu, "relu": F.relu}


class NormedMlp(nn.Module):
    """``fc1``, activation, ``norm``, ``fc2``.

    Parameters
    ----------
    n_in, hidden, n_out
        Widths. ``"swiglu"`` halves the hidden one: SiLU of its first half times the second.
    activation, dropout
        Dropout follows the activation and ``fc2``.
    """

    def __init__(
        self, n_in: int, hidden: int, n_out: int, *, activation: Activation = "gelu", dropout: float = 0.0
    ) -> None:
        super().__init__()
        self.activation = activation
        self.fc1 = nn.Linear(n_in, hidden)
        kept = hidden // 2 if activation == "swiglu" else hidden
        self.norm = nn.LayerNorm(kept)
        self.fc2 = nn.Linear(kept, n_out)
        self.dropout = nn.Dropout(dropout)

    def forward(self, x: Tensor) -> Tensor:
        """(…, n_in) to (…, n_out)."""
        x = self.fc1(x)
        if self.activation == "swiglu":
            gate, value = x.chunk(2, dim=-1)
            x = F.silu(gate) * value
        else:
            x = _PLAIN[self.activation](x)
        return self.dropout(self.fc2(self.norm(self.dropout(x))))
