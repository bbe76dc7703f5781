"""STalign: rasterised spots registered by an affine map and a smooth flow, LDDMM (Clifton et al. 2023).

Inside, coordinates are in the order of array axes: (row, column), or (plane, row, column).
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional as F

from napari_he2st.core.errors import ModelError
from napari_he2st.core.types import Transform
from napari_he2st.zoo.base import Aligner

if TYPE_CHECKING:
    from anndata import AnnData

Array = NDArray[np.float64]


class STalign(Aligner):
    """Each section's spots, as an image of their density, are bent onto the first section's.

    Parameters
    ----------
    raster_pitches, blur
        Pixel of the images in pitches, and width of a spot in them.
    smoothness_pitches
        Scale below which the flow is smooth, in pitches.
    iterations, diffeo_start
        Steps, and how many of them move the affine map alone.
    step_linear, step_shift, step_flow
        Lengths of the steps of the affine map's parts and of the flow, where a pixel is 30 units; None takes those of
        the affine map from the first section's edges (:func:`step_lengths`). The published ones (2e-8, 0.2, 2e3) are
        for images of many more pixels than sections of spots give.
    sigma_match, sigma_flow
        How much the images may differ, and how much the flow may bend.
    """

    def __init__(
        self,
        *,
        raster_pitches: float = 0.5,
        blur: float = 1.5,
        smoothness_pitches: float = 5.0,
        iterations: int = 500,
        diffeo_start: int = 100,
        step_linear: float | None = None,
        step_shift: float | None = None,
        step_flow: float = 400.0,
        sigma_match: float = 0.2,
        sigma_flow: float = 5e5,
    ) -> None:
        self.raster_pitches, self.blur, self.smoothness_pitches = raster_pitches, blur, smoothness_pitches
        self.iterations, self.diffeo_start = iterations, diffeo_start
        self.steps_of = {"linear": step_linear, "shift": step_shift, "flow": step_flow}
        self.sigma_match, self.sigma_flow = sigma_match, sigma_flow

    def align(self, sections: Sequence[AnnData]) -> list[Transform]:
        """Bend each section onto the first; ``info["moved"]`` is where its spots come to lie."""
        pitch = float(sections[0].uns["he2st"]["pitch_um"])
        dx = self.raster_pitches * pitch
        unit = 30.0 / dx  # positions are brought to pixels of 30 units, for which the published steps are made
        fixed_axes, fixed, fixed_centre = _density(sections[0], dx, self.blur, unit)
        lengths = step_lengths(fixed_axes, fixed, self.sigma_match)
        lengths |= {name: length for name, length in self.steps_of.items() if length is not None}
        found = [Transform(np.eye(3))]
        for section in sections[1:]:
            axes, moving, centre = _density(section, dx, self.blur, unit)
            flow = register(
                axes,
                moving,
                fixed_axes,
                fixed,
                smoothness=self.smoothness_pitches * pitch * unit,
                diffeo_start=self.diffeo_start,
                steps=self.steps(self.iterations, "Aligning"),
                step_sizes=lengths,
                sigmas=Sigmas(match=self.sigma_match, flow=self.sigma_flow),
            )
            yx = torch.from_numpy(np.asarray(section.obsm["spatial"])[:, ::-1].copy()) * unit
            moved = (flow.forward(yx - centre) + fixed_centre).numpy()[:, ::-1] / unit
            affine = _moved_by(fixed_centre) @ flow.affine @ _moved_by(-centre)
            found.append(Transform(_swapped(affine, unit), {"moved": moved, "objective": flow.objective}))
        return found


def _density(section: AnnData, dx: float, blur: float, unit: float) -> tuple[list[Tensor], Tensor, Tensor]:
    """Axes of a section's image about its centre, the image, and the centre (row, column), in units."""
    xy = np.asarray(section.obsm["spatial"], dtype=np.float64)
    x, y, image = rasterize(xy[:, 0], xy[:, 1], dx=dx, blur=(blur,))
    axes = [torch.from_numpy(y) * unit, torch.from_numpy(x) * unit]
    centre = torch.stack([0.5 * (a[0] + a[-1]) for a in axes])
    return [a - c for a, c in zip(axes, centre, strict=True)], torch.from_numpy(normalise(image)), centre


