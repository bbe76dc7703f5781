"""STPath: masked prediction over all spots of a slide, a foundation model (Huang et al., npj Digital Medicine 2025)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from napari_he2st.core.noise import Noise
from napari_he2st.zoo import inputs as kinds
from napari_he2st.zoo.base import Expression, Predictor, Slide
from napari_he2st.zoo.blocks.frames import in_frames
from napari_he2st.zoo.blocks.losses import nan_mse
from napari_he2st.zoo.blocks.mlp import Activation, NormedMlp
from napari_he2st.zoo.blocks.patches import random_patch
from napari_he2st.zoo.blocks.vit import join_heads, split_heads
from napari_he2st.zoo.recipe import Recipe

ORGANS = (
    "pad", "mask", "unk", "Spinal cord", "Brain", "Breast", "Bowel", "Skin", "Heart", "Kidney", "Prostate", "Lung",
    "Liver", "Uterus", "Bone", "Muscle", "Eye", "Pancreas", "Mouth", "Ovary", "Glioma", "Glioblastoma", "Stomach",
    "Colon", "Others",
)  # fmt: skip
"""Vocabulary of organs; the first entry also stands for any that is not known."""
TECHNOLOGIES = ("pad", "Spatial Transcriptomics", "Visium", "Xenium", "Visium HD")
"""Vocabulary of technologies."""

_SAME = ORGANS[3:18]
_LOWER = (
    "Breast", "Brain", "Kidney", "Heart", "Skin", "Liver", "Pancreas", "Mouth", "Ovary", "Prostate", "Glioma",
    "Glioblastoma", "Stomach", "Colon", "Lung", "Muscle",
)  # fmt: skip
_OTHERS = (
    "Bladder", "Lymphoid", "Cervix", "cervix", "Lymph node", "lymphnode", "Ovary", "Embryo", "Lung/Brain",
    "Kidney/Brain", "Placenta", "Whole organism", "thymus", "joint", "undifferentiated pleomorphic sarcoma",
    "largeintestine", "lacrimal gland", "leiomyosarcoma", "endometrium", "brain+kidney", "cerebellum", "colorectal",
)  # fmt: skip
_ORGAN_ALIASES = {
    **{name: name for name in _SAME},
    **{name.lower(): name for name in _LOWER},
    **dict.fromkeys(_OTHERS, "Others"),
}
_TECHNOLOGY_ALIASES = {**{name: name for name in TECHNOLOGIES[1:]}, "ST": TECHNOLOGIES[1], "VisiumHD": "Visium HD"}

_SPECIAL = 2
_MASK = 1
_EXTENT = 100.0
_HIDDEN = -1e9
_PATCH = (64, 1024)
"""Spots of a patch in training."""


class STPath(Predictor):
    """Each spot is its image, its expression or a mask, organ and technology; all spots attend to one another.

    Parameters
    ----------
    n_genes
        Size of the panel; 38,982 in the published weights. The network knows two more entries, for padding and mask.
    encoder, feature_dim
        See :class:`~napari_he2st.zoo.inputs.Features`, and the size of its features.
    dim, depth, heads, mlp_ratio, dropout, attention_dropout, activation
        Of the transformer.
    organ, technology
        What the slide shows and what is to be predicted; see :func:`organ_id` and :func:`technology_id`.
    n_organs, n_technologies
        Sizes of the vocabularies.
    tile_px, mpp
        Width of the tile around the spot and its pixel size.
    faithful
        Bias attention by each pair's place in four frames, as published, which needs an array of
        spots² × 4 × 3. By default by its distance alone, which gives the same: as the frames come in opposite
        pairs and the bias is linear, what depends on the place cancels.

    Notes
    -----
    Where a slide is predicted in windows, each counts as a slide of its own, and its positions go from 0 to 100.
    """

    unit = Slide()
    targets = {"expression": Expression("log1p", panel="hvg:1000")}
    recipe = Recipe("adam", lr=5e-4, epochs=500, batch_size=1, clip=1.0)

    def __init__(
        self,
        n_genes: int,
        *,
        encoder: str = "gigapath",
        feature_dim: int = 1536,
        dim: int = 512,
        depth: int = 4,
        heads: int = 4,
        mlp_ratio: float = 2.0,
        dropout: float = 0.1,
        attention_dropout: float = 0.1,
        activation: Activation = "gelu",
        organ: str = "",
        technology: str = "",
        n_organs: int = len(ORGANS),
        n_technologies: int = len(TECHNOLOGIES),
        tile_px: int = 224,
        mpp: float | None = 0.5,
        faithful: bool = False,
    ) -> None:
        super().__init__()
        self.inputs = {
            "features": kinds.Features(encoder=encoder, px=tile_px, mpp=mpp),
            "um": kinds.Positions(kind="um"),
            "context": kinds.Expression(),
        }
        self.n_tokens, self.faithful = n_genes + _SPECIAL, faithful
        self.organ, self.technology = organ_id(organ), technology_id(technology)
        self.input_encoder = nn.ModuleDict(
            {
                "image_embed": nn.Linear(feature_dim, dim),
                "gene_embed": nn.Linear(self.n_tokens, dim, bias=False),
                "tech_embed": nn.Embedding(n_technologies, dim),
                "organ_embed": nn.Embedding(n_organs, dim),
            }
        )
        hidden = int(mlp_ratio * dim)
        blocks = [_Block(dim, hidden, heads, dropout, attention_dropout, activation) for _ in range(depth)]
        self.model = nn.ModuleDict({"blks": nn.ModuleList(blocks)})
        self.gene_exp_head = nn.Sequential(nn.LayerNorm(dim), nn.Linear(dim, self.n_tokens))

    def prepare(self, *, features: Tensor, um: Tensor, context: Tensor) -> dict[str, Tensor]:
        """Positions from 0 to 100, the slide's organ and technology at each spot, expression where it is known."""
        same = torch.ones(len(um), dtype=torch.int64, device=um.device)
        return {
            "image": features,
            "coords": to_extent(um),
            "tech": same * self.technology,
            "organ": same * self.organ,
            "context": context,
        }

    def hidden(
        self, image: Tensor, coords: Tensor, genes: Tensor, tech: Tensor, organ: Tensor, slide: Tensor | None = None
    ) -> Tensor:
        """State of each spot before the head, float32 (n, dim); arguments as of :meth:`forward`."""
        embed = self.input_encoder
        x = embed["image_embed"](image) + embed["gene_embed"](genes)
        x = x + embed["tech_embed"](tech) + embed["organ_embed"](organ)
        same = None if slide is None else slide[:, None] == slide
        where = pair_frames(coords, same) if self.faithful else torch.cdist(coords, coords)
        for block in self.model["blks"]:
            x = block(x, where, same)
        return x

    def forward(
        self, image: Tensor, coords: Tensor, genes: Tensor, tech: Tensor, organ: Tensor, slide: Tensor | None = None
    ) -> Tensor:
        """The log (1 + counts) of every entry of the vocabulary, float32 (n, genes + 2).

        Parameters
        ----------
        image
            Encoder features, (n, features).
        coords
            Positions from 0 to 100, (n, 2).
        genes
            Known expression, log (1 + counts), or the mask's entry (see :meth:`masked`): (n, genes + 2).
        tech, organ
            Of each spot, int64 (n,).
        slide
            Which slide each spot belongs to, (n,); None for one.
        """
        return self.gene_exp_head(self.hidden(image, coords, genes, tech, organ, slide))

    def masked(self, like: Tensor) -> Tensor:
        """What stands for spots of unknown expression, as many as ``like`` has rows: float32 (n, genes + 2)."""
        genes = torch.zeros(len(like), self.n_tokens, device=like.device)
        genes[:, _MASK] = 1
        return genes

    def loss(self, targets: Mapping[str, Tensor], *, image: Tensor, coords: Tensor, **words: Tensor) -> Tensor:
        """MSE on hidden spots of a random patch, most of which are masked and some have lost half of their genes."""
        spots = random_patch(coords, *_PATCH)
        expression = targets["expression"][spots]
        n = len(spots)
        share = torch.distributions.Beta(10.0, 1.0).sample().to(coords.device)
        hidden = torch.rand(n, device=coords.device) < share
        hidden[torch.randint(n, (), device=coords.device)] = True
        whole = hidden & (torch.rand(n, device=coords.device) < 0.9)
        known = F.pad(expression.nan_to_num(), (_SPECIAL, 0))
        dropped = torch.rand_like(known) < 0.5
        known = torch.where((hidden & ~whole)[:, None] & dropped, torch.zeros_like(known), known)
        genes = torch.where(whole[:, None], self.masked(known), known)
        forget = torch.rand(n, device=coords.device) < 0.8
        tech = words["tech"][spots].masked_fill(forget, 0)
        predicted = self(image[spots], coords[spots], genes, tech, words["organ"][spots])[:, _SPECIAL:]
        return nan_mse(predicted[hidden], expression[hidden])

    def predict(
        self,
        *,
        image: Tensor,
        coords: Tensor,
        tech: Tensor,
        organ: Tensor,
        context: Tensor,
        noise: Noise | None = None,
    ) -> Tensor:
        """Predicted log (1 + counts), float32 (n, genes); rows of ``context`` (n, genes) with numbers are known."""
        known = context.isfinite().any(1, keepdim=True)
        genes = torch.where(known, F.pad(context.nan_to_num(), (_SPECIAL, 0)), self.masked(image))
        return self(image, coords, genes, tech, organ)[:, _SPECIAL:]


