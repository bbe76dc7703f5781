"""The session: names of domains, and a comparison that goes with its results."""

from __future__ import annotations

from unittest.mock import Mock

import anndata as ad
import numpy as np
import pytest

from napari_he2st.core.errors import He2stError
from napari_he2st.core.schema import provenance
from napari_he2st.core.types import Domains, Transform
from napari_he2st.core.wkt import from_wkt, to_wkt
from napari_he2st.engine.session import Session

LABELS = np.array([0, 0, 1, -1])


@pytest.fixture
def session() -> Session:
    adata = ad.AnnData(np.ones((4, 2), dtype=np.float32))
    adata.var_names = ["A", "B"]
    adata.obsm["spatial"] = np.arange(8, dtype=float).reshape(4, 2)
    facts = {"pitch_um": 100, "spot_um": 55, "lattice": "irregular", "library": "spots"}
    adata.uns["he2st"] = provenance("measured", mpp=0.5, scale="log1p_cp10k", **facts)
    session = Session()
    session.add_adata(adata, "slide")
    session.set_domains("spots", Domains(LABELS, {"method": "kmeans"}))
    return session


def test_renaming_a_domain_is_announced_and_written(session):
    heard = Mock()
    session.domains_changed.connect(heard)
    session.rename_domain("spots", 1, "  Stroma ")
    heard.assert_called_once_with("spots")
    assert session.domains["spots"].titles == ["D1", "Stroma"]
    domain = session.results["spots"].adata.obs["domain"]
    assert list(domain) == ["D1", "D1", "Stroma", "none"]
    assert list(domain.cat.categories) == ["D1", "Stroma", "none"]


@pytest.mark.parametrize("name", ["", "  ", "none", "D1"])
def test_a_name_that_is_empty_or_taken_is_refused(session, name):
    with pytest.raises(He2stError, match="name of its own"):
        session.rename_domain("spots", 1, name)
    assert session.domains["spots"].titles == ["D1", "D2"]


def test_a_domain_may_keep_its_name(session):
    session.rename_domain("spots", 1, "D2")
    assert session.domains["spots"].titles == ["D1", "D2"]


def test_a_comparison_goes_with_its_results(session):
    heard = Mock()
    session.set_comparison(Mock(), predicted="run", measured="spots")
    session.comparison_changed.connect(heard)
    session.remove_result("spots")
    assert session.comparison is None
    assert session.compared == ("", "")
    heard.assert_called_once_with()


def test_large_sparse_expression_stays_sparse(session, monkeypatch):
    from scipy.sparse import csr_matrix, issparse

    from napari_he2st.engine import session as module

    monkeypatch.setattr(module, "DENSE_BYTES", 10)
    adata = session.results["spots"].adata.copy()
    adata.X = csr_matrix(np.array([[0, 3], [0, 0], [1, 0], [0, 5]], dtype=np.float32))
    result = session.add_adata(adata, "slide", name="large")
    assert issparse(result.values)
    np.testing.assert_array_equal(result.column("B"), [3, 0, 0, 5])
    assert np.isnan(result.column("C")).all()
    assert session.gene == "A"  # the gene that was shown before
    session.remove_result("spots")
    session.gene = None
    assert module.first_gene(result) == "B"


def test_moved_spots_are_announced_and_come_back(session):
    heard = Mock()
    session.result_moved.connect(heard)
    before = session.results["spots"].grid.xy.copy()
    session.move_spots("spots", Transform.scale(2.0, (1.0, 0.0)), "twice")
    np.testing.assert_allclose(session.results["spots"].grid.xy, before * 2 + [1, 0])
    session.move_spots("spots", Transform.scale(0.5), "half")
    assert session.n_moves("spots") == 2
    assert list(session.results["spots"].adata.uns["he2st"]["corrections"]) == ["twice", "half"]
    assert session.undo_move("spots")
    np.testing.assert_allclose(session.results["spots"].grid.xy, before * 2 + [1, 0])
    assert session.undo_move("spots")
    assert not session.undo_move("spots")
    np.testing.assert_array_equal(session.results["spots"].grid.xy, before)
    assert heard.call_count == 4


def test_outlines_move_with_their_cells(session):
    result = session.results["spots"]
    texts = [to_wkt(xy + np.array([(-1.0, -1), (1, -1), (0, 1)])) for xy in result.grid.xy]
    result.adata.obs["polygon"] = texts
    session.move_spots("spots", Transform.scale(2.0, (1.0, 0.0)), "twice")
    np.testing.assert_allclose(from_wkt(result.outlines[1])[2], result.grid.xy[1] + [0, 2])
    session.undo_move("spots")
    assert result.outlines == texts


def test_predicted_spots_are_not_moved(session):
    grid = session.results["spots"].grid
    session.begin_result("run", "slide", grid, ["A"], scale="log1p_cp10k")
    with pytest.raises(He2stError, match="Only measured spots"):
        session.move_spots("run", Transform.scale(2.0), "twice")