def step_lengths(axes: Sequence[Tensor], image: Tensor, sigma_match: float) -> dict[str, float]:
    """Steps of an affine map that lead to the foot of the valley, where a shifted image differs by its gradient.

    The mismatch of an image and itself, moved a little, curves with its squared gradient, summed over the pixels;
    longer steps than this swing from side to side. The axes have to lie about their centre.
    """
    gradient = torch.stack(torch.gradient(image[0], spacing=tuple(axes))).square().sum(0)
    about_centre = (gradient * _grid(axes).square().sum(-1)).sum()
    return {"linear": sigma_match**2 / float(about_centre), "shift": sigma_match**2 / float(gradient.sum())}


def _moved_by(shift: Tensor) -> Tensor:
    matrix = torch.eye(len(shift) + 1, dtype=torch.float64)
    matrix[:-1, -1] = shift
    return matrix


def _swapped(affine: Tensor, unit: float) -> Array:
    """An affine map of (row, column) in units, as one of (x, y) in micrometres."""
    swap = np.array([[0, 1, 0], [1, 0, 0], [0, 0, 1.0]])
    scale = np.diag([1 / unit, 1 / unit, 1.0])
    return np.asarray(scale @ swap @ affine.numpy() @ swap @ np.linalg.inv(scale))


def normalise(values: Array) -> Array:
    """Values brought to 0 … 1."""
    low, high = values.min(), values.max()
    return np.asarray((values - low) / (high - low if high > low else 1.0))


def rasterize(
    x: Array,
    y: Array,
    weight: Array | None = None,
    *,
    dx: float = 30.0,
    blur: Sequence[float] = (1.0,),
    expand: float = 1.1,
    windowed: bool = True,
    wavelet: bool = False,
) -> tuple[Array, Array, Array]:
    """Points as an image in which each is a Gaussian of sum 1, of standard deviation 2 · dx · blur.

    Parameters
    ----------
    x, y
        Positions.
    weight
        Of each point; brought to 0 … 1 unless all are 1.
    dx
        Width of a pixel.
    blur
        One channel for each.
    expand
        Width of the image in that of the points.
    windowed
        Cut the Gaussians off where nothing is left of them.
    wavelet
        Every channel but the widest is what it has beyond the next wider one, without sign.

    Returns
    -------
    x, y, image
        Axes of the image, and (channels, rows, columns).
    """
    columns, rows = (_axis(values, dx, expand) for values in (x, y))
    widths = sorted(blur, reverse=True) if wavelet else list(blur)
    weight = np.ones(len(x)) if weight is None or (weight == 1).all() else normalise(weight)
    image = np.zeros((len(widths), len(rows), len(columns)))
    reach = math.ceil(4 * max(widths)) if windowed else max(image.shape)
    for px, py, w in zip(x, y, weight, strict=True):
        row, column = round((py - rows[0]) / dx), round((px - columns[0]) / dx)
        r = slice(max(row - reach, 0), min(row + reach, len(rows) - 1) + 1)
        c = slice(max(column - reach, 0), min(column + reach, len(columns) - 1) + 1)
        squares = (rows[r, None] - py) ** 2 + (columns[c] - px) ** 2
        for channel, b in enumerate(widths):
            spot = np.exp(-squares / (2 * (2 * dx * b) ** 2))
            image[channel, r, c] += w * spot / spot.sum()
    if wavelet:
        image = np.abs(np.concatenate([image[:1], image[1:] - image[:-1]]))
    return columns, rows, image


def _axis(values: Array, dx: float, expand: float) -> Array:
    middle, half = (values.min() + values.max()) / 2, np.ptp(values) / 2 * expand
    return np.arange(middle - half, middle + half, dx)


def affine_from_points(moving: Array, fixed: Array) -> tuple[Array, Array]:
    """Linear part and shift that bring landmarks onto others; with fewer than three pairs, a shift alone."""
    if len(moving) < 3:
        return np.eye(moving.shape[1]), np.asarray(fixed.mean(0) - moving.mean(0))
    solution = np.linalg.lstsq(np.column_stack([moving, np.ones(len(moving))]), fixed, rcond=None)[0]
    return np.asarray(solution[:-1].T), np.asarray(solution[-1])


@dataclass(frozen=True)
class Sigmas:
    """How far things may be from what is expected: images that match, background, artefacts, flow, landmarks."""

    match: float = 1.0
    background: float = 2.0
    artefact: float = 5.0
    flow: float = 5e5
    points: float = 20.0


