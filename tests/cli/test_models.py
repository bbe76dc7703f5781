"""``he2st models``."""

from __future__ import annotations


def test_every_card_is_listed(he2st) -> None:
    from napari_he2st.zoo.catalogue import cards

    rows = he2st("models", "--json").json
    assert set(cards()) <= {row["slug"] for row in rows}
    for key in ("slug", "title", "tasks", "year", "status", "inputs", "licence", "weights"):
        assert all(key in row for row in rows)
    table = he2st("models").out
    assert all(slug in table for slug in cards())


def test_only_one_task(he2st) -> None:
    rows = he2st("models", "--task", "regression", "--json").json
    assert rows
    assert all("regression" in row["tasks"] for row in rows)


def test_unknown_task_names_the_known_ones(he2st) -> None:
    outcome = he2st("models", "--task", "regresion")
    assert outcome.code == 1
    assert "regression" in outcome.err
