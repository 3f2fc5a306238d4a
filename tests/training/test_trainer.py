from __future__ import annotations

import itertools
import json
import math
import shutil

import pytest
import torch
from safetensors.torch import load_file

from cascade.diffusion_stage import DiffusionStage
from cascade.errors import CascadeError, DataError, OutputError, RecipeError
from cascade.imaging.reading import read_image
from cascade.recipe.reading import load_stage_recipe
from cascade.resizing import quantise
from cascade.stage import Stage
from cascade.stage_kinds import load_stage
from cascade.training import step_log
from cascade.training import steps as steps_module
from cascade.training.checkpoint import checkpoints
from cascade.training.objectives.denoising import Denoising
from cascade.training.objectives.table import OBJECTIVES
from cascade.training.trainer import Trainer


def weights(stage: Stage) -> list[torch.Tensor]:
    return [parameter.detach().clone() for parameter in stage.parameters()]


def same(first: list[torch.Tensor], second: list[torch.Tensor]) -> bool:
    return all(a.equal(b) for a, b in zip(first, second, strict=True))


def everything(trainer: Trainer) -> list[torch.Tensor]:
    """Weights, averaged weights and moments."""
    moments = [
        moment
        for optimiser in trainer.state.optimisers
        for group in optimiser.param_groups
        for parameter in group["params"]
        for _, moment in sorted(optimiser.state[parameter].items())
    ]
    averaged = [shadow.clone() for shadow in trainer.state.ema.shadow_params]
    return [*weights(trainer.state.stage), *averaged, *moments]


# ---- a whole run --------------------------------------------------------------------------------


def test_a_run_learns_and_leaves_its_averaged_weights(make_trainer, tmp_path):
    lines = []
    trainer = make_trainer(tmp_path, "train.images=640", report=lines.append)
    stage = trainer.run()
    assert [line["images"] for line in lines] == [160, 320, 480, 640]
    assert lines[-1]["loss"] < 0.5 * lines[0]["loss"]
    assert all(line["total"] == 640 for line in lines)
    log = [json.loads(line) for line in (tmp_path / "log.jsonl").read_text().splitlines()]
    assert [{**line, "total": 640} for line in log] == lines
    assert same(weights(stage), trainer.state.ema.shadow_params)
    saved = load_stage(tmp_path / "stage")
    assert same(weights(saved), trainer.state.ema.shadow_params)
    assert not same(weights(saved), weights(trainer.state.stage))


def test_the_same_run_gives_the_same_weights_and_another_seed_others(make_trainer, tmp_path):
    runs = {}
    for name, seed in (("a", 0), ("b", 0), ("c", 1)):
        torch.manual_seed(len(runs))  # what happened before does not matter
        runs[name] = make_trainer(tmp_path / name, "train.images=64", f"train.seed={seed}")
        runs[name].run()
    assert same(everything(runs["a"]), everything(runs["b"]))
    assert not same(everything(runs["a"]), everything(runs["c"]))


def test_data_workers_do_not_change_a_run(make_trainer, tmp_path):
    runs = []
    for workers in (0, 2):
        runs.append(
            make_trainer(tmp_path / str(workers), "train.images=64", f"train.workers={workers}")
        )
        runs[-1].run()
    assert same(everything(runs[0]), everything(runs[1]))


# ---- going on -----------------------------------------------------------------------------------


@pytest.fixture
def every_third(monkeypatch):
    """The log, and so what a test does by it, comes after every third step."""
    monkeypatch.setattr(step_log, "LOG_EVERY_STEPS", 3)


@pytest.fixture(scope="module")
def _begun(make_trainer, tmp_path_factory):
    folder = tmp_path_factory.mktemp("begun")
    make_trainer(folder, "train.images=32").run()
    return folder


@pytest.fixture
def begun(_begun, tmp_path):
    """The folder of a run of 32 images, which may go on."""
    return shutil.copytree(_begun, tmp_path / "run")


