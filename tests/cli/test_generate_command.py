"""`cascade generate`: how its options become changes of the stages' settings."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest
import torch
from PIL import Image

from cascade.contract import Contract
from cascade.diffusion.process import NoiseProcess
from cascade.diffusion.schedule import NoiseSchedule
from cascade.diffusion_stage import DiffusionStage
from cascade.errors import OutputError
from cascade.generation import files as generation
from cascade.pipeline import CascadePipeline
from cascade.sampling.samplers.table import sampler_names
from cascade.space import Space


def record_of(path: Path) -> dict:
    """What a PNG records of how it was generated."""
    with Image.open(path) as picture:
        return json.loads(picture.text["cascade"])


def stages_of(folder: Path) -> list[dict]:
    """The settings of each stage that the first picture records."""
    return list(record_of(folder / "00000.png")["stages"].values())


# ---- what reaches the pipeline ------------------------------------------------------------------


def test_every_option_reaches_the_pipeline(command, trained, tmp_path, monkeypatch):
    calls = []

    def spy(self, *arguments, plain=CascadePipeline.__call__, **options):
        calls.append(options)
        return plain(self, *arguments, **options)

    monkeypatch.setattr(CascadePipeline, "__call__", spy)
    options = {
        "-n": 2,
        "--seed": 7,
        "--class": "red",
        "--steps": "3,2",
        "--sampler": "ddpm,euler",
        "--guidance": "2,1",
        "--augmentation": 0.25,
        "--batch-size": 1,
        "--device": "cpu",
        "-o": tmp_path / "out",
    }
    flat = [each for pair in options.items() for each in pair]
    flat += ["--set", "threshold=none", "--set", "base.variance=large"]
    done = command("generate", trained.pipeline, *flat, "--keep-intermediates")
    assert done.code == 0, done.err
    (call,) = calls
    expected = {
        "num_images": 2,
        "seeds": [7, 8],
        "labels": ["red", "red"],
        "batch_size": 1,
        "keep_intermediates": True,
    }
    assert {key: call[key] for key in expected} == expected
    overrides = call["overrides"]
    everywhere = {"threshold": "none", "augmentation_level": 0.25}
    assert overrides.of("base") == everywhere | {
        "steps": 3,
        "sampler": "ddpm",
        "guidance": 2.0,
        "variance": "large",
    }
    assert overrides.of("upsampler") == everywhere | {
        "steps": 2,
        "sampler": "euler",
        "guidance": 1.0,
    }
    assert (tmp_path / "out" / "00001.base.png").is_file()
    base, upsampler = stages_of(tmp_path / "out")
    assert (base["sampler"], base["variance"], base["threshold"]) == ("ddpm", "large", "none")
    assert (upsampler["sampler"], upsampler["augmentation_level"]) == ("euler", 0.25)


def test_metadata_can_be_left_out(command, trained, tmp_path):
    done = command("generate", trained.pipeline, "--no-metadata", "--steps", 1, "-o", tmp_path)
    assert done.code == 0, done.err
    counts = command("inspect", tmp_path).out.splitlines()[-1]
    assert counts == "2 images: 2 without record or mark"


def test_any_setting_and_option_of_a_sampler_can_be_set(command, trained, tmp_path):
    settings = [
        "steps=2",
        "upsampler.steps=1",
        "eta=0.5",
        "temperature=0.5",
        "base.guidance=2.5",
        "base.guidance_interval=[0.5, 2]",
        "percentile=9e-1",
    ]
    flat = [each for text in settings for each in ("--set", text)]
    done = command("generate", trained.pipeline, *flat, "-o", tmp_path)
    assert done.code == 0, done.err
    assert done.out == f"1 image and grid.png in {tmp_path}\n"
    base, upsampler = stages_of(tmp_path)
    assert (base["steps"], base["eta"], base["guidance"]) == (2, 0.5, 2.5)
    assert (base["guidance_interval"], base["percentile"]) == ([0.5, 2], 0.9)
    assert base["temperature"] == 1.0  # means nothing without an image
    assert (upsampler["steps"], upsampler["eta"], upsampler["temperature"]) == (1, 0.5, 0.5)
    assert "guidance_interval" not in upsampler


def test_set_goes_before_the_other_options_and_later_values_before_earlier(
    command, trained, tmp_path
):
    settings = ["--set", "upsampler.steps=7", "--set", "guidance=3", "--set", "guidance=2"]
    line = ["generate", trained.pipeline, *settings, "--steps", "1", "-o", tmp_path]
    done = command(*line, "--set", "upsampler.guidance=1")
    assert done.code == 0, done.err
    base, upsampler = stages_of(tmp_path)
    assert (base["steps"], upsampler["steps"]) == (1, 7)
    assert (base["guidance"], upsampler["guidance"]) == (2, 1)


# ---- help ---------------------------------------------------------------------------------------


def test_the_help_lists_every_sampler_and_shows_an_example_with_set(command):
    outcome = command("generate", "--help")
    assert outcome.code == 0
    words = re.sub(r"[│\s]+", " ", outcome.out)
    assert ", ".join(sampler_names()) in words
    assert "--set eta=0.5 --set base.guidance=2.5" in words


# ---- what is refused ----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("stps=3", "unknown sampling setting 'stps': did you mean 'steps'?"),
        ("et=0.5", "unknown sampling setting 'et': did you mean 'eta'?"),
        ("bsae.steps=3", "no stage 'bsae' in this pipeline: did you mean 'base'?"),
        ("steps=many", "steps must be a whole number of at least 1, got 'many'"),
        ("steps=0", "steps must be at least 1, got 0"),
        ("eta=-1", "eta must be a number of at least 0, got -1"),
        ("eta=x", "eta must be a number, got 'x'"),
        ("guidance=[1, 2]", "guidance must be a number, got [1, 2]"),
        ("guidance_interval=3", "guidance_interval must be two numbers, got 3"),
        ("guidance_interval=[1, x]", "guidance_interval must be two numbers, got [1, 'x']"),
        ("guidance_interval=[2, 1]", "guidance_interval must be 0 <= low < high, got (2, 1)"),
        ("options=3", "options must be a mapping by name, got 3"),
        ("threshold=some", "threshold must be one of"),
        ("percentile=2", "percentile must be in (0, 1], got 2"),
        ("sampler=dimm", "unknown sampler 'dimm': did you mean 'ddim'"),
        ("sampler=3", "sampler must be a name such as 'ddim'"),
        ("base.temperature=0.5", "temperature: stage 'base' takes no image"),
        ("base.augmentation_level=0.5", "augmentation_level: stage 'base' takes no image"),
    ],
)
def test_a_setting_that_does_not_fit_is_one_line_and_no_picture(
    command, trained, tmp_path, text, words
):
    done = command("generate", trained.pipeline, "--set", text, "-o", tmp_path / "out")
    assert done.code == 1
    assert re.fullmatch(r"cascade: [^\n]+\n", done.err), done.err
    assert words in done.err
    assert list(tmp_path.rglob("*.png")) == []


@pytest.mark.parametrize("text", ["steps", "=3", "steps=", ".steps=3", "steps=[1"])
def test_text_that_is_no_setting_is_wrong_usage(command, tmp_path, text):
    done = command("generate", "tiny-32", "--set", text, "-o", tmp_path / "out")
    assert done.code == 2
    assert "must be KEY=VALUE or STAGE.KEY=VALUE" in re.sub(r"[│\s]+", " ", done.err)
    assert not (tmp_path / "out").exists()


def test_a_class_for_a_pipeline_without_labels_is_one_line(command, tmp_path):
    torch.manual_seed(0)
    stage = DiffusionStage.build(
        Contract(Space(size_px=8)),
        NoiseProcess(NoiseSchedule(train_steps=10)),
        network_options={"channels": (8,), "blocks": 1},
    )
    CascadePipeline.from_stages({"base": stage}).save_pretrained(tmp_path / "plain")
    line = ["generate", tmp_path / "plain", "--steps", 1, "-o", tmp_path / "out"]
    done = command(*line, "--class", "cat")
    assert done.code == 1
    assert done.err == (
        "cascade: no stage of this pipeline has a condition that reads 'labels'; its inputs: "
        "none.\n"
    )
    assert list((tmp_path / "out").glob("*.png")) == []
    assert command(*line).code == 0


def test_an_augmentation_level_for_a_pipeline_without_images_is_one_line(
    command, trained, tmp_path
):
    base = DiffusionStage.from_pretrained(trained.base / "stage")
    CascadePipeline.from_stages({"base": base}).save_pretrained(tmp_path / "alone")
    for option in (["--augmentation", 0.1], ["--set", "augmentation_level=0.1"]):
        done = command("generate", tmp_path / "alone", *option, "-o", tmp_path / "out")
        assert done.code == 1
        assert done.err == "cascade: augmentation_level: no stage of this run takes an image.\n"


def test_pictures_go_to_a_store_and_count_on(command, trained, store):
    arguments = ["generate", trained.pipeline, "-o", "memory://drawn", "--steps", 2]

    def names() -> list[str]:
        return [path.rpartition("/")[2] for path in store.find("/drawn")]

    done = command(*arguments, "-n", 2, "--seed", 3, "--json")
    assert done.code == 0, done.err
    assert json.loads(done.out)["images"][1] == {
        "file": "memory://drawn/00001.png", "seed": 4, "prompt": ""
    }  # fmt: skip
    _, *pictures = names()
    assert pictures == ["00000.png", "00001.png", "grid.png"]
    assert command(*arguments, "-n", 1).code == 0
    _, _, *pictures = names()
    assert pictures == ["00000.png", "00001.png", "00002.png", "grid-00002.png", "grid.png"]
    assert "are not replaced" in command(*arguments, "--overwrite").err


def test_an_interrupted_series_in_a_store_is_resumed(command, trained, store, monkeypatch):
    monkeypatch.setattr("cascade.generation.files.PICTURES_AT_A_TIME", 1)
    arguments = ["generate", trained.pipeline, "-n", 3, "--seed", 3, "--steps", 2, "--resume", "-o"]
    plain, calls = generation._generate, []

    def interrupted(*given):
        calls.append(given)
        if len(calls) == 3:
            raise OutputError("stopped")
        return plain(*given)

    with monkeypatch.context() as patch:
        patch.setattr(generation, "_generate", interrupted)
        assert command(*arguments, "memory://drawn").code == 1
    assert "00001.png" in " ".join(store.find("/drawn"))
    outcome = command(*arguments, "memory://drawn")
    assert "2 images of 3 existed already" in outcome.out
    other = command(*arguments, "memory://drawn", "--seed", 4)
    assert "the last series in memory://drawn has other values of seed" in other.err
    assert command(*arguments, "memory://whole").code == 0
    for name in ("00000.png", "00002.png", "grid.png"):
        assert store.cat(f"/drawn/{name}") == store.cat(f"/whole/{name}")


def test_a_store_that_cannot_be_written_ends_the_command_before_the_first_picture(
    command, trained, store, monkeypatch
):
    calls = []

    def refuse(self, name, data):
        raise OutputError(f"{name} cannot be written.")

    monkeypatch.setattr("cascade.data.stored_folder.StoredFolder.create", refuse)
    monkeypatch.setattr("cascade.generation.files._generate", lambda *given: calls.append(given))
    done = command("generate", trained.pipeline, "-o", "memory://locked")
    assert (done.code, done.err) == (
        1,
        "cascade: .cascade-generate-00000.json cannot be written.\n",
    )
    assert calls == []


def test_an_unknown_class_of_many_is_answered_by_the_command_that_lists_them(command, tmp_path):
    done = command("generate", "emoji-1024", "--class", "horse", "-o", tmp_path / "out")
    assert done.code == 1
    assert done.err.startswith("cascade: unknown class 'horse': known: animal-amphibian, ")
    assert done.err.endswith(", …; cascade show PIPELINE lists all\n")
    assert "horse" not in command("show", "emoji-1024").out
    near = command("generate", "emoji-1024", "--class", "cat", "-o", tmp_path / "out")
    assert near.err == "cascade: unknown class 'cat': did you mean 'cat-face'?\n"
