"""Where caches and what the user has stated live on this machine."""

from __future__ import annotations

import os
from pathlib import Path

import platformdirs


def cache_folder() -> Path:
    """The folder of all caches: ``HE2ST_CACHE`` if set, else the user's cache folder."""
    folder = Path(os.environ.get("HE2ST_CACHE") or platformdirs.user_cache_dir("napari-he2st", appauthor=False))
    folder.mkdir(parents=True, exist_ok=True)
    return folder


def config_folder() -> Path:
    """The folder of what the user has stated: ``HE2ST_CONFIG`` if set, else the user's configuration folder."""
    folder = Path(os.environ.get("HE2ST_CONFIG") or platformdirs.user_config_dir("napari-he2st", appauthor=False))
    folder.mkdir(parents=True, exist_ok=True)
    return folder


def predictors_folder() -> Path:
    """The folder of predictors that the user trained: ``HE2ST_PREDICTORS`` if set, else in the user's data folder."""
    given = os.environ.get("HE2ST_PREDICTORS")
    folder = Path(given or Path(platformdirs.user_data_dir("napari-he2st", appauthor=False)) / "predictors")
    folder.mkdir(parents=True, exist_ok=True)
    return folder
