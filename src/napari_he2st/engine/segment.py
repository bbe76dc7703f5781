"""Group a section's spots into tissue domains, and find the genes that mark each domain."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from napari_he2st.analysis.domains.embedding import by_size, check_request, embed
from napari_he2st.analysis.domains.layout import umap_layout
from napari_he2st.analysis.metrics.pairs import blocks
from napari_he2st.analysis.normalise import logged
from napari_he2st.analysis.spatial_genes import spatial_genes
from napari_he2st.core import keys
from napari_he2st.core.errors import He2stError, SchemaError
from napari_he2st.core.schema import check_expression, facts_of, grid_of
from napari_he2st.core.types import Domains
from napari_he2st.engine.methods import method as find_method

if TYPE_CHECKING:
    import pandas as pd
    from anndata import AnnData

    from napari_he2st.core.progress import Progress
    from napari_he2st.data.slides import Slide
    from napari_he2st.zoo.base import DomainMethod
    from napari_he2st.zoo.bundle import Bundle


def segment(
    adata: AnnData,
    method: str = "leiden",
    *,
    n_domains: int | None = None,
    seed: int = 0,
    on: str | Bundle = "expression",
    slide: Slide | None = None,
    cells: tuple[NDArray, NDArray] | None = None,
    variant: str = "default",
    device: str = "auto",
    progress: Progress | None = None,
    **options: Any,
) -> Domains:
    """Group the spots of predicted or measured expression into tissue domains.

    Parameters
    ----------
    adata
        Expression in our schema; it is not changed, see :func:`write_domains`.
    method
        Name of a generic or published domain method.
    n_domains
        How many domains, or None where the method finds the number itself.
    seed
        Start of the random numbers: the same seed gives the same domains.
    on
        What a generic method groups spots by: ``"expression"``; the name of an encoder, whose features of the tile
        around each spot are then taken; or a predictor that looks training spots up, whose embeddings are.
    slide
        The slide the section lies on, for encoders and for methods that see tiles.
    cells
        Positions (x, y) in level-0 pixels and kinds of single nuclei, for methods that know what to do with them.
    variant
        Named settings of a published method.
    device
        Where tiles are encoded.
    progress
        Told of the steps; a method can be stopped there.
    options
        The method's own options.

    Raises
    ------
    UnknownNameError
        There is no such method, variant or option.
    He2stError
        The spots cannot be grouped this way.
    """
    chosen = find_method("domains", method)
    if chosen.entry is None:
        if on != "expression":
            raise He2stError(f"{method} decides itself what it groups by", where=f"on={on}", todo="Use leiden")
        system: Any = chosen.build(options, variant)
        return _fitted(system, adata, method, n_domains, seed, options, slide, cells, device, progress)
    chosen.check(options)
    check_expression(adata)
    if on != "expression":
        if slide is None:
            raise He2stError("There is no slide to take tiles from", where=f"on={on}", todo="Open the section's slide")
        from napari_he2st.engine.fitted import by_looks

        adata = by_looks(adata, slide, on, device=device, progress=progress)
    domains: Domains = chosen.entry.function(adata, n_domains=n_domains, seed=seed, **options)
    return (
        domains
        if on == "expression"
        else replace(domains, params={**domains.params, "on": adata.uns[keys.UNS]["scale"]})
    )


def _fitted(
    system: DomainMethod,
    adata: AnnData,
    method: str,
    n_domains: int | None,
    seed: int,
    options: dict[str, Any],
    slide: Slide | None,
    cells: tuple[NDArray, NDArray] | None,
    device: str,
    progress: Progress | None,
) -> Domains:
    """Domains by a published method, numbered by falling size; −1 where a spot has no expression."""
    from napari_he2st.engine.fitted import prepare_section, supply

    section = prepare_section(adata)
    kept, n = section.kept, section.adata.n_obs
    check_request(n_domains, n)
    params = {"method": method, "seed": seed, **options, **section.report}
    if n_domains == 1:
        return Domains(np.where(kept, 0, -1).astype(np.intp), {**params, "n_domains": 1})
    system.progress = progress
    inputs = supply(system, adata, kept, slide=slide, device=device, cells=cells, progress=progress)
    seen = [name for name, value in inputs.items() if value is not None]
    found = run_system(system, section.adata, method, n_domains, seed, inputs)
    labels = np.full(adata.n_obs, -1, dtype=np.intp)
    labels[kept] = by_size(found.labels)
    embedding = None
    if found.embedding is not None:
        embedding = np.full((adata.n_obs, found.embedding.shape[1]), np.nan, dtype=np.float32)
        embedding[kept] = found.embedding
    if seen:
        params["inputs"] = "+".join(seen)
    return Domains(labels, {**params, **found.params, "n_domains": int(labels.max()) + 1}, embedding)


def run_system(
    system: DomainMethod, adata: AnnData, method: str, n_domains: int | None, seed: int, inputs: dict[str, Any]
) -> Domains:
    """What a published method finds in prepared spots, with torch's random numbers from the seed."""
    from napari_he2st.engine.fitted import seeded

    try:
        with seeded(seed):
            return system.segment(adata, n_domains=n_domains, seed=seed, **inputs)
    except np.linalg.LinAlgError as error:
        message = f"{method} cannot group these spots ({error})"
        raise He2stError(message, todo="Use fewer domains or another method") from error