@pytest.mark.parametrize(
    ("recipe", "overrides"),
    [
        ("tiny-16", ["train.optimiser=adamw", "train.weight_decay=0.1"]),
        ("tiny-16", ["train.optimiser=muon", "train.accumulation_steps=2"]),
        (
            "tiny-16-to-32",
            [f"condition.low_resolution.{v}" for v in ("blur_probability=0.5", "drop=0.2")],
        ),
        ("tiny-16-to-32", ["train.optimiser=muon"]),
    ],
)
def test_a_resumed_run_equals_one_without_a_gap_bit_by_bit(
    make_trainer, tmp_path, every_third, recipe, overrides
):
    overrides = [*overrides, "train.images=96"]
    whole = make_trainer(tmp_path / "whole", *overrides, recipe=recipe)
    whole.run()

    def stop(line: dict[str, float]) -> None:
        parts[-1].stop_requested = True

    parts = []
    for end in (48, 96):
        parts.append(make_trainer(tmp_path / "parts", *overrides, recipe=recipe, report=stop))
        parts[-1].run()
        assert parts[-1].state.images_seen == end
    assert same(everything(parts[-1]), everything(whole))
    assert parts[-1].state.steps == whole.state.steps == 6
    assert parts[-1].state.ema.optimization_step == 6
    for name in ("stage", "ema", "optimisers"):
        first, second = (
            load_file(tmp_path / run / "checkpoints" / "000000000096" / f"{name}.safetensors")
            for run in ("whole", "parts")
        )
        assert first.keys() == second.keys()
        assert all(first[key].equal(second[key]) for key in first)


def test_a_finished_run_stays_as_it_is(make_trainer, tmp_path):
    first = make_trainer(tmp_path, "train.images=64")
    first.run()
    again = make_trainer(tmp_path, "train.images=64")
    again.run()
    assert again.state.images_seen == 64
    assert same(everything(again), everything(first))


def test_a_longer_run_goes_on_from_a_finished_one(make_trainer, tmp_path):
    make_trainer(tmp_path, "train.images=64").run()
    longer = make_trainer(tmp_path, "train.images=96")
    assert longer.state.images_seen == 64
    longer.run()
    assert longer.state.images_seen == 96


@pytest.mark.parametrize(
    ("override", "words"),
    [
        ("train.batch_size=8", "train.batch_size=16 (now 8)"),
        ("train.seed=1", "train.seed=0 (now 1); set this back, or use another folder"),
        ("diffusion.prediction=v", "diffusion.prediction=x0 (now v)"),
        ("condition.labels.drop=0.2", "condition.labels.drop=0.1 (now 0.2)"),
        ("data.flip=[]", "data.flip=[x] (now [])"),
        ("network.width=128", "network.width=64 (now 128); set this back, or use another folder"),
        ("name=other network.width=128", "belongs to another stage; use another folder"),
    ],
)
def test_a_run_does_not_go_on_with_what_would_make_it_another(make_trainer, begun, override, words):
    with pytest.raises(CascadeError) as error:
        make_trainer(begun, *override.split())
    assert words in str(error.value)
    assert "\n" not in str(error.value)


def test_classes_of_the_same_number_but_other_names_make_another_run(
    make_trainer, begun, tmp_path, pictures
):
    shutil.copytree(pictures, tmp_path / "data")
    (tmp_path / "data" / "blue").rename(tmp_path / "data" / "azure")
    words = r"stage\.contract\.conditions\.labels\.fields\.class=\[blue, .*\(now \[azure"
    with pytest.raises(CascadeError, match=words):
        make_trainer(begun, f"data.path={tmp_path / 'data'}")


def test_another_number_of_images_makes_another_run(make_trainer, begun, tmp_path, pictures):
    shutil.copytree(pictures, tmp_path / "data")
    shutil.copy(pictures / "red" / "0.png", tmp_path / "data" / "red" / "more.png")
    with pytest.raises(CascadeError) as error:
        make_trainer(begun, f"data.path={tmp_path / 'data'}")
    assert str(error.value) == (
        f"{tmp_path / 'run'} was trained on 18 images, and the data now has 19: 1 added "
        "(red/more). A run resumes only with its own images and labels; restore them, or train "
        f"from these weights in another folder with train.init_from={tmp_path / 'run'}."
    )


def test_how_it_samples_and_how_often_it_saves_may_change_between_parts(make_trainer, begun):
    changed = ["sampling.steps=3", "train.checkpoint_every_images=16", "train.workers=1"]
    again = make_trainer(begun, "train.images=64", *changed)
    again.run()
    assert again.state.images_seen == 64


def test_what_a_resumed_run_does_otherwise_is_told(make_trainer, begun, caplog):
    caplog.set_level("INFO")
    make_trainer(begun, "train.images=64", "sampling.steps=3")
    lines = [each.getMessage() for each in caplog.records if "resuming with" in each.message]
    assert lines[0].startswith("resuming with sampling.steps=3, which was ")
    assert lines[1] == "resuming with train.images=64, which was 32."
    assert len(lines) == 2


