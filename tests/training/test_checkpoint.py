from __future__ import annotations

import copy
import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from diffusers.training_utils import EMAModel
from safetensors.torch import load_file, save_file

from cascade.errors import WeightsError
from cascade.stage import Stage
from cascade.training.checkpoint import RunState, checkpoints, load_checkpoint, save_checkpoint
from cascade.training.optimiser import make_optimisers
from cascade.training.settings import TrainingSettings


def fresh_state(stage: Stage) -> RunState:
    ema = EMAModel(stage.parameters(), decay=0.9)
    return RunState(stage, ema, make_optimisers(stage, TrainingSettings()))


@pytest.fixture
def state(base_stage) -> RunState:
    """After three steps along random gradients."""
    state = fresh_state(base_stage)
    generator = torch.Generator().manual_seed(0)
    for _ in range(3):
        for parameter in base_stage.parameters():
            parameter.grad = torch.randn(parameter.shape, generator=generator)
        for optimiser in state.optimisers:
            optimiser.step()
        state.ema.step(base_stage.parameters())
        state.steps += 1
        state.images_seen += 16
    return state


def same_state(first: RunState, second: RunState) -> bool:
    def tensors(state: RunState) -> list[torch.Tensor]:
        moments = [
            moment
            for optimiser in state.optimisers
            for group in optimiser.param_groups
            for parameter in group["params"]
            for _, moment in sorted(optimiser.state[parameter].items())
        ]
        return [*state.stage.state_dict().values(), *state.ema.shadow_params, *moments]

    numbers = [(s.images_seen, s.steps, s.ema.optimization_step) for s in (first, second)]
    pairs = zip(tensors(first), tensors(second), strict=True)
    return numbers[0] == numbers[1] and all(a.equal(b) for a, b in pairs)


def rewrite(path: Path, **values: object) -> None:
    path.write_text(json.dumps(json.loads(path.read_text()) | values))


def test_a_checkpoint_brings_everything_back_exactly(state, tmp_path):
    target = save_checkpoint(state, tmp_path, keep=2, about={"seed": 3})
    assert target.name == "000000000048"
    untrained = copy.deepcopy(state.stage)
    for parameter in untrained.parameters():
        parameter.data.zero_()
    other = fresh_state(untrained)
    assert load_checkpoint(other, target) == {"seed": 3}
    assert same_state(other, state)
    assert other.images_seen == 48
    assert other.steps == other.ema.optimization_step == 3


def test_a_checkpoint_holds_safetensors_and_json_only(state, tmp_path):
    target = save_checkpoint(state, tmp_path, keep=2, about={})
    assert {path.suffix for path in target.iterdir()} == {".safetensors", ".json"}


@pytest.mark.parametrize("keep", [1, 2, 5])
def test_the_newest_are_kept_and_listed_oldest_first(state, tmp_path, keep):
    for seen in (16, 32, 48, 1_000_000_000_000):  # the last has more digits
        state.images_seen = seen
        save_checkpoint(state, tmp_path, keep=keep, about={})
    kept = [int(path.name) for path in checkpoints(tmp_path)]
    assert kept == [16, 32, 48, 1_000_000_000_000][-keep:]
    assert len(list(tmp_path.iterdir())) == len(kept)


def test_a_half_written_checkpoint_is_not_taken_for_one(state, tmp_path):
    whole = save_checkpoint(state, tmp_path, keep=5, about={})
    half = tmp_path / "000000000064"
    shutil.copytree(whole, half)
    (half / "state.json").unlink()
    (tmp_path / ".000000000080.x.tmp").mkdir()
    assert checkpoints(tmp_path) == [whole]
    assert checkpoints(tmp_path / "nothing here") == []


@pytest.mark.parametrize("name", ["stage", "ema", "optimisers"])
@pytest.mark.parametrize("damage", ["truncated", "empty", "missing"])
def test_a_damaged_checkpoint_is_named_with_what_to_do(state, tmp_path, name, damage):
    target = save_checkpoint(state, tmp_path, keep=2, about={})
    file = target / f"{name}.safetensors"
    data = file.read_bytes()
    file.unlink()
    if damage != "missing":
        file.write_bytes(data[:-50] if damage == "truncated" else b"")
    with pytest.raises(WeightsError, match=r"is damaged .*; remove it to go on from") as error:
        load_checkpoint(state, target)
    assert str(target) in str(error.value)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    "damage",
    [
        lambda path: path.write_text("{"),
        lambda path: path.write_text("[]"),
        lambda path: path.write_text("{}"),
        lambda path: rewrite(path, about=None),
    ],
)
def test_a_damaged_state_is_a_clear_error(state, tmp_path, damage: Callable[[Path], None]):
    target = save_checkpoint(state, tmp_path, keep=2, about={})
    damage(target / "state.json")
    with pytest.raises(WeightsError) as error:
        load_checkpoint(state, target)
    assert str(target) in str(error.value)
    assert "\n" not in str(error.value)


def test_a_checkpoint_of_another_stage_is_refused(state, upsampler, tmp_path):
    target = save_checkpoint(state, tmp_path, keep=2, about={})
    with pytest.raises(WeightsError, match="is of another stage; use a new --out"):
        load_checkpoint(fresh_state(upsampler), target)


def test_moments_are_found_by_the_parameter_s_name_and_not_by_its_place(state, tmp_path):
    target = save_checkpoint(state, tmp_path, keep=2, about={})
    file = target / "optimisers.safetensors"
    moments = load_file(file)
    names = {name for name, _ in state.stage.named_parameters()}
    assert {key.rpartition(":")[0] for key in moments} == names
    first = min(moments)
    moments[f"other.{first}"] = moments.pop(first)
    save_file(moments, file)
    with pytest.raises(WeightsError, match="is of another stage; use a new --out"):
        load_checkpoint(fresh_state(state.stage), target)