def pace(domains: Domains) -> str:
    """How long training took, for a message; empty where nothing was trained."""
    epochs, seconds = (domains.params.get(name) for name in ("epochs", "seconds_per_epoch"))
    return "" if seconds is None else f", {epochs} epochs of {seconds:.2g} s"


def write_domains(adata: AnnData, domains: Domains) -> None:
    """Write domains into ``obs["domain"]``, and how they were found into the provenance."""
    import pandas as pd

    order = [*domains.titles, "none"] if (domains.labels < 0).any() else domains.titles
    adata.obs[keys.DOMAIN] = pd.Categorical(domains.names_of_spots(), categories=order)
    how = ", ".join(f"{name}={value}" for name, value in domains.params.items())
    adata.uns[keys.UNS] = {**facts_of(adata), "domains": how}


def read_domains(adata: AnnData) -> Domains:
    """The domains that :func:`write_domains` wrote.

    Raises
    ------
    SchemaError
        There are none.
    """
    import pandas as pd

    if keys.DOMAIN not in adata.obs:
        raise SchemaError("No domains are written there", where=f"obs[{keys.DOMAIN!r}]", todo="Run he2st domains first")
    given = pd.Categorical(adata.obs[keys.DOMAIN])
    names = [str(name) for name in given.categories if name != "none"]
    labels = pd.Categorical(given.astype(str), categories=names).codes
    return Domains(np.asarray(labels, dtype=np.intp), {}, names=tuple(names))


def pattern_table(adata: AnnData) -> pd.DataFrame:
    """Every gene with Moran's I and Geary's C, see :func:`~napari_he2st.analysis.spatial_genes.spatial_genes`."""
    check_expression(adata)
    return spatial_genes(logged(adata), grid_of(adata), [str(gene) for gene in adata.var_names])


def markers(adata: AnnData, domains: Domains, n: int = 10) -> pd.DataFrame:
    """Genes that are higher in a domain than in all others, by Welch's t-test.

    Parameters
    ----------
    adata
        The expression that was grouped.
    domains
        Its domains; spots that belong to none are left out.
    n
        Genes per domain.

    Returns
    -------
    DataFrame
        One row per domain and gene, best first: ``domain`` (its label), ``gene``, ``score`` (Welch's t),
        ``difference`` (mean inside minus mean outside, in units of the data), ``p_adjusted``
        (two-sided, Benjamini–Hochberg over the genes of a domain). Genes that are not known in every
        spot or do not vary are left out. P values treat spots as independent, which they are not.

    Raises
    ------
    SchemaError
        The domains belong to other data.
    """
    import pandas as pd

    if len(domains.labels) != adata.n_obs:
        raise SchemaError(f"There are {adata.n_obs} spots but labels for {len(domains.labels)}")
    score, difference, p_values = _welch(logged(adata), domains)
    genes = np.asarray(adata.var_names, dtype=object)
    tables = []
    for label in range(domains.n_domains):
        known = np.flatnonzero(np.isfinite(score[label]))
        best = known[np.argsort(-score[label, known], kind="stable")]
        adjusted = _benjamini_hochberg(p_values[label, best])
        columns = {"gene": genes[best], "score": score[label, best], "difference": difference[label, best]}
        table = pd.DataFrame({"domain": label, **columns, "p_adjusted": adjusted})
        tables.append(table[table["difference"] > 0].head(n))
    return pd.concat(tables, ignore_index=True) if tables else pd.DataFrame(columns=["domain", "gene"])


