"""Spots in a plane by what they are like, not by where they are: UMAP, without the compiler that its package starts."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from napari_he2st.analysis.graphs import nearest
from napari_he2st.core.errors import He2stError

if TYPE_CHECKING:
    from scipy.sparse import csr_array

    from napari_he2st.core.progress import Progress

_NEIGHBOURS = 14
_A, _B = 1.5769, 0.8951  # the curve 1 / (1 + a d^2b) for a least distance of 0.1
_REPELLED = 5  # random others that each attracted point is pushed away from


def umap_layout(points: NDArray, *, seed: int = 0, control: Progress | None = None) -> NDArray[np.float32]:
    """Lay out points of many dimensions in two, those that are alike near one another (McInnes et al. 2018).

    Parameters
    ----------
    points
        (n, d), such as :attr:`Domains.embedding <napari_he2st.core.types.Domains.embedding>`; rows with a value that is
        not finite are left out.
    seed
        Start of the random numbers.
    control
        Told of each round; may cancel.

    Returns
    -------
    array
        float32, (n, 2); NaN where a row was left out.

    Raises
    ------
    He2stError
        There are fewer than four points.
    """
    kept = np.isfinite(points).all(axis=1)
    n = int(kept.sum())
    if n < 4:
        raise He2stError(f"{n} spots are too few to lay out", todo="Choose a larger section")
    found = np.full((len(points), 2), np.nan, dtype=np.float32)
    found[kept] = _optimise(np.asarray(points[kept], dtype=np.float64), np.random.default_rng(seed), control)
    return found


def alikeness(points: NDArray[np.float64], k: int = _NEIGHBOURS) -> csr_array:
    """Symmetric graph whose weights, in 0 … 1, say how sure it is that two points are neighbours."""
    from scipy.sparse import csr_array

    near = nearest(points, k)
    # Column by column: all differences at once would fill the memory.
    distance = np.stack([np.linalg.norm(points - points[column], axis=1) for column in near.T], axis=1)
    beyond = np.maximum(distance - distance[:, :1], 0)
    low, high = np.zeros(len(points)), np.full(len(points), np.inf)
    width = np.full(len(points), 1.0)
    wanted = np.log2(near.shape[1] + 1)
    for _ in range(64):
        enough = np.exp(-beyond / width[:, None]).sum(axis=1) > wanted
        low, high = np.where(enough, low, width), np.where(enough, width, high)
        width = np.where(np.isinf(high), 2 * width, (low + high) / 2)
    width = np.maximum(width, 1e-3 * max(float(distance.mean()), 1e-12))
    weight = np.exp(-beyond / width[:, None])
    starts = np.arange(0, near.size + 1, near.shape[1])
    one = csr_array((weight.ravel(), near.ravel(), starts), shape=(len(points),) * 2)
    return csr_array(one + one.T - one.multiply(one.T))


def _optimise(points: NDArray[np.float64], rng: np.random.Generator, control: Progress | None) -> NDArray[np.float64]:
    """Pull alike points together, push random ones apart."""
    n, rounds = len(points), 300 if len(points) <= 10_000 else 200
    edges = alikeness(points).tocoo()
    share = edges.data / edges.data.max()  # how often, of all rounds, an edge has its turn
    heads, tails = (side[share * rounds >= 1] for side in edges.coords)
    share = share[share * rounds >= 1]
    place = _start(points) + rng.normal(0, 1e-4, (n, 2))
    if control is not None:
        control.start(rounds, "Laying out spots")
    for number in range(rounds):
        turn = np.flatnonzero(np.floor((number + 1) * share) > np.floor(number * share))
        head, tail = heads[turn], tails[turn]
        gap = place[head] - place[tail]
        square = np.maximum((gap**2).sum(axis=1), 1e-12)
        pull = -2 * _A * _B * square ** (_B - 1) / (1 + _A * square**_B)
        step = np.clip(pull[:, None] * gap, -4, 4)
        moves = _summed(head, step, n) - _summed(tail, step, n)
        head = np.repeat(head, _REPELLED)
        gap = place[head] - place[rng.integers(n, size=len(head))]
        square = (gap**2).sum(axis=1)
        push = 2 * _B / ((1e-3 + square) * (1 + _A * square**_B))
        moves += _summed(head, np.clip(push[:, None] * gap, -4, 4), n)
        place = place + (1 - number / rounds) * moves
        if control is not None:
            control.advance()
    return place


def _start(points: NDArray[np.float64]) -> NDArray[np.float64]:
    """The two main directions, within ±10."""
    centred = points - points.mean(axis=0)
    axes = np.linalg.eigh(centred.T @ centred)[1][:, ::-1][:, :2]
    place = np.zeros((len(points), 2))
    place[:, : axes.shape[1]] = centred @ axes
    return place * (10 / max(float(np.abs(place).max()), 1e-12))


def _summed(rows: NDArray[np.intp], values: NDArray[np.float64], n: int) -> NDArray[np.float64]:
    return np.stack([np.bincount(rows, values[:, axis], minlength=n) for axis in (0, 1)], axis=1)
