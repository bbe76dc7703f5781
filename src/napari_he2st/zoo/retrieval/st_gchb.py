"""ST-GCHB: graphs of images and of expression, aligned through an information bottleneck (arXiv 2406.12229)."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from napari_he2st.zoo.base import Batches, Slide
from napari_he2st.zoo.blocks.components import component_scores, principal_components
from napari_he2st.zoo.blocks.contrast import ProjectionHead, soft_clip_losses
from napari_he2st.zoo.blocks.graph import nearest_graph
from napari_he2st.zoo.blocks.pixels import standardise
from napari_he2st.zoo.blocks.retrieval import Retrieval, gather
from napari_he2st.zoo.blocks.trunks import load_imagenet, torchvision_network
from napari_he2st.zoo.inputs import Positions, Tiles
from napari_he2st.zoo.recipe import Recipe, descend, make_optimizer

_SIGMA, _BETA = 10.0, 25.0


class STGCHB(Retrieval):
    """Two graph encoders, first taught to tell their slide from a shuffled one, then brought together.

    Parameters
    ----------
    n_genes
        Size of the panel.
    n_components
        Principal components of the expression that the graph of spots sees, at most as many as genes.
    trunk
        A torchvision ResNet; its last stage and last layer learn.
    image_dim, graph_dim, dim, dropout
        Of the image features, of the graph encoders, and of the embeddings and their heads.
    k
        Neighbours of a spot on the graph, besides itself.
    graph_epochs
        Rounds over the sections in which each graph encoder is taught alone.
    n_neighbours
        Number of reference spots that a prediction is made of.
    tile_px
        Width of the tile.
    imagenet
        Start from ImageNet weights, as published.
    faithful
        Feed the network raw BGR values from 0 to 255, as published; by default they are RGB and standardised.

    Notes
    -----
    ``extras["components"]`` are the principal components. Statistics of the image network's normalisations stay
    as they are, so that a batch needs only its own spots and their neighbours. ``recipe.batch_size`` counts
    spots of a section.
    """

    unit = Slide()
    metric = "dot"
    kept = ("positions",)
    recipe = Recipe("adamw", lr=1e-3, weight_decay=1e-3, epochs=4, batch_size=16)

    def __init__(
        self,
        n_genes: int,
        *,
        n_components: int = 813,
        trunk: str = "resnet50",
        image_dim: int = 1000,
        graph_dim: int = 256,
        dim: int = 128,
        dropout: float = 0.4,
        k: int = 6,
        graph_epochs: int = 50,
        n_neighbours: int = 50,
        tile_px: int = 112,
        imagenet: bool = True,
        faithful: bool = False,
    ) -> None:
        super().__init__()
        self.n_neighbours = n_neighbours
        self.inputs = {"tiles": Tiles(px=tile_px), "positions": Positions(kind="um")}
        self.trunk, self.k, self.graph_epochs = trunk, k, graph_epochs
        self.imagenet, self.faithful = imagenet, faithful
        self.n_components = min(n_components, n_genes)
        network = torchvision_network(trunk, image_dim).requires_grad_(False)
        network.layer4.requires_grad_(True)
        network.fc.requires_grad_(True)
        self.image_encoder = nn.ModuleDict({"resnet50_feature_extractor": network})
        self.spot_projection = ProjectionHead(graph_dim, dim, dropout=dropout)
        self.image_projection = ProjectionHead(graph_dim, dim, dropout=dropout)
        self.spot_dgi_model = nn.ModuleDict({"model": GraphInfomax(self.n_components, graph_dim)})
        self.image_dgi_model = nn.ModuleDict({"model": GraphInfomax(image_dim, graph_dim)})

    def prepare(self, *, tiles: Tensor, positions: Tensor) -> dict[str, Tensor]:
        """Images, and positions in micrometres, of which the graph is made."""
        images = tiles.flip(1).float() if self.faithful else standardise(tiles)
        return {"images": images, "positions": positions}

    def graph(self, positions: Tensor) -> Tensor:
        """Each spot and its nearest ones, dense; rows receive."""
        return nearest_graph(positions, self.k) + torch.eye(len(positions), device=positions.device)

    def forward(
        self, images: Tensor, components: Tensor, adjacency: Tensor
    ) -> dict[str, tuple[Tensor, Tensor, Tensor]]:
        """Of ``images`` and ``spots``: what the graph encoder sees, what it makes of it, the common space."""
        return {
            "images": self._embed("image", self.image_encoder["resnet50_feature_extractor"](images), adjacency),
            "spots": self._embed("spot", components, adjacency),
        }

    def _embed(self, kind: str, features: Tensor, adjacency: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Features of the rows that ``adjacency`` (rows, n) is of lead it; see :meth:`forward`."""
        h = getattr(self, f"{kind}_dgi_model")["model"].gcn(features, adjacency)
        return features[: len(h)], h, getattr(self, f"{kind}_projection")(h)

    def embed_images(self, *, images: Tensor, positions: Tensor) -> Tensor:
        """Places of the images of a section in the common space, not normalised."""
        features = self.image_encoder["resnet50_feature_extractor"](images)
        return self._embed("image", features, self.graph(positions))[2]

    def embed_bank(self, bank: Mapping[str, Tensor]) -> Tensor:
        """Places of all reference spots, section by section."""
        parts = []
        for slide in bank["slide"].unique():
            own = bank["slide"] == slide
            known = component_scores(bank["expression"][own].nan_to_num(), self.extras)
            parts.append(self._embed("spot", known, self.graph(bank["positions"][own]))[2])
        return torch.cat(parts)

    def fit(self, batches: Batches, recipe: Recipe) -> Iterator[dict[str, float]]:
        """Principal components, then each graph encoder alone, then both together."""
        if self.imagenet:
            load_imagenet(self.image_encoder["resnet50_feature_extractor"], self.trunk)
        bank = self.extras["reference"] = gather(batches, self.kept)
        self.extras["components"] = principal_components(bank["expression"], self.n_components)
        yield from self._teach_graphs(batches)
        optimizer = make_optimizer(self, recipe)
        for epoch in range(recipe.epochs):
            losses = [self._step(optimizer, recipe, part) for batch in batches for part in self._parts(*batch, recipe)]
            self.embed_reference()
            yield {"epoch": epoch, "loss": sum(losses) / max(len(losses), 1)}

    def _teach_graphs(self, batches: Batches) -> Iterator[dict[str, float]]:
        models = {kind: getattr(self, f"{kind}_dgi_model")["model"] for kind in ("image", "spot")}
        optimizers = {kind: torch.optim.Adam(model.parameters(), lr=1e-3) for kind, model in models.items()}
        sections = [self._section(*batch) for batch in batches]
        for epoch in range(self.graph_epochs):
            total = 0.0
            for section in sections:
                for kind, model in models.items():
                    features = section[kind]
                    loss = model.loss(features, features[torch.randperm(len(features))], section["graph"])
                    descend(optimizers[kind], loss, self.recipe)
                    total += float(loss.detach())
            yield {"epoch": epoch, "graph_loss": total / max(2 * len(sections), 1)}

    @torch.no_grad()
    def _section(self, targets: Mapping[str, Tensor], prepared: Mapping[str, Any]) -> dict[str, Tensor]:
        """Features of a section's spots for both graphs, and the graph."""
        self.eval()
        return {
            "image": self.image_encoder["resnet50_feature_extractor"](prepared["images"]),
            "spot": component_scores(targets["expression"].nan_to_num(), self.extras),
            "graph": self.graph(prepared["positions"]),
        }

    def _parts(
        self, targets: Mapping[str, Tensor], prepared: Mapping[str, Any], recipe: Recipe
    ) -> Iterator[tuple[Tensor, Tensor, Tensor]]:
        """Batches of a section's spots: images, components and graph of these and then of their neighbours."""
        graph = self.graph(prepared["positions"])
        components = component_scores(targets["expression"].nan_to_num(), self.extras)
        order = torch.randperm(len(graph))
        for rows in order.split(recipe.batch_size):
            rows = rows.to(graph.device)
            if len(rows) < 2:
                continue
            near = (graph[rows].sum(0) > 0).index_fill(0, rows, value=False).nonzero()[:, 0]
            seen = torch.cat([rows, near])
            yield prepared["images"][seen], components[seen], graph[rows][:, seen]

    def _step(self, optimizer: torch.optim.Optimizer, recipe: Recipe, part: tuple[Tensor, Tensor, Tensor]) -> float:
        self.train()
        self.image_encoder.eval()
        loss = sum(objectives(self(*part)).values())
        descend(optimizer, loss, recipe)
        return float(loss.detach())


