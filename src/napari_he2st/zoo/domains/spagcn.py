"""SpaGCN: one graph convolution over positions and colour, trained by deep embedded clustering (Hu et al. 2021)."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from napari_he2st.analysis.domains.grouping import group
from napari_he2st.analysis.domains.refine import outvoted
from napari_he2st.core.errors import ModelError
from napari_he2st.core.types import Domains
from napari_he2st.zoo.base import DomainMethod
from napari_he2st.zoo.blocks.expression import components, normalised
from napari_he2st.zoo.blocks.sparse import sharpened, sparse_tensor, student_t
from napari_he2st.zoo.inputs import Tiles
from napari_he2st.zoo.recipe import Recipe, make_optimizer

if TYPE_CHECKING:
    import pandas as pd
    from anndata import AnnData

_DENSE = 5000
_NEAREST = 64  # spots whose weight counts in a larger section: at the usual length the rest weighs nothing


class SpaGCN(DomainMethod):
    """Expression of spots that lie near one another and look alike is averaged; clusters form in what results.

    Parameters
    ----------
    n_components
        Principal components of the expression.
    histology_weight
        How much a difference in colour counts against distance (published as s).
    neighbour_share
        Weight of all other spots together, against that of the spot itself (published as p).
    field_px
        Width in pixels of the slide that colours are averaged over; odd.
    start
        How the first clusters are found.
    lr, epochs, tolerance
        Of the training; it ends once a smaller share of spots than ``tolerance`` changes its domain.
    refine
        Whether a spot takes the domain of most of its neighbours in the end.
    """

    optional = frozenset({"tiles"})
    last_loss: float = float("nan")
    epochs_done: int = 1

    def __init__(
        self,
        *,
        n_components: int = 50,
        histology_weight: float = 1.0,
        neighbour_share: float = 0.5,
        field_px: int = 49,
        start: Literal["leiden", "kmeans"] = "leiden",
        lr: float = 0.05,
        epochs: int = 200,
        tolerance: float = 5e-3,
        refine: bool = True,
    ) -> None:
        self.inputs = {"tiles": Tiles(px=field_px, mpp="native")}
        self.n_components, self.histology_weight, self.neighbour_share = n_components, histology_weight, neighbour_share
        self.start, self.tolerance, self.refine = start, tolerance, refine
        self.recipe = Recipe(lr=lr, epochs=epochs)

    def segment(self, adata: AnnData, *, n_domains: int | None, seed: int, tiles: Tensor | None = None) -> Domains:
        """Group the spots; without ``tiles`` by position and expression alone."""
        xy = np.asarray(adata.obsm["spatial"])
        colours = None if tiles is None else tiles.float().mean((2, 3)).double().cpu().numpy()
        graph, length = weights(places(xy, colours, self.histology_weight), self.neighbour_share)
        x = torch.from_numpy(components(normalised(adata.X, "median"), self.n_components, seed))
        network = Network(x.shape[1], x.shape[1])
        with torch.no_grad():
            first, found = group(network.gc(x, graph).numpy(), n_domains, seed, self.start)
        began = time.perf_counter()
        labels, _ = self.fit(network, x, graph, torch.from_numpy(first))
        report = {"epochs": self.epochs_done, "seconds_per_epoch": (time.perf_counter() - began) / self.epochs_done}
        report["seconds_per_epoch"] = round(report["seconds_per_epoch"], 4)
        if self.refine:
            labels = outvoted(labels, xy, 6 if adata.uns["he2st"]["lattice"] == "hexagonal" else 4)
        with torch.no_grad():
            embedding = network.gc(x, graph).numpy()
        return Domains(labels, {"length_um": round(length, 3), "loss": self.last_loss, **report, **found}, embedding)

    def fit(self, network: Network, x: Tensor, graph: Tensor, first: Tensor) -> tuple[NDArray[np.intp], Tensor]:
        """Train from first labels; labels and soft assignment that result.

        The centres are the first clusters' means and stay there: the published optimiser does not know of them.
        """
        with torch.no_grad():
            z = network.gc(x, graph)
            network.mu = nn.Parameter(torch.stack([z[first == k].mean(0) for k in range(int(first.max()) + 1)]))
        network.mu.requires_grad_(False)
        optimizer = make_optimizer(network, self.recipe)
        previous, p = first, torch.empty(0)
        for epoch in self.steps(self.recipe.epochs, "Training"):
            _, q = network(x, graph)
            if epoch % 3 == 0:
                p = sharpened(q).detach()
            loss = clustering_loss(p, q)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            labels = q.argmax(1)
            changed = float((labels != previous).float().mean())
            previous, self.last_loss, self.epochs_done = labels, float(loss.detach()), epoch + 1
            if epoch > 0 and (epoch - 1) % 3 == 0 and changed < self.tolerance:
                break
        with torch.no_grad():
            q = network(x, graph)[1]
        return q.argmax(1).numpy().astype(np.intp), q


class _Convolution(nn.Module):
    """Map, then weighted sum over the neighbours."""

    def __init__(self, n_in: int, n_out: int) -> None:
        super().__init__()
        limit = n_out**-0.5
        self.weight = nn.Parameter(torch.empty(n_in, n_out).uniform_(-limit, limit))
        self.bias = nn.Parameter(torch.empty(n_out).uniform_(-limit, limit))

    def forward(self, x: Tensor, graph: Tensor) -> Tensor:
        return graph @ (x @ self.weight) + self.bias


class Network(nn.Module):
    """The convolution, and the centres of the clusters."""

    def __init__(self, n_in: int, dim: int, n_clusters: int = 1, *, alpha: float = 0.2) -> None:
        super().__init__()
        self.alpha = alpha
        self.mu = nn.Parameter(torch.zeros(n_clusters, dim))
        self.gc = _Convolution(n_in, dim)

    def forward(self, x: Tensor, graph: Tensor) -> tuple[Tensor, Tensor]:
        """Embedding (n, dim), and soft assignment (n, clusters)."""
        z = self.gc(x, graph)
        return z, student_t(z, self.mu, self.alpha, 1e-8, power=self.alpha + 1)


def clustering_loss(p: Tensor, q: Tensor) -> Tensor:
    """Divergence of the soft assignment ``q`` from its target ``p``."""
    return (p * torch.log(p / (q + 1e-6))).sum(1).mean()


def colour_depth(colours: NDArray[np.float64]) -> NDArray[np.float64]:
    """One number for each spot's mean colour (n, 3): the mean over channels, weighted by their variance."""
    variance = colours.var(0)
    return np.asarray((colours * variance).sum(1) / max(variance.sum(), 1e-12))


