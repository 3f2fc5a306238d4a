"""The command that `cascade inspect` prints makes the very picture again, or there is none."""

from __future__ import annotations

import copy
import itertools
import json
import shlex
import shutil
from pathlib import Path

import numpy as np
import pytest
import typer
from PIL import Image

from cascade.cli import remaking
from cascade.cli.main import app
from cascade.cli.remaking import remaking_of
from cascade.inspection import PictureRecord
from cascade.networks.adapters import AdapterSettings, add_adapter, write_adapter
from cascade.pipeline import CascadePipeline
from cascade.saving.pipelines import model_record

IN_STAGES = {"steps", "sampler", "guidance", "temperature", "augmentation", "denoise", "changes"}
SIZE = (20, 14)  # width and height in pixels


@pytest.fixture(scope="session")
def commands():
    return typer.main.get_command(app).commands


@pytest.fixture(scope="session")
def models(_stages, _text_stages, tmp_path_factory) -> Path:
    """The folder of saved pipelines, each with the name of what it can do."""
    folder = tmp_path_factory.mktemp("models")
    pipelines = {
        "draw": {name: _stages[name] for name in ("base", "upsampler")},
        "words": copy.deepcopy(_text_stages),
        "upscale": {"upsampler": _stages["upsampler"]},
        "colour": {"colouriser": _stages["colouriser"]},
        "fill": {"inpainter": _stages["inpainter"]},
        "pairs": {"restorer": _stages["restorer"]},
    }
    for name, stages in pipelines.items():
        CascadePipeline.from_stages(stages).save_pretrained(folder / name)
    return folder


@pytest.fixture
def places(models, tmp_path, monkeypatch) -> dict[str, str]:
    """Files to work on, by the words that stand for them in a command."""
    monkeypatch.chdir(tmp_path)
    noise = np.random.default_rng(0).integers(30, 225, (3, 4, 3)).astype(np.uint8)
    picture = Image.fromarray(noise).resize(SIZE)
    picture.save("input.png")
    mask, hints = Image.new("L", SIZE), Image.new("RGBA", SIZE)
    mask.paste(255, (5, 3, 12, 9))
    hints.paste((250, 10, 10, 255), (2, 2, 6, 6))
    mask.save("mask.png")
    hints.save("hints.png")
    words = {name.upper(): f"{name}.png" for name in ("input", "mask", "hints")}
    return {**words, "OUTPUT.png": "again.png", "OUT": "again", "FOLDER": str(models)}


def pixels(path: Path | str) -> np.ndarray:
    with Image.open(path) as picture:
        return np.asarray(picture)


def inspected(command, path: Path | str) -> dict:
    done = command("inspect", path, "--json")
    assert done.code == 0, done.err
    (document,) = json.loads(done.out)["images"]
    return document


def filled(text: str, places: dict[str, str]) -> list[str]:
    """The words of a command after `cascade`, with the files in the place of the capitals."""
    words = [places.get(each, each) for each in shlex.split(text)]
    return [each.replace("FOLDER/", f"{places['FOLDER']}/") for each in words[1:]]


SAMPLING = ["--steps", "2", "--set", "eta=0.5", "--seed", "3"]
RESTORING = {
    "upscale": ["--model", "upscale", "--scale", "2.5", "--tile", "16", *SAMPLING],
    "upscale ": ["--model", "upscale", "--no-consistency", "--range", "10", "200"],
    "upscale  ": ["--model", "upscale", "--map", "-n", "2", "--augmentation", "0.2", *SAMPLING],
    "colourise": ["--model", "colour", "--hints", "hints.png", *SAMPLING],
    "edit": [
        *("--model", "draw", "--mask", "mask.png", "--class", "dog,noto", "--strength", "0.7"),
        *("--resamplings", "2", "--jump-length", "1", "--window", "14", "--feather", "1"),
        *("--steps", "3", "--guidance", "2"),
    ],
    "edit ": [
        *("--model", "words", "--uncrop", "2,0,3,1", "--prompt", '-a dog\'s "home"', "--steps"),
        *("2", "--negative", "cat", "--guidance", "1.5", "--resamplings", "1", "--map", "-n", "2"),
    ],
    "restore": ["--model", "fill", "--mask", "mask.png", "--grow", "1", "--window", "12"],
    "restore ": ["--model", "pairs", "--tile", "16", *SAMPLING],
}


