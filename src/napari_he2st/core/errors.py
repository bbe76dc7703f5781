"""Errors that a user reads: what is wrong, where, and what to do next."""

from __future__ import annotations

from pathlib import Path


class He2stError(Exception):
    """Anything this package can tell a user about.

    Parameters
    ----------
    what
        What is wrong, as one sentence without a full stop.
    where
        The file, gene, layer or field that is concerned.
    todo
        What the user can do next, as one sentence without a full stop.
    """

    def __init__(self, what: str, *, where: str | Path | None = None, todo: str | None = None) -> None:
        self.what, self.where, self.todo = what, where, todo
        text = what if where is None else f"{what}: {where}"
        super().__init__(text if todo is None else f"{text}. {todo}.")

    def __reduce__(self) -> tuple:
        return _rebuild, (type(self), self.what, self.where, self.todo)


def _rebuild(cls: type[He2stError], what: str, where: str | Path | None, todo: str | None) -> He2stError:
    return cls(what, where=where, todo=todo)


class SlideError(He2stError):
    """A slide cannot be opened or read."""


class MissingMppError(SlideError):
    """A slide does not say how large its pixels are."""


class TruthError(He2stError):
    """Measured spatial transcriptomics cannot be read, or does not fit."""


class MissingTruthMppError(MissingMppError, TruthError):
    """A measured section does not say how large the pixels are in which its positions are given."""


class SchemaError(He2stError):
    """An AnnData object does not follow the schema of :mod:`napari_he2st.core.schema`."""


class GeneError(He2stError):
    """Genes are missing, duplicated or do not overlap."""


class SessionError(He2stError):
    """A saved session cannot be opened."""


class UnknownNameError(He2stError):
    """A name is not registered; the message lists near matches."""


class ModelError(He2stError):
    """A predictor cannot be built, or returned something unusable."""


class WeightsError(ModelError):
    """Weights are missing, of the wrong shape, or not what their checksum says."""


class BundleError(ModelError):
    """A bundle on disk is incomplete or damaged."""


class StoreError(He2stError):
    """A result store cannot be written, resumed or read."""


class OutputError(He2stError):
    """An output file exists already or cannot be written."""


class MissingExtraError(He2stError):
    """An optional dependency is needed; the message names the extra."""
