"""What a resumed run says, and which changes of its images it refuses."""

from __future__ import annotations

import dataclasses
import gzip
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image
from run_own_network import make_trainer as make_own

from cascade.errors import CascadeError, OutputError
from cascade.recipe.finding import find_recipe
from cascade.recipe.reading import load_stage_recipe
from cascade.stage_kinds import load_stage
from cascade.training import step_log
from cascade.training.averaging import snapshots
from cascade.training.checkpoint import read_newest
from cascade.training.run_folder import run_identity
from cascade.training.settings import TrainingSettings

OTHERS = {
    "optimiser": "muon",
    "schedule": "linear",
    "precision": "bf16",
    "trackers": ("wandb",),
    "betas": (0.5, 0.6),
    "validate_every_images": 7,
}


@pytest.fixture
def data(pictures, tmp_path) -> Path:
    """A copy of the pictures that may change."""
    return shutil.copytree(pictures, tmp_path / "data")


@pytest.fixture
def run(make_trainer, tmp_path, data):
    """A function that makes a trainer of a run on these pictures, begun with 32 images."""

    def make(*overrides: str, out: str = "run"):
        return make_trainer(tmp_path / out, f"data.path={data}", *overrides)

    make("train.images=32").run()
    return make


def messages(caplog, word: str = "") -> list[str]:
    lines = [record.getMessage() for record in caplog.records]
    return [line for line in lines if word in line]


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ("add a class", "18 images, and the data now has 20: 2 added (owl/0, owl/1)."),
        ("add of one key", "18 images, and the data now has 19: 1 added (red/3)."),
        ("remove", "18 images, and the data now has 17: 1 removed (red/3)."),
        ("rename", "18 images, and the data now has 18: 1 added (red/more), 1 removed (red/3)."),
        ("lose the list", "18 images, and the data now has 17."),
        ("damage the list", "18 images, and the data now has 17."),
    ],
)
def test_other_images_are_counted_and_named(run, tmp_path, data, change, words):
    if change == "add a class":
        (data / "owl").mkdir()
        for number in range(2):
            shutil.copy(data / "red" / "0.png", data / "owl" / f"{number}.png")
    elif change == "add of one key":
        Image.open(data / "red" / "3.png").save(data / "red" / "3.jpg")
    elif change == "rename":
        (data / "red" / "3.png").rename(data / "red" / "more.png")
    else:
        (data / "red" / "3.png").unlink()
    if change == "lose the list":
        (tmp_path / "run" / "images.jsonl.gz").write_bytes(gzip.compress(b"[1"))
    if change == "damage the list":
        packed = gzip.compress(b"[1]")
        (tmp_path / "run" / "images.jsonl.gz").write_bytes(packed[:10] + b"\xff" + packed[11:])
    with pytest.raises(CascadeError) as error:
        run("train.images=64")
    assert f"was trained on {words} A run resumes only with its own images" in str(error.value)
    assert str(error.value).endswith(f"in another folder with train.init_from={tmp_path / 'run'}.")


def test_many_names_are_shortened(run, data):
    for number in range(5):
        shutil.copy(data / "red" / "0.png", data / "red" / f"1{number}.png")
    with pytest.raises(CascadeError, match=r"5 added \(red/10, red/11, red/12, …\)"):
        run()


def test_changed_images_are_named_once_and_the_run_goes_on(run, data, caplog):
    with open(data / "red" / "3.png", "ab") as file:
        file.write(b"more")
    run("train.images=48").run()
    (line,) = messages(caplog, "images changed")
    assert line.startswith("1 of the images changed since the run began (red/3); the run continues")
    caplog.clear()
    run("train.images=64")
    assert messages(caplog, "images changed") == []


def test_two_images_of_one_key_are_no_changed_one(make_trainer, data, tmp_path, caplog):
    Image.open(data / "red" / "3.png").save(data / "red" / "3.jpg")
    run = [tmp_path / "pair", f"data.path={data}"]
    make_trainer(*run, "train.images=16").run()
    make_trainer(*run, "train.images=32")
    assert messages(caplog, "images changed") == []