def neighbour_markers(adata: AnnData, domains: Domains, domain: int) -> pd.DataFrame:
    """Genes of one domain that are higher in it than in the domains around it, as SpaGCN finds them.

    See :func:`napari_he2st.zoo.domains.spagcn.domain_genes` for the columns and for what a gene has to reach.

    Raises
    ------
    He2stError
        There is no other domain beside it, or the data cannot be brought to counts.
    """
    from napari_he2st.engine.fitted import prepare_section
    from napari_he2st.zoo.domains.spagcn import domain_genes

    section = prepare_section(adata)
    return domain_genes(section.adata, domains.labels[section.kept], domain)


def profile(adata: AnnData, domains: Domains, genes: Sequence[str]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Mean of some genes in each domain, and the share of its spots above zero; both (domains, genes)."""
    X = logged(adata[:, list(genes)])
    values = np.asarray(X.toarray() if hasattr(X, "toarray") else X, dtype=np.float64)
    inside = np.equal.outer(np.arange(domains.n_domains), domains.labels).astype(np.float64)
    known = np.isfinite(values)
    n = np.maximum(inside @ known, 1)
    return inside @ np.where(known, values, 0) / n, inside @ (known & (values > 0)) / n


def alike(adata: AnnData, domains: Domains, *, seed: int = 0, control: Progress | None = None) -> NDArray[np.float32]:
    """Spots in a plane by what they are like (UMAP), float32 (spots, 2).

    Laid out by the embedding of the domains, or where their method has none by principal components of the expression.
    """
    points = domains.embedding
    if points is None:
        found = embed(adata, genes=1000, components=30, smooth=0)
        points = np.full((adata.n_obs, found.components.shape[1]), np.nan, dtype=np.float32)
        points[found.kept] = found.components
    return umap_layout(points, seed=seed, control=control)


def _welch(X: Any, domains: Domains) -> tuple[NDArray[np.float64], NDArray[np.float64], NDArray[np.float64]]:
    """Welch's t, difference of means and two-sided p of every domain against the rest, each (domains, genes)."""
    from scipy import stats

    inside = np.equal.outer(np.arange(domains.n_domains), domains.labels).astype(np.float64)
    kept = domains.labels >= 0
    sizes = inside.sum(axis=1)[:, None]
    parts = [(np.empty((domains.n_domains, 0)),) * 3]
    for block in blocks(X):
        block[~kept] = 0.0
        block -= block.sum(axis=0) / max(kept.sum(), 1)  # keeps the sums of squares below precise
        block[~kept] = 0.0
        sums, squares = inside @ block, inside @ (block * block)
        with np.errstate(invalid="ignore", divide="ignore"):
            means, others = sums / sizes, (sums.sum(axis=0) - sums) / (sizes.sum() - sizes)
            within = _variance(squares, means, sizes)
            outside = _variance(squares.sum(axis=0) - squares, others, sizes.sum() - sizes)
            a, b = within / sizes, outside / (sizes.sum() - sizes)
            t = (means - others) / np.sqrt(a + b)
            freedom = (a + b) ** 2 / (a**2 / (sizes - 1) + b**2 / (sizes.sum() - sizes - 1))
            parts.append((np.where(np.isfinite(t), t, np.nan), means - others, 2 * stats.t.sf(np.abs(t), freedom)))
    t, difference, p = (np.concatenate(part, axis=1) for part in zip(*parts, strict=True))
    return t, difference, p


def _variance(
    squares: NDArray[np.float64], means: NDArray[np.float64], sizes: NDArray[np.float64]
) -> NDArray[np.float64]:
    return np.maximum(squares - sizes * means**2, 0.0) / (sizes - 1)


def _benjamini_hochberg(p_values: NDArray[np.float64]) -> NDArray[np.float64]:
    from scipy.stats import false_discovery_control

    return np.asarray(false_discovery_control(p_values)) if len(p_values) else p_values
