"""Published weight files that name their entries otherwise than the networks here."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import TYPE_CHECKING

import torch

if TYPE_CHECKING:
    from torch import Tensor

    Entries = dict[str, Tensor]

_TRANSFORMERS = (
    (r"embeddings\.cls_token", "cls_token"),
    (r"embeddings\.register_tokens", "reg_token"),
    (r"embeddings\.position_embeddings", "pos_embed"),
    (r"embeddings\.patch_embeddings\.projection\.(.*)", r"patch_embed.proj.\1"),
    (r"encoder\.layer\.(\d+)\.attention\.output\.dense\.(.*)", r"blocks.\1.attn.proj.\2"),
    (r"encoder\.layer\.(\d+)\.(?:layernorm_before|norm1)\.(.*)", r"blocks.\1.norm1.\2"),
    (r"encoder\.layer\.(\d+)\.(?:layernorm_after|norm2)\.(.*)", r"blocks.\1.norm2.\2"),
    (r"encoder\.layer\.(\d+)\.layer_scale(\d)\.lambda1", r"blocks.\1.ls\2.gamma"),
    (r"encoder\.layer\.(\d+)\.(?:intermediate\.dense|mlp\.fc1|mlp\.weights_in)\.(.*)", r"blocks.\1.mlp.fc1.\2"),
    (r"encoder\.layer\.(\d+)\.(?:output\.dense|mlp\.fc2|mlp\.weights_out)\.(.*)", r"blocks.\1.mlp.fc2.\2"),
    (r"layernorm\.(.*)", r"norm.\1"),
)
_TRANSFORMERS_CLIP = (
    (r"vision_model\.embeddings\.class_embedding", "cls_token"),
    (r"vision_model\.embeddings\.position_embedding\.weight", "pos_embed"),
    (r"vision_model\.embeddings\.patch_embedding\.weight", "patch_embed.proj.weight"),
    (r"vision_model\.pre_layrnorm\.(.*)", r"norm_pre.\1"),
    (r"vision_model\.encoder\.layers\.(\d+)\.self_attn\.out_proj\.(.*)", r"blocks.\1.attn.proj.\2"),
    (r"vision_model\.encoder\.layers\.(\d+)\.layer_norm(\d)\.(.*)", r"blocks.\1.norm\2.\3"),
    (r"vision_model\.encoder\.layers\.(\d+)\.mlp\.(.*)", r"blocks.\1.mlp.\2"),
    (r"vision_model\.post_layernorm\.(.*)", r"norm.\1"),
    (r"visual_projection\.weight", "head.weight"),
)
_OPEN_CLIP = (
    (r"visual\.class_embedding", "cls_token"),
    (r"visual\.positional_embedding", "pos_embed"),
    (r"visual\.conv1\.weight", "patch_embed.proj.weight"),
    (r"visual\.ln_pre\.(.*)", r"norm_pre.\1"),
    (r"visual\.transformer\.resblocks\.(\d+)\.attn\.in_proj_(.*)", r"blocks.\1.attn.qkv.\2"),
    (r"visual\.transformer\.resblocks\.(\d+)\.attn\.out_proj\.(.*)", r"blocks.\1.attn.proj.\2"),
    (r"visual\.transformer\.resblocks\.(\d+)\.ln_(\d)\.(.*)", r"blocks.\1.norm\2.\3"),
    (r"visual\.transformer\.resblocks\.(\d+)\.mlp\.c_fc\.(.*)", r"blocks.\1.mlp.fc1.\2"),
    (r"visual\.transformer\.resblocks\.(\d+)\.mlp\.c_proj\.(.*)", r"blocks.\1.mlp.fc2.\2"),
    (r"visual\.ln_post\.(.*)", r"norm.\1"),
    (r"visual\.proj", "head.weight"),
)
_HEADS = r"(?:.*\.)?(?:attention\.attention|self_attn)\.(query|key|value|q_proj|k_proj|v_proj)\.(weight|bias)"


def from_transformers(entries: Entries) -> Entries:
    """ViT and DINOv2 as the *transformers* library saves them, in timm's names."""
    return _renamed(entries, _TRANSFORMERS)


def from_transformers_clip(entries: Entries) -> Entries:
    """The image tower of a CLIP model as the *transformers* library saves it, in timm's names."""
    return _as_clip(_renamed(entries, _TRANSFORMERS_CLIP))


def from_open_clip(entries: Entries) -> Entries:
    """The image tower of a CLIP model as *open_clip* saves it, in timm's names."""
    found = _renamed(entries, _OPEN_CLIP)
    if "head.weight" in found:
        found["head.weight"] = found["head.weight"].mT.contiguous()
    return _as_clip(found)


def from_dino(entries: Entries) -> Entries:
    """A network that DINO trained, without the prefixes of its training and its head."""
    found = {re.sub(r"^(?:module\.)?(?:backbone\.)?", "", key): entry for key, entry in entries.items()}
    return {key: entry for key, entry in found.items() if not key.startswith("head.")}


def _renamed(entries: Entries, rules: tuple[tuple[str, str], ...]) -> Entries:
    """The entries that a rule names, queries, keys and values of a layer joined; the others are left out."""
    found: Entries = {}
    parts: dict[str, Entries] = {}
    for key, entry in entries.items():
        if (head := re.fullmatch(_HEADS, key)) is not None:
            layer = re.search(r"\.layers?\.(\d+)\.", key)
            if layer is not None:
                parts.setdefault(f"blocks.{layer[1]}.attn.qkv.{head[2]}", {})[head[1][0]] = entry
            continue
        for pattern, name in rules:
            if re.fullmatch(pattern, key):
                found[re.sub(pattern, name, key)] = entry
                break
    for key, three in parts.items():
        if len(three) == 3:
            found[key] = torch.cat([three[part] for part in "qkv"])
    return found


def _as_clip(entries: Entries) -> Entries:
    """Shapes as timm has them, and the bias that the projection of a CLIP model lacks."""
    if "cls_token" in entries:
        entries["cls_token"] = entries["cls_token"].reshape(1, 1, -1)
    if "pos_embed" in entries:
        entries["pos_embed"] = entries["pos_embed"].reshape(1, *entries["pos_embed"].shape[-2:])
    if "head.weight" in entries:
        entries["head.bias"] = torch.zeros(len(entries["head.weight"]))
    return entries


CONVERSIONS: dict[str, Callable[[Entries], Entries]] = {
    "transformers": from_transformers,
    "transformers-clip": from_transformers_clip,
    "open-clip": from_open_clip,
    "dino": from_dino,
}
"""Value of :attr:`EncoderSpec.match` → function of the published entries that gives ours."""
