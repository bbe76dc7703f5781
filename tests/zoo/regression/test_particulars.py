"""What single systems promise beyond their parity cases."""

from __future__ import annotations

import numpy as np
import torch
from PIL import Image

from napari_he2st.zoo.blocks.graph import nearest_graph
from napari_he2st.zoo.recipe import Recipe
from napari_he2st.zoo.regression.deeppt import DeepPT
from napari_he2st.zoo.regression.histogene import super_resolution_raster
from napari_he2st.zoo.regression.histospace import HistoSPACE
from napari_he2st.zoo.regression.m2ort import pillow_bilinear
from napari_he2st.zoo.regression.magnet import MagNet
from napari_he2st.zoo.regression.ressat import ResSAT


def _randint(*shape: int) -> torch.Tensor:
    return torch.randint(0, 256, shape, dtype=torch.uint8, generator=torch.Generator().manual_seed(0))


def test_m2ort_shrinks_as_pillow_does() -> None:
    tiles = _randint(2, 3, 96, 96)
    for px in (48, 24, 40):
        ours = pillow_bilinear(tiles, px).permute(0, 2, 3, 1).numpy()
        for tile, result in zip(tiles.permute(0, 2, 3, 1).numpy(), ours, strict=True):
            theirs = Image.fromarray(tile).resize((px, px), Image.Resampling.BILINEAR)
            np.testing.assert_array_equal(result, np.asarray(theirs))


def test_histogene_raster_starts_at_the_tissue() -> None:
    centres = torch.tensor([[9000, 7000], [9600, 7000], [9000, 7900]])
    points, positions = super_resolution_raster(centres)
    assert points[0].tolist() == [9000, 7000]
    assert positions[0].tolist() == [0, 0]
    assert int(positions.max()) < 64
    assert int(super_resolution_raster(centres, faithful=True)[1].max()) > 64


def test_histogene_raster_of_one_spot_is_empty() -> None:
    points, positions = super_resolution_raster(torch.tensor([[5, 5]]))
    assert len(points) == len(positions) == 0


def test_histospace_keeps_its_frozen_encoder() -> None:
    torch.manual_seed(0)
    images = torch.randn(4, 3, 32, 32)
    for faithful in (False, True):
        model = HistoSPACE(3, widths=(4, 4, 4), dim=8, tile_px=32, faithful=faithful).train()
        before = model.encoder.bn1.running_mean.clone()
        model(images)
        assert torch.equal(before, model.encoder.bn1.running_mean) is not faithful


def _ressat(faithful: bool) -> ResSAT:
    torch.manual_seed(0)
    return ResSAT(4, trunk="resnet10", imagenet=False, faithful=faithful).eval()


def test_ressat_does_not_depend_on_the_order_of_spots() -> None:
    tiles, order = _randint(40, 3, 32, 32), torch.arange(40).flip(0)
    with torch.inference_mode():
        for faithful in (False, True):
            model = _ressat(faithful)
            same = torch.allclose(model.predict(tiles=tiles[order]), model.predict(tiles=tiles)[order], atol=1e-6)
            assert same is not faithful


def _magnet(faithful: bool) -> MagNet:
    torch.manual_seed(0)
    small = {"dim": 16, "depth": 1, "heads": 2, "mlp_dim": 16, "trunk": "resnet10", "encoder": "colour-texture"}
    return MagNet(3, **small, imagenet=False, faithful=faithful).eval()


def test_magnet_lonely_bin_is_finite_unless_faithful() -> None:
    bins, nodes = torch.randn(3, 3, 32, 32), torch.randn(3, 16)
    graph = torch.tensor([[0.0, 1, 0], [1, 0, 0], [0, 0, 0]])
    with torch.inference_mode():
        for faithful in (False, True):
            out = _magnet(faithful)(bins, graph, (nodes, nodes), (nodes, nodes), (graph, graph))[0]
            assert bool(out.isfinite().all()) is not faithful


def test_magnet_does_not_depend_on_the_order_of_bins() -> None:
    torch.manual_seed(0)
    bins, nodes, xy, order = torch.randn(5, 3, 32, 32), torch.randn(5, 16), torch.rand(5, 2), torch.arange(5).flip(0)
    with torch.inference_mode():
        for faithful in (False, True):
            model = _magnet(faithful)
            both, graph = (nodes, nodes), nearest_graph(xy, 2)
            there = model(bins, graph, both, both, (graph, graph))[0]
            turned = (nodes[order], nodes[order])
            back = model(bins[order], nearest_graph(xy[order], 2), turned, both, (graph, graph))[0]
            assert torch.allclose(back, there[order], atol=1e-5) is not faithful


class _Bags:
    """Slides of ten tiles whose bulk expression is the mean of a hidden linear map."""

    n_slides = 20

    def __init__(self) -> None:
        generator = torch.Generator().manual_seed(0)
        self.features = torch.randn(20, 10, 40, generator=generator) + torch.randn(20, 1, 40, generator=generator)
        self.map = torch.randn(40, 6, generator=generator)

    def __len__(self) -> int:
        return 20

    def __iter__(self):
        for tiles in self.features:
            yield {"expression": (tiles @ self.map).mean(0, keepdim=True)}, {"features": tiles}


def test_deeppt_learns_from_the_bulk_expression_of_slides() -> None:
    torch.manual_seed(0)
    model = DeepPT(6, encoder="colour-texture", dim=32, n_groups=3, dropout=0.0, pretrain_epochs=5)
    records = [r for r in model.fit(_Bags(), Recipe("adam", lr=3e-3, epochs=40, batch_size=4)) if "validation" in r]
    assert records[-1]["loss"] < 0.5 * records[0]["loss"]
    assert min(r["validation"] for r in records) < 0.8 * records[0]["validation"]
    assert sorted(model.order.tolist()) == list(range(6))
