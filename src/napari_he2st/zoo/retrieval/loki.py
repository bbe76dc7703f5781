"""Loki: OmiCLIP, a model of images and sentences of genes, and its uses (Chen et al., Nature Methods 2025)."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Literal

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from napari_he2st.core.noise import Noise
from napari_he2st.core.types import Transform
from napari_he2st.zoo.base import Aligner, Batches
from napari_he2st.zoo.blocks.bpe import Tokeniser, bytes_tokeniser, clip_tokeniser
from napari_he2st.zoo.blocks.coca import CaptionDecoder, ImageTower, TextTower
from napari_he2st.zoo.blocks.components import principal_components
from napari_he2st.zoo.blocks.contrast import pair_loss
from napari_he2st.zoo.blocks.pixels import standardise
from napari_he2st.zoo.blocks.point_drift import Points, drift, rigid_fit
from napari_he2st.zoo.blocks.retrieval import Retrieval
from napari_he2st.zoo.blocks.search import similarity_mean, weighted_mean
from napari_he2st.zoo.blocks.symmetry import random_symmetry
from napari_he2st.zoo.inputs import Tiles
from napari_he2st.zoo.recipe import Recipe
from napari_he2st.zoo.weights import load_published

if TYPE_CHECKING:
    from anndata import AnnData

_ADDRESS = "https://huggingface.co/WangGuangyuLab/Loki"
_PIXELS = {"mean": (0.48145466, 0.4578275, 0.40821073), "std": (0.26862954, 0.26130258, 0.27577711)}
_WORDS, _LENGTH = 50, 76
_CAPTION_WEIGHT = 2.0
_LOOKS, _STEPS = 3, 1000


class Loki(Retrieval, Aligner):
    """Sentences of the most expressed genes, embedded beside the image by CoCa; expression of all alike spots.

    Parameters
    ----------
    n_genes
        Size of the panel.
    dim, text_depth, text_heads
        Of both embeddings and the text tower, and of the decoder that captions in training.
    image_dim, image_depth, image_heads, patch_px, pool_heads
        Of the image tower.
    decoder_heads
        Of the decoder.
    vocabulary
        ``"clip"``, or ``"bytes"``, which needs no file.
    n_tokens
        Size of the vocabulary where it is neither.
    tile_px
        Width of the tile.
    dropped
        Genes that no sentence names: housekeeping genes, as published; their list is not.
    pretrained
        Load the published weights and train no further; the training spots are only the reference. The weights
        are the file that the list of weight files names ``loki``, or lie at ``hf:OWNER/REPOSITORY/FILE``.

    Notes
    -----
    Sentences are made of the panel's genes. Without the published weights, the system is trained as CoCa was:
    pairs, and twice the caption. Similarities below 0, which only a model of one's own gives, count as 0.
    """

    metric = "dot"
    n_neighbours = 3
    together = 64
    recipe = Recipe("adamw", lr=1e-4, weight_decay=0.01, epochs=20, batch_size=64)

    def __init__(
        self,
        n_genes: int = 0,
        *,
        dim: int = 768,
        text_depth: int = 12,
        text_heads: int = 12,
        image_dim: int = 1024,
        image_depth: int = 24,
        image_heads: int = 16,
        patch_px: int = 14,
        pool_heads: int = 8,
        decoder_heads: int = 12,
        vocabulary: Literal["clip", "bytes"] = "clip",
        n_tokens: int | None = None,
        tile_px: int = 224,
        dropped: tuple[str, ...] = (),
        pretrained: bool | str = True,
    ) -> None:
        super().__init__()
        self.inputs = {"tiles": Tiles(px=tile_px)}
        self.vocabulary, self.dropped, self.pretrained = vocabulary, frozenset(dropped), pretrained
        if pretrained:
            self.recipe = Recipe(epochs=0)
        n_tokens = n_tokens or (49408 if vocabulary == "clip" else len(bytes_tokeniser()))
        self.logit_scale = nn.Parameter(torch.tensor(1 / 0.07).log())
        self.text = TextTower(n_tokens, _LENGTH, dim, text_depth, text_heads)
        self.visual = ImageTower(tile_px, patch_px, image_dim, image_depth, image_heads, dim, pool_heads)
        self.text_decoder = CaptionDecoder(n_tokens, dim, text_depth, decoder_heads)

    def prepare(self, *, tiles: Tensor) -> dict[str, Tensor]:
        """Tiles standardised as CLIP's."""
        return {"images": standardise(tiles, _PIXELS)}

    def embed_images(self, *, images: Tensor) -> Tensor:
        """Embeddings of tiles (n, 3, px, px), of length 1."""
        return F.normalize(self.visual(images)[0], dim=-1)

    def embed_texts(self, text: Tensor) -> Tensor:
        """Embeddings of tokens (n, 76), of length 1."""
        return F.normalize(self.text(text)[0], dim=-1)

    def embed_spots(self, expression: Tensor) -> Tensor:
        """Embeddings of the sentences of spots."""
        return self.embed_texts(self.tokens(expression))

    def tokens(self, expression: Tensor) -> Tensor:
        """Sentences of expression (n, genes) as tokens, int64 (n, 76)."""
        tokeniser: Tokeniser = clip_tokeniser() if self.vocabulary == "clip" else bytes_tokeniser()
        words = [tokeniser.words(gene) for gene in self.genes]
        rows = sentence_genes(expression, self.genes, self.dropped).tolist()
        return tokeniser.fill([[n for gene in row for n in words[gene]] for row in rows], _LENGTH).to(expression.device)

    def forward(self, images: Tensor, text: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Embeddings of images and texts, of length 1, and logits of the next token of each caption."""
        (image, seen), (sentence, states) = self.visual(images), self.text(text)
        return F.normalize(image, dim=-1), F.normalize(sentence, dim=-1), self.text_decoder(seen, states)

    def loss(self, targets: Mapping[str, Tensor], *, images: Tensor) -> Tensor:
        """Pairs found among the batch, and captions read off randomly turned and mirrored tiles."""
        text = self.tokens(targets["expression"].nan_to_num())
        image, sentence, logits = self(random_symmetry(images), text)
        caption = F.cross_entropy(logits[:, :-1].flatten(0, 1), text[:, 1:].flatten(), ignore_index=0)
        return pair_loss(image, sentence, (-self.logit_scale).exp()) + _CAPTION_WEIGHT * caption

    def predict(
        self, *, images: Tensor, noise: Noise | None = None, n_neighbours: int | None = None, sharpen: bool = False
    ) -> Tensor:
        """log1p CP10k, float32 (n, genes): mean of the reference spots, weighted by their similarity.

        Parameters
        ----------
        n_neighbours
            Number of reference spots that a prediction is made of; all by default, as published.
        sharpen
            Weigh by the exponential of the similarity at the temperature of training, not by itself, which
            gives little more than the mean over all spots.
        """
        if n_neighbours is not None:
            found = self.retrieve(images=images, n_neighbours=n_neighbours)
            return weighted_mean(found.expression, self._weights(found.similarity, sharpen))
        query = self.embed_images(images=images)
        search, expression = self.reference_on(query.device)
        return similarity_mean(self._weights(query @ search.keys.T, sharpen), expression)

    def _weights(self, similarity: Tensor, sharpen: bool) -> Tensor:
        if sharpen:
            return (similarity * self.logit_scale.exp()).softmax(1)
        return similarity.clamp(min=torch.finfo(similarity.dtype).eps)

    def align(self, sections: Sequence[AnnData], *, tiles: Sequence[Tensor]) -> list[Transform]:
        """Transform of each section into the first section's frame, in micrometres; the first is the identity.

        Points drift together by their place and by what their images look like, then the rigid motion nearest to
        that is taken.

        Parameters
        ----------
        sections
            Positions in ``obsm["spatial"]``, micrometres.
        tiles
            Of each section, uint8 (n, 3, px, px).

        Returns
        -------
        list of Transform
            ``info`` holds ``moved``, the positions after the drift, and ``objective``, its final variance.
        """
        if self.pretrained and not self.genes:  # one of a bundle has its weights
            self._load()
        self.eval()
        with torch.inference_mode():
            looks = [self.embed_images(**self.prepare(tiles=part)).double().cpu().numpy() for part in tiles]
        places = [np.asarray(section.obsm["spatial"], dtype=np.float64) for section in sections]
        return [
            Transform(np.eye(3)),
            *(_align(places[0], looks[0], *other) for other in zip(places[1:], looks[1:], strict=True)),
        ]

    def fit(self, batches: Batches, recipe: Recipe) -> Iterator[dict[str, float]]:
        """Load the published weights where so built, then train."""
        if self.pretrained:
            self._load()
        yield from super().fit(batches, recipe)

    def _load(self) -> None:
        load_published(self, "loki", _ADDRESS, hub=self.pretrained if isinstance(self.pretrained, str) else None)


def sentence_genes(expression: Tensor, genes: Sequence[str], dropped: Collection[str] = ()) -> Tensor:
    """Columns of the 50 most expressed genes of each spot, the highest first, of equal ones the first: int64 (n, 50).

    Genes with a dot or hyphen in their symbol, such as clones and mitochondrial ones, are never named.
    """
    named = [i for i, gene in enumerate(genes) if not {".", "-"} & set(gene) and gene not in dropped]
    columns = torch.tensor(named, dtype=torch.int64, device=expression.device)
    order = expression[:, columns].sort(dim=1, descending=True, stable=True).indices
    return columns[order[:, :_WORDS]]


def share_of_text(images: Tensor, text: Tensor, *, temperature: float = 1.0, scaled: bool = True) -> Tensor:
    """How a text, such as the sentence of bulk RNA-seq, spreads over a slide: (1, n), summing to 1.

    Parameters
    ----------
    images, text
        Embeddings, (n, dim) and (dim,).
    temperature
        Divides the cosine similarity before the softmax over images.
    scaled
        Also divide by √dim.
    """
    cosine = F.normalize(text[None], dim=-1) @ F.normalize(images, dim=-1).T
    return (cosine / (images.shape[1] ** 0.5 if scaled else 1.0) / temperature).softmax(-1)


def heat_of_text(images: Tensor, text: Tensor) -> Tensor:
    """The same as a map in 0 … 1: softmax of the dot products over images, from the lowest to the highest, (n,)."""
    return _from_0_to_1((images @ text).softmax(0))


def percentile_scaled(values: Tensor) -> Tensor:
    """Each column of (n, types) clipped to its 5th and 95th percentile and brought to 0 … 1."""
    low, high = torch.quantile(values, values.new_tensor([0.05, 0.95]), dim=0)
    return _from_0_to_1(values.clamp(low, high))


def _from_0_to_1(values: Tensor) -> Tensor:
    low, high = values.amin(0), values.amax(0)
    return (values - low) / (high - low).clamp(min=torch.finfo(values.dtype).tiny)


def _align(target: Points, target_looks: Points, source: Points, source_looks: Points) -> Transform:
    """One section onto another; each kind of numbers is brought to 0 … 1 over all its columns together."""
    known = principal_components(target_looks, _LOOKS)
    kinds = [(looks - known["mean"]) @ known["axes"] for looks in (target_looks, source_looks)]
    low, high = target.min(), target.max()
    points = [
        np.hstack([_to_unit(place), _to_unit(look)[:, :2]]) for place, look in zip((target, source), kinds, strict=True)
    ]
    moved, variance = drift(*points, alpha=0.5, tolerance=1e-9, max_iterations=_STEPS, rank=100)
    where = moved[:, :2] * (high - low) + low
    return Transform(rigid_fit(source, where), {"moved": where, "objective": variance})


def _to_unit(values: Points) -> Points:
    return (values - values.min()) / max(np.ptp(values), np.finfo(np.float64).tiny)
