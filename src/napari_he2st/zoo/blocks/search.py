"""Exact search for the most similar rows of a bank, and the rules that make one prediction of what is found."""

from __future__ import annotations

from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from napari_he2st.core.errors import MissingExtraError

Metric = Literal["cosine", "dot", "euclidean"]

EXACT = 1_000_000
"""Rows up to which a bank is searched here; FAISS searches larger ones."""

_BLOCK = 2**22  # similarities held at once: 16 MB


class Search:
    """The rows of a bank, ready to be compared with.

    Parameters
    ----------
    keys
        Embeddings (m, dim).
    metric
        What similar means: the largest cosine or dot product, or the smallest Euclidean distance.

    Raises
    ------
    MissingExtraError
        The bank is larger than :data:`EXACT`, and FAISS is not installed.
    """

    def __init__(self, keys: Tensor, metric: Metric = "cosine") -> None:
        self.keys, self.metric = keys, metric
        self._compared = self._comparable(keys)
        self._faiss = _faiss_index(self._compared, metric) if len(keys) > EXACT else None

    def _comparable(self, x: Tensor) -> Tensor:
        return F.normalize(x, dim=-1) if self.metric == "cosine" else x

    def top(self, query: Tensor, k: int) -> tuple[Tensor, Tensor]:
        """The ``k`` most similar rows of each query, or all where there are fewer.

        Returns
        -------
        similarity
            Float32 (n, k), the highest first; the negative distance where that is the metric.
        rows
            Int64 (n, k).
        """
        query, k = self._comparable(query), min(k, len(self.keys))
        if self._faiss is not None:
            return self._top_of_faiss(self._faiss, query, k)
        parts = [self._top_of_all(part, k) for part in query.split(max(1, _BLOCK // max(len(self.keys), 1)))]
        similarity, rows = (torch.cat(part) for part in zip(*parts, strict=True))
        return similarity, rows

    def _top_of_all(self, query: Tensor, k: int) -> tuple[Tensor, Tensor]:
        step = max(k, _BLOCK // max(len(query), 1))
        best = query.new_empty(len(query), 0)
        rows = torch.empty(best.shape, dtype=torch.int64, device=query.device)
        for start in range(0, len(self.keys), step):
            similarity = self._similarity(query, self._compared[start : start + step])
            here = torch.arange(start, start + similarity.shape[1], device=query.device).expand_as(similarity)
            similarity, here = torch.cat([best, similarity], 1), torch.cat([rows, here], 1)
            best, place = similarity.topk(min(k, similarity.shape[1]), dim=1)
            rows = here.gather(1, place)
        return best, rows

    def _similarity(self, query: Tensor, keys: Tensor) -> Tensor:
        return -torch.cdist(query, keys) if self.metric == "euclidean" else query @ keys.T

    def _top_of_faiss(self, index: Any, query: Tensor, k: int) -> tuple[Tensor, Tensor]:
        value, rows = index.search(query.detach().cpu().numpy(), k)
        similarity = -np.sqrt(np.maximum(value, 0)) if self.metric == "euclidean" else value
        return torch.from_numpy(similarity).to(query), torch.from_numpy(rows).to(query.device)


def _faiss_index(keys: Tensor, metric: Metric) -> Any:
    try:
        import faiss
    except ImportError as error:
        todo = "Run pip install 'napari-he2st[search]'"
        raise MissingExtraError(f"A bank of {len(keys):,} spots needs FAISS", todo=todo) from error
    dim = keys.shape[1]
    index = faiss.IndexFlatL2(dim) if metric == "euclidean" else faiss.IndexFlatIP(dim)
    index.add(keys.detach().cpu().numpy())
    return index


def weighted_mean(values: Tensor, weights: Tensor | None = None) -> Tensor:
    """Mean over what was found, float32 (n, genes), gene by gene over values that are a number.

    Parameters
    ----------
    values
        (n, k, genes).
    weights
        (n, k); all alike by default.
    """
    weights = torch.ones_like(values[..., 0]) if weights is None else weights
    known = values.isfinite()
    if bool(known.all()):
        return (weights[:, None] @ values)[:, 0] / weights.sum(1, keepdim=True)
    share = weights[..., None] * known
    return (share * values.nan_to_num()).sum(1) / share.sum(1)


def similarity_mean(similarity: Tensor, values: Tensor) -> Tensor:
    """Mean over all rows of ``values`` (m, genes), weighted by ``similarity`` (n, m), over those that are a number."""
    known = values.isfinite()
    return similarity @ values.nan_to_num() / (similarity @ known.to(similarity))


def inverse_square(distance: Tensor) -> Tensor:
    """Weights 1 / distance², that sum to 1 over the last axis."""
    # Relative to the nearest, so that a distance of 0 takes all and nothing overflows.
    nearest = distance.amin(-1, keepdim=True)
    ratio = torch.where(distance > 0, nearest / distance.clamp(min=torch.finfo(distance.dtype).tiny), 1.0)
    return ratio.square() / ratio.square().sum(-1, keepdim=True)


def squared_exponential(distance: Tensor) -> Tensor:
    """Weights exp(−distance²), that sum to 1 over the last axis."""
    return (-distance.square()).softmax(-1)
