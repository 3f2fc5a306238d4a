"""What pictures say about how they were made, and the command that makes them again."""

from __future__ import annotations

import json
import shlex
import shutil

import numpy as np
import pytest
from PIL import Image

from cascade.errors import DataError
from cascade.inspection import Inspection, inspect_picture


def test_the_command_of_a_generated_picture_makes_it_again(trained, command, tmp_path):
    pipeline = str(trained.pipeline)
    words = ["generate", pipeline, "-o", str(tmp_path / "a"), "--seed", "5", "--class", "red"]
    command(*words, "--steps", "2,1", "--set", "base.guidance_interval=[0.3,3]")
    inspection = inspect_picture(tmp_path / "a" / "00000.png")
    assert inspection.source_type == "trainedAlgorithmicMedia"
    again = shlex.split(inspection.command)
    assert again[:3] == ["cascade", "generate", pipeline]
    assert "base.guidance_interval=[0.3,3]" in again
    assert not any("percentile" in word for word in again), "what is usual is left out"
    again[again.index("OUT")] = str(tmp_path / "b")
    command(*again[1:])
    first, second = (np.asarray(Image.open(tmp_path / each / "00000.png")) for each in "ab")
    assert np.array_equal(first, second)


def test_the_command_of_a_restored_picture_names_scale_seed_and_settings():
    stages = {"up": {"steps": 3}}
    record = {"command": "upscale", "model": "mine", "seed": 4, "scale": 2.5, "stages": stages}
    assert Inspection(record, {}).command == (
        "cascade upscale INPUT -o OUTPUT --model mine --scale 2.5 --seed 4 --set up.steps=3"
    )


def test_the_command_unsets_what_the_picture_did_without(trained, tmp_path):
    folder = tmp_path / "mine"
    shutil.copytree(trained.pipeline, folder)
    config = folder / "stages" / "upsampler" / "stage.json"
    values = json.loads(config.read_text())
    values["sampling"] |= {"keep_colours": True, "guidance_interval": [0.1, 3.0]}
    config.write_text(json.dumps(values))
    record = {"model": str(folder), "seed": 1, "stages": {"upsampler": values["sampling"]}}
    assert "--set" not in Inspection(record, {}).command
    for name in ("keep_colours", "guidance_interval"):
        del record["stages"]["upsampler"][name]
    words = Inspection(record, {}).command.split("--set ")
    assert {each.strip() for each in words[1:]} == {
        "upsampler.keep_colours=False",
        "upsampler.guidance_interval=none",
    }


def test_a_picture_without_a_record_says_so(tmp_path, command):
    Image.new("RGB", (4, 4)).save(tmp_path / "a.png")
    assert inspect_picture(tmp_path / "a.png") == Inspection({}, {})
    assert "Cascade did not make it" in command("inspect", tmp_path / "a.png").out
    (tmp_path / "b.png").write_text("no picture")
    with pytest.raises(DataError, match="not a readable image"):
        inspect_picture(tmp_path / "b.png")
