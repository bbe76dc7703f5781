"""Sessions on disk: everything comes back, moved slides are recognised, and nothing is lost on the way."""

from __future__ import annotations

import json
import shutil

import anndata as ad
import numpy as np
import pytest
from PIL import Image

from napari_he2st.core.errors import OutputError, SessionError
from napari_he2st.core.progress import Control
from napari_he2st.core.schema import provenance
from napari_he2st.core.types import Domains, Nuclei, Region, Transform
from napari_he2st.data.slides import Slide
from napari_he2st.data.slides.tissue import tissue_mask
from napari_he2st.engine.open_session import open_session, restore
from napari_he2st.engine.save_session import save_session
from napari_he2st.engine.saved_session import read_session
from napari_he2st.engine.session import Session
from napari_he2st.engine.session_items import Derived


@pytest.fixture
def slide_file(tmp_path):
    rng = np.random.default_rng(0)
    pixels = np.full((400, 500, 3), 240, dtype=np.uint8)
    pixels[100:300, 100:400] = rng.integers(60, 200, (200, 300, 3))
    (tmp_path / "slides").mkdir()
    Image.fromarray(pixels).save(tmp_path / "slides" / "a.png")
    return tmp_path / "slides" / "a.png"


def expression(kind: str, **facts) -> ad.AnnData:
    rng = np.random.default_rng(1)
    adata = ad.AnnData(rng.random((6, 3)).astype(np.float32))
    adata.var_names = ["ERBB2", "CD3E", "KRT8"]
    adata.obsm["spatial"] = rng.uniform(120, 290, (6, 2))
    more = {"pitch_um": 100, "spot_um": 55, "lattice": "irregular", "library": kind}
    adata.uns["he2st"] = provenance(kind, mpp=2.0, scale="log1p_cp10k", **more, **facts)
    return adata


@pytest.fixture
def session(slide_file):
    session = Session()
    slide = Slide.open(slide_file, mpp=2.0)
    session.add_slide(slide)
    session.set_mask("a", tissue_mask(slide, min_area_um2=1000, close_um=8))
    labels = np.zeros((50, 60), dtype=np.int32)
    labels[10:14, 20:25], labels[30:33, 5:9] = 1, 7
    session.set_nuclei("a", Nuclei.of(labels, 16.0))
    session.set_regions("a", [Region.box(120, 120, 80, 60, "Tumour front")])
    session.set_landmarks("a", {"spots": np.array([[1.0, 2.0]]), "slide": np.array([[3.0, 4.5]])})
    session.add_adata(expression("measured"), "a", name="section")
    predicted = expression("predicted", slide_fingerprint=slide.fingerprint)
    predicted.layers["std"] = np.full((6, 3), 0.25, dtype=np.float32)
    session.add_adata(predicted, "a", name="run", warnings=("Trained on another organ",))
    domains = Domains(
        np.array([0, 1, 1, -1, 0, 1]),
        {"method": "kmeans", "n_domains": np.int64(2)},
        np.arange(12, dtype=np.float32).reshape(6, 2),
        ("Tumour", "Stroma"),
        ("#112233", "#445566"),
    )
    session.set_domains("run", domains)
    session.add_derived("run", "T cells", Derived(np.arange(6, dtype=np.float32), "score", "mean of CD3E"))
    session.select(slide="a", result="section", gene="CD3E")
    yield session
    for item in session.slides.values():
        item.slide.close()


def restored(folder, places=None) -> Session:
    session = Session()
    restore(session, open_session(read_session(folder), places))
    return session


def test_everything_comes_back(session, tmp_path):
    assert save_session(session, tmp_path / "mine", look={"camera": [1, 2]}).left_out == []
    folder = tmp_path / "mine.he2st-session"
    assert read_session(folder).look == {"camera": [1, 2]}
    again = restored(folder)
    assert (again.slide, again.result, again.gene) == ("a", "section", "CD3E")
    item, before = again.slides["a"], session.slides["a"]
    assert item.slide.mpp == 2.0
    np.testing.assert_array_equal(item.mask.mask, before.mask.mask)
    np.testing.assert_array_equal(item.nuclei.labels, before.nuclei.labels)
    assert [region.name for region in again.regions["a"]] == ["Tumour front"]
    np.testing.assert_allclose(again.regions["a"][0].polygon, session.regions["a"][0].polygon)
    np.testing.assert_array_equal(again.landmarks["a"]["slide"], [[3.0, 4.5]])
    run = again.results["run"]
    assert (run.kind, run.warnings) == ("predicted", ["Trained on another organ"])
    np.testing.assert_array_equal(run.values, session.results["run"].values)
    np.testing.assert_array_equal(run.std, session.results["run"].std)
    derived = run.derived["T cells"]
    np.testing.assert_array_equal(derived.values, np.arange(6))
    assert (derived.unit, derived.made_of) == ("score", "mean of CD3E")
    domains, kept = again.domains["run"], session.domains["run"]
    np.testing.assert_array_equal(domains.labels, kept.labels)
    np.testing.assert_array_equal(domains.embedding, kept.embedding)
    assert (domains.names, domains.colours, domains.params) == (kept.names, kept.colours, kept.params)


