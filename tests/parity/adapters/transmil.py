"""TransMIL at its standard size."""

from __future__ import annotations

from tests.parity.fill import fill_model, inputs_of

from napari_he2st.zoo.blocks.transmil import TransMIL


def run(case: dict) -> dict:
    x = inputs_of(case)["x"]
    model = TransMIL(x.shape[-1], case["config"]["n_classes"]).eval()
    fill_model(model, case)
    logits, _, _ = model(x)
    return {"logits": logits, "Y_prob": logits.softmax(dim=1)}