def organ_id(name: str, *, faithful: bool = False) -> int:
    """Number of an organ: 0 if it is not known.

    The original reads names by a list of aliases in which some words of its own vocabulary, such as Mouth and Others,
    are missing; they count as unknown where ``faithful``.
    """
    return _id(name, ORGANS, _ORGAN_ALIASES, faithful)


def technology_id(name: str, *, faithful: bool = False) -> int:
    """Number of a technology, as :func:`organ_id`."""
    return _id(name, TECHNOLOGIES, _TECHNOLOGY_ALIASES, faithful)


def _id(name: str, vocabulary: Sequence[str], aliases: Mapping[str, str], faithful: bool) -> int:
    word = aliases.get(name, "pad" if faithful else name)
    return vocabulary.index(word) if word in vocabulary else 0


def gene_order(ensembl: Mapping[str, str]) -> list[str]:
    """Symbols in the order of the published outputs, from the published table of symbols and Ensembl ids.

    The original's own list of available genes leaves out the first two by mistake; this one does not.
    """
    symbol = {gene: name for name, gene in ensembl.items()}
    return [symbol[gene] for gene in sorted(symbol)]


def to_extent(positions: Tensor) -> Tensor:
    """Positions (n, 2) with each axis stretched to 0 … 100; an axis without extent is 0 throughout."""
    low, high = positions.amin(0), positions.amax(0)
    span = high - low
    return (positions - low) / torch.where(span > 0, span, torch.ones_like(span)) * _EXTENT


