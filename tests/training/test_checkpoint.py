from __future__ import annotations

import copy
import json
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from diffusers.training_utils import EMAModel

from cascade.errors import WeightsError
from cascade.stage import Stage
from cascade.training.averaging import PowerAverage
from cascade.training.checkpoint import (
    RunState,
    checkpoints,
    read_checkpoint,
    read_newest,
    restore,
    save_checkpoint,
)
from cascade.training.optimiser import make_optimisers
from cascade.training.settings import TrainingSettings


def fresh_state(stage: Stage) -> RunState:
    ema = EMAModel(stage.parameters(), decay=0.9)
    averages = [PowerAverage(list(stage.parameters()), width) for width in (0.05, 0.1)]
    return RunState(stage, ema, make_optimisers(stage, TrainingSettings()), averages)


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
        for average in state.power_averages:
            average.step(
                list(base_stage.parameters()), images_seen=state.images_seen, batch_size=16
            )
    state.bad_steps, state.broken = 2, ["a.png: not a readable image"]
    state.recent_losses = [0.1, float("inf")]
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
        averages = [value for average in state.power_averages for value in average.values]
        weights = state.stage.state_dict().values()
        return [*weights, *state.ema.shadow_params, *averages, *moments]

    numbers = [
        (s.images_seen, s.steps, s.bad_steps, s.broken, s.recent_losses, s.ema.optimization_step)
        for s in (first, second)
    ]
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
    checkpoint = read_checkpoint(target)
    restore(other, checkpoint)
    assert checkpoint.values["about"] == {"seed": 3}
    assert same_state(other, state)
    assert other.images_seen == 48
    assert other.steps == other.ema.optimization_step == 3


def test_a_checkpoint_holds_safetensors_and_json_only(state, tmp_path):
    target = save_checkpoint(state, tmp_path, keep=2, about={})
    assert {path.suffix for path in target.iterdir()} == {".safetensors", ".json"}


@pytest.mark.parametrize("keep", [1, 2, 5])
def test_the_newest_are_kept_and_listed_oldest_first(state, tmp_path, keep):
    for images in (16, 32, 48, 1_000_000_000_000):  # the last has more digits
        state.images_seen = images
        save_checkpoint(state, tmp_path, keep=keep, about={})
    positions = [int(path.name) for path in checkpoints(tmp_path)]
    assert positions == [16, 32, 48, 1_000_000_000_000][-keep:]
    assert len(list(tmp_path.iterdir())) == len(positions)


def test_a_damaged_checkpoint_that_is_ahead_does_not_push_out_a_good_one(state, tmp_path):
    state.images_seen = 64
    damage_file(save_checkpoint(state, tmp_path, keep=1, about={}), "ema", "truncated")
    state.images_seen = 32
    good = save_checkpoint(state, tmp_path, keep=1, about={})
    newest = read_newest(tmp_path)
    assert newest is not None
    assert newest.folder == good


def test_a_half_written_checkpoint_is_not_taken_for_one(state, tmp_path):
    whole = save_checkpoint(state, tmp_path, keep=5, about={})
    half = tmp_path / "000000000064"
    shutil.copytree(whole, half)
    (half / "state.json").unlink()
    (tmp_path / ".000000000080.x.tmp").mkdir()
    assert checkpoints(tmp_path) == [whole]
    assert checkpoints(tmp_path / "nothing here") == []


def damage_file(target: Path, name: str, damage: str) -> None:
    file = target / f"{name}.safetensors"
    data = file.read_bytes()
    file.unlink()
    if damage == "flipped bit":
        file.write_bytes(data[:-1] + bytes([data[-1] ^ 1]))
    elif damage != "missing":
        file.write_bytes(data[:-50] if damage == "truncated" else b"")


