"""SEQUOIA: bulk expression of a slide from 100 groups of its tiles (Nature Communications 15, 2024)."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from itertools import pairwise
from typing import Any, Literal

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray
from torch import Tensor, nn
from torch.nn import functional as F

from napari_he2st.core.noise import Noise
from napari_he2st.zoo.base import Expression, Output, Predictor, Spots
from napari_he2st.zoo.blocks.bags import at_least, width_of
from napari_he2st.zoo.blocks.losses import nan_mse
from napari_he2st.zoo.blocks.vit import join_heads, split_heads
from napari_he2st.zoo.inputs import Bag
from napari_he2st.zoo.recipe import Recipe

N_GROUPS = 100
_WINDOW = 10
_ENOUGH = 50
_KS = (1, 2, 5, 10, 20, 50, 100)


class SEQUOIA(Predictor):
    """Expression of a slide, and a map of it from windows of ten by ten tiles.

    Parameters
    ----------
    n_genes
        Size of the panel.
    network
        ``"vis"``: linear attention by summary mixing; ``"vit"``: softmax attention; ``"he2rna"``: the mean of
        the best tiles, gene by gene.
    encoder, feature_dim
        Of the tiles, and the width of its features (by default the encoder's).
    depth, heads
        Of the transformer.
    mixing_dims
        Widths of a mixer's local, summary and joint part.
    dim_head, hidden_dim
        Of the softmax transformer.
    widths, ks, dropout
        Of HE2RNA: hidden layers, numbers of best tiles, share that is dropped.
    stride
        Step of the windows of the map, in tiles.
    faithful
        Map each window from its first tile alone, as published: its tiles are passed without a batch axis.
        By default all tiles of a window count.
    tile_px, tile_mpp, max_tiles
        Of the tiles: 256 px at 20×, 4,000 of a slide.
    """

    unit = Spots()
    targets = {"expression": Expression("log1p_cp10k", per="slide")}
    outputs = {"expression": Output(per="slide"), "attention": Output("expression", per="spot")}
    recipe = Recipe("adamw", lr=1e-3, epochs=200, batch_size=1)

    def __init__(
        self,
        n_genes: int,
        *,
        network: Literal["vis", "vit", "he2rna"] = "vis",
        encoder: str = "uni",
        feature_dim: int | None = None,
        depth: int = 6,
        heads: int = 16,
        mixing_dims: tuple[int, int, int] = (64, 64, 64),
        dim_head: int = 64,
        hidden_dim: int = 2048,
        widths: tuple[int, ...] = (256, 256),
        ks: tuple[int, ...] = _KS,
        dropout: float = 0.5,
        stride: int = 1,
        faithful: bool = False,
        tile_px: int = 256,
        tile_mpp: float | None = 0.5,
        max_tiles: int | None = 4000,
    ) -> None:
        super().__init__()
        self.inputs = {"bag": Bag(encoder=encoder, px=tile_px, mpp=tile_mpp, max_tiles=max_tiles)}
        self.n_genes, self.network, self.stride, self.faithful, self.ks = n_genes, network, stride, faithful, ks
        width = width_of(encoder, feature_dim)
        if network == "he2rna":
            sizes = (width, *widths, n_genes)
            for number, (before, after) in enumerate(pairwise(sizes)):
                self.add_module(f"conv{number}", nn.Conv1d(before, after, 1))
            self.n_layers, self.dropout = len(sizes) - 1, nn.Dropout(dropout)
            return
        self.pos_emb1D = nn.Parameter(torch.randn(N_GROUPS, width))
        self.transformer = nn.Module()
        self.transformer.layers = nn.ModuleList(
            nn.ModuleList(
                [_SummaryMixing(width, heads, mixing_dims), _FeedForward(width, width)]
                if network == "vis"
                else [_Attention(width, heads, dim_head), _FeedForward(width, hidden_dim)]
            )
            for _ in range(depth)
        )
        self.linear_head = nn.Sequential(nn.LayerNorm(width), nn.Linear(width, n_genes))

    def forward(self, x: Tensor, k: int | None = None) -> Tensor:
        """Expression (n, n_genes) of bags.

        Parameters
        ----------
        x
            Shape (n, 100, feature_dim); for HE2RNA (n, feature_dim, tiles), all zero where there is no tile.
        k
            For HE2RNA, the number of best tiles; None takes the mean over ``ks``, or in training one of them.
        """
        if self.network == "he2rna":
            return self._best_tiles(x, k)
        x = x + self.pos_emb1D
        for mix, feed_forward in self.transformer.layers:
            x = mix(x) + x
            x = feed_forward(x) + x
        return self.linear_head(x.mean(dim=-2))

    def _best_tiles(self, x: Tensor, k: int | None) -> Tensor:
        if k is None and not self.training:
            return torch.stack([self._best_tiles(x, k) for k in self.ks]).mean(dim=0)
        if k is None:
            k = self.ks[int(torch.randint(len(self.ks), ()))]
        mask = (x.amax(dim=1, keepdim=True) > 0).to(x.dtype)
        for number in range(self.n_layers):
            x = self.get_submodule(f"conv{number}")(x)
            if number + 1 < self.n_layers:
                x = self.dropout(x.relu())
        # As published, the mask is that of the first k tiles, not of the best.
        first = mask[..., :k]
        best = (x * mask).topk(min(k, x.shape[-1]), dim=2).values
        return (best * first).sum(dim=2) / first.sum(dim=2)

    def prepare(self, *, bag: tuple[Tensor, Tensor]) -> dict[str, Any]:
        """The slide's groups of tiles, beside its tiles for the map."""
        features, centres = bag
        return {"groups": group_means(features), "features": features, "centres": centres}

    def loss(self, targets: Mapping[str, Tensor], *, groups: Tensor, **_: Any) -> Tensor:
        """Mean squared error over the measured genes."""
        return nan_mse(self._of_slide(groups), targets["expression"].reshape(1, -1))

    def predict(
        self, *, noise: Noise | None = None, groups: Tensor, features: Tensor, centres: Tensor
    ) -> dict[str, Tensor]:
        """``expression`` of the slide, (1, n_genes), and ``attention``: that of its tiles, NaN where no window is."""
        places = lattice_of(centres)
        with_map = window_map(features, places, self._of_window, stride=self.stride)
        return {"expression": self._of_slide(groups), "attention": with_map}

    def _of_slide(self, groups: Tensor) -> Tensor:
        return self(groups.mT[None]).relu() if self.network == "he2rna" else self(groups[None])

    def _of_window(self, windows: Tensor) -> Tensor:
        if self.network == "he2rna":
            return self(windows.mT)
        if self.faithful:
            windows = windows[:, :1].expand(-1, N_GROUPS, -1)
        return self(windows)


class _SummaryMixing(nn.Module):
    """Each token beside a summary of all of them, in several mixers."""

    def __init__(self, width: int, heads: int, dims: tuple[int, int, int]) -> None:
        super().__init__()
        self.mixers = nn.ModuleList(_Mixer(width, *dims) for _ in range(heads))
        self.projection = nn.Linear(heads * dims[2], width)

    def forward(self, x: Tensor) -> Tensor:
        return self.projection(torch.cat([mixer(x) for mixer in self.mixers], dim=-1))


class _Mixer(nn.Module):
    def __init__(self, width: int, local: int, summary: int, joint: int) -> None:
        super().__init__()
        self.local_norm = nn.LayerNorm(local)
        self.summary_norm = nn.LayerNorm(summary)
        self.s = nn.Linear(width, summary)
        self.f = nn.Linear(width, local)
        self.c = nn.Linear(local + summary, joint)

    def forward(self, x: Tensor) -> Tensor:
        local = F.gelu(self.local_norm(self.f(x)))
        summary = F.gelu(self.summary_norm(self.s(x).mean(dim=-2, keepdim=True)))
        return F.gelu(self.c(torch.cat([local, summary.expand(*local.shape[:-1], -1)], dim=-1)))


class _Attention(nn.Module):
    def __init__(self, width: int, heads: int, dim_head: int) -> None:
        super().__init__()
        self.heads = heads
        self.norm = nn.LayerNorm(width)
        self.to_qkv = nn.Linear(width, 3 * heads * dim_head, bias=False)
        self.to_out = nn.Linear(heads * dim_head, width, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        q, k, v = (split_heads(part, self.heads) for part in self.to_qkv(self.norm(x)).chunk(3, dim=-1))
        return self.to_out(join_heads(F.scaled_dot_product_attention(q, k, v)))


class _FeedForward(nn.Module):
    def __init__(self, width: int, hidden: int) -> None:
        super().__init__()
        self.net = nn.Sequential(nn.LayerNorm(width), nn.Linear(width, hidden), nn.GELU(), nn.Linear(hidden, width))

    def forward(self, x: Tensor) -> Tensor:
        return self.net(x)


def group_means(features: Tensor, n: int = N_GROUPS) -> Tensor:
    """Mean features of the groups that k-means makes of a slide's tiles, in its order: (n, feature_dim).

    Where there are fewer tiles than groups, each is its own and zeros follow.
    """
    from sklearn.cluster import KMeans

    if len(features) <= n:
        return at_least(features, n)[0]
    found = KMeans(n, n_init="auto", random_state=0).fit(features.detach().cpu().numpy()).labels_
    label = torch.from_numpy(found.astype(np.int64)).to(features.device)
    total = features.new_zeros(n, features.shape[1]).index_add_(0, label, features)
    return total / label.bincount(minlength=n)[:, None]


def lattice_of(centres: Tensor) -> NDArray[np.intp]:
    """Column and row of each tile, of adjoining tiles whose centres (µm) are given: intp (tiles, 2)."""
    xy = centres.detach().cpu().numpy().astype(np.float64)
    steps = [np.diff(np.unique(np.round(xy[:, axis], 3))) for axis in (0, 1)]
    gaps = np.concatenate(steps)
    pitch = float(gaps[gaps > 1e-2].min()) if (gaps > 1e-2).any() else 1.0
    return np.rint((xy - xy.min(axis=0)) / pitch).astype(np.intp)


def window_map(
    features: Tensor, places: NDArray[np.intp], predict: Callable[[Tensor], Tensor], *, stride: int = 1, batch: int = 64
) -> Tensor:
    """Value of each tile: the mean over the windows of ten by ten tiles that hold it.

    Parameters
    ----------
    features
        Of the tiles, (tiles, feature_dim).
    places
        Column and row of each, (tiles, 2).
    predict
        Windows (n, 100, feature_dim), filled up with zeros, to values (n, values).
    stride
        Step of the windows.
    batch
        Windows at once.

    Returns
    -------
    Tensor
        (tiles, values); NaN where no window holds more than 50 tiles.
    """
    order = np.lexsort((places[:, 1], places[:, 0]))
    windows = []
    for left in range(0, int(places[:, 0].max()), stride):
        for top in range(0, int(places[:, 1].max()), stride):
            offset = places[order] - (left, top)
            inside = order[((offset >= 0) & (offset < _WINDOW)).all(axis=1)]
            if len(inside) > _ENOUGH:
                windows.append(torch.from_numpy(inside).to(features.device))
    total, times = None, features.new_zeros(len(features))
    for start in range(0, len(windows), batch):
        part = windows[start : start + batch]
        values = predict(torch.stack([at_least(features[rows], N_GROUPS)[0] for rows in part]))
        total = values.new_zeros(len(features), values.shape[1]) if total is None else total
        for rows, value in zip(part, values, strict=True):
            if stride >= _WINDOW:
                total[rows], times[rows] = value, 1
            else:
                total[rows] += value
                times[rows] += 1
    if total is None:
        return features.new_full((len(features), 0), torch.nan)
    return torch.where(times[:, None] > 0, total / times[:, None], torch.nan)


def mean_correlation(labels: ArrayLike, predicted: ArrayLike) -> float:
    """Mean over genes of Pearson's correlation over slides; genes that do not vary are left out."""
    y, p = np.asarray(labels, dtype=np.float64), np.asarray(predicted, dtype=np.float64)
    varies = (y.std(axis=0) > 0) & (p.std(axis=0) > 0)
    return float(np.mean([np.corrcoef(y[:, j], p[:, j])[0, 1] for j in np.flatnonzero(varies)]))


def smape(labels: ArrayLike, predicted: ArrayLike) -> float:
    """Symmetric percentage error; as published, the sum over all entries is divided by the number of slides."""
    y, p = np.asarray(labels, dtype=np.float64), np.asarray(predicted, dtype=np.float64)
    return float(100 / len(y) * (2 * np.abs(p - y) / (np.abs(y) + np.abs(p))).sum())
