"""The session: names of domains, and a comparison that goes with its results."""

from __future__ import annotations

from unittest.mock import Mock

import anndata as ad
import numpy as np
import pytest

from napari_he2st.core.errors import He2stError
from napari_he2st.core.schema import provenance
from napari_he2st.core.types import Domains
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
