"""GenAR: network and losses, generation, its pieces, the order of genes."""

from __future__ import annotations

import re

import numpy as np
import torch
from tests.parity.fill import corner, fill_model, inputs_of

from napari_he2st.zoo.blocks.gene_order import gene_order, gene_rows
from napari_he2st.zoo.generation.genar import GenAR, gaussian_tokens


def run(case: dict) -> dict:
    x = inputs_of(case)
    if case["state"]:
        return _network(case, x)
    counts = x["expr"].numpy()
    return {"order": gene_order(counts), "z": gene_rows(counts)[:5]}


def build(config: dict, **departures) -> GenAR:
    """Our network of upstream's arguments."""
    given = {**config, **departures}
    continuous = str(given.get("prediction_mode", "discrete")) == "continuous"
    final = {"gaussian_nll": "gaussian_kl"}.get(
        given.get("final_loss_mode"), given.get("final_loss_mode", "gaussian_kl")
    )
    no_film = "nofilm" in str(given.get("class", "")).lower()
    return GenAR(
        given["num_genes"],
        feature_dim=given.get("histology_feature_dim", 1024),
        scale_dims=given["scale_dims"],
        vocabulary=given["vocab_size"],
        dim=given.get("embed_dim", 768),
        depth=given.get("num_layers", 12),
        heads=given.get("num_heads", 12),
        mlp_ratio=given.get("mlp_ratio", 4.0),
        condition_dim=given.get("condition_embed_dim", 768),
        gene_identity=given.get("use_gene_identity", not no_film),
        unit_attention=given.get("attn_l2_norm", True),
        shared_modulation=given.get("shared_aln", False),
        sigma=(given.get("adaptive_sigma_alpha", 0.1), given.get("adaptive_sigma_beta", 1.0)),
        final_loss=final,
        scale_weights=given.get("scale_loss_weights"),
        regression=given.get("continuous_loss", "mse") if continuous else None,
        plain_ablation=given.get("ablation_protocol", "normalized") == "published",
    ).eval()


def _network(case: dict, x: dict) -> dict:
    wanted = case["outputs"]
    identity = any(key.startswith("gene_identity_embedding") for key, *_ in case["state"])
    model = build({"use_gene_identity": identity, **case["config"]})
    fill_model(model, case)
    counts = x["target_genes"].float()
    spots = (x["histology_features"], x["spatial_coords"])
    outputs, taught = model(*spots, counts)
    losses = model.scale_losses(outputs, counts)
    weights = model.scale_weights
    condition = model.condition_processor(*spots)
    out = {
        "condition": corner(condition, wanted["condition"]) if "condition" in wanted else condition,
        "loss": sum(w * loss for w, loss in zip(weights, losses, strict=True)) / sum(weights),
        "loss_final": losses[-1],
        "losses": torch.stack(losses),
        "teacher_predictions": taught,
        "generated": model(*spots)[1],
        "logits_mean": torch.stack([o.mean() for o in outputs]),
        "logits_std": torch.stack([o.std() for o in outputs]),
    }
    out |= {
        f"logits_scale{i}": corner(o, wanted[f"logits_scale{i}"])
        for i, o in enumerate(outputs)
        if f"logits_scale{i}" in wanted
    }
    for name, like in wanted.items():
        if name not in out:
            out[name] = _part(name, like, model, case["config"], x, out, outputs)
    return out


def _part(name: str, like: np.ndarray, model: GenAR, config: dict, x: dict, out: dict, outputs: list) -> torch.Tensor:
    """A further output, told by its name."""
    counts = x["target_genes"].float()
    if re.search("ups", name):  # of the embeddings of one scale, as the targets of the next
        source = next(value for value in x.values() if value.ndim == 3)
        return model._places(model.scale_dims.index(source.shape[1]) + 1, source, len(source))
    if re.search("gauss", name) and like.ndim:
        return corner(gaussian_tokens(counts, model.vocabulary, *model.sigma), like)
    if re.search("loss", name):  # of another objective on the same network
        mode = "cross_entropy" if re.search("cross|ce", name) else "gaussian_kl"
        other = build({"use_gene_identity": hasattr(model, "film_layer"), **config}, final_loss_mode=mode)
        return other.scale_losses(outputs, counts)[-1]
    return out["generated" if re.search("gen|infer", name) else "teacher_predictions"]