def places(xy: NDArray, colours: NDArray[np.float64] | None, weight: float) -> NDArray[np.float32]:
    """Spots in the plane, or with their colour as the third coordinate: float32 (n, 2 or 3)."""
    xy = np.asarray(xy, dtype=np.float64)
    if colours is None:
        return xy.astype(np.float32)
    depth = colour_depth(colours)
    z = (depth - depth.mean()) / max(depth.std(), 1e-12) * xy.std(0).max() * weight
    return np.column_stack([xy, z]).astype(np.float32)


def distances(points: NDArray[np.float32]) -> NDArray[np.float32]:
    """All pairs' Euclidean distances, float32 (n, n)."""
    from scipy.spatial.distance import cdist

    return cdist(points.astype(np.float64), points.astype(np.float64)).astype(np.float32)


def share_at(distance: NDArray[np.float32], length: float) -> float:
    """Weight of all others together against the spot itself, at a length scale; mean over spots."""
    return float(np.exp(-(distance.astype(np.float64) ** 2) / (2 * length**2)).sum(1).mean()) - 1


def length_scale(
    distance: NDArray[np.float32], share: float, *, low: float = 0.01, high: float = 1000.0, tolerance: float = 0.01
) -> float:
    """The length at which :func:`share_at` is ``share``, by bisection.

    Raises
    ------
    ModelError
        There is none between ``low`` and ``high``.
    """
    ends = share_at(distance, low), share_at(distance, high)
    for length, reached in zip((low, high), ends, strict=True):
        if abs(reached - share) <= tolerance:
            return length
    if not ends[0] < share < ends[1]:
        raise ModelError(
            f"No length scale gives the neighbours a weight of {share}", todo="Choose another share of the neighbours"
        )
    for _ in range(100):
        length = (low + high) / 2
        reached = share_at(distance, length)
        if abs(reached - share) <= tolerance:
            break
        low, high = (length, high) if reached <= share else (low, length)
    return length


def weights(points: NDArray[np.float32], share: float) -> tuple[Tensor, float]:
    """Weight of each spot for each other, exp(−d²/2l²), and the length l; sparse above 5,000 spots."""
    if len(points) <= _DENSE:
        distance = distances(points)
        length = length_scale(distance, share)
        return torch.from_numpy(gaussian(distance, length)), length
    from scipy.sparse import csr_array
    from scipy.spatial import KDTree

    distance, near = KDTree(points).query(points, _NEAREST + 1)
    length = length_scale(distance.astype(np.float32), share)
    value = gaussian(distance.astype(np.float32), length)
    starts = np.arange(0, near.size + 1, near.shape[1])
    return sparse_tensor(csr_array((value.ravel(), near.ravel(), starts), shape=(len(points),) * 2)), length


def gaussian(distance: NDArray[np.float32], length: float) -> NDArray[np.float32]:
    """exp(−d²/2l²), float32."""
    result: NDArray[Any] = np.exp(-(distance.astype(np.float64) ** 2) / (2 * length**2))
    return result.astype(np.float32)