@dataclass
class Flow:
    """A registration that was found.

    Attributes
    ----------
    affine
        Homogeneous matrix of the last step.
    velocity, axes
        Of the flow, (times, …, dimensions), and where it is sampled.
    weights
        Probability of each target pixel to match, to be background, to be an artefact.
    objective
        At the last step.
    """

    affine: Tensor
    velocity: Tensor
    axes: list[Tensor]
    weights: list[Tensor]
    objective: float = field(default=math.nan)

    def forward(self, points: Tensor) -> Tensor:
        """Positions of the source, (n, dimensions), in the target."""
        return _affine(self.affine, flowed(points, self.velocity, self.axes))

    def backward(self, points: Tensor) -> Tensor:
        """Positions of the target, (…, dimensions), in the source."""
        return flowed(_affine(torch.linalg.inv(self.affine), points), -self.velocity.flip(0), self.axes)

    def pull(self, axes: Sequence[Tensor], image: Tensor, target_axes: Sequence[Tensor]) -> Tensor:
        """A source image (channels, …) on the target's pixels."""
        return sampled(axes, image, self.backward(_grid(target_axes)))


def _affine(matrix: Tensor, points: Tensor) -> Tensor:
    return points @ matrix[:-1, :-1].T + matrix[:-1, -1]


def _grid(axes: Sequence[Tensor]) -> Tensor:
    return torch.stack(torch.meshgrid(*axes, indexing="ij"), -1)


def sampled(axes: Sequence[Tensor], image: Tensor, points: Tensor) -> Tensor:
    """A (channels, …) image at positions (…, dimensions), linearly; beyond its edge, the edge."""
    low, high = (torch.stack([a[i] for a in axes]) for i in (0, -1))
    place = ((points - low) / (high - low) * 2 - 1).flip(-1)
    shape = place.shape[:-1]
    place = place.reshape(1, *([1] * (len(axes) - 1)), -1, len(axes))
    found = F.grid_sample(image[None], place, mode="bilinear", padding_mode="border", align_corners=True)
    return found.reshape(len(image), *shape)


def flowed(points: Tensor, velocity: Tensor, axes: Sequence[Tensor]) -> Tensor:
    """Positions after the flow, in as many equal steps as it has times."""
    for v in velocity:
        points = points + sampled(axes, v.movedim(-1, 0), points).movedim(0, -1) / len(velocity)
    return points


