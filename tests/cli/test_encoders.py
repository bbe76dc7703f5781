"""``he2st encoders``."""

from __future__ import annotations

from pathlib import Path

from napari_he2st.zoo.encoders.table import encoders


def test_all_are_listed_with_their_weights(he2st) -> None:
    rows = {row["name"]: row for row in he2st("encoders", "--json").json}
    assert rows.keys() == encoders().keys()
    assert rows["efficientnet-lite0"]["weights"] == "here"
    assert rows["colour-texture"]["weights"] == "none needed"
    assert rows["ctranspath"]["weights"] == "from its authors"
    assert rows["uni"]["gated"]
    assert "UNI2-h" in he2st("encoders").out


def test_a_file_of_ones_own_is_here(he2st, tmp_path: Path, monkeypatch) -> None:
    (tmp_path / "ctranspath.pth").write_bytes(b"weights")
    (tmp_path / "weights.toml").write_text('ctranspath = "ctranspath.pth"\n')
    monkeypatch.setenv("HE2ST_WEIGHTS", str(tmp_path / "weights.toml"))
    rows = {row["name"]: row for row in he2st("encoders", "--here", "--json").json}
    assert rows["ctranspath"]["file"] == str(tmp_path / "ctranspath.pth")
    assert "phikon" not in rows
