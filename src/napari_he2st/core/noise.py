"""Random numbers that depend on (seed, draw, row) and never on batching."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True)
class Noise:
    """The noise of one batch.

    Attributes
    ----------
    seed
        The user's seed.
    draw
        Which draw of the sample this is.
    rows
        Grid rows of the batch, intp, shape (n,).
    """

    seed: int
    draw: int
    rows: NDArray[np.intp]

    def _generator(self, row: int, tail: tuple[int, ...]) -> np.random.Generator:
        return np.random.default_rng((self.seed, self.draw, int(row), len(tail), *tail))

    def normal(self, *tail: int) -> NDArray[np.float32]:
        """Standard normal, float32, shape (rows, *tail)."""
        return np.stack([self._generator(r, tail).standard_normal(tail, dtype=np.float32) for r in self.rows])

    def uniform(self, *tail: int) -> NDArray[np.float32]:
        """Uniform in [0, 1), float32, shape (rows, *tail)."""
        return np.stack([self._generator(r, tail).random(tail, dtype=np.float32) for r in self.rows])
