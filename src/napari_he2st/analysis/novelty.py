"""How unlike the training tiles a tile is, by its features."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from napari_he2st.core.errors import SchemaError

DISTANCE = "Distance to training"
"""Name of a map of distances to the training tiles."""

N_COMPONENTS = 32
_EDGE = 99.0
"""Percentile of the training tiles' own distances that counts as their edge."""


_FOLDS = 5


@dataclass(frozen=True, eq=False)
class FeatureSummary:
    """Where training tiles lie among all features: a Gaussian in their principal components, and how far they leave
    the plane of these (a Mahalanobis distance with the left-out directions taken together).

    Attributes
    ----------
    mean
        Of the features, float32, shape (dim,).
    components
        Principal directions, float32, shape (k, dim).
    scale
        Standard deviation along each, float32, shape (k,).
    rest
        Root mean square of what lies beside them.
    edge
        Distance below which 99 % of the training tiles lie, each measured by the others.
    n
        Training tiles.
    """

    mean: NDArray[np.float32]
    components: NDArray[np.float32]
    scale: NDArray[np.float32]
    rest: float
    edge: float
    n: int

    @classmethod
    def of(cls, features: NDArray[Any], n_components: int = N_COMPONENTS) -> FeatureSummary:
        """Summarise features, shape (tiles, dim).

        Raises
        ------
        SchemaError
            There are fewer than three tiles.
        """
        found = np.asarray(features, dtype=np.float64)
        if len(found) < 3:
            raise SchemaError(f"{len(found)} tiles are too few to summarise")
        fold = np.arange(len(found)) % min(_FOLDS, len(found))
        # A tile that took part in the summary is nearer to it than any other: each is measured by one without it.
        apart = [cls._fit(found[fold != k], n_components).distance(found[fold == k]) for k in range(fold.max() + 1)]
        edge = float(np.percentile(np.concatenate(apart), _EDGE))
        return replace(cls._fit(found, n_components), edge=max(edge, 1e-6))

    @classmethod
    def _fit(cls, features: NDArray[np.float64], n_components: int) -> FeatureSummary:
        mean = features.mean(axis=0)
        variances, directions = np.linalg.eigh(np.cov((features - mean).T))
        k = min(n_components, len(features) // 4 + 1, features.shape[1])
        chosen = np.argsort(variances)[::-1][:k]
        chosen = chosen[variances[chosen] > 1e-10 * max(variances.max(), 1e-300)]
        left = max(float(variances.sum() - variances[chosen].sum()), 0.0)
        return cls(
            mean.astype(np.float32),
            np.ascontiguousarray(directions[:, chosen].T, dtype=np.float32),
            np.sqrt(variances[chosen]).astype(np.float32),
            float(np.sqrt(left)),
            1.0,
            len(features),
        )

    def distance(self, features: NDArray[Any]) -> NDArray[np.float32]:
        """Distance of features (tiles, dim) to the training tiles, in units of their edge: above 1 is outside.

        NaN where features are not finite.
        """
        apart = np.asarray(features, dtype=np.float32) - self.mean
        along = apart @ self.components.T
        squares = ((along / self.scale) ** 2).sum(axis=1) / max(len(self.scale), 1)
        beside = np.maximum((apart**2).sum(axis=1) - (along**2).sum(axis=1), 0)
        if self.rest > 1e-6 * float(np.linalg.norm(self.scale)):
            squares = squares + beside / np.float32(self.rest) ** 2
        return np.asarray(np.sqrt(squares) / self.edge, dtype=np.float32)

    def as_dict(self) -> dict[str, Any]:
        """Its fields, ready to be stored."""
        return {name: getattr(self, name) for name in ("mean", "components", "scale", "rest", "edge", "n")}

    @classmethod
    def from_dict(cls, stored: Mapping[str, Any]) -> FeatureSummary:
        """What :meth:`as_dict` gave, possibly among other facts.

        Raises
        ------
        SchemaError
            A field is missing or its shape does not fit.
        """
        try:
            found = cls(**{name: stored[name] for name in ("mean", "components", "scale", "rest", "edge", "n")})
            fits = found.components.shape == (len(found.scale), len(found.mean))
        except (KeyError, TypeError, AttributeError) as error:
            raise SchemaError(f"The summary of the training tiles is incomplete ({error})") from error
        if not fits:
            raise SchemaError("The summary of the training tiles does not fit together")
        return found


def outside(distance: NDArray[np.float32]) -> float:
    """Share of the tiles whose distance is known that lie outside of the training tiles."""
    known = distance[np.isfinite(distance)]
    return float((known > 1).mean()) if len(known) else float("nan")