@pytest.mark.parametrize("name", RESTORING)
def test_the_command_of_a_restored_picture_makes_it_again(command, places, models, name):
    verb, options = name.strip(), list(RESTORING[name])
    options[1] = str(models / options[1])
    done = command(verb, "input.png", "-o", "first.png", "--device", "cpu", *options)
    assert done.code == 0, done.err
    document = inspected(command, "first.png")
    assert str(models) not in json.dumps(document), "a private path"
    assert document["notes"] == ["FOLDER stands for the path of the model, which is not recorded"]
    done = command(*filled(document["command"], places), "--device", "cpu")
    assert done.code == 0, done.err
    assert np.array_equal(pixels("first.png"), pixels("again.png"))
    usual = command(verb, "input.png", "-o", "usual.png", *options[:2], *_needed(options))
    assert usual.code == 0, usual.err
    other = pixels("usual.png")
    assert other.shape != pixels("first.png").shape or (other != pixels("first.png")).any()


def _needed(options: list[str]) -> list[str]:
    """Those options without which the command could not run, or would draw the whole picture."""
    places = [options.index(each) for each in ("--mask", "--uncrop") if each in options]
    return [word for place in places for word in options[place : place + 2]]


GENERATING = {
    "draw": ["--class", "dog", "--seed", "5", "--steps", "2,1", "--set", "base.eta=0.3"],
    "words": ["--prompt", "", "--seed", "6", "--negative", "a dog", "--guidance", "2"],
    "words ": ["a 'cat'", "--class", "noto", "--seed", "7", "--stop-at", "base"],
}


@pytest.mark.parametrize("name", GENERATING)
def test_the_command_of_a_generated_picture_makes_it_again(command, places, models, name):
    model = models / name.strip()
    done = command("generate", model, "-o", "first", "--device", "cpu", *GENERATING[name])
    assert done.code == 0, done.err
    (first,) = Path("first").glob("0*.png")
    document = inspected(command, first)
    assert str(models) not in json.dumps(document), "a private path"
    done = command(*filled(document["command"], places), "--device", "cpu")
    assert done.code == 0, done.err
    (again,) = Path("again").glob("0*.png")
    assert np.array_equal(pixels(first), pixels(again))


@pytest.mark.parametrize(
    ("options", "changes"),
    [
        ([], []),
        (["--set", "base.guidance=2.0"], ["base.guidance=2.0"]),
        (["--set", "upsampler.keep_colours=false"], ["upsampler.keep_colours=false"]),
        (["--steps", "4,2"], []),  # which are those of the pipeline
    ],
)
def test_the_command_holds_only_the_settings_that_were_changed(
    command, places, models, options, changes
):
    folder = shutil.copytree(models / "draw", models / "own", dirs_exist_ok=True)
    for name, steps in {"base": 4, "upsampler": 2}.items():
        file = folder / "stages" / name / "stage.json"
        config = json.loads(file.read_text())
        own = {"steps": steps} | ({"keep_colours": True} if name == "upsampler" else {})
        config["sampling"] |= own
        file.write_text(json.dumps(config))
    done = command("generate", folder, "-o", "first", "--seed", "8", "--device", "cpu", *options)
    assert done.code == 0, done.err
    document = inspected(command, "first/00000.png")
    assert document["record"]["stages"]["base"]["steps"] == 4
    words = shlex.split(document["command"])
    assert [after for word, after in itertools.pairwise(words) if word == "--set"] == changes
    done = command(*filled(document["command"], places), "--device", "cpu")
    assert done.code == 0, done.err
    assert np.array_equal(pixels("first/00000.png"), pixels("again/00000.png"))


def test_pictures_of_earlier_stages_and_sheets_know_what_they_are(command, places, models):
    options = ["-n", 2, "--keep-intermediates", "--seed", 1, "--device", "cpu"]
    assert command("generate", models / "draw", "-o", "first", *options).code == 0
    words = filled(inspected(command, "first/00000.base.png")["command"], places)
    assert command(*words, "--device", "cpu").code == 0
    assert np.array_equal(pixels("first/00000.base.png"), pixels("again/00000.png"))
    sheet = inspected(command, "first/grid.png")
    assert (sheet["command"], len(sheet["notes"])) == ("", 1)
    assert "a sheet of 2 images" in sheet["notes"][0]


def test_adapters_stand_in_the_command(command, places, models):
    network = CascadePipeline.from_pretrained(models / "upscale").stages["upsampler"].network
    add_adapter(network.trunk, AdapterSettings(rank=1))
    Path("cats").mkdir()
    write_adapter(network.trunk, Path("cats"))
    options = ["--lora", "cats:0.5", "--device", "cpu", "--model", models / "upscale"]
    done = command("upscale", "input.png", "-o", "first.png", *options)
    assert done.code == 0, done.err
    document = inspected(command, "first.png")
    assert document["command"].endswith(" --lora ADAPTERS/cats:0.5")
    assert [note.split()[0] for note in document["notes"]] == ["FOLDER", "ADAPTERS"]
    assert document["record"]["model"] == "upscale"