def test_saving_again_writes_only_what_changed_and_removes_what_is_gone(session, tmp_path):
    folder = tmp_path / "mine.he2st-session"
    save_session(session, folder).note(session)
    before = {file.name: file.stat().st_mtime_ns for file in (folder / "results").iterdir()}
    save_session(session, folder, force=True)
    assert {file.name: file.stat().st_mtime_ns for file in (folder / "results").iterdir()} == before
    session.move_spots("section", Transform.scale(1.0, (5.0, 0.0)), "by hand")
    session.remove_result("run")
    save_session(session, folder, force=True)
    left = list((folder / "results").iterdir())
    assert len(left) == 1
    assert left[0].name not in before
    assert not list((folder / "domains").iterdir())
    np.testing.assert_array_equal(restored(folder).results["section"].grid.xy, session.results["section"].grid.xy)


def test_a_result_with_a_file_of_its_own_is_not_copied_and_a_change_of_it_is_told(session, tmp_path):
    file = tmp_path / "run.h5ad"
    session.results["run"].adata.write_h5ad(file)
    session.results["run"].file = file
    folder = tmp_path / "mine.he2st-session"
    save_session(session, folder)
    assert len(list((folder / "results").iterdir())) == 1
    assert restored(folder).results["run"].warnings == ["Trained on another organ"]
    changed = ad.read_h5ad(file)
    changed.X[:] = 1
    changed.write_h5ad(file)
    assert "run.h5ad was changed after the session was saved" in restored(folder).results["run"].warnings


def test_slides_that_move_along_are_found_and_others_are_asked_for(session, tmp_path, slide_file):
    save_session(session, tmp_path / "mine")
    shutil.copytree(tmp_path, tmp_path.parent / "elsewhere")
    slide_file.unlink()
    moved = tmp_path.parent / "elsewhere"
    assert read_session(moved / "mine.he2st-session").missing == []
    folder = tmp_path / "mine.he2st-session"
    assert [slide.name for slide in read_session(folder).missing] == ["a"]
    assert list(restored(folder).slides) == []
    again = restored(folder, {"a": moved / "slides" / "a.png"})
    assert list(again.slides) == ["a"]
    assert set(again.results) == {"section", "run"}


def test_another_slide_is_not_taken_for_the_one_that_moved(session, tmp_path, slide_file):
    save_session(session, tmp_path / "mine")
    slide_file.unlink()
    Image.fromarray(np.zeros((400, 500, 3), dtype=np.uint8)).save(tmp_path / "other.png")
    with pytest.raises(SessionError, match="not the slide a"):
        restored(tmp_path / "mine.he2st-session", {"a": tmp_path / "other.png"})


def test_a_prediction_of_another_version_of_the_slide_is_flagged(session, tmp_path):
    session.results["run"].adata.uns["he2st"]["slide_fingerprint"] = "0" * 32
    save_session(session, tmp_path / "mine")
    warnings = restored(tmp_path / "mine.he2st-session").results["run"].warnings
    assert any("another version of this slide" in warning for warning in warnings)


def test_what_still_runs_is_left_out_and_named(session, tmp_path):
    session.begin_result("live", "a", session.results["run"].grid, ["ERBB2"], scale="log1p_cp10k")
    assert save_session(session, tmp_path / "mine").left_out == ["live"]
    assert "live" not in restored(tmp_path / "mine.he2st-session").results


def test_a_quick_save_writes_no_expression_and_keeps_what_was_made_by_hand(session, tmp_path):
    folder = tmp_path / "quick.he2st-session"
    assert save_session(session, folder, quick=True).left_out == ["section", "run"]
    assert not list((folder / "results").iterdir())
    again = restored(folder)
    assert [region.name for region in again.regions["a"]] == ["Tumour front"]
    assert "a" in again.landmarks