def objectives(seen: Mapping[str, tuple[Tensor, Tensor, Tensor]]) -> dict[str, Tensor]:
    """The three parts of the loss: both kinds in register, and each embedding freed of what its projection lacks.

    Parameters
    ----------
    seen
        As :meth:`STGCHB.forward` returns it, of a batch of spots.
    """
    (image, image_h, image_z), (spot, spot_h, spot_z) = seen["images"], seen["spots"]
    return {
        "align": soft_clip_losses(image_z, spot_z).mean(),
        "hsic_spot": normalised_hsic(spot, spot_h) - _BETA * normalised_hsic(spot_z, spot_h),
        "hsic_image": normalised_hsic(image, image_h) - _BETA * hsic(image_h, image_z),
    }


def hsic(x: Tensor, y: Tensor) -> Tensor:
    """Hilbert–Schmidt independence criterion of rows under Gaussian kernels: 0 where they are independent."""
    n = len(x)
    centring = torch.eye(n, device=x.device) - 1 / n
    kernels = (torch.exp(-(z[:, None] - z[None]).square().sum(-1) / _SIGMA**2) for z in (x, y))
    first, second = (kernel @ centring for kernel in kernels)
    return torch.trace(first @ second) / (n - 1) ** 2


def normalised_hsic(x: Tensor, y: Tensor) -> Tensor:
    """The same, over √((1 + that of ``x`` with itself) (1 + that of ``y``))."""
    return hsic(x, y) / ((1 + hsic(x, x)).sqrt() * (1 + hsic(y, y)).sqrt())


