"""Loki: CoCa's towers, tokeniser, gene sentences, what is read off them, point drift."""

from __future__ import annotations

import numpy as np
import pytest
from tests.parity.fill import fill_model, inputs_of

from napari_he2st.core.errors import WeightsError
from napari_he2st.zoo.blocks.bpe import clip_tokeniser
from napari_he2st.zoo.blocks.point_drift import drift, rigid_fit
from napari_he2st.zoo.blocks.search import similarity_mean
from napari_he2st.zoo.retrieval.loki import Loki, heat_of_text, percentile_scaled, sentence_genes, share_of_text

SYMBOLS = {3: "AC03.1", 7: "HLA-A", 11: "MT-CO1"}
HOUSEKEEPING = ("G1", "G20")


def run(case: dict) -> dict:
    x = inputs_of(case)
    if "texts" in case["config"]:
        try:
            clip_tokeniser()
        except WeightsError as error:
            pytest.skip(f"needs CLIP's vocabulary: {error}")
        return {"tokens": clip_tokeniser()(_texts(case), case["outputs"]["tokens"].shape[1])}
    if "expr" in x:
        return _sentence(case, x)
    if {"X", "Y"} <= x.keys():
        return _drift(case, x)
    return _functions(case, x) if "similarity" in x else _network(case, x)


def _texts(case: dict) -> list[str]:
    """The last one is written as ``"GENE0 ... GENE59 joined by spaces"``."""
    texts = []
    for text in case["config"]["texts"]:
        first, between, rest = text.partition(" ... ")
        last = int(rest.split()[0].removeprefix("GENE")) if between else 0
        texts.append(" ".join(f"GENE{i}" for i in range(last + 1)) if between else first)
    return texts


def _network(case: dict, x: dict) -> dict:
    config = case["config"]
    image, text, decoder = (config[f"{part}_cfg"] for part in ("vision", "text", "multimodal"))
    model = Loki(
        1,
        dim=config["embed_dim"],
        text_depth=text["layers"],
        text_heads=text["heads"],
        image_dim=image["width"],
        image_depth=image["layers"],
        image_heads=image["width"] // image.get("head_width", 64),
        patch_px=image["patch_size"],
        pool_heads=image["attn_pooler_heads"],
        decoder_heads=decoder["heads"],
        n_tokens=text["vocab_size"],
        tile_px=image["image_size"],
    ).eval()
    fill_model(model, case)
    images, texts = model.visual(x["image"])[0], model.text(x["text"])[0]
    embedded = model.embed_images(images=x["image"]), model.embed_texts(x["text"])
    return {
        "image_features": images,
        "text_features": texts,
        "image_embeddings": embedded[0],
        "text_embeddings": embedded[1],
        "similarity": embedded[0] @ embedded[1].T,
    }


def _sentence(case: dict, x: dict) -> dict:
    genes = [SYMBOLS.get(i, f"G{i}") for i in range(x["expr"].shape[1])]
    n = case["outputs"]["percentile"].shape[1]
    return {
        "sentence_ids": sentence_genes(x["expr"], genes, HOUSEKEEPING),
        "percentile": percentile_scaled(x["expr"][:, :n].double()),
    }


def _functions(case: dict, x: dict) -> dict:
    images, bulk = x["img_features"], x["bulk"]
    source, target = (x[name].numpy().astype(np.float64) for name in ("src", "dst"))
    matrix = rigid_fit(source, target)
    return {
        "predex": similarity_mean(x["similarity"], x["train"]),
        "bulk_tensor": share_of_text(images, bulk),
        "bulk_tensor_T01": share_of_text(images, bulk, temperature=0.1, scaled=False),
        "bulk_numpy": heat_of_text(images, bulk),
        "homography": matrix,
        "homography_applied": source @ matrix[:2, :2].T + matrix[:2, 2],
    }


def _drift(case: dict, x: dict) -> dict:
    """Outputs with ``low`` in their name use the leading eigenvectors of the kernel; ``sigma2`` is the variance."""
    config = case["config"]
    options = {name: config[name] for name in ("alpha", "beta", "tolerance", "max_iterations") if name in config}
    target, source = (x[name].numpy().astype(np.float64) for name in ("X", "Y"))
    out = {}
    for name in case["outputs"]:
        rank = config.get("num_eig", 100) if "low" in name else None
        moved, variance = drift(target, source, outliers=config.get("w", 0.0), rank=rank, **options)
        out[name] = variance if "sigma" in name else moved
    return out
