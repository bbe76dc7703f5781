"""STaCker: a U-Net says how one image flows onto another, spots move along (Lee et al. 2025)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import pairwise
from typing import TYPE_CHECKING

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional as F

from napari_he2st.analysis.alignment.phase import phase
from napari_he2st.core.types import Transform
from napari_he2st.zoo.base import Aligner
from napari_he2st.zoo.inputs import Overview
from napari_he2st.zoo.recipe import Recipe

if TYPE_CHECKING:
    from anndata import AnnData

_FILTERS = (64, 128, 256, 512, 1024)


class STaCker(Aligner):
    """Each section's image is moved rigidly onto the first one's, then bent onto it.

    The published weights are no longer offered: the network is trained on each pair itself, without labels, to make
    the images match by a smooth flow.

    Parameters
    ----------
    image_px
        Longer side of the images.
    filters
        Channels of the U-Net's levels.
    smoothness
        Weight of the flow's unevenness against the images' mismatch.
    lr, epochs
        Of the training of each pair.
    """

    def __init__(
        self,
        *,
        image_px: int = 256,
        filters: tuple[int, ...] = (16, 32, 64),
        smoothness: float = 0.1,
        lr: float = 1e-3,
        epochs: int = 100,
    ) -> None:
        self.inputs = {"images": Overview(px=image_px)}
        self.filters, self.smoothness = tuple(filters), smoothness
        self.recipe = Recipe(lr=lr, epochs=epochs)

    def align(self, sections: Sequence[AnnData], images: Sequence[tuple[Tensor, float]]) -> list[Transform]:
        """Bend each section onto the first; ``info["moved"]`` is where its spots come to lie."""
        fixed, um = images[0]
        found = [Transform(np.eye(3))]
        for section, (image, own_um) in zip(sections[1:], images[1:], strict=True):
            moving = F.interpolate(image[None].float(), scale_factor=own_um / um, mode="bilinear", antialias=True)[0]
            rigid = phase(_array(moving), _array(fixed), mpp=um)
            size = tuple(-(-n // 2 ** (len(self.filters) - 1)) * 2 ** (len(self.filters) - 1) for n in fixed.shape[1:])
            target, start = _padded(fixed.float() / 255, size), _moved(moving / 255, rigid, size)
            network = Network(self.filters)

            def loss(_: int) -> Tensor:
                out = network(start, target)  # noqa: B023 - called before the next pair
                return F.mse_loss(out["moved"], target) + self.smoothness * unevenness(out["velocity"])  # noqa: B023

            report = self.minimise(network, loss, self.recipe)
            with torch.no_grad():
                back = network(start, target)["inverse"][0]
            px = rigid(np.asarray(section.obsm["spatial"]) / um)
            moved = (px + _field_at(back.numpy(), px)) * um
            scale = np.diag([um, um, 1.0])
            matrix = scale @ rigid.matrix @ np.linalg.inv(scale)
            found.append(Transform(matrix, {"moved": moved, "objective": report["loss"], **rigid.info}))
        return found


def _array(image: Tensor) -> NDArray[np.float64]:
    return image.permute(1, 2, 0).double().numpy() / 255


def _padded(image: Tensor, size: tuple[int, ...]) -> Tensor:
    rows, columns = size[0] - image.shape[1], size[1] - image.shape[2]
    return F.pad(image, (0, columns, 0, rows), value=1.0)[None]


def _moved(image: Tensor, transform: Transform, size: tuple[int, ...]) -> Tensor:
    """An image (3, …) after a transform of its pixels, white where there is nothing of it."""
    import cv2

    array = image.permute(1, 2, 0).numpy()
    white = (1.0, 1.0, 1.0)
    result = cv2.warpAffine(array, transform.matrix[:2], (size[1], size[0]), borderValue=white)
    return torch.from_numpy(result).permute(2, 0, 1)[None]


def _field_at(field: NDArray, xy: NDArray) -> NDArray[np.float64]:
    """A displacement (row, column) in pixels at positions (x, y), as (x, y); cubic."""
    from scipy.ndimage import map_coordinates

    where = xy[:, ::-1].T
    return np.stack([map_coordinates(field[axis], where, order=3, mode="nearest") for axis in (1, 0)], axis=1)


def _conv(n_in: int, n_out: int, width: int = 3) -> nn.Conv2d:
    return nn.Conv2d(n_in, n_out, width, padding=1 if width == 3 else 0)


class Network(nn.Module):
    """Two images to a velocity field: a layer of their own, a joint one, a U-Net, and a 2 × 2 convolution."""

    def __init__(self, filters: Sequence[int] = _FILTERS, channels: int = 3) -> None:
        super().__init__()
        self.filters = tuple(filters)
        self.siamese_in_src_image_indep_conv = _conv(channels, channels)
        self.siamese_in_tgt_image_indep_conv = _conv(channels, channels)
        self.siamese_in_joint_conv = _conv(2 * channels, channels)
        for n_in, n in pairwise((channels, *self.filters)):
            self.add_module(f"unet_conv_down_{n}_0", _conv(n_in, n))
            self.add_module(f"unet_conv_down_{n}_1", _conv(n, n))
        for below, n in pairwise(self.filters[::-1]):
            self.add_module(f"unet_upconv_{n}", nn.ConvTranspose2d(below, n, 2, stride=2))
            self.add_module(f"unet_conv_up_{n}_0", _conv(2 * n, n))
            self.add_module(f"unet_conv_up_{n}_1", _conv(n, n))
        self.def_field_former_conv = _conv(self.filters[0], 2, 2)
        nn.init.normal_(self.def_field_former_conv.weight, std=1e-5)

    def forward(self, moving: Tensor, fixed: Tensor) -> dict[str, Tensor]:
        """``moved`` image, ``velocity``, ``displacement`` and its ``inverse`` (n, 2, …) in pixels (row, column).

        Images are (n, 3, height, width) in 0 … 1; height and width divide by 2 to the number of levels less one.
        """
        both = [self.siamese_in_src_image_indep_conv(moving), self.siamese_in_tgt_image_indep_conv(fixed)]
        joint = F.relu(self.siamese_in_joint_conv(F.relu(torch.cat(both, 1))))
        velocity = self.def_field_former_conv(F.pad(self._unet(joint), (0, 1, 0, 1)))
        displacement = integrated(velocity)
        out = {"joint": joint, "velocity": velocity, "displacement": displacement, "inverse": integrated(-velocity)}
        return out | {"moved": warped(moving, displacement)}

    def _unet(self, x: Tensor) -> Tensor:
        skips: list[Tensor] = []
        for n in self.filters:
            x = self._twice(F.max_pool2d(x, 2) if skips else x, f"unet_conv_down_{n}")
            skips.append(x)
        for n, skip in zip(self.filters[-2::-1], skips[-2::-1], strict=True):
            up = self.get_submodule(f"unet_upconv_{n}")(x)
            x = self._twice(torch.cat([up, skip], 1), f"unet_conv_up_{n}")
        return x

    def _twice(self, x: Tensor, name: str) -> Tensor:
        for number in (0, 1):
            x = F.relu(self.get_submodule(f"{name}_{number}")(x))
        return x


def warped(image: Tensor, displacement: Tensor) -> Tensor:
    """The image (n, channels, …) at displaced pixels, linearly; beyond its edge, the edge."""
    height, width = image.shape[2:]
    rows, columns = torch.meshgrid(torch.arange(height), torch.arange(width), indexing="ij")
    y = (rows + displacement[:, 0]) / (height - 1) * 2 - 1
    x = (columns + displacement[:, 1]) / (width - 1) * 2 - 1
    return F.grid_sample(image, torch.stack([x, y], -1), padding_mode="border", align_corners=True)


def integrated(velocity: Tensor, steps: int = 7) -> Tensor:
    """Displacement after following a velocity for one unit of time, by repeated doubling."""
    field = velocity / 2**steps
    for _ in range(steps):
        field = field + warped(field, field)
    return field


def unevenness(field: Tensor) -> Tensor:
    """Mean squared difference of neighbouring pixels, averaged over both axes."""
    return (
        (field[:, :, 1:] - field[:, :, :-1]).square().mean() + (field[..., 1:] - field[..., :-1]).square().mean()
    ) / 2


def overlap_loss(a: Tensor, b: Tensor) -> Tensor:
    """Minus the mean Dice overlap of one-hot labels (…, classes); 0 for a class that neither has."""
    axes = tuple(range(a.ndim - 1))
    total = (a + b).sum(axes)
    dice = 2 * (a * b).sum(axes) / total.clamp(min=1e-12)
    return -dice.mean()


def contour(labels: NDArray) -> NDArray[np.int32]:
    """255 where the differences to the eight pixels around do not cancel, else 0; the border repeats."""
    padded = np.pad(labels.astype(np.int64), 1, mode="edge")
    rows, columns = labels.shape
    shifts = [(r, c) for r in range(3) for c in range(3) if (r, c) != (1, 1)]
    total = sum(labels - padded[r : r + rows, c : c + columns] for r, c in shifts)
    return np.where(total != 0, 255, 0).astype(np.int32)


def composite(image: NDArray, labels: NDArray, *, share: float = 0.3) -> NDArray[np.float64]:
    """An image (…, 3) in 0 … 1 with the outlines of clusters, ``labels`` of its pixels, laid over it."""
    line = (contour(labels) > 0)[..., None]
    return np.where(line, (1 - share) * image + share, image)


STATE_NAMES: Mapping[str, str] = {"/kernel": ".weight", "/bias": ".bias"}
"""How the published names of weights end, and how ours do."""
