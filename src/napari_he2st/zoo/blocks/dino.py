"""DINO: a network learns from images alone, by agreeing with the mean of its own past (Caron et al., ICCV 2021)."""

from __future__ import annotations

import copy
from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from napari_he2st.zoo.blocks.augment import crop_flip_turn

_STUDENT_HEAT, _TEACHER_HEAT = 0.1, 0.04
_CENTRE_MOMENTUM = 0.9
_NARROW = 4


class Dino(nn.Module):
    """A student, and a teacher that follows it; both tell of wide views, the student also of narrow ones.

    Parameters
    ----------
    network
        Views to features (n, dim).
    dim
        Width of a feature.
    n_prototypes
        Classes without a meaning into which both sort the views.

    Attributes
    ----------
    student, teacher
        Each with ``network`` and ``head``. The teacher's network is the one to keep.
    """

    centre: Tensor

    def __init__(self, network: nn.Module, dim: int, n_prototypes: int = 1024) -> None:
        super().__init__()
        self.student = nn.ModuleDict({"network": network, "head": _Head(dim, n_prototypes)})
        self.teacher = copy.deepcopy(self.student).requires_grad_(False)
        self.register_buffer("centre", torch.zeros(n_prototypes))

    def forward(self, wide: Sequence[Tensor], narrow: Sequence[Tensor]) -> Tensor:
        """Cross entropy of every view of the student's to every other wide view of the teacher's; moves the centre."""
        with torch.no_grad():
            taught = [self._prototypes(self.teacher, view) for view in wide]
            aims = [((logits - self.centre) / _TEACHER_HEAT).softmax(-1) for logits in taught]
            self.centre.lerp_(torch.cat(taught).mean(0), 1 - _CENTRE_MOMENTUM)
        losses = []
        for number, view in enumerate([*wide, *narrow]):
            said = (self._prototypes(self.student, view) / _STUDENT_HEAT).log_softmax(-1)
            losses += [-(aim * said).sum(-1).mean() for other, aim in enumerate(aims) if other != number]
        return torch.stack(losses).mean()

    def follow(self, momentum: float) -> None:
        """Let the teacher take a step towards the student."""
        with torch.no_grad():
            for old, new in zip(self.teacher.parameters(), self.student.parameters(), strict=True):
                old.lerp_(new, 1 - momentum)

    @staticmethod
    def _prototypes(side: nn.ModuleDict, view: Tensor) -> Tensor:
        logits: Tensor = side["head"](side["network"](view))
        return logits


class _Head(nn.Module):
    def __init__(self, dim: int, n_prototypes: int, hidden: int = 512, bottleneck: int = 128) -> None:
        super().__init__()
        self.mlp = nn.Sequential(nn.Linear(dim, hidden), nn.GELU(), nn.Linear(hidden, bottleneck))
        self.prototypes = nn.Parameter(F.normalize(torch.randn(n_prototypes, bottleneck), dim=-1))

    def forward(self, features: Tensor) -> Tensor:
        return F.linear(F.normalize(self.mlp(features), dim=-1), F.normalize(self.prototypes, dim=-1))


def dino_views(images: Tensor, wide: int, narrow: int, *, zoom: bool) -> tuple[list[Tensor], list[Tensor]]:
    """Two wide and four narrow views of each image, squares flipped and turned by quarters.

    Parameters
    ----------
    images
        (n, channels, side, side).
    wide, narrow
        Widths of the views.
    zoom
        Cut wide views of 0.4 to 1 of the image's area, and narrow ones of 0.05 to 0.4, and bring them to their
        widths, as published; otherwise cut them at their widths.
    """
    areas = ((0.4, 1.0), (0.05, 0.4)) if zoom else (None, None)
    return (
        [crop_flip_turn(images, wide, areas[0]) for _ in range(2)],
        [crop_flip_turn(images, narrow, areas[1]) for _ in range(_NARROW)],
    )
