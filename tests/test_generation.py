from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from cascade import generation
from cascade.errors import ContractError, OutputError, WeightsError
from cascade.generation import Generation, generate_files
from cascade.imaging.writing import contact_sheet, to_uint8
from cascade.pipeline import CascadePipeline

FAST = {"steps": 2, "device": "cpu"}


def generate(trained, out: Path, **wanted) -> list[Path]:
    return generate_files(str(trained.pipeline), out, Generation(**(FAST | wanted)))


def pixels(path: Path) -> np.ndarray:
    with Image.open(path) as picture:
        return np.asarray(picture)


def text(path: Path) -> dict:
    with Image.open(path) as picture:
        return json.loads(picture.text["cascade"])


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def test_pictures_are_those_of_the_pipeline_and_the_grid_shows_them(trained, tmp_path):
    files = generate(trained, tmp_path / "deep" / "out", num_images=3, seed=5)
    assert files == [tmp_path / "deep" / "out" / f"{number:05d}.png" for number in range(3)]
    assert names(tmp_path / "deep" / "out") == ["00000.png", "00001.png", "00002.png", "grid.png"]
    pipeline = CascadePipeline.from_pretrained(trained.pipeline)
    pipeline.set_progress_bar_config(disable=True)
    images = pipeline(3, seed=5, steps=2, output_type="pt").images
    for path, image in zip(files, images, strict=True):
        assert np.array_equal(pixels(path), to_uint8(image).permute(1, 2, 0).numpy())
    assert np.array_equal(pixels(files[0].with_name("grid.png")), np.asarray(contact_sheet(images)))


def test_seed_labels_and_settings_stand_in_the_pngs_and_make_the_picture_again(trained, tmp_path):
    wanted = {"sampler": "ddpm", "guidance": [1.5, 1.0], "augmentation_level": 0.2}
    files = generate(trained, tmp_path, num_images=2, seed=5, **wanted)
    for number, path in enumerate(files):
        written = text(path)
        assert set(written.pop("labels")) == {"class"}
        stages = written.pop("stages")
        assert written == {"pipeline": str(trained.pipeline), "seed": 5 + number}
        assert [stage["sampler"] for stage in stages.values()] == ["ddpm", "ddpm"]
        assert [stage["steps"] for stage in stages.values()] == [2, 2]
        assert [stage["guidance"] for stage in stages.values()] == [1.5, 1.0]
        assert stages["upsampler"]["augmentation_level"] == 0.2
    assert text(tmp_path / "grid.png")["seeds"] == [5, 6]
    second = text(files[1])
    (again,) = generate(
        trained,
        tmp_path / "again",
        seed=second["seed"],
        classes=[second["labels"]["class"]],
        **wanted,
    )
    difference = pixels(again).astype(int) - pixels(files[1])
    assert abs(difference).max() <= 1  # another batch size may round the other way


def test_numbers_go_on_and_nothing_is_overwritten(trained, tmp_path):
    generate(trained, tmp_path, num_images=2, seed=1)
    before = {name: (tmp_path / name).read_bytes() for name in ("00000.png", "00001.png")}
    (tmp_path / "00007.png").write_bytes(b"mine")
    (tmp_path / "photo-99.png").write_bytes(b"mine")
    (tmp_path / "cat.png").write_bytes(b"mine")
    (new,) = generate(trained, tmp_path, seed=9)
    assert new.name == "00008.png"
    assert {name: (tmp_path / name).read_bytes() for name in before} == before
    assert (tmp_path / "cat.png").read_bytes() == (tmp_path / "00007.png").read_bytes() == b"mine"


def test_classes_take_turns(trained, tmp_path):
    files = generate(trained, tmp_path, num_images=5, seed=0, classes=["red", "blue"])
    assert [text(path)["labels"]["class"] for path in files] == [
        "red",
        "blue",
        "red",
        "blue",
        "red",
    ]