def pair_frames(positions: Tensor, same: Tensor | None) -> Tensor:
    """Where all spots lie around each one in the four frames of those of its slide, and how far: (n, 4, n, 3)."""
    offset = positions - positions[:, None]
    projected, _ = in_frames(offset, same)
    length = offset.norm(dim=-1)[:, None, :, None].expand(-1, projected.shape[1], -1, -1)
    return torch.cat([projected, length], dim=-1)


class _Attention(nn.Module):
    """Attention of all spots to one another, biased by where they lie."""

    def __init__(self, dim: int, heads: int, dropout: float, attention_dropout: float) -> None:
        super().__init__()
        self.heads, self.attention_dropout = heads, attention_dropout
        self.layernorm_qkv = nn.Sequential(nn.LayerNorm(dim), nn.Linear(dim, 3 * dim))
        self.W_output = nn.Sequential(nn.Linear(dim, dim), nn.Dropout(dropout))
        self.edge_bias = nn.Sequential(nn.Linear(3, heads, bias=False))

    def forward(self, x: Tensor, where: Tensor, same: Tensor | None) -> Tensor:
        if where.ndim == 2:  # distances: what the mean over the frames leaves
            bias = self.edge_bias[0].weight[:, 2, None, None] * where
        else:
            bias = self.edge_bias(where).mean(1).permute(2, 0, 1)
        if same is not None:
            bias = bias.masked_fill(~same, _HIDDEN)
        q, k, v = (split_heads(part, self.heads)[None] for part in self.layernorm_qkv(x).chunk(3, dim=-1))
        dropout = self.attention_dropout if self.training else 0.0
        out = F.scaled_dot_product_attention(q, k, v, attn_mask=bias[None], dropout_p=dropout)
        return self.W_output(join_heads(out[0]))


class _Block(nn.Module):
    def __init__(
        self, dim: int, hidden: int, heads: int, dropout: float, attention_dropout: float, act: Activation
    ) -> None:
        super().__init__()
        self.attn = _Attention(dim, heads, dropout, attention_dropout)
        self.mlp = NormedMlp(dim, hidden, dim, activation=act, dropout=dropout)

    def forward(self, x: Tensor, where: Tensor, same: Tensor | None) -> Tensor:
        x = x + self.attn(x, where, same)
        return x + self.mlp(x)
