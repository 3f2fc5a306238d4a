"""`train.lora`: a run that trains an adapter of a trained stage."""

from __future__ import annotations

from unittest.mock import Mock

import pytest
import torch

from cascade.errors import DataError, RecipeError
from cascade.evaluation import evaluate as evaluation
from cascade.stage_kinds import load_stage
from cascade.sweeping import sweep as sweeping


def test_a_run_trains_an_adapter_and_resumes(make_trainer, trained, tmp_path, command, monkeypatch):
    values = [f"train.init_from={trained.base}", "train.lora={rank: 2}"]
    run, base = tmp_path / "run", load_stage(trained.base / "stage")
    trainer = make_trainer(run, *values, "train.images=32")
    frozen = {n: p.clone() for n, p in trainer.state.stage.named_parameters() if "lora_" not in n}
    trainer.run()
    for name, weights in trainer.state.stage.named_parameters():
        assert "lora_" in name or weights.equal(frozen[name]), name
    adapted = load_stage(run / "stage")
    changed = [
        name
        for name, weights in base.state_dict().items()
        if not weights.equal(adapted.state_dict()[name])
    ]
    assert changed
    by_adapter = base.with_adapter(run).state_dict()
    for name, weights in adapted.state_dict().items():
        torch.testing.assert_close(weights, by_adapter[name], rtol=1e-5, atol=1e-6)
    again = make_trainer(run, *values, "train.images=48")
    assert again.state.images_seen == 32
    again.run()
    outcome = command(
        "generate", trained.base, "-n", 1, "--steps", 2, "--lora", f"{run}:0.5",
        "-o", tmp_path / "out",
    )  # fmt: skip
    assert outcome.code == 0, outcome.err
    expected = base.with_adapter(run, 0.5).state_dict()
    for verb, module in (("evaluate", evaluation), ("sweep", sweeping)):
        measure = Mock(side_effect=DataError("measured"))
        monkeypatch.setattr(module, verb, measure)
        line = [verb, trained.base, "--data", tmp_path, "--lora", f"{run}:0.5"]
        assert "measured" in command(*line).err
        (stage,) = (stage for _, stage in measure.call_args.args[0].stages.items())
        for name, weights in stage.state_dict().items():
            torch.testing.assert_close(weights, expected[name], rtol=1e-5, atol=1e-6)
        option = {"evaluate": "--card", "sweep": "--apply"}[verb]
        refused = command(*line, option)
        assert refused.code == 2
        assert f"{option} writes into the pipeline, which does not include the" in refused.err


def test_a_later_run_starts_from_the_checkpoint_of_an_adapter(make_trainer, trained, tmp_path):
    values = [f"train.init_from={trained.base}", "train.lora={rank: 2}"]
    make_trainer(tmp_path / "run", *values, "train.images=32").run()
    folder = tmp_path / "run" / "stage"
    weights = load_stage(folder).state_dict()
    for file in folder.glob("stage.json"):
        file.unlink()
    trainer = make_trainer(tmp_path / "later", f"train.init_from={tmp_path / 'run'}")
    for name, each in trainer.state.stage.state_dict().items():
        torch.testing.assert_close(each, weights[name], rtol=1e-5, atol=1e-6)


def test_what_an_adapter_cannot_do_is_refused(make_trainer, trained, tmp_path, command):
    start = f"train.init_from={trained.base}"
    with pytest.raises(RecipeError, match="adapts a trained stage"):
        make_trainer(tmp_path / "a", "train.lora={rank: 2}")
    with pytest.raises(RecipeError, match="no layer's name ends in 'none'"):
        make_trainer(tmp_path / "b", start, "train.lora={targets: [none]}")
    outcome = command("generate", trained.base, "--lora", "a:b", "-o", tmp_path / "out")
    assert outcome.code == 2
    assert "--lora takes FOLDER" in outcome.err
