"""Screen Them All: Agata and the perceiver."""

from __future__ import annotations

from tests.parity.fill import corner, fill_model, inputs_of

from napari_he2st.zoo.slide_level.screen_them_all import PerceiverResampler, ScreenThemAll


def run(case: dict) -> dict:
    x, config = inputs_of(case), case["config"]
    if "latent_seq" in config:
        return _perceiver(case, x, config)
    model = ScreenThemAll(
        config["label_names"],
        feature_dim=config["in_features"],
        dim=config["layer1_out_features"],
        hidden_dim=config["layer2_out_features"],
        n_queries=config["n_attention_queries"],
        scaled=config["scaled_attention"],
        absolute=config["absolute_attention"],
    ).eval()
    fill_model(model, case)
    padding = x["mask"] == config["padding_indicator"] if "mask" in x else None
    logits, slide, attention = model(x["x"], padding)
    out = {"embedding": slide, "attn": attention}
    for name, found in logits.items():
        out |= {f"logits_{name}": found, f"act_{name}": found.sigmoid()}
    return {name: corner(out[name], like) for name, like in case["outputs"].items()}


def _perceiver(case: dict, x: dict, config: dict) -> dict:
    model = PerceiverResampler(
        n_latents=config["latent_seq"],
        dim=config["latent_dim"],
        context_dim=config["context_dim"],
        heads=config["mhsa_heads"],
        depth=config["perceiver_depth"],
        inner_depth=config["transformer_depth"],
        share_cross_from=config["share_xattn_start_layer"],
        share_inner_from=config["share_tf_start_layer"],
        project=config["xattn_kv_proj"],
        append_queries=config["xattn_kv_append_q"],
        chunked=config["xattn_chunked"],
        pooler=config["pooler"],
    ).eval()
    fill_model(model, case)
    slide, latents = model(x["x"], x["keep"].bool())
    return {"cls": slide, "latents": corner(latents, case["outputs"]["latents"])}