def test_bundled_pipelines_are_recorded_whole_and_folders_by_their_last_part(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    Path("photo-x4").mkdir()  # results, for example
    Path("runs/mine").mkdir(parents=True)
    assert model_record("photo-x4") == {"model": "photo-x4"}
    assert model_record("someone/theirs") == {"model": "someone/theirs"}
    mine = {"model": "mine", "model_is_folder": True}
    assert model_record(str(tmp_path / "runs/mine")) == model_record("runs/mine") == mine
    assert model_record("runs/mine", [("a/cats", 0.5)]) == {**mine, "adapters": [["cats", 0.5]]}


def test_each_option_is_recorded_or_changes_no_picture(commands):
    groups = (set(remaking.RECORDED), IN_STAGES, remaking.WITHOUT_TRACE)
    parameters = {each.name for name in remaking.MAKING for each in commands[name].params}
    for parameter in parameters - {"context"}:
        assert sum(parameter in group for group in groups) == 1, parameter
    assert set().union(*groups) <= parameters
    keys = {key for key, _ in remaking.RECORDED.values()} | remaking.DESCRIBING
    keys |= {key for implied in remaking.IMPLIED.values() for key in implied}
    assert keys | {"prompts"} == set(PictureRecord.model_fields)


def remade(commands, **values) -> remaking.Remaking:
    record = {"command": "upscale", "model": "mine", "seed": 4, **values}
    return remaking_of(PictureRecord.read(record), commands, ".png")


def test_the_command_names_scale_seed_and_settings(commands):
    stages = {"up": {"steps": 3, "temperature": 0.5}}
    changed = ["up.keep_colours", "up.steps"]
    made = remade(commands, scale=2.5, stages=stages, changed=changed, tile_px=None)
    assert made.notes == ()
    assert made.command == (
        "cascade upscale INPUT -o OUTPUT.png --model mine --scale 2.5 --seed 4 "
        "--set up.keep_colours=false --set up.steps=3"
    )


@pytest.mark.parametrize(
    ("values", "note"),
    [
        ({"sharpness": 2, "scale": 2.0}, "cascade upscale has no option for sharpness"),
        ({"prompt": "a cat"}, "no option for prompt"),
        ({"command": "edit", "grow_px": 2}, "no option for grow_px"),
        ({"command": "restore", "feather_px": 2}, "no option for feather_px"),
        (
            {
                "stages": {"up": {"steps": None, "eta": "1e-4"}},
                "changed": ["up.steps", "up.eta"],
            },
            "no option for up.steps, up.eta",
        ),
        ({"command": "paint"}, "does not say which command"),
        ({"command": "train"}, "does not say which command"),
        ({"model": "-foo"}, "does not say which command"),
        ({"command": "edit", "labels": {"animal": "a,b"}}, "cannot express the comma in 'a,b'"),
        ({"model": ""}, "does not say which command"),
        ({"model": "a\x1b[2J"}, "cannot be printed"),
    ],
)
def test_no_command_is_printed_that_would_make_another_picture(commands, values, note):
    made = remade(commands, **values)
    assert made.command == ""
    assert note in made.notes[0]


def test_a_mean_whose_map_shows_expected_errors_has_a_command(commands):
    made = remade(commands, seeds=2, expected_error="e6585ac1")
    assert made.notes == ()
    assert " --variants 2 --map " in made.command


def test_the_command_unsets_what_the_picture_did_without(commands, models, tmp_path):
    folder = tmp_path / "mine"
    shutil.copytree(models / "draw", folder)
    config = folder / "stages" / "upsampler" / "stage.json"
    values = json.loads(config.read_text())
    values["sampling"] |= {"keep_colours": True, "guidance_interval": [0.1, 3.0]}
    config.write_text(json.dumps(values))
    settings = values["sampling"]
    stages = {"upsampler": settings}
    assert "--set" not in remade(commands, model=str(folder), stages=stages).command
    for name in ("keep_colours", "guidance_interval"):
        del settings[name]
    words = remade(commands, model=str(folder), stages=stages).command.split("--set ")
    assert {each.strip() for each in words[1:]} == {
        "upsampler.keep_colours=false",
        "upsampler.guidance_interval=none",
    }
