"""The validation loss: the same however it is measured, without a trace in the training."""

from __future__ import annotations

import copy
import json
import logging
import math
import re
import shutil
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file
from tiny_autoencoders import IdentityAutoencoder

from cascade.autoencoder_stage import AutoencoderStage
from cascade.conditioning.batch import Batch
from cascade.diffusion_stage import DiffusionStage
from cascade.errors import CascadeError, RecipeError
from cascade.recipe.finding import find_recipe
from cascade.recipe.reading import load_stage_recipe
from cascade.sampling.student import Student
from cascade.space import Space
from cascade.stage_kinds import load_stage
from cascade.training import validation as module
from cascade.training.best_stage import read_best
from cascade.training.grids import draw_samples
from cascade.training.meters import LOG_SNRS, level_name
from cascade.training.objectives.autoencoding import Autoencoding
from cascade.training.objectives.consistency import Consistency
from cascade.training.objectives.denoising import Denoising
from cascade.training.run_record import read_run
from cascade.training.validation import combined
from cascade.training.validation_figures import (
    TRAINING_LOSS,
    has_originals,
    losses,
    losses_by_level,
    task_figures,
)

OFTEN = ["train.images=96", "train.validate_every_images=32", "train.sample_count=2"]


@pytest.fixture(autouse=True, scope="module")
def _few_draws():
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(module, "FEWEST_DRAWS", 8)
        yield


@pytest.fixture(scope="module")
def unseen(tmp_path_factory) -> Path:
    """Five pictures of the classes blue and red that are not among `pictures`."""
    folder = tmp_path_factory.mktemp("unseen")
    noise = np.random.default_rng(9)
    for number in range(5):
        name, colour = (("blue", (20, 40, 220)), ("red", (220, 30, 30)))[number % 2]
        pixels = np.full((40, 36, 3), 245)
        pixels[6 + number : 20, 5 : 15 + number] = colour
        (folder / name).mkdir(exist_ok=True)
        pixels = (pixels + noise.integers(-9, 10, pixels.shape)).astype(np.uint8)
        Image.fromarray(pixels).save(folder / name / f"{number}.png")
    return folder


@pytest.fixture(scope="module")
def whole(make_trainer, unseen, tmp_path_factory) -> Path:
    """A run that measured three times, without a gap."""
    folder = tmp_path_factory.mktemp("whole")
    make_trainer(folder, *OFTEN, f"data.validation={unseen}").run()
    return folder


def lines(run: Path, kind: str | None = "validation") -> list[dict]:
    log = [json.loads(line) for line in (run / "log.jsonl").read_text().splitlines()]
    return [line for line in log if line.get("kind") == kind]


def without_times(log: list[dict]) -> list[dict]:
    return [{k: v for k, v in x.items() if k not in ("seconds", "images_per_s")} for x in log]


def checkpoint(run: Path) -> dict[str, torch.Tensor]:
    folder = max((run / "checkpoints").iterdir())
    files = ("stage", "ema", "optimisers")
    parts = {name: load_file(folder / f"{name}.safetensors") for name in files}
    return {f"{name}:{k}": v for name, part in parts.items() for k, v in part.items()}


def same(first: dict[str, torch.Tensor], second: dict[str, torch.Tensor]) -> bool:
    return first.keys() == second.keys() and all(first[k].equal(second[k]) for k in first)


# ---- what a run measures ------------------------------------------------------------------------


@pytest.mark.parametrize("recipe", ["tiny-16", "tiny-16-to-32"])
def test_measuring_changes_nothing_about_the_training(make_trainer, unseen, tmp_path, recipe):
    values = [*OFTEN, "train.images=64", "sampling.steps=1"]
    states = []
    for name, more in (("plain", []), ("run", [f"data.validation={unseen}"])):
        make_trainer(tmp_path / name, *values, *more, recipe=recipe).run()
        states.append(torch.get_rng_state())
    assert states[0].equal(states[1])
    assert len(lines(tmp_path / "run")) == 2
    assert same(checkpoint(tmp_path / "run"), checkpoint(tmp_path / "plain"))
    logs = [without_times(lines(tmp_path / name, None)) for name in ("run", "plain")]
    assert logs[0] == logs[1]
    paired = {"psnr", "low_res_consistency"} & lines(tmp_path / "run")[0].keys()
    assert bool(paired) == (recipe != "tiny-16")


