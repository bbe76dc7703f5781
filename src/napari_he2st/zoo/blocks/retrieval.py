"""Predictors that embed images and measured spots in one space and answer with the spots that are nearest."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, ClassVar, NamedTuple

import numpy as np
import torch
from torch import Tensor

from napari_he2st.core.errors import ModelError
from napari_he2st.core.noise import Noise
from napari_he2st.zoo.base import Batches, Expression, Predictor, Spots, Unit
from napari_he2st.zoo.blocks.search import Metric, Search, weighted_mean
from napari_he2st.zoo.recipe import Recipe

Bank = dict[str, np.ndarray]
"""One row per reference spot: float32 ``expression`` in training units and ``embedding``, int64 ``slide`` and
``row`` in that section, and what a system keeps beside it."""


class Found(NamedTuple):
    """What a query found in the reference, the most similar first.

    Attributes
    ----------
    query
        Embedding of each image, float32 (n, dim).
    similarity
        Float32 (n, k), in the system's own measure.
    rows
        Of the reference, int64 (n, k).
    keys, expression
        Of these rows, float32 (n, k, dim) and (n, k, genes).
    """

    query: Tensor
    similarity: Tensor
    rows: Tensor
    keys: Tensor
    expression: Tensor

    def distance(self, norm: float = 2) -> Tensor:
        """Distance of each row from the query, of embeddings as they are, (n, k)."""
        return torch.linalg.vector_norm(self.keys - self.query[:, None], ord=norm, dim=-1)


def find(query: Tensor, search: Search, expression: Tensor, k: int) -> Found:
    """The ``k`` spots that are most similar to each query (n, dim), among those whose ``expression`` is given."""
    similarity, rows = search.top(query, k)
    return Found(query, similarity, rows, search.keys[rows], expression[rows])


class Retrieval(Predictor):
    """Looks up the image of a spot among the training spots.

    A subclass defines :meth:`embed_images` and :meth:`embed_spots`, its ``loss``, and where the plain mean of
    what is found is not the rule, :meth:`weigh`.

    Attributes
    ----------
    metric
        What is similar.
    n_neighbours
        Number of spots that a prediction is made of.
    kept
        Prepared tensors that embedding a spot needs besides its expression.
    together
        Number of reference spots that are embedded at once.

    Notes
    -----
    ``extras["reference"]`` is the :data:`Bank` of training spots.
    """

    unit: Unit = Spots()
    targets = {"expression": Expression("log1p_cp10k", panel="hvg:1000")}
    metric: ClassVar[Metric] = "cosine"
    n_neighbours: int = 50
    kept: ClassVar[tuple[str, ...]] = ()
    together: ClassVar[int] = 1024

    def embed_images(self, **prepared: Any) -> Tensor:
        """Embeddings of the spots' images, float32 (n, dim)."""
        raise NotImplementedError

    def embed_spots(self, expression: Tensor, **kept: Tensor) -> Tensor:
        """Embeddings of measured spots, float32 (n, dim), from expression in training units (n, genes)."""
        raise NotImplementedError

    def weigh(self, found: Found) -> Tensor | None:
        """Weight (n, k) of each spot found; None weighs all alike."""
        return None

    def retrieve(self, *, n_neighbours: int | None = None, **prepared: Any) -> Found:
        """The reference spots that look most like each image."""
        query = self.embed_images(**prepared)
        return find(query, *self.reference_on(query.device), n_neighbours or self.n_neighbours)

    def predict(self, *, noise: Noise | None = None, n_neighbours: int | None = None, **prepared: Any) -> Tensor:
        """Expression in training units, float32 (n, genes).

        Parameters
        ----------
        n_neighbours
            Number of reference spots that a prediction is made of; by default the published one.
        """
        found = self.retrieve(n_neighbours=n_neighbours, **prepared)
        return weighted_mean(found.expression, self.weigh(found))

    def fit(self, batches: Batches, recipe: Recipe) -> Iterator[dict[str, float]]:
        """Train; the reference follows each epoch, so that a validation section can be predicted."""
        self.extras["reference"] = gather(batches, self.kept)
        for record in super().fit(batches, recipe):
            self.embed_reference()
            yield record

    def finish(self, batches: Batches) -> None:
        """Embed the reference with the final weights."""
        self.embed_reference()

    @torch.inference_mode()
    def embed_reference(self) -> None:
        """Embed every spot of the reference anew."""
        training, bank = self.training, self.extras["reference"]
        self.eval()
        device = next(self.parameters()).device
        names = ("expression", "slide", *self.kept)
        embedding = self.embed_bank({name: torch.from_numpy(bank[name]).to(device) for name in names})
        self.extras["reference"] = {**bank, "embedding": embedding.cpu().numpy()}
        self.train(training)

    def embed_bank(self, bank: Mapping[str, Tensor]) -> Tensor:
        """Embeddings of all reference spots, float32 (m, dim); they lie section by section in their order there."""
        known = {"expression": bank["expression"].nan_to_num(), **{name: bank[name] for name in self.kept}}
        pieces = [slice(i, i + self.together) for i in range(0, len(bank["expression"]), self.together)]
        return torch.cat(
            [self.embed_spots(**{name: value[piece] for name, value in known.items()}) for piece in pieces]
        )

    def reference_on(self, device: torch.device) -> tuple[Search, Tensor]:
        """The search among the reference, and its expression, on a device."""
        bank = self.extras.get("reference")
        if bank is None or "embedding" not in bank:
            name = type(self).__name__
            raise ModelError(f"{name} has no reference to look spots up in", todo="Train it on measured sections")
        known = getattr(self, "_searched", None)
        if known is None or known[0] is not bank or known[1] != device:
            keys, expression = (torch.from_numpy(bank[name]).to(device) for name in ("embedding", "expression"))
            known = self._searched = (bank, device, (Search(keys, self.metric), expression))
        return known[2]


def gather(batches: Batches, kept: tuple[str, ...] = ()) -> Bank:
    """All training spots of an epoch, section by section in the order of their rows; no embeddings yet.

    Parameters
    ----------
    kept
        Prepared tensors that are kept of each spot.
    """
    parts: dict[str, list[np.ndarray]] = {name: [] for name in ("expression", "slide", "row", *kept)}
    for targets, prepared in batches:
        for name, values in parts.items():
            values.append((prepared if name in kept else targets)[name].detach().cpu().numpy())
    bank = {name: np.concatenate(values) for name, values in parts.items()}
    order = np.lexsort((bank["row"], bank["slide"]))
    return {name: values[order] for name, values in bank.items()}