def register(
    axes: Sequence[Tensor],
    image: Tensor,
    target_axes: Sequence[Tensor],
    target: Tensor,
    *,
    linear: Array | None = None,
    shift: Array | None = None,
    points: Tensor | None = None,
    target_points: Tensor | None = None,
    smoothness: float = 500.0,
    power: float = 2.0,
    expand: float = 2.0,
    times: int = 3,
    steps: Iterable[int] = range(5000),
    diffeo_start: int = 0,
    step_sizes: dict[str, float] | None = None,
    sigmas: Sigmas = Sigmas(),
) -> Flow:
    """Gradient descent on images' mismatch, the flow's bending and landmarks' distance (Tward et al. 2020).

    Parameters
    ----------
    axes, image
        Source: axes of its pixels, and (channels, …).
    target_axes, target
        Target. Of a plane in space, the first axis has one position.
    linear, shift
        Start of the affine map.
    points, target_points
        Landmarks in both.
    smoothness, power
        Scale and order of the flow's smoothness.
    expand
        Size of the flow's grid in that of the source.
    times
        Steps of the flow.
    steps
        Counts the iterations.
    diffeo_start
        From this one on, the flow moves too, and the affine map ten times slower.
    step_sizes
        ``"linear"``, ``"shift"``, ``"flow"``.
    sigmas
        Of the terms.

    Raises
    ------
    ModelError
        The steps are too long: the objective is no number any more.
    """
    image, target, n = image.double(), target.double(), len(axes)
    rates = step_sizes or {"linear": 2e-8, "shift": 0.2, "flow": 2e3}
    L = torch.as_tensor(np.eye(n) if linear is None else linear, dtype=torch.float64).clone().requires_grad_()
    T = torch.as_tensor(np.zeros(n) if shift is None else shift, dtype=torch.float64).clone().requires_grad_()
    spacing = smoothness / 2
    grid = [_around(a, expand, spacing) for a in axes]
    shape = [len(a) for a in grid]
    v = torch.zeros(times, *shape, n, dtype=torch.float64, requires_grad=True)
    roughness = _roughness(shape, spacing, smoothness, power)
    pixels, space = _grid(target_axes), tuple(range(1, n + 1))
    weights = [torch.full(target.shape[1:], w, dtype=torch.float64) for w in (0.5, 0.4, 0.1)]
    flow = Flow(torch.eye(n + 1, dtype=torch.float64), v.detach(), grid, weights)
    for step in steps:
        A = torch.eye(n + 1, dtype=torch.float64)
        A = torch.cat([torch.cat([L, T[:, None]], 1), A[-1:]])
        flow = Flow(A, v, grid, weights)
        matched = _contrast(sampled(axes, image, flow.backward(pixels)), target, weights[0])
        objective = (weights[0] * (matched - target).square()).sum() / (2 * sigmas.match**2)
        # The published regulariser transforms two axes alone, in space too.
        waves = torch.fft.fftn(v, dim=(1, 2)).abs().square().sum((0, -1))
        bending = (waves * roughness).sum() * spacing**n / (2 * shape[0] * shape[1] * sigmas.flow**2)
        objective = objective + bending
        if points is not None and target_points is not None:
            objective = objective + (flow.forward(points) - target_points).square().sum() / (2 * sigmas.points**2)
        value = float(objective.detach())
        if not math.isfinite(value):
            raise ModelError(f"The objective is {value} at step {step}", todo="Make the steps smaller")
        objective.backward()
        with torch.no_grad():
            slower = 10 if step >= diffeo_start else 1
            L -= rates["linear"] / slower * L.grad
            T -= rates["shift"] / slower * T.grad
            if step >= diffeo_start:
                smooth = torch.fft.fftn(v.grad, dim=space) / roughness[..., None]
                v -= rates["flow"] * torch.fft.ifftn(smooth, dim=space).real
            L.grad = T.grad = v.grad = None
            if step % 5 == 0:
                centres = [(w * target).flatten(1).sum(1) / w.sum() for w in weights[1:]]
                if step >= 50:
                    weights = _shares(weights, [matched.detach(), *centres], target, sigmas)
    return Flow(flow.affine.detach(), v.detach(), grid, weights, value)


def _around(axis: Tensor, expand: float, spacing: float) -> Tensor:
    middle, half = float(axis[0] + axis[-1]) / 2, float(axis[-1] - axis[0]) / 2 * expand
    return torch.from_numpy(np.arange(middle - half, middle + half, spacing))


def _roughness(shape: Sequence[int], spacing: float, smoothness: float, power: float) -> Tensor:
    """Penalty of each frequency of the flow."""
    axes = [torch.arange(n, dtype=torch.float64) / n for n in shape]
    waves = torch.stack([(1 - torch.cos(2 * torch.pi * f)) for f in torch.meshgrid(*axes, indexing="ij")]).sum(0)
    return (1 + 2 * smoothness**2 * waves / spacing**2) ** (2 * power)


def _contrast(image: Tensor, target: Tensor, weight: Tensor) -> Tensor:
    """The image with channels mixed so that they are most like the target's; the mixture counts as given."""
    with torch.no_grad():
        base = torch.cat([torch.ones_like(image[:1]), image]).flatten(1)
        weighted = base * weight.flatten()
        square = weighted @ base.T + 0.1 * torch.eye(len(base), dtype=base.dtype)
        mixture = torch.linalg.solve(square, weighted @ target.flatten(1).T)
    mixed = torch.cat([torch.ones_like(image[:1]), image]).flatten(1)
    return (mixture.T @ mixed).reshape(target.shape)


def _shares(weights: list[Tensor], means: list[Tensor], target: Tensor, sigmas: Sigmas) -> list[Tensor]:
    """How likely each pixel is to match, to be background, to be an artefact."""
    prior = torch.stack([w.sum() for w in weights])
    prior = prior + 1e-6 * prior.max()
    prior = prior / prior.sum()
    found = []
    for p, mean, s in zip(prior, means, (sigmas.match, sigmas.background, sigmas.artefact), strict=True):
        mean = mean if mean.ndim > 1 else mean.reshape(-1, *[1] * (target.ndim - 1))
        squares = (mean - target).square().sum(0)
        found.append(p * torch.exp(-squares / (2 * s**2)) / (2 * torch.pi * s**2) ** (len(target) / 2))
    total = torch.stack(found).sum(0)
    total = total + 1e-6 * total.max()
    return [w / total for w in found]