def test_a_resumed_run_measures_and_keeps_what_one_without_a_gap_does(
    make_trainer, unseen, whole, tmp_path
):
    values = [*OFTEN, f"data.validation={unseen}", "train.checkpoint_every_images=64"]
    part = make_trainer(tmp_path / "parts", *values)
    part.validation.measure = lambda stage, images_seen: _killed(images_seen, 96, part, stage)
    with pytest.raises(KeyboardInterrupt):
        part.run()
    assert [line["images"] for line in lines(tmp_path / "parts")] == [32, 64, 96]
    make_trainer(tmp_path / "parts", *values).run()
    logs = [without_times(lines(run)) for run in (tmp_path / "parts", whole)]
    assert logs[0] == logs[1]
    assert read_best(tmp_path / "parts") == read_best(whole)


@pytest.mark.parametrize("at", [32, 96])
def test_a_measurement_that_a_scheduler_cuts_off_is_made_by_the_resumed_run(
    make_trainer, unseen, whole, tmp_path, at
):
    values = [*OFTEN, f"data.validation={unseen}"]
    part = make_trainer(tmp_path / "parts", *values)
    step, measure = part._step, part.validation.measure

    def stopping(batch) -> bool:
        return step(batch) or part.state.images_seen == at

    def cut_off(stage, images_seen):
        if images_seen == at:
            part.lock.release()
            raise KeyboardInterrupt
        measure(stage, images_seen=images_seen)

    part._step, part.validation.measure = stopping, cut_off
    with pytest.raises(KeyboardInterrupt):
        part.run()
    make_trainer(tmp_path / "parts", *values).run()
    logs = [without_times(lines(run)) for run in (tmp_path / "parts", whole)]
    assert logs[0] == logs[1]
    assert read_best(tmp_path / "parts") == read_best(whole)


def _killed(images_seen, at, trainer, stage):
    """Measure, and end the process at some point."""
    type(trainer.validation).measure(trainer.validation, stage, images_seen=images_seen)
    if images_seen == at:
        trainer.lock.release()
        raise KeyboardInterrupt


def test_the_logged_losses_are_those_of_the_stage_that_was_kept(make_trainer, unseen, tmp_path):
    trainer = make_trainer(tmp_path, *OFTEN, f"data.validation={unseen}")
    trainer.run()
    best = read_best(tmp_path)
    (line,) = [line for line in lines(tmp_path) if line["images"] == best.images]
    assert line["loss"] == best.loss == min(each["loss"] for each in lines(tmp_path))
    saved = load_stage(tmp_path / "stage-best").eval()
    tasks = trainer.validation._tasks(trainer.validation.images, trainer.validation._figures)
    values = combined([task(saved)[0] for task in tasks])
    assert values["loss"] == pytest.approx(line["loss"], rel=1e-6)
    assert {level_name(level) for level in LOG_SNRS} < values.keys()


def test_any_number_of_processes_gives_the_same_figures(make_trainer, unseen, tmp_path):
    values = [*OFTEN, f"data.validation={unseen}", "train.batch_size=2"]  # chunks of two images
    validation = make_trainer(tmp_path, *values).validation
    stage = make_trainer(tmp_path / "b", *OFTEN).averaged.stage

    def measured(processes: int) -> dict[str, float]:
        chunks = []
        for rank in range(processes):
            validation.accelerator = SimpleNamespace(process_index=rank, num_processes=processes)
            chunks += validation._measured_share(stage)
        return combined([each.values for each in sorted(chunks)])

    assert measured(1) == measured(3)


def test_the_same_seeds_are_drawn_for_held_out_and_for_training_images(
    make_trainer, unseen, pictures, tmp_path
):
    trainer = make_trainer(tmp_path, *OFTEN, f"data.validation={unseen}")
    seeds: dict[str, list[int]] = {"loss": [], TRAINING_LOSS: []}

    def noted(name):
        def figures(stage, batch, first):
            seeds[name] += batch.seeds
            return {name: torch.zeros(len(batch))}

        return figures

    for name, images in (("loss", trainer.validation.images), (TRAINING_LOSS, trainer.images)):
        for task in trainer.validation._tasks(images, noted(name)):
            task(trainer.averaged.stage)
    assert seeds["loss"] == seeds[TRAINING_LOSS]
    assert len(set(seeds["loss"])) == len(seeds["loss"]) == 10  # five images, two noises each


