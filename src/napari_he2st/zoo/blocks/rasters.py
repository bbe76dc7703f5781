"""Discs, filters and shifts on lattices of cells, as iStar and its heirs use them."""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from torch import Tensor
from torch.nn import functional as F


def disc_mask(radius: float) -> Tensor:
    """Cells of a disc, bool, shape (2⌈radius⌉ + 1, the same): those whose centre is within ``radius`` cells."""
    reach = torch.arange(-math.ceil(radius), math.ceil(radius) + 1, dtype=torch.float64)
    return reach[:, None].square() + reach.square() <= radius**2


def disc_cells(maps: Tensor, centres: Tensor, radius: float) -> Tensor:
    """Cells of a disc around each of some cells, row by row.

    Parameters
    ----------
    maps
        (rows, columns, channels).
    centres
        (row, column), int64 (n, 2); no disc's window may leave the map.
    radius
        In cells.

    Returns
    -------
    Tensor
        (n, cells of a disc, channels).
    """
    steps = disc_mask(radius).nonzero() - math.ceil(radius)
    places = centres[:, None] + steps
    return maps[places[..., 0], places[..., 1]]


def box_mean(maps: Tensor, size: int) -> Tensor:
    """Mean of (…, rows, columns) over ``size`` × ``size`` cells, from ``size // 2`` before a cell on.

    Beyond the border the map is mirrored, its last cell repeated.
    """
    weights = maps.new_full((size,), 1 / size)
    return _along_both(maps, weights, size // 2)


def gaussian_mean(maps: Tensor, size: float) -> Tensor:
    """Gaussian mean of (…, rows, columns) of deviation ``size / 4``, cut off at ``size``; see :func:`box_mean`."""
    reach = math.ceil(size)
    steps = torch.arange(-reach, reach + 1, device=maps.device, dtype=torch.float64)
    weights = torch.exp(-steps.square() / (2 * (size / 4) ** 2))
    return _along_both(maps, (weights / weights.sum()).to(maps.dtype), reach)


def _along_both(maps: Tensor, weights: Tensor, before: int) -> Tensor:
    flat = maps.reshape(-1, 1, *maps.shape[-2:])
    for axis in (-2, -1):
        kernel = weights.view(1, 1, -1, 1) if axis == -2 else weights.view(1, 1, 1, -1)
        flat = F.conv2d(_mirrored(flat, axis, before, len(weights) - 1 - before), kernel)
    return flat.view(maps.shape)


def _mirrored(x: Tensor, axis: int, before: int, after: int) -> Tensor:
    n = x.shape[axis]
    places = torch.arange(-before, n + after, device=x.device) % (2 * n)
    return x.index_select(axis, torch.where(places < n, places, 2 * n - 1 - places))


def shifted_mean(encode: Callable[[Tensor], Tensor], image: Tensor, *, margin: int = 256, stride: int = 64) -> Tensor:
    """Mean of an encoder's maps over shifts of the image, which hides the borders of its patches.

    Parameters
    ----------
    encode
        Images (channels, height, width) to maps (dim, height / 16, width / 16).
    image
        (channels, height, width), sides a multiple of 256.
    margin, stride
        Shifts are 0, ``stride``, … below ``margin`` on both axes; crops are smaller than the image by ``margin``.

    Returns
    -------
    Tensor
        (dim, height / 16, width / 16). Cells that fewer crops cover, within ``margin`` of the border, come out
        too small, and the last ``margin`` is 0, as in iStar.
    """
    height, width = image.shape[-2:]
    shifts = range(0, margin, stride)
    total: Tensor | float = 0.0
    for y in shifts:
        for x in shifts:
            maps = encode(image[:, y : height - margin + y, x : width - margin + x])
            cell = (height - margin) // maps.shape[-2]
            top, left = y // cell, x // cell
            around = (left, margin // cell - left, top, margin // cell - top)
            total = total + F.pad(maps, around)
    mean = torch.as_tensor(total) / len(shifts) ** 2
    mean[:, -(margin // cell) :] = 0
    mean[:, :, -(margin // cell) :] = 0
    return mean


def cell_positions(centre_um: Tensor, side: int, pitch_um: float) -> Tensor:
    """Micrometres (x, y) of ``side`` × ``side`` cells around a centre (x, y), row by row: (side², 2)."""
    steps = (torch.arange(side, device=centre_um.device) - (side - 1) / 2) * pitch_um
    y, x = torch.meshgrid(steps, steps, indexing="ij")
    return centre_um + torch.stack([x.flatten(), y.flatten()], dim=1)


def owner_sum(cells: Tensor, owner: Tensor, n: int) -> Tensor:
    """Sum of the cells (m, channels) of each of ``n`` owners, (n, channels).

    ``owner`` is int64 (m,); −1 marks cells that belong to none.
    """
    owned = owner >= 0
    return cells.new_zeros(n, cells.shape[1]).index_add(0, owner[owned], cells[owned])


def owner_mean(cells: Tensor, owner: Tensor, n: int) -> Tensor:
    """Mean in place of :func:`owner_sum`; NaN for an owner without cells."""
    return owner_sum(cells, owner, n) / torch.bincount(owner[owner >= 0], minlength=n)[:, None]
