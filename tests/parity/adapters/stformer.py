"""stFormer: embedding of values, decoder, heads, loss."""

from __future__ import annotations

import re

import torch
from tests.parity.fill import fill_model, inputs_of

from napari_he2st.zoo.domains.stformer import MASK, PAD, Network, masked_loss, pooled


def _lengths(call: str, name: str) -> list[int]:
    return [int(n) for n in re.search(rf"{name} ([\d, ]+)", call)[1].strip(" ,").split(",")]


def run(case: dict) -> dict:
    config, x = case["config"], inputs_of(case)
    token = config["token_emb"]
    pad = config["vocabulary"] - 1
    model = Network(
        pad,
        dim=config["d_model"],
        heads=config["nhead"],
        mlp_dim=config["d_hid"],
        depth=config["nlayers"],
        n_bins=token["bin_num"],
        alpha=token["bin_alpha"],
        n_classes=config["n_cls"] if config["do_cls"] else None,
        n_gene_classes=config["n_gcl"] if config["do_gcl"] else None,
    ).eval()
    fill_model(model, case)

    def filled(name: str, lengths: list[int], value: float) -> torch.Tensor:
        past = torch.arange(x[name].shape[1]) >= torch.tensor(lengths)[:, None]
        return x[name].masked_fill(past, value)

    centre, niche = _lengths(case["call"], "centre"), _lengths(case["call"], "niche")
    truth = filled("center_values", centre, PAD)
    valid = truth != PAD
    hidden = (x["mask"] == 1) & valid
    values = truth.masked_fill(hidden, MASK)
    given = (filled("niche_genes", niche, pad), filled("niche_values", niche, PAD), filled("bias", niche, -torch.inf))
    found = model(filled("center_genes", centre, pad), values, *given)
    genes = found["genes"]
    out = {
        "mlm": found["expression"] * valid,
        "cell_emb": found["spot"],
        "gene_emb": genes * valid[..., None],
        "loss": masked_loss(found["expression"], x["center_values"], hidden),
        "cell_emb_avg": pooled(genes, valid, "mean"),
        "token_emb": model.scfoundation_token_emb2(values) * valid[..., None],
    }
    if config["do_cls"]:
        out["cls"] = found["classes"]
    if config["do_gcl"]:
        out["gcl"] = found["gene_classes"] * valid[..., None]
    return out
