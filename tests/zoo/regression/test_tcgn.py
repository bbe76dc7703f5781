"""What parity does not prove of TCGN: its repaired behaviour."""

from __future__ import annotations

import torch
from torch.nn import functional as F

from napari_he2st.zoo.catalogue import cards
from napari_he2st.zoo.regression.tcgn import TCGN, strongest_edges


def test_a_prediction_does_not_depend_on_its_batch() -> None:
    torch.manual_seed(0)
    model = TCGN(5, **cards()["tcgn"].variants["tiny"]).eval()
    images = torch.randn(3, 3, 64, 64)
    with torch.inference_mode():
        together, alone = model(images), model(images[:1])
        torch.testing.assert_close(together[:1], alone)
        for block in (model.gnn_block0, model.gnn_block1):
            block.faithful = True
        assert not torch.allclose(model(images)[:1], alone, atol=1e-6)


def test_a_node_without_edges_hears_of_nobody() -> None:
    torch.manual_seed(0)
    model = TCGN(5, **cards()["tcgn"].variants["tiny"]).eval()
    ends = torch.stack([torch.arange(1, 16), torch.arange(15)], dim=1)[None]  # none starts at node 0
    incidence = F.one_hot(ends, 16).sum(2).transpose(1, 2).float()
    nodes, edges = torch.randn(1, 16, 16), torch.rand(1, 15, 6)
    with torch.inference_mode():
        censnet = model.gnn_block0.censnet
        assert censnet(nodes, edges, ends, incidence, False)[0].isfinite().all()
        assert censnet(nodes, edges, ends, incidence, True)[0].isnan().any()


def test_ties_extend_the_edges_of_the_whole_batch_only_where_asked() -> None:
    attention = torch.tensor([[[4.0, 3.0], [3.0, 1.0]], [[1.0, 2.0], [3.0, 4.0]]])
    assert strongest_edges(attention, 2).tolist() == [[[0, 0], [0, 1]], [[1, 0], [1, 1]]]
    assert strongest_edges(attention, 2, extend_ties=True).tolist() == [
        [[0, 0], [0, 1], [1, 0]],
        [[0, 1], [1, 0], [1, 1]],
    ]
