from __future__ import annotations

import torch

from napari_he2st.zoo.regression.mean import Mean


def test_the_mean_of_what_was_measured() -> None:
    values = torch.tensor([[1.0, 2.0, torch.nan], [3.0, torch.nan, torch.nan], [5.0, 4.0, torch.nan]])
    batches = [({"expression": rows, "slide": torch.zeros(len(rows))}, {}) for rows in (values[:2], values[2:])]
    system = Mean(3)
    assert len(list(system.fit(batches, system.recipe))) == 1
    predicted = system.predict(**system.prepare(index=torch.arange(4)))
    assert predicted.dtype == torch.float32
    torch.testing.assert_close(predicted, torch.tensor([[3.0, 3.0, torch.nan]]).expand(4, 3), equal_nan=True)
