"""Runs in which a discriminator learns beside an autoencoder: exact, on any number of processes."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor

from cascade.autoencoder_stage import AutoencoderStage
from cascade.building.training import build_trainer
from cascade.conditioning.batch import Batch
from cascade.errors import CascadeError, RecipeError
from cascade.recipe.reading import load_stage_recipe
from cascade.space import Space
from cascade.stage_kinds import load_stage
from cascade.training import step_log
from cascade.training.checkpoint import checkpoints
from cascade.training.objectives.autoencoding import Autoencoding
from cascade.training.objectives.objective import Learner
from cascade.training.optimiser import make_optimisers
from cascade.training.processes import make_accelerator
from cascade.training.settings import TrainingSettings
from cascade.training.steps import accumulate_gradients, clip
from cascade.training.trainer import Trainer

IMAGES = 48
BEGINS = 24  # images, at the end of the third step of six
CODER = """
kind: stage
name: coder
space: {size_px: 16}
network: {kind: autoencoder_kl, channels: [8, 8], norm_groups: 4}
autoencoding: {adversarial_weight: 0.5, adversarial_start: 0.5}
data: {path: PICTURES, crop_px: 8}
train:
  objective: autoencoding
  batch_size: 8
  images: 48
  warmup_images: 16
  learning_rate: 1e-3
  weight_decay: 0.01
  precision: fp32
  sample_every_images: 0
  checkpoint_every_images: 24
  trackers: []