def test_images_from_a_pool_and_another_seed_do_not_change_what_is_measured(
    make_trainer, unseen, tmp_path
):
    runs = [
        make_trainer(
            tmp_path / str(seed), *OFTEN, f"data.validation={unseen}", f"train.seed={seed}"
        )
        for seed in (0, 1)
    ]
    first, second = (run.validation.images[0] for run in runs)
    assert first.image.equal(second.image)
    assert first.seed == second.seed


# ---- the best stage, and stopping ---------------------------------------------------------------


@pytest.mark.parametrize("checkpoint_every", [32, 1000])
def test_a_best_stage_of_steps_that_a_kill_undid_does_not_count(
    make_trainer, unseen, tmp_path, scripted, checkpoint_every
):
    values = [f"data.validation={unseen}", "train.validate_every_images=16", "train.images=64"]
    values += [f"train.checkpoint_every_images={checkpoint_every}"]
    scripted([3.0, 2.5, 1.0] + ([2.0, 2.2] if checkpoint_every == 32 else [9.0, 8.0, 7.0, 7.5]))
    part = make_trainer(tmp_path, *values)
    part.validation.measure = lambda stage, images_seen: _killed(images_seen, 48, part, stage)
    with pytest.raises(KeyboardInterrupt):
        part.run()
    assert read_best(tmp_path).loss == 1.0
    make_trainer(tmp_path, *values).run()
    assert read_best(tmp_path).images == 48
    losses = [line["loss"] for line in lines(tmp_path)]
    assert read_best(tmp_path).loss == min(losses)


@pytest.fixture
def scripted(monkeypatch):
    """A function that makes a run measure certain validation losses, one after another."""

    def script(values: list[float]) -> None:
        rest = iter(values)

        def measured(self, stage):
            value = next(rest)
            return [module.Measured(0, {"loss": [value], TRAINING_LOSS: [1.0]}, ())]

        monkeypatch.setattr(module.Validation, "_measured_share", measured)

    return script


def test_the_best_stage_stays_though_old_checkpoints_go(make_trainer, unseen, tmp_path, scripted):
    scripted([2.0, 1.0, float("nan"), 3.0])
    values = ["train.images=64", "train.validate_every_images=16", f"data.validation={unseen}"]
    values += ["train.checkpoint_every_images=16", "train.keep_checkpoints=1"]
    trainer = make_trainer(tmp_path, *values)
    trainer.run()
    assert [path.name for path in (tmp_path / "checkpoints").iterdir()] == ["000000000064"]
    assert (read_best(tmp_path).images, read_best(tmp_path).loss) == (32, 1.0)
    newest, best = (load_stage(tmp_path / name) for name in ("stage", "stage-best"))
    assert not all(a.equal(b) for a, b in zip(newest.parameters(), best.parameters(), strict=True))


def test_a_run_without_patience_stops_at_once_and_stays_stopped(
    make_trainer, unseen, tmp_path, scripted
):
    values = [f"data.validation={unseen}", "train.validate_every_images=16", "train.images=160"]
    scripted([3.0, 2.0, 2.5, 2.0, 1.0, 1.5])
    trainer = make_trainer(tmp_path, *values, "train.patience=2")
    trainer.run()
    assert trainer.stopped_early
    assert trainer.state.images_seen == 64
    assert "stopped early, after 2 measurements" in (tmp_path / "report.html").read_text()
    assert max((tmp_path / "checkpoints").iterdir()).name == "000000000064"
    again = make_trainer(tmp_path, *values, "train.patience=2")
    again.run()
    assert again.state.images_seen == 64
    patient = make_trainer(tmp_path, *values, "train.patience=3", "train.images=96")
    patient.run()
    assert patient.state.images_seen == 96
    assert read_best(tmp_path).loss == 1.0