def test_intermediates_are_written_beside_their_pictures(trained, tmp_path):
    generate(trained, tmp_path, num_images=2, seed=0, keep_intermediates=True)
    assert names(tmp_path) == [
        "00000.base.png",
        "00000.png",
        "00001.base.png",
        "00001.png",
        "grid.png",
    ]
    assert pixels(tmp_path / "00000.base.png").shape == (16, 16, 3)
    assert text(tmp_path / "00000.base.png") == text(tmp_path / "00000.png")
    (third,) = generate(trained, tmp_path, seed=0)
    assert third.name == "00002.png"


def test_the_callback_sees_every_step_of_every_stage(trained, tmp_path):
    seen = []
    generate_files(
        str(trained.pipeline),
        tmp_path,
        Generation(num_images=3, seed=0, steps=[2, 1], batch_size=2, device="cpu"),
        callback=lambda pipe, step, t, kwargs: seen.append(
            (pipe.current_stage, step, len(kwargs["seeds"]))
        ),
    )
    assert seen == [
        *[("base", step, size) for size in (2, 1) for step in (0, 1)],
        ("upsampler", 0, 2),
        ("upsampler", 0, 1),
    ]


def test_many_pictures_are_written_while_others_are_made(trained, tmp_path, monkeypatch):
    monkeypatch.setattr(generation, "PICTURES_AT_A_TIME", 2)
    monkeypatch.setattr(generation, "MOST_IN_GRID", 3)
    there = []

    def look(pipe, step, t, kwargs) -> None:
        there.append((kwargs["seeds"][0], pipe.current_stage, len(list(tmp_path.glob("0*.png")))))

    wanted = Generation(num_images=5, seed=0, steps=1, classes=["red", "blue"], device="cpu")
    files = generate_files(str(trained.pipeline), tmp_path, wanted, callback=look)
    assert there == [(seed, stage, seed) for seed in (0, 2, 4) for stage in ("base", "upsampler")]
    assert [text(path)["seed"] for path in files] == [0, 1, 2, 3, 4]
    assert [text(path)["labels"]["class"] for path in files] == ["red", "blue"] * 2 + ["red"]
    grid = np.concatenate([pixels(path) for path in files[:2]], axis=1)
    shown = pixels(tmp_path / "grid.png")
    assert np.array_equal(shown[:32, [*range(32), *range(34, 66)]], grid)
    assert shown.shape == (66, 66, 3)  # three pictures
    assert text(tmp_path / "grid.png")["seeds"] == [0, 1, 2, 3, 4]


@pytest.mark.parametrize(
    ("wanted", "kind", "words"),
    [
        ({"classes": ["redd"]}, ContractError, "unknown class 'redd': did you mean 'red'"),
        ({"device": "abacus"}, ContractError, "device 'abacus' cannot be used here"),
        ({"device": "meta"}, ContractError, "device 'meta' cannot be used here"),
        ({"steps": [1, 2, 3]}, ContractError, "got 3 values for the 2 stages"),
    ],
)
def test_what_cannot_be_made_is_one_clear_line_and_no_picture(
    trained, tmp_path, wanted, kind, words
):
    with pytest.raises(kind, match=words) as error:
        generate(trained, tmp_path / "out", **wanted)
    assert "\n" not in str(error.value)
    assert list(tmp_path.rglob("*.png")) == []


def test_a_missing_device_is_refused(trained, tmp_path):
    if torch.cuda.is_available():
        pytest.skip("this machine has one")
    with pytest.raises(ContractError, match=r"device 'cuda' cannot be used here .*cascade doctor"):
        generate(trained, tmp_path, device="cuda")


def test_an_unknown_pipeline_and_a_bad_folder_are_refused(trained, tmp_path):
    with pytest.raises(WeightsError, match="no pipeline 'nope'"):
        generate_files("nope", tmp_path / "out", Generation())
    assert not (tmp_path / "out").exists()
    (tmp_path / "file").write_text("x")
    with pytest.raises(OutputError, match="cannot write to folder"):
        generate(trained, tmp_path / "file")
