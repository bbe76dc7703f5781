"""CoCa (Yu et al. 2022) as open_clip builds it: image tower, text tower, and a decoder that captions."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

_QUERIES = 256


class ResidualAttention(nn.Module):
    """Pre-norm attention and feed-forward part, each added to its input.

    Parameters
    ----------
    dim, heads
        Width of a token and number of heads.
    cross
        Tokens look at others, which are normalised by themselves, rather than at each other.
    """

    def __init__(self, dim: int, heads: int, *, cross: bool = False) -> None:
        super().__init__()
        self.ln_1 = nn.LayerNorm(dim)
        self.attn = nn.MultiheadAttention(dim, heads, batch_first=True)
        if cross:
            self.ln_1_kv = nn.LayerNorm(dim)
        self.ln_2 = nn.LayerNorm(dim)
        self.mlp = nn.ModuleDict({"c_fc": nn.Linear(dim, 4 * dim), "c_proj": nn.Linear(4 * dim, dim)})

    def forward(self, x: Tensor, *, hidden: Tensor | None = None, others: Tensor | None = None) -> Tensor:
        """Tokens (n, tokens, dim) of unchanged shape.

        Parameters
        ----------
        hidden
            True where a token (row) must not look at another.
        others
            What is looked at, (n, others, dim).
        """
        q = self.ln_1(x)
        k = q if others is None else self.ln_1_kv(others)
        x = x + self.attn(q, k, k, attn_mask=hidden, need_weights=False)[0]
        return x + self.mlp["c_proj"](F.gelu(self.mlp["c_fc"](self.ln_2(x))))


def _stack(dim: int, depth: int, heads: int, *, cross: bool = False) -> nn.ModuleList:
    return nn.ModuleList(ResidualAttention(dim, heads, cross=cross) for _ in range(depth))


def causal(n: int, device: torch.device) -> Tensor:
    """True where a token would look ahead, bool (n, n)."""
    return torch.ones(n, n, dtype=torch.bool, device=device).triu(1)


class TextTower(nn.Module):
    """Tokens and a learnt one behind them, whose state is the text's embedding.

    Parameters
    ----------
    n_tokens, length
        Size of the vocabulary, and tokens of a text.
    dim, depth, heads
        Of the transformer.
    """

    def __init__(self, n_tokens: int, length: int, dim: int, depth: int, heads: int) -> None:
        super().__init__()
        self.heads, self.length = heads, length
        self.cls_emb = nn.Parameter(torch.empty(dim).normal_(std=0.01))
        self.positional_embedding = nn.Parameter(torch.empty(length + 1, dim).normal_(std=0.01))
        self.text_projection = nn.Parameter(torch.empty(dim, dim).normal_(std=dim**-0.5))
        self.token_embedding = nn.Embedding(n_tokens, dim)
        nn.init.normal_(self.token_embedding.weight, std=0.02)
        self.transformer = nn.ModuleDict({"resblocks": _stack(dim, depth, heads)})
        self.ln_final = nn.LayerNorm(dim)

    def forward(self, text: Tensor) -> tuple[Tensor, Tensor]:
        """Embeddings (n, dim), not normalised, and states of the tokens (n, length, dim)."""
        own = self.cls_emb.expand(len(text), 1, -1)
        x = torch.cat([self.token_embedding(text), own], dim=1) + self.positional_embedding
        # As published, padding is hidden one place late: the first of it can be seen, and the learnt token sees
        # itself only behind a text that fills its whole length.
        padding = F.pad(text == 0, (1, 0))
        hidden = causal(x.shape[1], x.device) | padding[:, None]
        hidden = hidden.repeat_interleave(self.heads, dim=0)
        for block in self.transformer["resblocks"]:
            x = block(x, hidden=hidden)
        return self.ln_final(x[:, -1]) @ self.text_projection, x[:, :-1]


class ImageTower(nn.Module):
    """A vision transformer whose tokens 256 learnt queries pool: the first one is the image's embedding.

    Parameters
    ----------
    image_px, patch_px
        Width of the image and of its patches.
    dim, depth, heads
        Of the transformer.
    out_dim, pool_heads
        Of the embedding and of the pooling attention.
    """

    def __init__(
        self, image_px: int, patch_px: int, dim: int, depth: int, heads: int, out_dim: int, pool_heads: int
    ) -> None:
        super().__init__()
        self.class_embedding = nn.Parameter(dim**-0.5 * torch.randn(dim))
        self.positional_embedding = nn.Parameter(dim**-0.5 * torch.randn((image_px // patch_px) ** 2 + 1, dim))
        self.proj = nn.Parameter(out_dim**-0.5 * torch.randn(out_dim, out_dim))
        self.conv1 = nn.Conv2d(3, dim, patch_px, stride=patch_px, bias=False)
        self.ln_pre = nn.LayerNorm(dim)
        self.transformer = nn.ModuleDict({"resblocks": _stack(dim, depth, heads)})
        self.attn_pool = AttentionPool(dim, out_dim, pool_heads)
        self.ln_post = nn.LayerNorm(out_dim)

    def forward(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """Embeddings (n, out_dim), not normalised, and the tokens a caption is read off, (n, 255, out_dim)."""
        x = self.conv1(images).flatten(2).transpose(1, 2)
        x = torch.cat([self.class_embedding.expand(len(x), 1, -1), x], dim=1) + self.positional_embedding
        x = self.ln_pre(x)
        for block in self.transformer["resblocks"]:
            x = block(x)
        x = self.ln_post(self.attn_pool(x))
        return x[:, 0] @ self.proj, x[:, 1:]


class AttentionPool(nn.Module):
    """Learnt queries look at tokens."""

    def __init__(self, dim: int, out_dim: int, heads: int) -> None:
        super().__init__()
        self.query = nn.Parameter(torch.randn(_QUERIES, out_dim))
        self.attn = nn.MultiheadAttention(out_dim, heads, kdim=dim, vdim=dim, batch_first=True)
        self.ln_q, self.ln_k = nn.LayerNorm(out_dim), nn.LayerNorm(dim)

    def forward(self, x: Tensor) -> Tensor:
        """Float32 (n, 256, out_dim), from tokens (n, tokens, dim)."""
        k = self.ln_k(x)
        q = self.ln_q(self.query).expand(len(x), -1, -1)
        return self.attn(q, k, k, need_weights=False)[0]


class CaptionDecoder(nn.Module):
    """Text states look at the image, layer by layer, and say which token comes next."""

    def __init__(self, n_tokens: int, dim: int, depth: int, heads: int) -> None:
        super().__init__()
        self.text_projection = nn.Parameter(torch.empty(dim, n_tokens).normal_(std=dim**-0.5))
        self.resblocks = _stack(dim, depth, heads)
        self.cross_attn = _stack(dim, depth, heads, cross=True)
        self.ln_final = nn.LayerNorm(dim)

    def forward(self, image: Tensor, text: Tensor) -> Tensor:
        """Logits of the next token, (n, length, n_tokens), from tokens of image and text."""
        hidden = causal(text.shape[1], text.device)
        for block, cross in zip(self.resblocks, self.cross_attn, strict=True):
            text = cross(block(text, hidden=hidden), others=image)
        return self.ln_final(text) @ self.text_projection