def test_a_resumed_run_says_from_where_it_goes_on(run, tmp_path, caplog):
    caplog.set_level("INFO")
    run("train.images=32")
    assert messages(caplog) == [f"{tmp_path / 'run'} is complete: it has seen 32 images."]
    caplog.clear()
    run("train.images=64", "train.learning_rate=1e-5")
    assert messages(caplog) == [
        f"resuming {tmp_path / 'run'} at image 32 of 64, with the weights, averages and optimiser "
        "of checkpoints/000000000032.",
        "resuming with train.images=64, which was 32.",
        "resuming with train.learning_rate=1e-05, which was 0.002.",
    ]


def test_the_rate_before_is_that_of_the_settings_before(tmp_path, caplog):
    caplog.set_level("INFO")
    make_own(tmp_path, images=160, decay_fraction=0.3).run()
    make_own(tmp_path, images=320, decay_fraction=0.0)
    (line,) = messages(caplog, "of its peak")
    assert line.endswith("goes on at 100.0% of its peak, and was at 25.0%.")


def test_snapshots_and_sheets_of_undone_steps_are_removed(tmp_path):
    """`cascade ema` would average them with those of the steps that took their place."""

    def places() -> list[list[int]]:
        stored = snapshots(tmp_path / "averages")
        sheets = sorted((tmp_path / "samples").glob("*.png"))
        return [sorted({each.images_seen for each in stored}), [int(each.stem) for each in sheets]]

    every = {"snapshot_every_images": 16, "sample_every_images": 16, "sample_count": 1}
    for images in (32, 64):
        make_own(tmp_path, images=images, **every).run()
    assert places() == [[16, 32, 48, 64]] * 2
    shutil.rmtree(tmp_path / "checkpoints" / f"{64:012d}")  # as if killed before it was written
    other = {**every, "snapshot_every_images": 32, "sample_every_images": 32}
    trainer = make_own(tmp_path, images=64, **other)
    assert trainer.state.images_seen == 32
    assert places() == [[16, 32]] * 2
    trainer.run()
    assert places() == [[16, 32, 64]] * 2


def other_value(name: str, value: Any) -> Any:
    """Another valid value of a training setting."""
    if name in OTHERS or isinstance(value, bool):
        return OTHERS.get(name, not value)
    if isinstance(value, int | float):
        return value + 1 if isinstance(value, int) else value / 2 + 0.1
    return f"not {value}"


@pytest.mark.parametrize("name", [each.name for each in dataclasses.fields(TrainingSettings)])
def test_every_setting_is_refused_or_listed_among_those_that_may_change(tmp_path, name):
    trainer = make_own(tmp_path, snapshot_every_images=16)  # they cannot begin later
    other = other_value(name, before := getattr(trainer.settings, name))
    assert other != before
    changed = dataclasses.replace(trainer.settings, **{name: other})
    facts = (trainer.state.stage, trainer.images, trainer.objective.identity())
    is_refused = run_identity(changed, *facts) != run_identity(trainer.settings, *facts)
    page = (Path(__file__).parents[2] / "docs" / "training.md").read_text()
    listed = page.partition("**What may change.**")[2].partition("They act from")[0]
    assert (f"`{name}`" in listed) != is_refused


def test_a_complete_run_keeps_its_recipe_but_for_how_it_samples(run, tmp_path, caplog):
    caplog.set_level("INFO")
    file = tmp_path / "run" / "recipe.yaml"
    before = load_stage_recipe(file)
    changes = ["train.images=16", "train.learning_rate=1e-5", "data.too_small=enlarge"]
    run(*changes, "sampling.steps=3").run()
    assert messages(caplog)[1:] == [
        "resuming with sampling.steps=3, which was 20.",
        "the run is complete, so this has no effect: data.too_small=enlarge, which was skip.",
        "the run is complete, so this has no effect: train.images=16, which was 32.",
        "the run is complete, so this has no effect: train.learning_rate=1e-05, which was 0.002.",
    ]
    after = load_stage_recipe(file)
    assert after.sampling.steps == load_stage(tmp_path / "run" / "stage").sampling.steps == 3
    assert after.model_copy(update={"sampling": before.sampling}) == before