def domain_genes(
    adata: AnnData,
    labels: NDArray[np.intp],
    domain: int,
    *,
    around: tuple[float, float] = (10, 14),
    contact: float = 0.5,
    most_neighbours: int = 3,
    p_below: float = 0.05,
    detected_above: float = 0.8,
    ratio: float = 1.0,
    fold_above: float = 1.5,
) -> pd.DataFrame:
    """Spatially variable genes of a domain: those higher in it than in the domains around it.

    Parameters
    ----------
    adata
        Counts, and positions in ``obsm["spatial"]``.
    labels
        Domain of each spot; −1 belongs to none.
    domain
        The domain in question.
    around
        Mean number of spots, itself included, that the neighbourhood of a spot should hold.
    contact
        A domain is a neighbour if it is met more often than this share of its spots; where none is, the one met most.
    most_neighbours
        Only so many of those met most count.
    p_below, detected_above, ratio, fold_above
        What a gene has to reach: adjusted p of Wilcoxon's test, share of the domain's spots that have it, that share
        over the one in the neighbours (reaching it is enough, since predictions have every gene everywhere), and the
        exponential of the difference of mean log1p counts.

    Returns
    -------
    DataFrame
        ``gene``, ``score`` (Wilcoxon's z), ``fold_change``, ``detected``, ``detected_around``, ``p_adjusted``; the
        most certain first.

    Raises
    ------
    ModelError
        The domain has no spots, or no other domain near it.
    """
    import pandas as pd
    from scipy.stats import false_discovery_control, norm

    inside = labels == domain
    others = _met_by(np.asarray(adata.obsm["spatial"]), labels, domain, around, contact)[:most_neighbours]
    kept = inside | np.isin(labels, others)
    target = inside[kept]
    X = adata.X[kept]
    values = np.log1p(np.asarray(X.toarray() if hasattr(X, "toarray") else X, dtype=np.float64))
    score = rank_scores(values, target)
    here, there = values[target], values[~target]
    detected, detected_around = (here > 0).mean(0), (there > 0).mean(0)
    columns = {
        "score": score,
        "fold_change": np.exp(here.mean(0) - there.mean(0)),
        "detected": detected,
        "detected_around": detected_around,
        "p_adjusted": false_discovery_control(2 * norm.sf(np.abs(score))),
    }
    table = pd.DataFrame({"gene": np.asarray(adata.var_names, dtype=object), **columns})
    enough = (table["p_adjusted"] < p_below) & (detected > detected_above) & (table["fold_change"] > fold_above)
    enough &= detected >= ratio * detected_around
    return table[enough].sort_values("score", ascending=False, kind="stable").reset_index(drop=True)


def rank_scores(values: NDArray[np.float64], target: NDArray[np.bool_]) -> NDArray[np.float64]:
    """Wilcoxon's z of each gene in the target spots against the others, without correction for ties."""
    from scipy.stats import rankdata

    n, m = int(target.sum()), len(target)
    expected, spread = n * (m + 1) / 2, np.sqrt(n * (m - n) * (m + 1) / 12)
    step = max(1, 2**22 // max(m, 1))
    sums = [rankdata(values[:, i : i + step], axis=0)[target].sum(0) for i in range(0, values.shape[1], step)]
    return np.asarray((np.concatenate(sums) - expected) / spread)


def _met_by(
    xy: NDArray, labels: NDArray[np.intp], domain: int, around: tuple[float, float], contact: float
) -> list[int]:
    """Domains within the radius at which a spot has ``around`` many about it, those met most often first."""
    from scipy.spatial import KDTree

    own, tree = xy[labels == domain], KDTree(xy)
    if not len(own) or (labels[labels != domain] < 0).all():
        raise ModelError(f"Domain {domain} has no spots or no other domain beside it", todo="Choose another domain")
    low, high = 0.0, float(np.linalg.norm(np.ptp(xy, axis=0)))
    for _ in range(100):
        radius = (low + high) / 2
        mean = float(np.mean(tree.query_ball_point(own, radius, return_length=True)))
        if around[0] <= mean <= around[1]:
            break
        low, high = (radius, high) if mean < around[0] else (low, radius)
    met = labels[np.concatenate([np.asarray(rows, dtype=np.intp) for rows in tree.query_ball_point(own, radius)])]
    names, times = np.unique(met[(met >= 0) & (met != domain)], return_counts=True)
    if not len(names):
        raise ModelError(f"No other domain lies within {radius:.0f} µm", todo="Choose another domain")
    order = np.argsort(-times, kind="stable")
    sizes = np.array([(labels == name).sum() for name in names])
    near = [int(names[i]) for i in order if times[i] > contact * sizes[i]]
    return near or [int(names[order[0]])]
