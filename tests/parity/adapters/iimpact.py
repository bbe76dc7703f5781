"""iIMPACT: neighbours, nuclei, sampler, refinement, genes of a domain."""

from __future__ import annotations

import re

import numpy as np
from tests.parity.fill import inputs_of

from napari_he2st.zoo.domains import iimpact


def _near(limit: float):
    def compare(ours: np.ndarray, theirs: np.ndarray) -> str | None:
        worst = np.abs(np.asarray(ours, float) - theirs).max()
        return None if worst <= limit else f"differs by {worst:.2e}"

    return compare


def _mostly(ours: np.ndarray, theirs: np.ndarray) -> str | None:
    same = (ours == theirs).mean()
    return None if same >= 0.95 else f"{same:.0%} agree"


# The sampler draws other random numbers than R; its results agree in distribution.
COMPARE = {"prop": _near(0.03), "Zprob": _near(0.05), "zone": _mostly, "svg": _near(1e-4)}


def run(case: dict) -> dict:
    config, x = case["config"], {name: value.numpy() for name, value in inputs_of(case).items()}
    near = {6: iimpact.neighbours(x["loc"], hexagonal=True), 4: iimpact.neighbours(x["sq"], hexagonal=False)}
    counts, names = iimpact.abundance(x["cell_loc"], x["cell_type"], x["loc"], hexagonal=True)
    chain = iimpact.sample(
        x["Vx"],
        x["Y"],
        near[6],
        config["n_cluster"],
        1,
        weight=config["w"],
        burn_in=config["burn_in"],
        steps=range(config["iterations"]),
        order_by=config["label_switch_refer"] - 1,
    )
    labels = x["lab"] - 1
    share = float(re.search(r"filter\.count\(cnt, ([\d.]+)\)", case["call"])[1])
    factors = {how: iimpact.size_factors(x["cnt"], how) for how in ("tss", "q75", "rle")}
    out = {
        "G6": near[6] + 1,
        "G4": near[4] + 1,
        "V": counts,
        "V_names": names,
        "Vsq": iimpact.abundance(x["cell_loc"], x["cell_type"], x["sq"], hexagonal=False)[0],
        "domain": chain.labels + 1,
        "prop": chain.proportions,
        "zone": chain.interactive().astype(float),
        "Zprob": chain.share,
        "ref1": iimpact.refined(near[6], labels, 1) + 1,
        "ref3": iimpact.refined(near[6], labels, 3) + 1,
        "filt": iimpact.expressed(x["cnt"], share) + 1,
        "svg": iimpact.domain_genes(x["cnt"], chain.labels == 0, factors["tss"]),
    }
    return out | {f"sf_{how}": found for how, found in factors.items()}