def test_an_objective_that_does_not_exist_is_refused_with_the_nearest(make_trainer, tmp_path):
    with pytest.raises(RecipeError, match="'denoise': did you mean 'denoising'"):
        make_trainer(tmp_path, "train.objective=denoise")


def test_a_run_does_not_go_on_with_another_objective(make_trainer, begun, monkeypatch):
    monkeypatch.setitem(OBJECTIVES, "other", Denoising)
    with pytest.raises(CascadeError, match=r"train\.objective=denoising \(now other\)"):
        make_trainer(begun, "train.objective=other")


def test_a_picture_that_breaks_during_a_run_ends_it_but_loses_nothing(
    make_trainer, tmp_path, pictures, every_third
):
    shutil.copytree(pictures, tmp_path / "data")
    values = [f"data.path={tmp_path / 'data'}", "data.cache_mib=0", "data.max_broken_share=0"]
    values += ["train.images=96"]

    def break_one(line: dict[str, float]) -> None:
        (tmp_path / "data" / "red" / "3.png").write_bytes(b"no image")

    trainer = make_trainer(tmp_path / "run", *values, report=break_one)
    with pytest.raises(DataError, match=r"3\.png: not a readable image"):
        trainer.run()
    (kept,) = checkpoints(tmp_path / "run" / "checkpoints")
    assert int(kept.name) == trainer.state.images_seen >= 48
    shutil.copy(pictures / "red" / "3.png", tmp_path / "data" / "red" / "3.png")
    again = make_trainer(tmp_path / "run", *values)
    again.run()
    whole = make_trainer(tmp_path / "whole", "train.images=96")
    whole.run()
    assert same(everything(again), everything(whole))


def test_a_broken_picture_is_left_out_named_and_remembered(
    make_trainer, tmp_path, pictures, caplog, every_third
):
    shutil.copytree(pictures, tmp_path / "data")
    (tmp_path / "data" / "red" / "3.png").write_bytes(b"no image")
    values = [f"data.path={tmp_path / 'data'}", "train.images=96"]

    def stop(line: dict[str, float]) -> None:
        trainer.stop_requested = True

    trainer = make_trainer(tmp_path / "run", *values, report=stop)
    trainer.run()
    (told,) = [r.getMessage() for r in caplog.records if "broken" in r.getMessage()]
    assert told.startswith("skipping a broken image: ")
    assert "3.png: not a readable image" in told
    again = make_trainer(tmp_path / "run", *values)
    assert again.state.images_seen == 48
    assert again.data_log.broken.names == trainer.data_log.broken.names == again.state.broken
    assert len(again.data_log.broken.names) == 1
    again.run()
    whole = make_trainer(tmp_path / "whole", *values, "train.workers=2")
    whole.run()
    assert same(everything(again), everything(whole))


def test_the_folder_of_a_run_holds_its_whole_recipe(make_trainer, tmp_path):
    make_trainer(tmp_path, "train.images=48", "train.learning_rate=1e-4")
    recipe = load_stage_recipe(tmp_path / "recipe.yaml")
    assert (recipe.name, recipe.train.images, recipe.train.learning_rate) == ("tiny-16", 48, 1e-4)


def test_a_folder_that_cannot_be_written_is_refused_before_training(make_trainer, tmp_path):
    (tmp_path / "file").write_text("x")
    with pytest.raises(OutputError, match="cannot write to folder"):
        make_trainer(tmp_path / "file")


# ---- averaged weights ---------------------------------------------------------------------------


@pytest.mark.parametrize("accumulation", [1, 4])
def test_the_average_counts_optimiser_steps_and_warms_up(
    make_trainer, tmp_path, monkeypatch, accumulation
):
    monkeypatch.setattr(step_log, "LOG_EVERY_STEPS", 1)
    trainer = make_trainer(
        tmp_path,
        "train.images=96",
        "train.ema_decay=0.3",
        f"train.accumulation_steps={accumulation}",
        report=lambda _: history.append(weights(trainer.state.stage)),
    )
    history: list[list[torch.Tensor]] = []
    trainer.run()
    assert len(history) == trainer.state.steps == trainer.state.ema.optimization_step == 6
    average = history[0]  # the first step replaces what the network started with
    for n, current in enumerate(history[1:], start=1):
        decay = min(0.3, (1 + n) / (10 + n))
        average = [decay * a + (1 - decay) * c for a, c in zip(average, current, strict=True)]
    for got, wanted in zip(trainer.state.ema.shadow_params, average, strict=True):
        torch.testing.assert_close(got, wanted, rtol=1e-5, atol=1e-7)