def test_the_command_says_where_the_best_stage_is(command, pictures, unseen, tmp_path, scripted):
    scripted([2.0, 3.0])
    values = ["train.images=64", "train.batch_size=16", "train.sample_every_images=0"]
    values += [f"data.validation={unseen}", "train.validate_every_images=16", "train.patience=1"]
    done = command("train", "tiny-16", f"data.path={pictures}", *values, "--out", tmp_path / "run")
    assert done.code == 0, done.err
    assert "stopped after 32 images, because the validation loss no longer falls." in done.out
    assert f"lowest after 16 images; that stage is {tmp_path / 'run' / 'stage-best'}" in done.out
    assert load_stage(tmp_path / "run" / "stage-best").space.size == (16, 16)


def test_other_validation_images_choose_the_best_stage_anew(
    make_trainer, unseen, tmp_path, scripted, caplog
):
    values = ["train.validate_every_images=16"]
    scripted([1.0, 2.0, 7.0, 6.0])
    make_trainer(tmp_path / "run", *values, "train.images=32", f"data.validation={unseen}").run()
    shutil.copytree(unseen, tmp_path / "other")
    next((tmp_path / "other").rglob("*.png")).unlink()
    changed = [*values, "train.images=64", f"data.validation={tmp_path / 'other'}"]
    with caplog.at_level(logging.WARNING):
        make_trainer(tmp_path / "run", *changed).run()
    assert "the validation images or the precision are not those" in caplog.text
    assert "its best stage is chosen again" in caplog.text
    assert read_best(tmp_path / "run").loss == 6.0
    assert [line["loss"] for line in read_run(tmp_path / "run").validation] == [7.0, 6.0]


# ---- reports ------------------------------------------------------------------------------------


def test_the_report_marks_where_the_losses_part(make_trainer, unseen, tmp_path, monkeypatch):
    training = iter([9.0, 8.0, 7.0, 6.0, 5.0])
    held_out = iter([9.0, 8.0, 8.5, 9.0, 9.5])

    def measured(self, stage):
        values = {"loss": [next(held_out)], TRAINING_LOSS: [next(training)], "psnr": [20.0]}
        return [module.Measured(0, values, ())]

    monkeypatch.setattr(module.Validation, "_measured_share", measured)
    values = ["train.images=80", "train.validate_every_images=16", f"data.validation={unseen}"]
    make_trainer(tmp_path, *values).run()
    page = (tmp_path / "report.html").read_text()
    assert "Since 32 images the validation loss has risen while the training loss has not" in page
    assert "The validation loss is lowest after 32 images: 8." in page
    assert page.count('class="mark"') == 1  # the lowest point is where they diverge
    assert "they diverge</text>" in page
    assert "PSNR, dB, validation" in page


def test_a_run_without_validation_images_has_no_such_section(make_trainer, tmp_path):
    make_trainer(tmp_path, "train.images=32").run()
    assert "held-out" not in (tmp_path / "report.html").read_text()
    assert not (tmp_path / "stage-best").exists()


# ---- every kind of stage ------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["base_stage", "upsampler", "colouriser", "inpainter"])
def test_every_image_has_its_own_figures_whatever_its_batch(name, request, low_res, labels):
    stage = request.getfixturevalue(name)
    size = stage.space.size
    images = torch.nn.functional.interpolate(low_res[:3], size=size)
    batch = Batch(images=images, seeds=(1, 2, 3), conditions={"labels": labels[:3]})
    both = losses(stage, Denoising(), batch)
    assert both.shape == (3,)
    assert both.tolist() == losses(stage, Denoising(), batch).tolist()
    alone = losses(stage, Denoising(), replace(batch.parts(3)[1]))
    assert float(alone) == pytest.approx(float(both[1]), rel=1e-4)
    assert list(losses_by_level(stage, batch)) == [level_name(level) for level in LOG_SNRS]
    assert has_originals(stage) == (name != "base_stage")
    if has_originals(stage):
        figures = task_figures(stage, batch)
        assert {"psnr", "ssim"} <= figures.keys()
        assert all(each.shape == (3,) for each in figures.values())
        alone = task_figures(stage, batch.parts(3)[1])
        assert figures.keys() == alone.keys()
        for figure, each in figures.items():
            assert float(alone[figure]) == pytest.approx(float(each[1]), rel=1e-3, abs=1e-6), figure


