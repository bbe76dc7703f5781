"""What parity does not prove of Magic: its first stage."""

from __future__ import annotations

from dataclasses import replace

import torch
from tests.zoo.regression.generated import OneSlide, engine_inputs, expression

from napari_he2st.zoo.catalogue import cards
from napari_he2st.zoo.regression.magic import Magic, gene_tokens

N_SPOTS, N_GENES = 12, 10


def test_the_first_stage_learns_and_then_freezes_the_image_encoder() -> None:
    torch.manual_seed(0)
    model = Magic(N_GENES, **{**cards()["magic"].variants["tiny"], "contrast_epochs": 6})
    batches = OneSlide(model, engine_inputs(model, N_SPOTS), expression=4 * expression(N_SPOTS, N_GENES))
    recipe = replace(model.recipe, lr=1e-3, epochs=2, schedule=None)
    records = []
    for record in model.fit(batches, recipe):
        records.append(record)
        if len(records) == 6:
            before = {key: value.clone() for key, value in model.state_dict().items()}
    contrast = [record["contrast"] for record in records if "contrast" in record]
    assert len(contrast) == 6
    assert contrast[-1] < contrast[0]
    assert [sorted(record) for record in records[6:]] == [["epoch", "loss"]] * 2
    after = model.state_dict()
    changed = {key.split(".")[0] for key in after if not torch.equal(after[key], before[key])}
    assert changed == {"decorder"}


def test_tokens_are_cut_counts_with_a_closing_zero() -> None:
    counts = torch.tensor([[0.0, 1.9, 7.0, torch.nan]])
    assert gene_tokens(counts).tolist() == [[0, 1, 3, 0, 0]]


def test_a_last_batch_of_one_spot_can_be_trained_on() -> None:
    torch.manual_seed(0)
    model = Magic(N_GENES, **cards()["magic"].variants["tiny"]).train()
    loss = model.loss({"expression": torch.ones(1, N_GENES)}, **model.prepare(**engine_inputs(model, 1)))
    loss.backward()
    assert loss.isfinite()
