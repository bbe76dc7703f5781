"""``he2st datasets``."""

from __future__ import annotations


def test_list(he2st) -> None:
    outcome = he2st("datasets")
    assert outcome.code == 0
    assert len(outcome.out.splitlines()) == 18
    assert "unknown" in outcome.out
    rows = he2st("datasets", "--json").json
    assert {"HEST-1k", "HER2"} <= {row["name"] for row in rows}


def test_show_and_get(he2st, tmp_path, monkeypatch) -> None:
    monkeypatch.setenv("HE2ST_DATASETS", str(tmp_path))
    outcome = he2st("datasets", "show", "her2")
    assert str(tmp_path / "HER2") in outcome.out.replace("\n", "")
    assert "10.1038/s41467-021-26271-2" in outcome.out
    assert he2st("datasets", "show", "nothing").code == 1
    refused = he2st("datasets", "get", "DLPFC")
    assert refused.code == 1
    assert "by hand" in refused.err
