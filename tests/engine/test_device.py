"""Devices: batches that shrink with the memory, failures in words, precision only where it may be lowered."""

from __future__ import annotations

import pytest
import torch
from tests.tiny import predictors
from tests.tiny.predictors import bundle_of

from napari_he2st.core.errors import MissingExtraError, ModelError
from napari_he2st.core.progress import Control
from napari_he2st.engine.device import (
    Halving,
    auto_workers,
    choose_device,
    device_errors,
    device_name,
    half_on,
    is_full,
    precision,
)
from napari_he2st.engine.predict import predict, predict_slide
from napari_he2st.zoo.base import Slide as WholeSlide

CPU = torch.device("cpu")
OUT_OF_MEMORY = [
    torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB"),
    RuntimeError("[enforce fail at alloc_cpu.cpp:127] . DefaultCPUAllocator: can't allocate memory: you tried to ..."),
    RuntimeError("MPS backend out of memory (MPS allocated: 17.00 GB, max allowed: 18.13 GB)"),
    RuntimeError("CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate(handle)`"),
    MemoryError(),
]


@pytest.mark.parametrize("error", OUT_OF_MEMORY, ids=lambda error: f"{type(error).__name__} {str(error)[:12]}")
def test_batches_are_halved_for_good_and_it_is_said(error: Exception) -> None:
    said: list[str] = []
    halving = Halving(said.append)

    def function(rows: slice) -> list[int]:
        if rows.stop - rows.start > 5:
            raise error
        return list(range(rows.start, rows.stop))

    for _ in range(2):
        assert [row for part in halving(function, 32) for row in part] == list(range(32))
    assert halving.size == 4
    assert said == [f"Memory ran out with batches of {n}; the run goes on with {n // 2}" for n in (32, 16, 8)]


def test_what_a_real_allocation_that_fails_says_is_known() -> None:
    with pytest.raises((RuntimeError, MemoryError)) as caught:
        torch.empty(1 << 60, dtype=torch.uint8)
    assert is_full(caught.value)


def test_other_errors_pass_and_a_single_tile_that_does_not_fit_is_an_end() -> None:
    def fails(rows: slice) -> None:
        raise RuntimeError("mat1 and mat2 shapes cannot be multiplied")

    with pytest.raises(RuntimeError, match="mat1"):
        Halving()(fails, 4)

    def never(rows: slice) -> None:
        raise torch.OutOfMemoryError

    with pytest.raises(ModelError, match="single tile"):
        Halving()(never, 4)


class Hungry(predictors.Colour):
    """Runs out of memory above four tiles."""

    def forward(self, tiles):
        if len(tiles) > 4:
            raise torch.OutOfMemoryError
        return super().forward(tiles)


class Greedy(Hungry):
    """Spots that see each other, so that they cannot be taken apart."""

    unit = WholeSlide()


def test_the_user_is_told_and_the_result_remembers(slide, grid) -> None:
    control = Control()
    adata = predict_slide(bundle_of(Hungry), slide, grid=grid, batch_size=32, control=control)
    assert control.notes[0] == "Memory ran out with batches of 32; the run goes on with 16"
    assert adata.uns["he2st"]["notes"].tolist() == control.notes
    assert "notes" not in predict_slide(bundle_of(predictors.Colour), slide, grid=grid).uns["he2st"]


def test_what_cannot_be_taken_apart_is_refused_in_words(slide, grid) -> None:
    with pytest.raises(ModelError, match="does not fit into the device's memory"):
        list(predict(bundle_of(Greedy), slide, grid))


@pytest.mark.parametrize(
    "message", ["CUDA error: device lost", "MPS backend failed", "HIP error: gone", "cuDNN error: 8"]
)
def test_a_device_that_is_lost_is_told_from_one_that_is_full(message: str) -> None:
    with pytest.raises(ModelError, match="stopped working"), device_errors(CPU):
        raise RuntimeError(f"{message}\nCompile with ...")
    with pytest.raises(RuntimeError, match="shape"), device_errors(CPU):
        raise RuntimeError("shape '[2]' is invalid")


def test_half_precision_is_for_graphics_cards_and_for_what_permits_it() -> None:
    assert half_on(CPU, "float16") is half_on(CPU, "bfloat16") is None
    assert half_on(torch.device("cuda"), "") is None
    assert half_on(torch.device("cuda"), "float16") is half_on(torch.device("mps"), "float16") is torch.float16
    x = torch.ones(4, 4)
    with precision(CPU, torch.bfloat16):
        assert (x @ x).dtype is torch.bfloat16
    with precision(CPU, None):
        assert (x @ x).dtype is torch.float32


def test_as_many_workers_as_torch_may_use_threads() -> None:
    before = torch.get_num_threads()
    try:
        for n in (1, 3):
            torch.set_num_threads(n)
            assert auto_workers(CPU) == n
    finally:
        torch.set_num_threads(before)
    assert auto_workers(torch.device("cuda")) == 1


def test_openvino_is_a_cpu_with_its_own_name(monkeypatch) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(MissingExtraError, match="openvino"):
        choose_device("openvino")
    monkeypatch.setattr("importlib.util.find_spec", lambda name: object())
    assert choose_device("openvino") == CPU
    assert device_name("openvino") == "openvino"
    assert device_name("cpu") == "cpu"
