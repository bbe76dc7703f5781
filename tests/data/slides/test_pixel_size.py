"""Which statement of the pixel size counts, and what is remembered of it."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
from tests.tiny.slides import tissue_image, write_slide

from napari_he2st.core.errors import MissingMppError, SlideError
from napari_he2st.core.paths import config_folder
from napari_he2st.data.slides import Slide, probe
from napari_he2st.data.slides.remembered import forget_mpp, remember_mpp, remembered_mpp


@pytest.fixture(autouse=True)
def own_config(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HE2ST_CONFIG", str(tmp_path / "config"))


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return write_slide(tmp_path / "a.tif", tissue_image(), mpp=None)


def fingerprint(path: Path) -> str:
    with Slide.open(path, mpp=1) as slide:
        return slide.fingerprint


def test_what_was_stated_is_remembered_wherever_the_slide_lies(path: Path, tmp_path: Path) -> None:
    with pytest.raises(MissingMppError):
        Slide.open(path)
    remember_mpp(fingerprint(path), 0.43, "two points 100 µm apart")
    (tmp_path / "elsewhere").mkdir()
    moved = shutil.move(path, tmp_path / "elsewhere" / "b.tif")
    with Slide.open(moved) as slide:
        assert slide.mpp == 0.43
        assert slide.mpp_source.startswith("stated on 2")
        assert slide.mpp_source.endswith(": two points 100 µm apart")
    with Slide.open(moved, mpp=0.5) as slide:
        assert (slide.mpp, slide.mpp_source) == (0.5, "given")
    forget_mpp(fingerprint(moved))
    assert probe(moved)["mpp"] is None


def test_it_overrides_the_file_and_the_contradiction_is_told(tmp_path: Path) -> None:
    path = write_slide(tmp_path / "a.tif", tissue_image(), mpp=0.5)
    remember_mpp(fingerprint(path), 0.25, "40× objective")
    facts = probe(path)
    assert facts["mpp"] == 0.25  # one or the other, never the mean
    assert "contradicts TIFF resolution tag (0.5)" in facts["mpp_notes"][0]


def test_nothing_is_remembered_unasked(path: Path) -> None:
    with Slide.open(path, mpp=0.5):
        pass
    assert remembered_mpp(fingerprint(path)) is None


def test_a_damaged_entry_counts_as_none(path: Path) -> None:
    remember_mpp(fingerprint(path), 0.5, "x")
    (file,) = (config_folder() / "pixel_sizes").iterdir()
    for text in ("", "[]", '{"mpp": 1}', '{"mpp": -1, "source": "x", "date": "y"}', '{"mpp": "a"}'):
        file.write_text(text)
        assert remembered_mpp(fingerprint(path)) is None


@pytest.mark.parametrize("mpp", [0, -1, float("nan")])
def test_impossible_sizes_are_refused(path: Path, mpp: float) -> None:
    with pytest.raises(SlideError, match="above zero"):
        remember_mpp(fingerprint(path), mpp, "x")