"""
PLAIN = "autoencoding.adversarial_weight=0"
SMALL_STEPS = "train.warmup_images=10_000"  # AdamW's first steps turn a rounded 0 into a whole step


@pytest.fixture(scope="module")
def recipe(tmp_path_factory, pictures) -> Path:
    file = tmp_path_factory.mktemp("recipes") / "coder.yaml"
    file.write_text(CODER.replace("PICTURES", str(pictures)))
    return file


@pytest.fixture(scope="module")
def make(recipe):
    """A function that makes a trainer of the recipe, with some values changed."""

    def make(out: Path, *changes: str, **options) -> Trainer:
        return build_trainer(load_stage_recipe(recipe, changes), out, **options)

    return make


@pytest.fixture(scope="module")
def one(make, tmp_path_factory) -> Path:
    """The folder of a run without a gap on one process."""
    out = tmp_path_factory.mktemp("one")
    make(out).run()
    return out


@pytest.fixture(scope="module")
def alone(make, tmp_path_factory) -> Path:
    """The folder of a run in small steps on one process."""
    out = tmp_path_factory.mktemp("alone")
    make(out, SMALL_STEPS).run()
    return out


@pytest.fixture(scope="module")
def plain(make, tmp_path_factory) -> Path:
    """The folder of the same run without a discriminator."""
    out = tmp_path_factory.mktemp("plain")
    make(out, PLAIN).run()
    return out


def checkpoint(run: Path, images: int = IMAGES) -> dict[str, dict[str, Tensor]]:
    """The tensors of a checkpoint by file."""
    folder = run / "checkpoints" / f"{images:012d}"
    return {file.stem: load_file(file) for file in folder.glob("*.safetensors")}


def moments_of_learned(tensors: dict[str, dict[str, Tensor]]) -> list[str]:
    return [name for name in tensors["optimisers"] if name.startswith("learned.")]


# ---- what a run leaves --------------------------------------------------------------------------


def test_until_it_begins_the_run_is_one_without_it_bit_by_bit(one, plain):
    ours, theirs = checkpoint(one, BEGINS), checkpoint(plain, BEGINS)
    learned = ours.pop("learned")
    assert ours.keys() == theirs.keys() == {"stage", "ema", "optimisers"}
    for name, tensors in theirs.items():
        assert ours[name].keys() == tensors.keys()
        assert all(ours[name][key].equal(each) for key, each in tensors.items())
    torch.manual_seed(0)  # the seed of the run
    objective = Autoencoding(adversarial_weight=0.5)
    objective.begin(AutoencoderStage.build(Space(size_px=16)), torch.device("cpu"))
    assert objective.learned is not None
    first = objective.learned.state_dict()
    assert first.keys() == learned.keys()
    assert all(learned[name].equal(each) for name, each in first.items())  # without any decay


def test_then_both_networks_learn_from_each_other(one, plain):
    before, after = checkpoint(one, BEGINS), checkpoint(one)
    changes = [
        float((after["learned"][name] - each).abs().max())
        for name, each in before["learned"].items()
    ]
    assert min(changes) > 0
    assert not moments_of_learned(before)
    assert len(moments_of_learned(after)) == 3 * len(changes)
    steps = {
        float(after["optimisers"][name]) for name in moments_of_learned(after) if "step" in name
    }
    assert steps == {3.0}
    decoders = [
        checkpoint(run)["stage"]["network.model.decoder.conv_out.weight"] for run in (one, plain)
    ]
    assert float((decoders[0] - decoders[1]).abs().max()) > 1e-4


def test_the_stage_and_the_averages_hold_nothing_of_it(one, plain):
    stages = [load_stage(run / "stage") for run in (one, plain)]
    assert stages[0].state_dict().keys() == stages[1].state_dict().keys()
    for folder in ("stage", f"checkpoints/{IMAGES:012d}"):
        files = [{file.name for file in (run / folder).rglob("*")} for run in (one, plain)]
        assert files[0] - files[1] == ({"learned.safetensors"} if folder != "stage" else set())
        assert files[1] <= files[0]
    averages = [checkpoint(run)["ema"].keys() for run in (one, plain)]
    assert averages[0] == averages[1]


def test_the_meters_and_no_held_out_loss_show_it(make, held_out, tmp_path):
    changes = [f"data.validation={held_out}", "train.images=16", "train.sample_every_images=8"]
    changes += ["train.validate_every_images=16", "train.sample_count=4"]
    run = tmp_path / "run"
    trainer = make(run, *changes)
    stage = trainer.run()
    lines = [json.loads(line) for line in (run / "log.jsonl").open()]
    meters = [line for line in lines if line.get("kind") == "meters"]
    assert ["discerned_true" in line for line in meters] == [False, True]
    assert 0 <= meters[-1]["discerned_restored"] <= 1
    assert trainer.validation is not None
    measured = next(line["loss"] for line in lines if line.get("kind") == "validation")
    trainer.validation.objective = Autoencoding()
    trainer.validation.measure(stage, images_seen=16)
    again = [json.loads(line) for line in (run / "log.jsonl").open()][-1]
    assert again["loss"] == measured


# ---- going on -----------------------------------------------------------------------------------


def test_a_run_that_stops_before_and_after_it_begins_equals_one_without_a_gap(
    make, one, tmp_path, monkeypatch
):
    monkeypatch.setattr(step_log, "LOG_EVERY_STEPS", 2)

    def stop(line: dict[str, float]) -> None:
        parts[-1].stop_requested = True

    parts: list[Trainer] = []
    for end in (16, 32, 48):
        parts.append(make(tmp_path, report=stop))
        parts[-1].run()
        assert parts[-1].state.images_seen == end
    for name in ("stage", "ema", "optimisers", "learned"):
        file = f"checkpoints/{IMAGES:012d}/{name}.safetensors"
        assert (tmp_path / file).read_bytes() == (one / file).read_bytes(), name


def test_a_discriminator_that_learns_goes_on_in_a_longer_run(make, tmp_path, caplog):
    """Of 48 images it has seen half, and of 160 less than a third."""
    caplog.set_level("INFO")
    make(tmp_path).run()
    before = checkpoint(tmp_path)["learned"]
    trainer = make(tmp_path, f"train.images={IMAGES + 112}", "train.checkpoint_every_images=8")
    assert [r.getMessage() for r in caplog.records if "peak" in r.getMessage()] == [
        "with another number of images the learning rate goes on at 100.0% of its peak, and was at "
        "58.7%."
    ]
    assert "what has begun goes on: the discriminator learns." in caplog.messages
    batch = next(iter(trainer._batches()))
    trainer.step_log.start()
    trainer._step(batch)
    assert trainer.state.progress == (IMAGES - 8) / IMAGES
    learned = trainer.state.learned
    assert learned is not None
    assert any(not each.equal(before[name]) for name, each in learned.state_dict().items())
    trainer._save()
    again = make(tmp_path, f"train.images={IMAGES + 112}")
    assert again.state.progress == trainer.state.progress


@pytest.mark.parametrize(
    ("before", "now", "words"),
    [
        ("0.5", "0.25", "objective.adversarial_weight=0.5 (now 0.25)"),
        ("0.5", "0", "objective.adversarial_weight=0.5 (now null); set this back, or use"),
        ("0", "0.5", "objective.adversarial_weight=null (now 0.5); set this back, or use"),
        ("start", "0.75", "objective.adversarial_start=0.5 (now 0.75); set this back, or use"),
    ],
)
def test_a_run_does_not_go_on_with_another_discriminator(make, one, plain, before, now, words):
    key = "start" if before == "start" else "weight"
    with pytest.raises(CascadeError) as error:
        make(plain if before == "0" else one, f"autoencoding.adversarial_{key}={now}")
    assert words in str(error.value)
    assert "\n" not in str(error.value)


def test_a_damaged_discriminator_is_a_damaged_checkpoint(make, tmp_path, caplog):
    make(tmp_path, "train.images=16", "train.checkpoint_every_images=8").run()
    newest = checkpoints(tmp_path / "checkpoints")[-1]
    (newest / "learned.safetensors").unlink()
    assert make(tmp_path).state.images_seen == 8
    assert f"checkpoint {newest} is damaged" in caplog.text


# ---- one step -----------------------------------------------------------------------------------


def test_parts_of_a_batch_give_the_gradients_of_the_batch():
    torch.manual_seed(0)
    stage = AutoencoderStage.build(
        Space(size_px=16), network_options={"channels": [8, 8], "norm_groups": 4}
    )
    objective = Autoencoding(adversarial_weight=0.5, adversarial_start=0.0)
    objective.begin(stage, torch.device("cpu"))
    objective.set_progress(0.0)
    assert objective.learned is not None
    batch = Batch(images=torch.rand(5, 3, 16, 16) * 2 - 1, seeds=tuple(range(5)))
    gradients = []
    for parts in (1, 3):
        settings = TrainingSettings(accumulation_steps=parts, precision="fp32")
        learner, accelerator = Learner(stage, objective), make_accelerator("cpu")
        accumulate_gradients(learner, batch, accelerator, settings, sharded=False)
        gradients.append([])
        for each in (*stage.parameters(), *objective.learned.parameters()):
            assert each.grad is not None
            gradients[-1].append(each.grad)
            each.grad = None
    torch.testing.assert_close(gradients[1], gradients[0], atol=1e-6, rtol=1e-4)


def test_both_gradients_are_clipped_apart_and_both_optimisers_have_the_same_settings(
    make, tmp_path
):
    trainer = make(tmp_path, "train.images=8", "train.betas=[0.5,0.9]")
    state = trainer.state
    assert state.learned is not None
    for module, size in ((state.stage, 0.01), (state.learned, 3.0)):
        for parameter in module.parameters():
            parameter.grad = torch.full_like(parameter, size)
    counts = [sum(p.numel() for p in m.parameters()) for m in (state.stage, state.learned)]
    norms = clip(state, trainer.accelerator, 1.0)
    assert norms == pytest.approx([0.01 * counts[0] ** 0.5, 3.0 * counts[1] ** 0.5], rel=1e-4)
    for module, norm in zip((state.stage, state.learned), norms, strict=True):
        parts = [p.grad.norm() for p in module.parameters() if p.grad is not None]
        assert float(torch.stack(parts).norm()) == pytest.approx(min(norm, 1.0), rel=1e-3)
    next(state.learned.parameters()).grad[0] = torch.inf  # pyright: ignore[reportOptionalSubscript]
    assert not all(map(torch.isfinite, torch.tensor(clip(state, trainer.accelerator, 1.0))))
    ours, theirs = [optimiser.param_groups[0] for optimiser in state.optimisers]
    assert {key: each for key, each in ours.items() if key != "params"} == {
        key: each for key, each in theirs.items() if key != "params"
    }


def test_the_discriminator_of_a_muon_run_has_adamw(base_stage):
    objective = Autoencoding(adversarial_weight=0.5)
    objective.begin(base_stage, torch.device("cpu"))
    optimisers = make_optimisers(base_stage, TrainingSettings(optimiser="muon"), objective.learned)
    assert objective.learned is not None
    *_, last = optimisers
    assert len(optimisers) == 3
    assert isinstance(last, torch.optim.AdamW)
    parameters = [id(each) for each in last.param_groups[0]["params"]]
    assert parameters == [id(each) for each in objective.learned.parameters()]


# ---- several processes --------------------------------------------------------------------------


def assert_same_training(run: Path, other: Path) -> None:
    """Sums in another order differ in the last digits only."""
    ours, theirs = checkpoint(run), checkpoint(other)
    assert ours.keys() == theirs.keys()
    for name, tensors in theirs.items():
        assert ours[name].keys() == tensors.keys()
        for key, tensor in tensors.items():
            torch.testing.assert_close(ours[name][key], tensor, atol=1e-5, rtol=1e-3)


def test_two_processes_train_it_as_one(server, recipe, alone, tmp_path):
    changes = [SMALL_STEPS, "train.accumulation_steps=3"]
    arguments = ["train", recipe, *changes, "--out", tmp_path / "two"]
    assert server.run(arguments, tmp_path / "said", processes=2) == [0, 0]
    assert_same_training(tmp_path / "two", alone)


@pytest.mark.slow
def test_sharded_processes_train_it_as_one_and_go_on_exactly(server, recipe, alone, tmp_path):
    arguments = ["train", recipe, SMALL_STEPS, "--out", tmp_path / "two"]
    how = {"processes": 2, "sharded": True}
    assert server.run(arguments, tmp_path / "said", **how) == [0, 0]
    assert_same_training(tmp_path / "two", alone)
    newest = tmp_path / "two" / "checkpoints" / f"{IMAGES:012d}"
    newest.rename(tmp_path / "newest")
    assert server.run(arguments, tmp_path / "said", **how) == [0, 0]
    for file in (tmp_path / "newest").glob("*.safetensors"):
        assert (newest / file.name).read_bytes() == file.read_bytes(), file


# ---- recipes ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ("autoencoding.adversarial_weight=-1", "key 'autoencoding.adversarial_weight'"),
        ("autoencoding.adversarial_weight=.nan", "key 'autoencoding.adversarial_weight'"),
        ("autoencoding.adversarial_start=1", "key 'autoencoding.adversarial_start'"),
        ("autoencoding.adversarial_start=-0.5", "key 'autoencoding.adversarial_start'"),
        ("space.size_px=4 data.crop_px=null", "needs images of at least 8x8 px, got 4x4"),
    ],
)
def test_values_that_do_not_fit_are_refused_before_anything_is_trained(
    make, tmp_path, change, words
):
    with pytest.raises(RecipeError, match=words) as error:
        make(tmp_path / "run", *change.split())
    assert "\n" not in str(error.value)
    assert not (tmp_path / "run").exists()


def test_crops_that_are_too_small_are_refused_at_the_first_step(make, tmp_path):
    with pytest.raises(CascadeError, match="needs images of at least 8x8 px, got 4x4"):
        make(tmp_path, "data.crop_px=4").run()
    assert not checkpoints(tmp_path / "checkpoints")
