"""Figures in a model card, as the Hub reads them."""

from __future__ import annotations

from dataclasses import replace

import pytest
from huggingface_hub import ModelCard

from cascade.errors import OutputError
from cascade.evaluation.card import write_results
from cascade.evaluation.figures import Measured, Score
from cascade.evaluation.results import Evaluation

CARD = """\
---
license: apache-2.0
library_name: diffusers
tags:
- cascade-diffusion
---
# Mine

| a | b |
|---|---|
"""


def evaluation(value: float) -> Evaluation:
    scores = (
        Score(
            name="KID-EffLite0 x1000", value=value, n=9, reference="held-out images",
            n_reference=16, extractor="EffLite0", resizing="bicubic", low=1.0, high=30.0,
        ),
        Score(name="colourfulness", value=40.0, n=9),
    )  # fmt: skip
    whole = Measured(
        subject="whole pipeline", input="noise", size_px=32, seconds_per_image=0.1, scores=scores
    )
    return Evaluation(
        pipeline="somewhere/mine", task="generate", data="/data/mine/heldout.tar", train="",
        reading={}, seed=0, settings={}, measured=[whole], notes=[], peak_memory_mib=None, about={},
    )  # fmt: skip


def test_the_hub_reads_what_was_measured_and_the_rest_stays(tmp_path):
    (tmp_path / "README.md").write_text(CARD)
    write_results(evaluation(12.3456), tmp_path)
    card = ModelCard.load(tmp_path / "README.md")
    kid, colourfulness = card.data.eval_results
    assert (kid.metric_type, kid.metric_value) == ("kid-efflite0-x1000", 12.35)
    assert kid.metric_args["interval_95"] == [1.0, 30.0]
    assert (kid.dataset_name, kid.metric_args["n"]) == ("mine/heldout.tar", 9)
    assert colourfulness.metric_value == 40.0
    assert card.data.model_name == "mine"
    assert (card.data.license, card.data.tags) == ("apache-2.0", ["cascade-diffusion"])
    assert card.text.strip() == CARD.split("---\n", 2)[2].strip()
    assert "/data" not in (tmp_path / "README.md").read_text()


def test_results_of_others_on_other_data_stay(tmp_path):
    (tmp_path / "README.md").write_text(CARD)
    write_results(evaluation(12.0), tmp_path)
    elsewhere = replace(evaluation(50.0), data="/data/other/heldout.tar")
    write_results(elsewhere, tmp_path)
    write_results(evaluation(13.0), tmp_path)
    results = ModelCard.load(tmp_path / "README.md").data.eval_results
    values = [(e.dataset_name, e.metric_value) for e in results if e.metric_type[:3] == "kid"]
    assert values == [("other/heldout.tar", 50.0), ("mine/heldout.tar", 13.0)]


def test_new_figures_take_the_place_of_old_ones(tmp_path):
    (tmp_path / "README.md").write_text(CARD)
    write_results(evaluation(12.0), tmp_path)
    once = (tmp_path / "README.md").read_text()
    write_results(evaluation(13.0), tmp_path)
    assert [e.metric_value for e in ModelCard.load(tmp_path / "README.md").data.eval_results] == [
        13.0,
        40.0,
    ]
    write_results(evaluation(12.0), tmp_path)
    assert (tmp_path / "README.md").read_text() == once


def test_without_a_card_one_is_made_and_a_damaged_one_is_refused(tmp_path):
    write_results(evaluation(12.0), tmp_path)
    assert len(ModelCard.load(tmp_path / "README.md").data.eval_results) == 2
    (tmp_path / "README.md").write_bytes(b"---\nlicense: [\n---\n")
    with pytest.raises(OutputError, match="not a model card that can be changed"):
        write_results(evaluation(12.0), tmp_path)
    assert (tmp_path / "README.md").read_bytes() == b"---\nlicense: [\n---\n"
