"""The object that generates a picture for each row."""

from __future__ import annotations

import io
import json
import pickle

import numpy as np
import pytest
from PIL import Image

from cascade import Generator
from cascade.errors import ContractError


def test_seeds_give_the_pictures_of_the_command(command, generating, tmp_path):
    result = Generator(generating, steps=2, batch_size=1)({"seed": np.array([5, 3, 4])})
    for first, seed in ((3, 3), (4, 4)):
        out = tmp_path / str(first)
        command("generate", generating, "-n", 1, "--seed", seed, "--steps", 2, "-o", out)
        place = result["seed"].tolist().index(seed)
        assert result["bytes"][place] == (out / "00000.png").read_bytes()


def test_names_decide_the_noise_in_any_batch(generating):
    generator = Generator(generating, as_arrays=True)
    whole = generator({"name": ["a", "b", "c"]})["image"]
    alone = pickle.loads(pickle.dumps(generator))({"name": ["b"]})["image"]
    assert np.abs(alone[0].astype(int) - whole[1]).max() <= 1  # rounding of the device
    assert not np.array_equal(whole[0], whole[1])
    other = Generator(generating, seed=1, as_arrays=True)({"name": ["b"]})["image"]
    assert not np.array_equal(other[0], whole[1])
    assert whole.shape == (3, 32, 32, 3)
    assert whole.dtype == np.uint8


def test_labels_come_from_rows_or_settings(generating):
    rows = {"seed": [1, 1]}
    of_rows = Generator(generating)({**rows, "labels": ["cat,noto", "dog,noto"]})["bytes"]
    of_all = Generator(generating, labels="dog,noto")(rows)["bytes"]
    assert of_rows[0] != of_rows[1]
    assert of_rows[1] == of_all[1]


def test_pictures_of_an_earlier_stage(generating):
    small = Generator(generating, stop_at="base", as_arrays=True)({"seed": [3]})["image"]
    assert small.shape == (1, 16, 16, 3)
    (file,) = Generator(generating, stop_at="base")({"seed": [3]})["bytes"]
    picture = Image.open(io.BytesIO(file))
    assert np.array_equal(np.asarray(picture), small[0])
    assert json.loads(picture.text["cascade"])["stop_at"] == "base"


def test_prompts_come_from_rows(drawing, tmp_path):
    drawing.save_pretrained(tmp_path / "model")
    rows = {"name": ["x", "x"], "prompt": ["a cat", "a dog"]}
    result = Generator(tmp_path / "model", batch_size=1)(rows)
    assert result["bytes"][0] != result["bytes"][1]
    assert result["name"].tolist() == ["x.png", "x.png"]
    assert result["prompt"].tolist() == rows["prompt"]
    of_all = Generator(tmp_path / "model", prompt="a cat", batch_size=1)({"name": ["x"]})
    assert of_all["bytes"][0] == result["bytes"][0]


def test_files_are_written_to_a_store(generating, memory_store):
    batch = {"name": ["a", "sub/b.png"]}
    result = Generator(generating, out="memory://pictures")(batch)
    assert sorted(result) == ["name", "seed"]
    assert result["name"].tolist() == ["a.png", "sub/b.png"]
    kept = Generator(generating)(batch)["bytes"]
    assert memory_store.cat("/pictures/a.png") == kept[0]
    assert memory_store.cat("/pictures/sub/b.png") == kept[1]
    with memory_store.open("/pictures/a.png") as file:
        assert Image.open(file).size == (32, 32)


@pytest.mark.parametrize("names", [("/a/1.png", "/b/1.png"), ("1", "1"), ("1", "1.png")])
def test_rows_of_one_name_are_refused_before_drawing(generating, memory_store, names):
    message = f"names '{names[0]}' and '{names[1]}' would all be written to 1.png"
    with pytest.raises(ContractError, match=message):
        Generator(generating, out="memory://pictures")({"name": ["2", *names]})
    assert not memory_store.store


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"stepz": 3}, "unknown argument 'stepz'"),
        ({"guidance": "strong"}, "guidance must be a number"),
        ({"seed": 0.5}, "seed must be a whole number"),
        ({"seed": -1}, "seed must be at least 0, got -1"),
        ({"as_arrays": True, "out": "here"}, "out is for files"),
        ({"prompt": 3}, "prompt must be a text for all rows, got 3"),
        ({"negative_prompt": ["a"]}, "negative_prompt must be a text for all rows"),
        ({"labels": 3}, "labels must be class names for all rows, as 'cat,noto', got 3"),
        ({"stop_at": 1}, "stop_at must be the name of a stage, got 1"),
        ({"batch_size": 0}, "batch_size must be at least 1, got 0"),
        ({"precision": "fp8"}, "precision must be one of"),
    ],
)
def test_settings_are_checked_at_once(generating, settings, message):
    with pytest.raises(ContractError, match=message):
        Generator(generating, **settings)


def test_rows_need_noise_of_their_own(generating):
    with pytest.raises(ContractError, match="add a column 'seed' of whole numbers or 'name'"):
        Generator(generating)({"labels": ["cat"]})
    with pytest.raises(ContractError, match="add a column 'name'"):
        Generator(generating, out="here")({"seed": [1]})
    with pytest.raises(ContractError, match="seed must be a whole number"):
        Generator(generating)({"seed": [0.5]})
    with pytest.raises(ContractError, match="seed must be at least 0, got -1"):
        Generator(generating)({"seed": [-1]})