@pytest.mark.parametrize("name", ["stage", "ema", "optimisers"])
@pytest.mark.parametrize("damage", ["truncated", "empty", "missing", "flipped bit"])
def test_a_damaged_checkpoint_is_named_and_the_one_before_is_used(
    state, tmp_path, name, damage, caplog
):
    before = save_checkpoint(state, tmp_path, keep=2, about={})
    state.images_seen += 16
    target = save_checkpoint(state, tmp_path, keep=2, about={})
    damage_file(target, name, damage)
    with pytest.raises(WeightsError, match=r"is damaged") as error:
        read_checkpoint(target)
    assert str(target) in str(error.value)
    assert "\n" not in str(error.value)
    newest = read_newest(tmp_path)
    assert newest is not None
    assert newest.folder == before
    assert f"checkpoint {target} is damaged" in caplog.text


def test_a_checkpoint_of_another_format_is_said_to_be_one(state, tmp_path):
    target = save_checkpoint(state, tmp_path, keep=2, about={})
    for number in (1, 4):
        rewrite(target / "state.json", format=number)
        with pytest.raises(WeightsError, match=f"has format {number}, but this version") as error:
            read_newest(tmp_path)
        assert "damaged" not in str(error.value)


def test_when_all_are_damaged_the_run_does_not_silently_start_anew(state, tmp_path):
    assert read_newest(tmp_path) is None
    damage_file(save_checkpoint(state, tmp_path, keep=2, about={}), "ema", "truncated")
    with pytest.raises(WeightsError, match=r"no good checkpoint in .*; remove the folder"):
        read_newest(tmp_path)


@pytest.mark.parametrize(
    "damage",
    [
        lambda path: path.write_text("{"),
        lambda path: path.write_text("[]"),
        lambda path: path.write_text("{}"),
        lambda path: rewrite(path, sha256=None),
        lambda path: rewrite(path, sha256={}),
    ],
)
def test_a_damaged_state_is_a_clear_error(state, tmp_path, damage: Callable[[Path], None]):
    target = save_checkpoint(state, tmp_path, keep=2, about={})
    damage(target / "state.json")
    with pytest.raises(WeightsError) as error:
        read_checkpoint(target)
    assert str(target) in str(error.value)
    assert "\n" not in str(error.value)


def test_a_checkpoint_of_another_stage_is_refused(state, upsampler, tmp_path):
    target = save_checkpoint(state, tmp_path, keep=2, about={})
    with pytest.raises(WeightsError, match="belongs to another stage; use another folder"):
        restore(fresh_state(upsampler), read_checkpoint(target))


def test_moments_are_found_by_the_parameter_s_name_and_not_by_its_place(state, tmp_path):
    target = save_checkpoint(state, tmp_path, keep=2, about={})
    checkpoint = read_checkpoint(target)
    moments = checkpoint.tensors["optimisers.safetensors"]
    names = {name for name, _ in state.stage.named_parameters()}
    assert {key.rpartition(":")[0] for key in moments} == names
    first = min(moments)
    moments[f"other.{first}"] = moments.pop(first)
    with pytest.raises(WeightsError, match="belongs to another stage; use another folder"):
        restore(fresh_state(state.stage), checkpoint)


def test_a_full_disk_is_a_clear_error_and_takes_nothing_away(state, tmp_path):
    before = save_checkpoint(state, tmp_path, keep=1, about={})
    code = (
        "import resource, signal, sys; signal.signal(signal.SIGXFSZ, signal.SIG_IGN)\n"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, 20_000))\n"
        "from pathlib import Path\nfrom cascade.errors import OutputError\n"
        "from cascade.saving.atomic import atomic_folder\n"
        "try:\n"
        "    with atomic_folder(Path(sys.argv[1]), owned=()) as folder:\n"
        "        (folder / 'a').write_bytes(bytes(100_000))\n"
        "except OutputError as error:\n    print(error)\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, str(tmp_path / "000000000064")],
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stdout.startswith(f"cannot write {tmp_path / '000000000064'}: File too large")
    assert list(tmp_path.iterdir()) == [before]
    assert read_newest(tmp_path) is not None