def test_figures_of_held_out_images_leave_out_what_is_missing(upsampler, low_res, labels):
    images = torch.nn.functional.interpolate(low_res[:3], size=(32, 32))
    batch = Batch(images=images, seeds=(1, 2, 3), conditions={"labels": labels[:3]})
    known = torch.ones_like(images, dtype=torch.bool)
    known[0, :, 20:] = False
    known[1] = False
    masked = replace(batch, known=known)
    samples = draw_samples(upsampler, batch, precision="fp32")
    plain, figures = task_figures(upsampler, batch), task_figures(upsampler, masked)
    ours, theirs = ((each[:1, :, :20] + 1) * 127.5 for each in (samples, images))
    square = float((ours.clamp(0, 255).round() - theirs.round()).square().mean())
    assert figures["psnr"].tolist() == pytest.approx(
        [10 * math.log10(255**2 / square), float(plain["psnr"][2])], rel=1e-5
    )
    assert figures["ssim"].tolist() == plain["ssim"][2:].tolist()
    assert len(figures["low_res_consistency"]) == 2
    assert figures["low_res_consistency"][1] == plain["low_res_consistency"][2]
    assert losses(upsampler, Denoising(), masked)[1] == 0
    levels = losses_by_level(upsampler, masked)
    assert all(each[1] == 0 and each[0] > 0 for each in levels.values())


def test_restored_images_are_compared_with_the_originals(low_res):
    stage = AutoencoderStage.of_network(IdentityAutoencoder(), Space(size_px=16))
    batch = Batch(images=low_res[:2], seeds=(1, 2))
    assert losses(stage, Autoencoding(beta=0.0), batch).tolist() == pytest.approx([0, 0], abs=1e-6)
    assert task_figures(stage, batch)["psnr"].tolist() == [100, 100]
    assert losses_by_level(stage, batch) == {}


def test_a_student_is_measured_at_the_end_of_its_grid(base_stage, low_res, labels):
    contract = replace(base_stage.contract, student=Student(steps=2))
    stage = DiffusionStage(base_stage.network, base_stage.process, contract).eval()
    batch = Batch(images=low_res[:2], seeds=(1, 2), conditions={"labels": labels[:2]})
    objective = Consistency(grid=(4, 32))
    values = []
    for progress in (0.0, 0.3):  # where training is
        objective.set_progress(progress)
        values.append(losses(stage, objective, batch).tolist())
    assert values[0] == values[1]
    assert losses_by_level(stage, batch) == {}


def test_a_data_set_of_tensors_is_measured_too(base_stage, tmp_path, low_res):
    from cascade.training.settings import TrainingSettings
    from cascade.training.trainer import Trainer

    settings = TrainingSettings(
        images=8, batch_size=4, validate_every_images=4, precision="fp32", trackers=(),
        sample_every_images=0,
    )  # fmt: skip
    images, other = list(low_res), list(-low_res)
    Trainer(base_stage, images, tmp_path, settings, validation=other).run()
    assert [line["images"] for line in lines(tmp_path)] == [4, 8]
    with pytest.raises(CascadeError, match="an early stop needs a validation loss"):
        Trainer(copy.deepcopy(base_stage), images, tmp_path / "b", replace(settings, patience=1))


# ---- what does not fit --------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("overrides", "words"),
    [
        (["data.validation={empty}"], "key 'data.validation': no images in .*empty"),
        (["data.validation=nowhere"], "key 'data.validation': no data at nowhere"),
        (
            ["data.validation=0.0001"],
            "key 'data.validation': a share of 0.0001 of the images leaves",
        ),
        (
            ["data.validation=0.2", "data.split_by=subject"],
            "key 'data.validation': no image has a label 'subject'",
        ),
        (["data.validation={pictures}"], "all 18 validation images are training images too .* is "),
        (
            ["data.validation={held_out}"],
            r"no training image has a class of the 16 .* \(class 'cat', class 'dog'\); name images",
        ),
        (["train.patience=2"], "key 'train.patience': an early stop needs a validation loss; name"),
    ],
)
def test_what_cannot_be_measured_is_refused_in_one_line(
    make_trainer, pictures, held_out, tmp_path, overrides, words
):
    places = {"empty": tmp_path / "empty", "pictures": pictures, "held_out": held_out}
    places["empty"].mkdir()
    with pytest.raises(CascadeError, match=words) as error:
        make_trainer(tmp_path / "run", *(each.format(**places) for each in overrides))
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("override", "words"),
    [
        ("data.validation=1.5", "input should be a folder, shards, or a share .* got 1.5"),
        ("data.validation=true", "a share of the images above 0 and below 1, got True"),
        ("data.split_by=subject", "key 'data.split_by': needs a share as data.validation"),
        ("train.validate_count=0", "key 'train.validate_count'"),
    ],
)
def test_wrong_keys_are_named(override, words):
    with pytest.raises(RecipeError, match=words):
        load_stage_recipe(find_recipe("tiny-16", "stages"), [override])