def test_a_failure_leaves_the_session_that_was_there(session, tmp_path, monkeypatch):
    folder = tmp_path / "mine.he2st-session"
    save_session(session, folder)
    session.move_spots("section", Transform.scale(1.0, (5.0, 0.0)), "by hand")

    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("napari_he2st.engine.save_session._write_h5ad", full)
    with pytest.raises(OutputError, match="No space left"):
        save_session(session, folder, force=True)
    assert set(restored(folder).results) == {"section", "run"}


def test_a_folder_with_something_else_and_a_session_of_that_name_are_not_overwritten(session, tmp_path):
    (tmp_path / "photos.he2st-session").mkdir()
    (tmp_path / "photos.he2st-session" / "me.jpg").write_text("x")
    with pytest.raises(OutputError, match="something else"):
        save_session(session, tmp_path / "photos", force=True)
    save_session(session, tmp_path / "mine")
    with pytest.raises(OutputError, match="session of that name"):
        save_session(session, tmp_path / "mine")


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("{", "damaged"),
        ("[]", "damaged"),
        ('{"he2st_session": 99}', "another version"),
        (
            '{"he2st_session": 1, "slides": [{"name": 3}], "results": [], "current": {}, "look": {}, "left_out": []}',
            "damaged",
        ),
    ],
)
def test_damaged_files_are_told(tmp_path, text, said):
    (tmp_path / "session.json").write_text(text)
    with pytest.raises(SessionError, match=said):
        read_session(tmp_path)


def test_no_way_leads_out_of_the_folder(session, tmp_path):
    folder = tmp_path / "mine.he2st-session"
    save_session(session, folder)
    text = json.loads((folder / "session.json").read_text())
    text["results"][0]["file"] = "../../secret.h5ad"
    (folder / "session.json").write_text(json.dumps(text))
    control = Control()
    assert list(open_session(read_session(folder), control=control).results) == ["run"]
    assert "outside of its folder" in control.notes[0]


def test_what_was_moved_while_it_was_saved_is_in_no_file(session, tmp_path):
    saved = save_session(session, tmp_path / "mine")
    session.move_spots("section", Transform.scale(1.0, (5.0, 0.0)), "by hand")
    saved.note(session)
    assert session.results["section"].file is None
    assert session.results["run"].file is not None


@pytest.mark.parametrize("part", ["results", "domains", "derived"])
def test_a_damaged_or_missing_part_is_named_and_the_rest_opens(session, tmp_path, part):
    folder = tmp_path / "mine.he2st-session"
    save_session(session, folder)
    for file in (folder / part).iterdir():
        file.write_bytes(b"nonsense")
    control = Control()
    opened = open_session(read_session(folder), control=control)
    assert list(opened.slides) == ["a"]
    assert set(opened.results) == (set() if part == "results" else {"section"})
    assert control.notes[-1].startswith("run cannot be read and is left out")
    for slide, *_ in opened.slides.values():
        slide.close()


def test_arrays_that_do_not_fit_are_not_read(session, tmp_path, monkeypatch):
    save_session(session, tmp_path / "mine")
    monkeypatch.setattr("napari_he2st.engine.open_session._MOST_BYTES", 10_000)
    with pytest.raises(SessionError, match="of memory"):  # the nuclei
        open_session(read_session(tmp_path / "mine.he2st-session"))


def test_regions_can_be_taken_back(session):
    session.set_regions("a", [])
    assert session.undo_regions("a")
    assert [region.name for region in session.regions["a"]] == ["Tumour front"]
    assert session.undo_regions("a")
    assert session.regions["a"] == []
    assert not session.undo_regions("a")


def test_slides_stay_in_register(session, tmp_path):
    Image.fromarray(np.full((300, 300, 3), 200, dtype=np.uint8)).save(tmp_path / "slides" / "b.png")
    session.add_slide(Slide.open(tmp_path / "slides" / "b.png", mpp=2.0))
    session.register_slide("b", "a", Transform.scale(1.0, (12.0, -3.0)))
    save_session(session, tmp_path / "mine")
    found = restored(tmp_path / "mine.he2st-session").registrations["b", "a"]
    np.testing.assert_allclose(found(np.zeros((1, 2))), [[12.0, -3.0]])
