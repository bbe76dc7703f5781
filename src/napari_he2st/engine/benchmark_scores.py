"""Every number of one fit on one section that it had not seen."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from napari_he2st.analysis.domains.kmeans import means
from napari_he2st.analysis.metrics import METRICS
from napari_he2st.analysis.metrics.table import per_gene, per_spot
from napari_he2st.analysis.paired import permuted_pcc
from napari_he2st.core.errors import TruthError
from napari_he2st.core.progress import Control
from napari_he2st.engine.device import choose_device
from napari_he2st.engine.scoring import predict_resolved
from napari_he2st.engine.trained import expression_of
from napari_he2st.engine.training_data import TrainingSection, expression_target, resolve

if TYPE_CHECKING:
    import pandas as pd

    from napari_he2st.data.truth import Section
    from napari_he2st.zoo.bundle import Bundle

N_PERMUTATIONS = 199
N_DOMAINS = 5
_COMPONENTS = 10


def score_section(
    bundle: Bundle, train: Sequence[Section], section: Section, device: str, control: Control
) -> pd.DataFrame:
    """Scores of a section that was left out, in the unit that the system predicts, unsmoothed.

    Genes that do not vary in the section have none.
    """
    import pandas as pd

    model, where = bundle.members[0], choose_device(device)
    spec = replace(expression_of(model), scale=bundle.manifest.scale, smooth=None)
    with ExitStack() as stack:
        *seen, opened = (TrainingSection.open(s) for s in (*train, section))
        for one in (*seen, opened):
            stack.callback(one.slide.original.close)
        resolved = resolve(model, opened, bundle.manifest.mpp, where, control)
        predicted = predict_resolved(bundle.members, resolved, len(opened.grid), where)
        *known, measured = (
            expression_target(s, bundle.genes, spec, model.extras["scale"]).numpy() for s in (*seen, opened)
        )
        grid = opened.grid
    mean = np.nanmean(np.concatenate(known), axis=0)
    table = per_gene(predicted, measured, bundle.genes, grid=grid)
    varies = table["rvd"].notna().to_numpy()
    if not varies.any():
        raise TruthError("No gene of the panel varies", where=section.name, todo="Check that its genes are named alike")
    table["mse_ratio"] = table["mse"] / np.nanmean((measured - mean) ** 2, axis=0)
    table = table[varies].rename(columns={"pcc": "pcc_gene"})
    metrics = ["pcc_gene", "spearman", "mse", "mse_ratio", "mae", "ssim", "rvd"]
    genes = table.melt("gene", metrics, "metric", "value")
    spots = per_spot(predicted, measured, [str(i) for i in range(len(grid))])
    whole = {
        "pcc_spot": float(spots["pcc"].mean()),
        "p_chance": permuted_pcc(predicted[:, varies], measured[:, varies], N_PERMUTATIONS)[1],
        **domain_agreement(predicted[:, varies], measured[:, varies]),
        "genes_flat": float((~varies).sum()),
    }
    rows = pd.DataFrame([{"gene": "", "metric": m, "value": v} for m, v in whole.items()])
    return pd.concat([genes, rows], ignore_index=True).assign(section=section.name)


def domain_agreement(predicted: NDArray[np.float32], measured: NDArray[np.float32]) -> dict[str, float]:
    """ARI and NMI of domains found in predicted and in measured expression, both by k-means on components.

    A prediction with fewer different spots than domains, such as a constant one, groups nothing: both are 0.

    Parameters
    ----------
    predicted, measured
        The same genes of the same spots, shape (spots, genes).
    """
    known = np.isfinite(predicted).all(axis=1) & np.isfinite(measured).all(axis=1)
    points = [_components(values[known]) for values in (predicted, measured)]
    if known.sum() < N_DOMAINS or any(len(np.unique(found, axis=0)) < N_DOMAINS for found in points):
        return {"ari": 0.0, "nmi": 0.0}
    groups = [means(found, N_DOMAINS, seed=0) for found in points]
    return {name: float(METRICS[name].function(*groups)) for name in ("ari", "nmi")}


def _components(values: NDArray[np.float32]) -> NDArray[np.float64]:
    """Spots in the principal components of their genes."""
    centred = values.astype(np.float64) - values.mean(axis=0, dtype=np.float64)
    left, spread, _ = np.linalg.svd(centred, full_matrices=False)
    kept = spread[:_COMPONENTS] > 1e-6 * max(float(spread[0]), 1e-12)
    components: NDArray[np.float64] = (left * spread)[:, :_COMPONENTS][:, kept]
    return components
