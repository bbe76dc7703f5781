"""HE2Gene: target genes, auxiliary genes and tumour from one trunk (Chen et al., Bioinformatics 40, 2024)."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from torch import Tensor, nn
from torch.nn import functional as F

from napari_he2st.core.noise import Noise
from napari_he2st.zoo.base import Batches, Expression, Label, Predictor, Spots
from napari_he2st.zoo.blocks.losses import nan_mse
from napari_he2st.zoo.blocks.pixels import standardise
from napari_he2st.zoo.blocks.symmetry import mean_over_symmetries, random_symmetry
from napari_he2st.zoo.blocks.trunks import load_imagenet, torchvision_network
from napari_he2st.zoo.inputs import NeighbourTiles, Tiles
from napari_he2st.zoo.recipe import Recipe

_PIXELS = {"mean": (0.5319, 0.5080, 0.6824), "std": (0.2442, 0.2063, 0.1633)}


class HE2Gene(Predictor):
    """ResNet-50 with heads for the panel, for auxiliary genes and for tumour.

    Parameters
    ----------
    n_genes
        Size of the panel.
    n_aux
        Auxiliary genes that share the trunk in training (published: 19,699), those of highest mean after the panel;
        without them there is no such head.
    n_annotations
        1: probability of tumour. More: scores of as many tissue classes.
    spatial
        The published "Spat" network, which in training also predicts the eight neighbours of each spot and
        draws the spot towards those of the same label.
    annotated
        Training spots have labels: ``targets["tumour"]`` and, if ``spatial``, ``targets["neighbour_tumour"]``.
        Without them the tumour head is not trained, and all neighbours count.
    aux_weight, tumour_weight, spatial_weight
        Of the losses; published for the spatial network are 100, 1 and 0.01.
    trunk
        A torchvision ResNet.
    tile_px
        Width of the tile; published as 150 px scaled to 224.
    imagenet
        Start training from ImageNet weights, as published.
    """

    unit = Spots()
    targets: Mapping[str, Expression | Label] = {"expression": Expression("log1p_cp10k", panel="mean:250")}
    recipe = Recipe("adam", lr=1e-5, weight_decay=1e-4, epochs=100, batch_size=256, schedule="step:10:0.5")

    def __init__(
        self,
        n_genes: int,
        *,
        n_aux: int = 0,
        n_annotations: int = 1,
        spatial: bool = False,
        annotated: bool = False,
        aux_weight: float = 20.0,
        tumour_weight: float = 1.0,
        spatial_weight: float = 0.01,
        trunk: str = "resnet50",
        tile_px: int = 224,
        imagenet: bool = True,
    ) -> None:
        super().__init__()
        self.inputs = {"tiles": Tiles(px=tile_px)}
        targets: dict[str, Expression | Label] = dict(self.targets)
        if n_aux:
            targets["auxiliary"] = Expression("log1p_cp10k")
        if annotated:
            targets["tumour"] = Label(per="spot")
        if annotated and spatial:
            targets["neighbour_tumour"] = Label(per="spot")
        self.targets = targets
        if spatial:
            self.inputs["neighbours"] = NeighbourTiles(px=tile_px)
            self.recipe = Recipe("adam", lr=1e-5, weight_decay=1e-4, epochs=100, batch_size=32, schedule="step:10:0.5")
        self.n_aux, self.trunk, self.imagenet, self.spatial, self.annotated = n_aux, trunk, imagenet, spatial, annotated
        self.aux_weight, self.tumour_weight, self.spatial_weight = aux_weight, tumour_weight, spatial_weight
        self.base_model = torchvision_network(trunk, 1)
        width = self.base_model.fc.in_features
        self.base_model.fc = nn.Identity()
        self._names = ("fc", "fc_aux", "fc_tmr") if spatial else ("fc1", "fc2", "fc3")
        for name, n_out in zip(self._names, (n_genes, n_aux, n_annotations), strict=True):
            if n_out:
                self.add_module(name, nn.Linear(width, n_out))

    def prepare(self, *, tiles: Tensor, neighbours: tuple[Tensor, Tensor] | None = None) -> dict[str, Tensor]:
        """Standardised tiles; of the neighbours also which of them exist."""
        prepared = {"images": standardise(tiles, _PIXELS)}
        if neighbours is not None:
            prepared |= {"neighbours": standardise(neighbours[0], _PIXELS), "exists": neighbours[1]}
        return prepared

    def forward(self, images: Tensor, neighbours: Tensor | None = None) -> tuple[Tensor | None, ...]:
        """Panel (n, genes), auxiliary genes or None, and tumour.

        In training the spatial network adds the same three of the neighbours (n, 8, 3, px, px).
        """
        out = self._heads(self.base_model(images))
        if not (self.spatial and self.training and neighbours is not None):
            return out
        around = self._heads(self.base_model(neighbours.flatten(0, 1)))
        return *out, *(None if part is None else part.unflatten(0, neighbours.shape[:2]) for part in around)

    def _heads(self, features: Tensor) -> tuple[Tensor | None, ...]:
        heads = [getattr(self, name, None) for name in self._names]
        panel, aux, tumour = (None if head is None else head(features) for head in heads)
        assert tumour is not None
        return panel, aux, tumour.sigmoid() if tumour.shape[1] == 1 else tumour

    def loss(
        self,
        targets: Mapping[str, Tensor],
        *,
        images: Tensor,
        neighbours: Tensor | None = None,
        exists: Tensor | None = None,
    ) -> Tensor:
        """Weighted sum over panel, auxiliary genes, tumour and neighbours."""
        if neighbours is not None:
            neighbours = random_symmetry(neighbours.flatten(0, 1)).unflatten(0, neighbours.shape[:2])
        panel, aux, tumour, *around = self(random_symmetry(images), neighbours)
        total = nan_mse(panel, targets["expression"])
        if aux is not None:
            total = total + self.aux_weight * nan_mse(aux, targets["auxiliary"])
        if self.annotated:
            total = total + self.tumour_weight * self._tumour_loss(tumour, targets["tumour"])
        if around and exists is not None:
            valid = exists.bool()
            if self.annotated:
                valid = valid & (targets["neighbour_tumour"] == targets["tumour"][:, None])
            total = total + self.spatial_weight * spatial_mse(panel, around[0], valid)
        return total

    @staticmethod
    def _tumour_loss(tumour: Tensor, labels: Tensor) -> Tensor:
        if tumour.shape[1] == 1:
            return F.binary_cross_entropy(tumour[:, 0], labels.to(tumour.dtype))
        return F.cross_entropy(tumour, labels)

    def predict(
        self,
        *,
        images: Tensor,
        neighbours: Tensor | None = None,
        exists: Tensor | None = None,
        noise: Noise | None = None,
        average: bool = True,
    ) -> Tensor:
        """log1p CP10k of the panel, mean over the eight symmetries of the tile unless ``average=False``."""

        def panel(view: Tensor) -> Tensor:
            return self._heads(self.base_model(view))[0]  # type: ignore[return-value]

        return mean_over_symmetries(panel, images) if average else panel(images)

    def fit(self, batches: Batches, recipe: Recipe) -> Iterator[dict[str, float]]:
        """Start from ImageNet, then train."""
        if self.imagenet:
            load_imagenet(self.base_model, self.trunk)
        yield from super().fit(batches, recipe)


def spatial_mse(predicted: Tensor, neighbours: Tensor, valid: Tensor) -> Tensor:
    """Squared distance of each spot's prediction from the mean of its neighbours'.

    Parameters
    ----------
    predicted
        (n, genes).
    neighbours
        Predictions of the neighbours, (n, k, genes).
    valid
        Which of them count, bool (n, k).

    Returns
    -------
    Tensor
        Mean over genes and over the spots with a neighbour that counts; 0 where there are none.
    """
    weight = valid.to(predicted.dtype)[..., None]
    n = weight.sum(1)
    mean = (neighbours * weight).sum(1) / n.clamp(min=1)
    has = (n > 0).to(predicted.dtype)
    return ((predicted - mean).square().mean(1, keepdim=True) * has).sum() / has.sum().clamp(min=1)