def test_samples_are_made_with_the_averaged_weights(make_trainer, tmp_path, monkeypatch):
    used = []

    def run(stage, *arguments, plain=DiffusionStage.run, **options):
        used.append(weights(stage))
        return plain(stage, *arguments, **options)

    monkeypatch.setattr(DiffusionStage, "run", run)
    trainer = make_trainer(
        tmp_path, "train.images=64", "train.sample_every_images=64", "sampling.steps=2"
    )
    trainer.run()
    assert len(used) == 1
    assert same(used[0], trainer.state.ema.shadow_params)
    assert not same(used[0], weights(trainer.state.stage))


def test_a_grid_of_an_upsampler_shows_input_sample_and_truth(make_trainer, tmp_path):
    trainer = make_trainer(
        tmp_path,
        "train.images=32",
        "train.sample_every_images=32",
        "train.sample_count=2",
        "sampling.steps=1",
        "data.crop_px=null",
        recipe="tiny-16-to-32",
    )
    trainer.run()
    (grid,) = (tmp_path / "samples").iterdir()
    assert grid.name == "000000000032.png"
    image = read_image(grid)
    assert image.shape == (3, 32, 6 * 34 - 2)
    for place in range(2):
        sample = trainer.images[place]
        left = place * 3 * 34
        low_res = quantise(sample.conditions["low_resolution"])
        enlarged = low_res.repeat_interleave(2, 1).repeat_interleave(2, 2)
        for column, expected in ((0, enlarged), (2, sample.image)):
            at = left + column * 34
            assert (image[:, :, at : at + 32] - expected).abs().max() < 0.5 / 127.5


# ---- steps --------------------------------------------------------------------------------------


@pytest.mark.parametrize("accumulation", [2, 3, 16])  # of 16 images; 3 leaves a smaller part
def test_accumulated_gradients_are_those_of_one_batch(
    make_trainer, tmp_path, monkeypatch, accumulation
):
    gradients: list[list[torch.Tensor]] = []

    def keep(parameters, largest_norm):
        gradients.append([parameter.grad.clone() for parameter in parameters])
        return 0.0

    monkeypatch.setattr(steps_module, "clip_gradients", keep)
    for steps in (1, accumulation):
        trainer = make_trainer(tmp_path / str(steps), f"train.accumulation_steps={steps}")
        trainer._step(next(trainer._batches()))
    for one, many in zip(*gradients, strict=True):
        torch.testing.assert_close(many, one, rtol=1e-4, atol=1e-6)
    assert sum(gradient.abs().sum() for gradient in gradients[0]) > 0


@pytest.mark.parametrize(
    ("batch_size", "every", "wanted"),
    [
        (16, 32, [32, 64, 80]),
        (12, 32, [36, 72, 84]),  # no multiple of 32 is ever seen
        (16, 1000, [80]),
        (16, 1, [16, 32, 48, 64, 80]),
    ],
)
def test_checkpoints_come_when_a_multiple_is_passed_and_at_the_end(
    make_trainer, tmp_path, batch_size, every, wanted
):
    make_trainer(
        tmp_path,
        "train.images=80",
        f"train.batch_size={batch_size}",
        f"train.checkpoint_every_images={every}",
        "train.keep_checkpoints=9",
    ).run()
    assert [int(path.name) for path in checkpoints(tmp_path / "checkpoints")] == wanted


def test_only_as_many_checkpoints_as_wanted_are_kept(make_trainer, tmp_path):
    make_trainer(
        tmp_path, "train.images=80", "train.checkpoint_every_images=16", "train.keep_checkpoints=2"
    ).run()
    assert len(list((tmp_path / "checkpoints").iterdir())) == 2
    assert [int(path.name) for path in checkpoints(tmp_path / "checkpoints")] == [64, 80]


def test_the_rate_of_every_step_is_that_of_the_images_seen(make_trainer, tmp_path, monkeypatch):
    monkeypatch.setattr(step_log, "LOG_EVERY_STEPS", 1)
    lines = []
    make_trainer(
        tmp_path, "train.warmup_images=80", "train.decay_fraction=0.5", report=lines.append
    ).run()
    factors = [line["learning_rate_factor"] for line in lines]
    assert factors[:5] == pytest.approx([0.2, 0.4, 0.6, 0.8, 1.0])
    assert factors[9] == factors[10] == 1
    assert factors[11:] == sorted(factors[11:], reverse=True)
    assert factors[-1] == pytest.approx(0.5 * (1 - math.cos(math.pi * 0.1)))