def test_images_of_both_sets_and_of_unknown_classes_are_said_once(
    make_trainer, unseen, pictures, tmp_path, caplog
):
    folder = tmp_path / "mixed"
    shutil.copytree(unseen, folder)
    (folder / "green").mkdir()
    shutil.copy(pictures / "red" / "1.png", folder / "red" / "seen.png")
    Image.new("RGB", (40, 40), (0, 200, 0)).save(folder / "green" / "a.png")
    with caplog.at_level(logging.WARNING):
        trainer = make_trainer(tmp_path / "run", f"data.validation={folder}")
    assert len(trainer.validation.images.source) == 6
    assert re.search(
        r"1 of 7 validation images are training images too, .* low: \S+seen\.png is \S+1\.png\. "
        rf"cascade data check \S+ --validation {folder} lists them all\.",
        caplog.text,
    )
    assert (
        "1 validation image left out, because no training image has the class: class 'green'."
        in caplog.text
    )


def test_another_path_leaves_out_the_recipe_s_own_validation_images(tmp_path):
    text = find_recipe("tiny-16", "stages").read_text()
    file = tmp_path / "mine.yaml"
    file.write_text(text.replace("  path: data/images", "  path: a\n  validation: b"))
    assert load_stage_recipe(file).data.validation == "b"
    assert load_stage_recipe(file, ["data.path=c"]).data.validation is None
    assert load_stage_recipe(file, ["data.path=c", "data.validation=d"]).data.validation == "d"
    file.write_text(text.replace("  path: data/images", "  path: a\n  validation: 0.1"))
    assert load_stage_recipe(file, ["data.path=c"]).data.validation == 0.1


@pytest.mark.parametrize(
    ("values", "measured", "interval"),
    [
        ({"images": 20_000}, 100, 2_000),
        ({"images": 20_000, "patience": 3}, 256, 2_000),
        ({"images": 20_000}, 256, 4_096),
        ({"images": 600}, 256, 4_096),  # at the end alone
        ({"images": 5_000_000}, 256, 50_000),
        ({"images": 20_000}, 10_000, 50_000),
        ({"images": 4}, 1, 128),  # few images are measured several times; here 8 draws, not 64
        ({"images": 100, "validate_every_images": 0}, 256, 0),
        ({"images": 100, "validate_every_images": 7}, 256, 7),
    ],
)
def test_measurements_are_about_ten_in_a_run_but_take_little_of_its_time(
    values, measured, interval
):
    from cascade.training.settings import TrainingSettings

    assert module.interval_images(TrainingSettings(**values), measured) == interval


def test_measurements_in_another_arithmetic_are_not_compared(
    make_trainer, unseen, tmp_path, monkeypatch
):
    """`auto` counts as what it is on this machine."""
    validation = make_trainer(tmp_path, *OFTEN, f"data.validation={unseen}").validation
    assert validation is not None

    def digest(precision: str, *, is_fast: bool) -> str:
        monkeypatch.setattr("cascade.devices.has_fast_bf16", lambda device: is_fast)
        validation.settings = replace(validation.settings, precision=precision)
        return validation._digest_of_images()

    fp32, bf16 = (digest(each, is_fast=True) for each in ("fp32", "bf16"))
    assert fp32 != bf16
    assert [digest("auto", is_fast=each) for each in (False, True)] == [fp32, bf16]