class GraphInfomax(nn.Module):
    """Deep graph infomax (Veličković et al. 2019): one graph convolution, and a judge of real against shuffled."""

    def __init__(self, n_in: int, dim: int) -> None:
        super().__init__()
        self.gcn = _GraphLayer(n_in, dim)
        self.disc = nn.ModuleDict({"f_k": nn.Bilinear(dim, dim, 1)})

    def logits(self, features: Tensor, shuffled: Tensor, adjacency: Tensor) -> Tensor:
        """Real nodes first, then shuffled ones, (1, 2 · n)."""
        real, other = self.gcn(features, adjacency), self.gcn(shuffled, adjacency)
        summary = real.mean(0, keepdim=True).sigmoid().expand_as(real)
        return torch.cat([self.disc["f_k"](h, summary) for h in (real, other)])[:, 0][None]

    def loss(self, features: Tensor, shuffled: Tensor, adjacency: Tensor) -> Tensor:
        """Cross entropy of the judgement."""
        logits = self.logits(features, shuffled, adjacency)
        real = (torch.arange(logits.shape[1], device=logits.device) < len(features)).to(logits)
        return F.binary_cross_entropy_with_logits(logits, real[None])


class _GraphLayer(nn.Module):
    def __init__(self, n_in: int, dim: int) -> None:
        super().__init__()
        self.bias = nn.Parameter(torch.zeros(dim))
        self.fc = nn.Linear(n_in, dim, bias=False)
        self.act = nn.PReLU()

    def forward(self, features: Tensor, adjacency: Tensor) -> Tensor:
        return self.act(adjacency @ self.fc(features) + self.bias)