@pytest.fixture
def not_finite(monkeypatch):
    """A function that makes the losses of certain batches, counted from 0, not finite."""

    def make(*numbers: int) -> None:
        counter = itertools.count()
        plain = Denoising.loss

        def loss(objective, stage, batch):
            return plain(objective, stage, batch) * (math.nan if next(counter) in numbers else 1)

        monkeypatch.setattr(Denoising, "loss", loss)

    return make


def test_a_step_that_is_not_finite_is_skipped_and_counted(make_trainer, tmp_path, not_finite):
    not_finite(2, 3, 7)
    lines = []
    trainer = make_trainer(
        tmp_path, "train.max_bad_steps=2", "train.images=160", report=lines.append
    )
    trainer.run()
    assert (trainer.state.bad_steps, trainer.state.steps) == (3, 7)
    assert trainer.state.ema.optimization_step == 7
    assert lines[-1]["bad_steps"] == 3
    assert math.isfinite(lines[-1]["loss"])
    assert all(torch.isfinite(tensor).all() for tensor in everything(trainer))


def test_the_loss_of_none_but_skipped_steps_is_not_nought(
    make_trainer, tmp_path, not_finite, every_third
):
    not_finite(*range(3))
    lines = []
    trainer = make_trainer(tmp_path, "train.images=96", report=lines.append)
    trainer.run()
    assert [line["images"] for line in lines] == [48, 96]
    assert math.isnan(lines[0]["loss"])
    assert lines[1]["loss"] > 0


def test_a_run_goes_on_from_a_checkpoint_before_which_no_step_was_taken(
    make_trainer, tmp_path, not_finite
):
    not_finite(0, 1)
    trainer = make_trainer(tmp_path / "whole", "train.images=64")
    trainer.run()
    not_finite(0)
    with pytest.raises(CascadeError, match="all 1 steps were skipped"):
        make_trainer(tmp_path / "parts", "train.images=16").run()
    not_finite(0)
    again = make_trainer(tmp_path / "parts", "train.images=64")
    assert (again.state.images_seen, again.state.steps) == (16, 0)
    again.run()
    assert (again.state.steps, again.state.bad_steps) == (2, 2)
    assert same(everything(again), everything(trainer))


def test_too_many_steps_in_a_row_end_the_run_and_are_never_saved(
    make_trainer, tmp_path, not_finite
):
    trainer = make_trainer(tmp_path, "train.checkpoint_every_images=16", "train.max_bad_steps=1")
    not_finite(*range(3, 20))
    with pytest.raises(CascadeError, match="not finite in 2 steps in a row, up to 80 images; low"):
        trainer.run()
    assert [int(path.name) for path in checkpoints(tmp_path / "checkpoints")] == [48, 64]
    for path in checkpoints(tmp_path / "checkpoints"):
        for name in ("stage", "ema", "optimisers"):
            tensors = load_file(path / f"{name}.safetensors").values()
            assert all(torch.isfinite(tensor).all() for tensor in tensors)


def test_the_log_of_a_resumed_run_has_no_line_twice(make_trainer, tmp_path, monkeypatch):
    monkeypatch.setattr(step_log, "LOG_EVERY_STEPS", 1)
    make_trainer(tmp_path, "train.images=96", "train.checkpoint_every_images=64").run()
    shutil.rmtree(tmp_path / "checkpoints" / "000000000096")  # as if killed before it was written
    with open(tmp_path / "log.jsonl", "a") as file:
        file.write('{"images": 1')
    make_trainer(tmp_path, "train.images=96", "train.checkpoint_every_images=64").run()
    lines = [json.loads(line) for line in (tmp_path / "log.jsonl").read_text().splitlines()]
    assert [line["images"] for line in lines] == [16, 32, 48, 64, 80, 96]


@pytest.mark.parametrize("option", ["train.gradient_checkpointing=true", "train.precision=bf16"])
def test_saving_memory_and_time_barely_change_what_is_learned(
    make_trainer, tmp_path, every_third, option
):
    losses = []
    for name, overrides in (("plain", []), ("other", [option])):
        lines = []
        make_trainer(tmp_path / name, *overrides, "train.images=96", report=lines.append).run()
        losses.append(lines[-1]["loss"])
    assert losses[1] == pytest.approx(losses[0], rel=0.02)
