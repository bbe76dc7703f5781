"""k-means on principal components."""

from __future__ import annotations

import warnings
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from napari_he2st.analysis.domains import domain_method
from napari_he2st.analysis.domains.embedding import check_request, domains_of, embed
from napari_he2st.core.errors import He2stError
from napari_he2st.core.types import Domains

if TYPE_CHECKING:
    from anndata import AnnData


@domain_method("kmeans", "k-means on principal components: exactly as many domains as asked for")
def kmeans(
    adata: AnnData,
    *,
    n_domains: int | None,
    seed: int,
    smooth: int = 0,
    components: int = 30,
    genes: int = 1000,
) -> Domains:
    """Group spots by k-means.

    Parameters
    ----------
    adata
        Expression in our schema.
    n_domains
        How many domains; has to be given.
    seed
        Start of the random numbers: the same seed gives the same domains.
    smooth
        Average over this many nearest spots first; 0 for none.
    components
        Principal components to use.
    genes
        Genes of highest variance to use.

    Raises
    ------
    He2stError
        The number of domains is missing or impossible.
    """
    if n_domains is None:
        raise He2stError("k-means needs the number of domains", todo="Say how many, or use leiden")
    embedding = embed(adata, genes=genes, components=components, smooth=smooth)
    check_request(n_domains, len(embedding))
    labels = means(embedding.components, n_domains, seed)
    params = {"method": "kmeans", "seed": seed, "smooth": smooth, "components": components, "genes": genes}
    return domains_of(labels, embedding, params)


def means(points: NDArray, n: int, seed: int, *, n_init: int = 4) -> NDArray[np.intp]:
    """k-means group of each point.

    Raises
    ------
    He2stError
        There are fewer different points than groups.
    """
    from sklearn.cluster import KMeans
    from sklearn.exceptions import ConvergenceWarning

    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)  # fewer distinct spots than domains: said below
        labels = KMeans(n, n_init=n_init, random_state=seed).fit_predict(points)
    n_found = len(np.unique(labels))
    if n_found < n:
        message = f"There are only {n_found} different expression profiles, not {n}"
        raise He2stError(message, todo="Ask for fewer domains")
    return np.asarray(labels, dtype=np.intp)