def test_a_start_says_what_is_loaded_new_and_left_out(run, tmp_path, data, caplog):
    caplog.set_level("INFO")
    (data / "blue").rename(data / "owl")
    start = f"train.init_from={tmp_path / 'run'}"
    run(start, "train.images=16", out="next").run()
    (line,) = messages(caplog, "starting")
    assert line.startswith(f"starting at image 0 from {tmp_path / 'run' / 'stage'}: ")
    assert line.endswith(
        "parameters loaded; 256 are newly initialised (class owl); 256 are left out (class blue)."
    )
    caplog.clear()
    run(start, "train.images=16", out="next")
    assert "train.init_from is not used, because the run has its own checkpoint." in messages(
        caplog
    )


def test_a_killed_run_is_started_from_by_its_checkpoint(run, tmp_path, caplog):
    caplog.set_level("INFO")
    finished = load_stage(tmp_path / "run" / "stage").state_dict()
    shutil.rmtree(tmp_path / "run" / "stage")
    trainer = run(f"train.init_from={tmp_path / 'run'}", out="next")
    (line,) = messages(caplog, "starting")
    checkpoint = read_newest(tmp_path / "run" / "checkpoints")
    assert checkpoint is not None
    assert f"from {checkpoint.folder}: " in line
    weights = trainer.state.stage.state_dict()
    assert all(torch.equal(weights[name], value) for name, value in finished.items())


# ---- the folder of a run ------------------------------------------------------------------------


@pytest.mark.parametrize("place", ["data", "data/runs/x"])
def test_a_run_does_not_lie_among_its_images(make_trainer, tmp_path, data, place):
    with pytest.raises(OutputError, match="lies among the images in"):
        make_trainer(tmp_path / place, f"data.path={data}")
    assert sorted(path.name for path in data.iterdir()) == ["blue", "red", "red-dot"]


def test_a_folder_with_other_things_is_refused_but_for_files_such_as_logs(
    make_trainer, tmp_path, data
):
    (tmp_path / "empty").mkdir()
    (tmp_path / "empty" / "log.txt").touch()
    make_trainer(tmp_path / "empty", f"data.path={data}")
    with pytest.raises(OutputError, match=r"holds other things, such as data, and no run"):
        make_trainer(tmp_path, f"data.path={data / 'red'}", "condition.labels=null")


def test_a_recipe_in_the_folder_of_no_run_is_not_replaced(command, pictures, tmp_path):
    own = tmp_path / "own" / "recipe.yaml"
    own.parent.mkdir()
    own.write_text(f"# mine\n{find_recipe('tiny-16', 'stages').read_text()}")
    text = own.read_text()
    values = [f"data.path={pictures}", "train.images=16", "train.batch_size=16", "network.depth=1"]
    done = command("train", own, *values, "--out", own.parent)
    assert done.code == 1
    assert "own holds other things, such as recipe.yaml, and no run; use another" in done.err
    assert own.read_text() == text
    assert [path.name for path in own.parent.iterdir()] == ["recipe.yaml"]
    run = tmp_path / "run"
    assert command("train", own, *values, "--out", run).code == 0
    assert command("train", run / "recipe.yaml", "train.images=32", "--out", run).code == 0
    assert load_stage_recipe(run / "recipe.yaml").train.images == 32


# ---- progress -----------------------------------------------------------------------------------


def test_slow_steps_are_reported_between_the_lines_of_the_log(make_trainer, tmp_path, monkeypatch):
    monkeypatch.setattr(step_log, "PROGRESS_EVERY_S", 0.0)
    lines = []
    make_trainer(tmp_path / "run", "train.images=160", report=lines.append).run()
    assert [line["images"] for line in lines] == list(range(16, 161, 16))
    assert len((tmp_path / "run" / "log.jsonl").read_text().splitlines()) == 1
    assert lines[-1]["loss"] == pytest.approx(
        sum(line["loss"] for line in lines) / 10, rel=0.5
    )  # the mean of all ten
