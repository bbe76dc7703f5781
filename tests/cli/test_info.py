"""``he2st info``: slides and measured sections."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from tests.tiny.formats import write_ome_zarr

TRUTH_KEYS = {
    "layout",
    "section",
    "sections",
    "spots",
    "genes",
    "patient",
    "mpp",
    "mpp_source",
    "on_tissue",
    "found",
    "missing",
}


@pytest.fixture
def picture(tmp_path: Path) -> Path:
    """A slide of 40 × 30 pixels that does not say how large they are."""
    path = tmp_path / "scan.png"
    Image.fromarray(np.full((30, 40, 3), 200, dtype=np.uint8)).save(path)
    return path


def test_slide_without_pixel_size_says_how_to_give_it(he2st, picture: Path) -> None:
    outcome = he2st("info", picture, "--json")
    assert outcome.code == 0
    assert outcome.json["size"] == [40, 30]
    assert outcome.json["mpp"] is None
    assert "--mpp" in outcome.err


def test_slide_with_a_given_pixel_size(he2st, picture: Path) -> None:
    outcome = he2st("info", picture, "--mpp", "0.5", "--json")
    assert (outcome.json["mpp"], outcome.json["mpp_source"]) == (0.5, "given")
    assert outcome.err == ""
    assert "40 × 30 px" in he2st("info", picture, "--mpp", "0.5").out


def test_section(he2st, sample: str) -> None:
    facts = he2st("info", sample, "--json").json
    assert facts.keys() >= TRUTH_KEYS
    assert (facts["layout"], facts["section"], facts["spots"]) == ("legacy_st", "C5", 181)
    assert facts["genes"] > 10_000
    assert facts["mpp"] == pytest.approx(0.69, abs=0.01)
    assert facts["on_tissue"] > 0.8
    assert facts["missing"] == []


def test_folder_of_several_sections_lists_them(he2st, her2st: Path) -> None:
    outcome = he2st("info", her2st)
    assert outcome.code == 0
    assert "C5" in outcome.out
    assert f"he2st info {her2st}:A1" in outcome.err
    facts = he2st("info", her2st, "--json").json
    assert facts.keys() >= TRUTH_KEYS
    assert facts["section"] is None
    assert {"B4", "C5"} <= set(facts["sections"])


def test_section_that_is_not_there(he2st, sample: str) -> None:
    outcome = he2st("info", sample.replace(":C5", ":Z9"))
    assert outcome.code == 1
    assert "Z9" in outcome.err


def test_folder_without_a_section(he2st, tmp_path: Path) -> None:
    outcome = he2st("info", tmp_path)
    assert outcome.code == 1
    assert "legacy_st" in outcome.err


def test_a_pixel_size_is_remembered_when_asked(he2st, picture: Path) -> None:
    he2st("info", picture, "--mpp", "0.5", "--remember")
    facts = he2st("info", picture, "--json").json
    assert facts["mpp"] == 0.5
    assert facts["mpp_source"].startswith("stated on")
    assert he2st("info", picture, "--remember").code == 2


def test_ome_zarr_is_a_slide(he2st, tmp_path: Path) -> None:
    path = write_ome_zarr(tmp_path / "a.zarr", np.full((90, 70, 3), 200, dtype=np.uint8))
    facts = he2st("info", path, "--json").json
    assert (facts["format"], facts["size"], facts["mpp"]) == ("OME-Zarr 0.5", [70, 90], 0.5)
    assert facts["icc"] is None
    assert facts["associated"] == []


def test_a_section_that_does_not_fit_is_reported_drawn_and_corrected(he2st, her2st: Path, tmp_path: Path) -> None:
    arguments = ("info", f"{her2st}:A2", "--image", her2st / "app/A2_HE_image_dark.png", "--image-scale", 2000 / 6966)
    picture, corrected = tmp_path / "fit.png", tmp_path / "A2.h5ad"
    outcome = he2st(*arguments, "--picture", picture, "--correct", corrected, "--json")
    assert outcome.code == 0, outcome.err
    assert "better with a shift of" in outcome.err
    assert outcome.json["on_tissue"] == pytest.approx(0.815, abs=0.01)
    assert outcome.json["on_tissue_corrected"] > 0.97
    assert Image.open(picture).width > 1.5 * Image.open(picture).height
    facts = he2st("info", corrected, "--image", her2st / "app/A2_HE_image_dark.png", "--json")
    assert facts.json["correction"] is None
    assert facts.json["on_tissue"] == pytest.approx(outcome.json["on_tissue_corrected"])
    assert he2st("info", corrected, "--correct", tmp_path / "again.h5ad").code == 1


def test_nothing_to_correct_is_said(he2st, sample: str, tmp_path: Path) -> None:
    outcome = he2st("info", sample, "--correct", tmp_path / "C5.h5ad")
    assert outcome.code == 1
    assert not (tmp_path / "C5.h5ad").exists()


def test_section_options_are_refused_for_a_slide(he2st, picture: Path, tmp_path: Path) -> None:
    assert he2st("info", picture, "--mpp", "1", "--picture", tmp_path / "fit.png").code == 2
