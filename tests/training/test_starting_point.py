from __future__ import annotations

import copy

import pytest
import torch

from cascade.building.stages import build_stage
from cascade.diffusion.process import NoiseProcess
from cascade.diffusion.schedule import NoiseSchedule
from cascade.errors import WeightsError
from cascade.recipe.finding import find_recipe
from cascade.recipe.reading import load_stage_recipe
from cascade.stage import Stage
from cascade.stage_kinds import load_stage
from cascade.training.starting_point import start_from

TABLE = "network.embedding.parts.labels.0.weight"


def make_stage(*names: str, overrides: tuple[str, ...] = (), seed: int = 0) -> Stage:
    torch.manual_seed(seed)
    recipe = load_stage_recipe(find_recipe("tiny-16", "stages"), list(overrides))
    return build_stage(recipe, lambda fields: {field: list(names) for field in fields})


def test_all_weights_are_taken_over_and_classes_by_their_names():
    trained = make_stage("cat", "dog", "owl", seed=1)
    stage = make_stage("bee", "owl", "cat", overrides=("space.size_px=32",))
    new = stage.state_dict()[TABLE].clone()
    start_from(stage, trained)
    source = trained.state_dict()
    for name, tensor in stage.state_dict().items():
        if name != TABLE:
            assert tensor.equal(source[name]), name
    table, source = stage.state_dict()[TABLE], source[TABLE]
    assert table[0].equal(new[0])  # bee
    assert table[1].equal(source[2])  # owl
    assert table[2].equal(source[0])  # cat
    assert table[3].equal(source[3])  # any


@pytest.mark.parametrize(
    ("overrides", "words"),
    [
        (("diffusion.prediction=v",), "that stage predicts x0, this one v"),
        (("network.width=128",), "has shape .* the networks must be the same"),
        (("network.depth=3",), "no weights 'network.backbone.blocks.blocks.2"),
    ],
)
def test_what_does_not_fit_is_named(overrides, words):
    with pytest.raises(WeightsError, match=words):
        start_from(make_stage("cat", overrides=overrides), make_stage("cat"))


def test_what_is_predicted_must_be_the_same_with_residuals_too(colouriser):
    whole, residual = copy.deepcopy(colouriser), copy.deepcopy(colouriser)
    for stage, std in ((whole, None), (residual, 0.1)):
        stage.process = NoiseProcess(NoiseSchedule(), prediction="x0", residual_std=std)
    start_from(residual, copy.deepcopy(residual))
    with pytest.raises(WeightsError, match="let both or neither predict residuals"):
        start_from(residual, whole)


def test_a_run_starts_from_a_trained_stage_and_resumes_from_its_own_checkpoint(
    make_trainer, tmp_path, trained
):
    start = f"train.init_from={trained.base}"
    trainer = make_trainer(tmp_path / "run", start, "train.images=32")
    source = load_stage(trained.base / "stage").state_dict()
    for name, tensor in trainer.state.stage.state_dict().items():
        assert tensor.equal(source[name]), name
    for name, tensor in zip(source, trainer.state.ema.shadow_params, strict=True):
        assert tensor.equal(source[name]), name
    trainer.run()
    again = make_trainer(tmp_path / "run", "train.init_from=moved/away", "train.images=32")
    pairs = zip(again.state.ema.shadow_params, trainer.state.ema.shadow_params, strict=True)
    assert all(a.equal(b) for a, b in pairs)


def test_a_start_that_is_not_there_is_a_clear_error(make_trainer, tmp_path):
    with pytest.raises(WeightsError, match="no trained stage in nowhere; train it first"):
        make_trainer(tmp_path, "train.init_from=nowhere")
