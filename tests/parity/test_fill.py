"""The fill rule is fixed for ever: every case depends on it."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from tests.parity.fill import fill_model, input_of, weight_of, with_overrides


def test_sizes_follow_the_key() -> None:
    norm = weight_of("norm.weight", (2000,))
    assert norm.mean() == pytest.approx(1, abs=0.01)
    assert norm.std() == pytest.approx(0.1, abs=0.01)
    assert weight_of("fc.weight", (50, 400)).std() == pytest.approx(400**-0.5, rel=0.05)
    assert weight_of("fc.bias", (2000,)).std() == pytest.approx(0.1, abs=0.01)
    assert (weight_of("norm.running_var", (100,)) >= 0.5).all()
    assert weight_of("norm.num_batches_tracked", (), "int64") == 0


def test_values_are_pinned() -> None:
    pinned = [[-0.33344954, 0.89770335, 0.40737557, -0.52778596]]
    np.testing.assert_allclose(weight_of("fc.weight", (1, 4)), pinned, rtol=1e-6)


def test_overrides() -> None:
    filled, constructed = np.ones(2, np.float32), np.full(2, 7, np.float32)
    assert with_overrides("a.b", {"a": "fill 3"}, filled, constructed).tolist() == [1, 1]
    assert with_overrides("a.b", {r"a\..*": "scale 2", "a.b": "fill 3"}, filled, constructed).tolist() == [3, 3]
    assert with_overrides("a.b", {".*": "constructed"}, filled, constructed).tolist() == [7, 7]
    with pytest.raises(ValueError, match="unknown override"):
        with_overrides("a", {"a": "double"}, filled, constructed)


def test_a_model_with_other_keys_is_refused() -> None:
    case = {"state": [["weight", [2, 3], "float32"], ["bias", [2], "float32"]]}
    model = torch.nn.Linear(3, 2)
    fill_model(model, case)
    np.testing.assert_array_equal(model.weight.detach().numpy(), weight_of("weight", (2, 3)))
    with pytest.raises(AssertionError):
        fill_model(torch.nn.Linear(3, 2, bias=False), case)
    with pytest.raises(AssertionError):
        fill_model(torch.nn.Linear(2, 3), case)


def test_upstream_keys_can_be_renamed() -> None:
    case = {"state": [["fc.bias", [2], "float32"], ["fc.weight", [2, 3], "float32"]]}
    model = torch.nn.Linear(3, 2)
    fill_model(model, case, ours=lambda key: key.removeprefix("fc."))
    np.testing.assert_array_equal(model.bias.detach().numpy(), weight_of("fc.bias", (2,)))


def test_inputs() -> None:
    assert input_of({"kind": "value", "shape": [2], "value": [1, 2], "dtype": "int64"}).tolist() == [1, 2]
    drawn = input_of({"kind": "integers", "shape": [50], "low": 3, "high": 5, "dtype": "int64", "seed": 1})
    assert set(drawn.tolist()) == {3, 4}
    assert input_of({"kind": "uniform", "shape": [2, 2]}).dtype == np.float32
