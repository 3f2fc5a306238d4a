"""From pictures to pictures: `train` both stages, `chain` them, `generate`."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
from PIL import Image

from cascade.pipeline import CascadePipeline
from cascade.recipe.finding import find_recipe
from cascade.stage_kinds import load_stage


def settings(path: Path) -> dict:
    with Image.open(path) as picture:
        return json.loads(picture.text["cascade"])


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def pictures_in(folder: Path) -> list[str]:
    """The names of all files that are not hidden."""
    return [name for name in names(folder) if not name.startswith(".")]


# ---- train --------------------------------------------------------------------------------------


def test_a_run_holds_stage_checkpoints_samples_and_log(trained):
    for run, size in ((trained.base, 16), (trained.upsampler, 32)):
        files = [".lock", "about.json", "images.jsonl.gz", "log.jsonl", "recipe.yaml"]
        folders = ["checkpoints", "samples", "stage", "tensorboard"]
        assert names(run) == sorted([*files, "report.html", *folders])
        assert names(run / "checkpoints") == ["000000000160", "000000000320"]
        assert names(run / "samples") == ["000000000320.png"]
        assert load_stage(run / "stage").space.size == (size, size)
        lines = [json.loads(line) for line in (run / "log.jsonl").read_text().splitlines()]
        assert [line["images"] for line in lines] == [160, 320, 320]
        assert ["kind" in line for line in lines] == [False, False, True]
        assert lines[1]["loss"] < lines[0]["loss"]


def test_the_default_folder_is_the_recipe_s_name_below_runs(
    command, pictures, tmp_path, monkeypatch
):
    monkeypatch.chdir(tmp_path)
    values = [
        "train.images=8",
        "train.batch_size=8",
        "train.sample_every_images=0",
        f"data.path={pictures}",
    ]
    done = command("train", "tiny-16", *values)
    assert done.code == 0
    assert "wrote the trained stage to runs/tiny-16/stage\n" in done.out
    assert (tmp_path / "runs" / "tiny-16" / "stage" / "stage.json").is_file()
    assert "8/8" in done.err  # the progress goes to stderr
    again = command("train", "tiny-16", *values)
    assert again.code == 0
    assert "wrote the trained stage to" in again.out


@pytest.mark.parametrize("broken", ["corrupt", "too small"])
@pytest.mark.parametrize("workers", [0, 1])
def test_a_bad_picture_is_named_in_one_line(command, pictures, tmp_path, broken, workers):
    shutil.copytree(pictures, tmp_path / "data")
    bad = tmp_path / "data" / "red" / "bad.png"
    if broken == "corrupt":
        bad.write_bytes((pictures / "red" / "0.png").read_bytes()[:200])
    else:
        Image.new("RGB", (9, 9)).save(bad)
    values = [f"data.path={tmp_path / 'data'}", "train.batch_size=16", "data.max_broken_share=0"]
    values += ["data.too_small=error"]
    values.append("train.sample_every_images=0")
    done = command("train", "tiny-16", *values, f"train.workers={workers}", "--out", tmp_path / "r")
    assert done.code == 1
    last = done.err.splitlines()[-1]
    if broken == "corrupt":
        assert last.startswith(
            f"cascade: 1 of 19 images are broken, but max_broken_share=0 allows 0: {bad}: "
        )
        assert "not a readable image" in last
    else:
        assert last.startswith(f"cascade: {bad}: 9x9 px is smaller than the stage's 16 px.")
    assert f"cascade data check {tmp_path / 'data'} --size 16 lists them" in last
    assert "Traceback" not in done.err
    assert not (tmp_path / "r" / "stage").exists()


def test_training_on_in_another_run_s_folder_is_refused(command, trained, pictures):
    before = (trained.base / "log.jsonl").read_bytes()
    done = command("train", "tiny-16-to-32", f"data.path={pictures}", "--out", trained.base)
    assert done.code == 1
    assert "belongs to another stage; use another folder." in done.err
    assert done.err.count("\n") == 1
    assert (trained.base / "log.jsonl").read_bytes() == before


# ---- generate -----------------------------------------------------------------------------------


def test_generate_writes_numbered_pictures_and_a_grid_and_goes_on(command, trained, tmp_path):
    out = tmp_path / "out"
    arguments = ["generate", trained.pipeline, "-n", 3, "--seed", 5, "--steps", "3,2", "-o", out]
    done = command(*arguments)
    assert done.code == 0
    assert done.out == f"3 images and grid.png in {out}\n"
    assert pictures_in(out) == ["00000.png", "00001.png", "00002.png", "grid.png"]
    for number in range(3):
        written = settings(out / f"{number:05d}.png")
        assert written["seed"] == 5 + number
        assert [stage["steps"] for stage in written["stages"].values()] == [3, 2]
        assert written["model"] == trained.pipeline.name  # not the private path
        assert written["labels"]["class"] in ("blue", "red", "red-dot")
        with Image.open(out / f"{number:05d}.png") as picture:
            assert picture.size == (32, 32)
    for bar in ("base", "upsampler"):
        assert f"{bar}," in done.err
    first = {name: (out / name).read_bytes() for name in pictures_in(out) if name != "grid.png"}
    assert command(*arguments).code == 0
    assert pictures_in(out)[:6] == [f"{number:05d}.png" for number in range(6)]
    for number in range(3):
        assert (out / f"{number:05d}.png").read_bytes() == first[f"{number:05d}.png"]
        assert (out / f"{number + 3:05d}.png").read_bytes() == first[f"{number:05d}.png"]


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (["--class", "redd"], "unknown class 'redd': did you mean 'red' or 'red-dot'?"),
        (["--class", "red,blue"], "'red' and 'blue' are both a class; give one."),
        (["--steps", "0"], "steps must be at least 1, got 0"),
        (["--steps", "1,2,3"], "got 3 values for the 2 stages base, upsampler"),
        (["--sampler", "dimm"], "unknown sampler 'dimm': did you mean 'ddim'"),
        (["--guidance", "nan"], "guidance must be a finite number"),
        (["--augmentation", "0.9"], "must be in [0.0, 0.5], as in training; got 0.9"),
        (["--device", "abacus"], "device 'abacus' cannot be used here"),
    ],
)
def test_what_cannot_be_generated_is_one_line_and_no_picture(
    command, trained, tmp_path, options, words
):
    done = command("generate", trained.pipeline, *options, "-o", tmp_path / "out")
    assert done.code == 1
    assert done.err.startswith("cascade: ")
    assert done.err.count("\n") == 1
    assert words in done.err
    assert list(tmp_path.rglob("*.png")) == []


def test_an_output_folder_that_cannot_be_written_is_one_line(command, trained, tmp_path):
    (tmp_path / "file").write_text("x")
    for out in (tmp_path / "file", tmp_path / "file" / "below", Path("/proc/below")):
        done = command("generate", trained.pipeline, "-o", out)
        assert done.code == 1
        assert done.err.startswith(f"cascade: cannot write to folder {out}: ")
        assert done.err.count("\n") == 1


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("stages/base", "no stage at"),
        ("stages/base/transformer/diffusion_pytorch_model.safetensors", "no .safetensors file"),
        ("stages/chain.json", "chain.json is missing"),
        ("pipeline.yaml", ""),
    ],
)
def test_missing_weights_are_one_line(command, trained, tmp_path, name, words):
    shutil.copytree(trained.pipeline, tmp_path / "a")
    missing = tmp_path / "a" / name
    shutil.rmtree(missing) if missing.is_dir() else missing.unlink()
    done = command("generate", tmp_path / "a", "--steps", 1, "-o", tmp_path / "out")
    assert done.code == (1 if words else 0)
    if words:
        assert done.err.startswith("cascade: ")
        assert done.err.count("\n") == 1
        assert words in done.err


def test_a_chained_folder_is_overwritten_only_if_allowed_and_other_things_never(
    command, trained, tmp_path
):
    stages = ["--stage", f"base={trained.base}", "--stage", f"upsampler={trained.upsampler}"]
    for option in ([], ["--overwrite"]):
        before = names(tmp_path / "a") if option else None
        done = command(
            "chain", "tiny-32", *stages, "-o", tmp_path / "a", "--dtype", "bf16", *option
        )
        assert done.code == 0
        assert f"cascade generate {tmp_path / 'a'}" in done.out
        assert done.err == ""
        refused = command("chain", "tiny-32", *stages, "-o", tmp_path / "a")
        assert refused.code == 1
        assert "holds a pipeline already; choose another folder" in refused.err
        assert before in (None, names(tmp_path / "a"))
    (tmp_path / "photos").mkdir()
    (tmp_path / "photos" / "1.jpg").write_text("x")
    done = command("chain", "tiny-32", *stages, "--out", tmp_path / "photos", "--overwrite")
    assert done.code == 1
    assert "holds other things, such as 1.jpg" in done.err
    assert names(tmp_path / "photos") == ["1.jpg"]


def test_chaining_beside_its_recipe_takes_nothing_of_the_user_away(command, trained, tmp_path):
    stages = ["--stage", f"base={trained.base}", "--stage", f"upsampler={trained.upsampler}"]
    recipe = tmp_path / "mine" / "pipeline.yaml"
    recipe.parent.mkdir()
    recipe.write_text(find_recipe("tiny-32", "pipelines").read_text())
    (tmp_path / "mine" / "README.md").write_text("mine")
    done = command("chain", recipe, *stages, "-o", tmp_path / "mine")
    assert done.code == 1
    assert "mine holds other things, such as README.md, which would be lost" in done.err
    assert names(tmp_path / "mine") == ["README.md", "pipeline.yaml"]
    (tmp_path / "mine" / "README.md").unlink()
    text = recipe.read_text()
    assert command("chain", recipe, *stages, "-o", tmp_path / "mine").code == 0
    assert recipe.read_text() == text


# ---- ema ----------------------------------------------------------------------------------------


def test_an_average_of_another_width_is_a_stage_that_chains(command, pictures, trained, tmp_path):
    run = tmp_path / "run"
    values = ["train.images=64", "train.batch_size=16", "train.snapshot_every_images=16"]
    training = command(
        "train", "tiny-16", f"data.path={pictures}", *values, "-o", run, "train.warmup_images=32"
    )
    assert training.code == 0, training.err
    done = command("ema", run, "--width", 0.2)
    assert done.code == 0
    assert done.out == f"wrote the stage to {run / 'stage-0.200'}\n"
    assert command("ema", run, "--width", 0.2).code == 0  # a folder of its own name
    copy = shutil.copytree(trained.base / "stage", tmp_path / "copy")
    before = load_stage(copy).state_dict()
    refused = command("ema", run, "--width", 0.1, "-o", copy)
    assert refused.code == 1
    assert "copy holds a stage already; choose another folder, or --overwrite." in refused.err
    assert all(value.equal(before[name]) for name, value in load_stage(copy).state_dict().items())
    assert command("ema", run, "--width", 0.1, "-o", copy, "--overwrite").code == 0
    replaced = load_stage(copy).state_dict()
    assert not all(value.equal(before[name]) for name, value in replaced.items())
    stages = ["-s", f"base={run / 'stage-0.200'}", "-s", f"upsampler={trained.upsampler}"]
    assert command("chain", "tiny-32", *stages, "-o", tmp_path / "chained").code == 0


def test_an_average_of_any_point_but_those_stored_is_refused(command, pictures, tmp_path):
    values = ["train.images=32", "train.batch_size=16", "train.snapshot_every_images=16"]
    training = command("train", "tiny-16", f"data.path={pictures}", *values, "-o", tmp_path)
    assert training.code == 0, training.err
    assert command("ema", tmp_path, "--width", 0.1, "--at", 16).code == 0
    for point in (0, 24):
        done = command("ema", tmp_path, "--width", 0.1, "--at", point, "-o", tmp_path / "no")
        assert done.code == 1
        assert f"no snapshot after {point} images; the nearest are after 16, 32." in done.err
    assert not (tmp_path / "no").exists()


def test_averages_that_were_not_stored_or_cannot_be_are_clear_errors(command, trained):
    none = command("ema", trained.base, "--width", 0.1)
    assert none.code == 1
    assert "no snapshots in" in none.err
    assert "train.snapshot_every_images above 0" in none.err


# ---- colouring and damaged pictures -------------------------------------------------------------


def test_a_colouring_stage_is_trained_chained_and_colours_a_grey_picture(
    command, pictures, tmp_path
):
    (tmp_path / "pipeline.yaml").write_text(
        "kind: pipeline\nname: colour\nstages: [{name: colour, recipe: colourise-256}]\n"
    )
    values = [
        "space.size_px=32",
        "network.channels=[32,32]",
        "network.blocks=1",
        "network.attention=[false,true]",
        "data.crop_px=16",
        "train.images=320",
        "train.batch_size=16",
        "train.warmup_images=32",
        "train.learning_rate=2e-3",
        "train.sample_every_images=320",
        "train.sample_count=2",
        "sampling.steps=3",
    ]
    run, out = tmp_path / "run", tmp_path / "colour"
    done = command("train", "colourise-256", f"data.path={pictures}", *values, "--out", run)
    assert done.code == 0, done.err
    log = [json.loads(line) for line in (run / "log.jsonl").read_text().splitlines()]
    lines = [line for line in log if "loss" in line]
    assert lines[-1]["loss"] < lines[0]["loss"]
    with Image.open(run / "samples" / "000000000320.png") as sheet:
        grey, coloured = (sheet.convert("RGB").crop((x, 0, x + 16, 16)) for x in (0, 16))
    assert all(len(set(colour)) == 1 for _, colour in grey.getcolors())
    assert any(len(set(colour)) > 1 for _, colour in coloured.getcolors())
    report = (run / "report.html").read_text()
    assert "greyscale 32 px → 32 px" in report
    assert "In groups of 3: image, sample, truth." in report
    done = command("chain", tmp_path, "--stage", f"colour={run}", "--out", out)
    assert done.code == 0, done.err
    assert f"try: cascade colourise IMAGE --model {out} -o" in done.out.replace("\n", " ")
    pipeline = CascadePipeline.from_pretrained(out)
    pipeline.set_progress_bar_config(disable=True)
    picture = Image.linear_gradient("L").resize((40, 24))
    result = pipeline(image=picture, seed=1).images[0]
    assert result.size == (40, 24)
    assert result.tobytes() == pipeline(image=picture.convert("RGB"), seed=1).images[0].tobytes()
    refused = command("generate", out, "-o", tmp_path / "out")
    assert refused.code == 1
    assert (
        "the first stage, 'colour', needs an image to start from: greyscale 32 px." in refused.err
    )


def test_an_upsampler_is_trained_on_damaged_pictures(command, pictures, tmp_path):
    values = [
        "train.images=32",
        "train.batch_size=16",
        "train.sample_every_images=0",
        "condition.low_resolution.degradation.probability=0.5",
        "condition.low_resolution.degradation.compression.probability=0",
    ]
    line = ["train", "tiny-16-to-32", f"data.path={pictures}", *values, "--out", tmp_path / "run"]
    assert command(*line).code == 0
    condition = load_stage(tmp_path / "run" / "stage").contract.condition("low_resolution")
    degradation = condition.degradation
    assert (degradation.probability, degradation.compression.probability) == (0.5, 0)
    refused = command(*line, "condition.low_resolution.degradation.probability=2")
    assert refused.code == 2
    assert "degradation.probability must be within 0 and 1" in refused.err
