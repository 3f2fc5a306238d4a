"""A stage that follows captions: data, cache, training, resuming, and what it learns."""

from __future__ import annotations

import json
import logging
import shutil
import tarfile
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file

from cascade.conditioning.inputs import Inputs
from cascade.conditioning.text import Text
from cascade.data.training_images import TrainingImages
from cascade.stage import Run
from cascade.stage_kinds import load_stage
from cascade.text import encoders
from cascade.text.encoders import encoder_of
from cascade.text.transformers_encoder import TransformersEncoder

COLOURS = {
    "red": (230, 20, 20),
    "green": (20, 230, 20),
    "blue": (20, 20, 230),
    "yellow": (230, 230, 20),
    "purple": (230, 20, 230),
    "white": (240, 240, 240),
    "black": (15, 15, 15),
    "orange": (240, 130, 10),
}
RECIPE = """
kind: stage
name: tiny-text
space: {size_px: 8}
condition:
  text: {encoder: ENCODER, max_tokens: 12}
network:
  {kind: transformer, patch_size: 4, width: 32, depth: 2, fine_width: 16, fine_depth: 1,
  head_channels: 8}
diffusion: {prediction: x0, weighting: velocity, timesteps: logit_normal}
data: {path: DATA, cache_dir: CACHE}
train:
  {images: 64, batch_size: 8, warmup_images: 8, checkpoint_every_images: 32, precision: fp32,
  sample_every_images: 32, sample_count: 4, trackers: []}
sampling: {steps: 4, guidance: 1.5}
"""


@pytest.fixture
def coloured(tmp_path) -> Path:
    """Eight pictures of one colour each, with two captions each."""
    folder = tmp_path / "coloured"
    folder.mkdir()
    for name, colour in COLOURS.items():
        pixels = np.full((8, 8, 3), colour, np.uint8)
        Image.fromarray(pixels).save(folder / f"{name}.png")
        (folder / f"{name}.txt").write_text(f"a {name} dot\nthe {name} of a house\n")
    return folder


@pytest.fixture
def recipe(tmp_path, coloured, text_encoders) -> Path:
    encoder_of.cache_clear()
    values = {"ENCODER": text_encoders["bert"], "DATA": coloured, "CACHE": tmp_path / "cache"}
    text = RECIPE
    for name, value in values.items():
        text = text.replace(name, str(value))
    file = tmp_path / "tiny-text.yaml"
    file.write_text(text)
    return file


@pytest.fixture
def encoded(monkeypatch) -> list[str]:
    """The texts that an encoder is asked for."""
    texts: list[str] = []
    encode = TransformersEncoder.encode

    def recorded(self, own, max_tokens, **options):
        texts.extend(own)
        return encode(self, own, max_tokens, **options)

    monkeypatch.setattr(TransformersEncoder, "encode", recorded)
    return texts


def weights(run: Path) -> dict[str, torch.Tensor]:
    files = sorted((run / "stage").rglob("*.safetensors"))
    return {f"{file.parent.name}/{n}": t for file in files for n, t in load_file(file).items()}


# ---- commands -----------------------------------------------------------------------------------


def test_a_resumed_run_ends_as_one_without_a_gap_and_encodes_each_caption_once(
    command, recipe, tmp_path, encoded
):
    whole, cut = tmp_path / "whole", tmp_path / "cut"
    done = command("train", recipe, "--out", whole)
    assert done.code == 0, done.err
    assert sorted(set(encoded)) == sorted(encoded)
    assert len(encoded) == 16
    encoded.clear()
    shutil.copytree(whole, cut)
    shutil.rmtree(cut / "stage")
    shutil.rmtree(cut / "checkpoints" / "000000000064")
    encoder_of.cache_clear()  # as in another process, with workers
    done = command("train", recipe, "train.workers=1", "--out", cut)
    assert done.code == 0, done.err
    assert encoded == []
    one, other = weights(whole), weights(cut)
    assert one.keys() == other.keys()
    assert all(one[name].equal(other[name]) for name in one)
    about = json.loads((whole / "about.json").read_text())
    assert "the red of a house" not in json.dumps(about)
    files = [p.relative_to(tmp_path / "cache") for p in (tmp_path / "cache").rglob("*.safetensors")]
    assert len(files) == 1
    assert files[0].parts[:2] == ("encoded", "texts")


def test_a_run_does_not_resume_with_other_captions(command, recipe, coloured, tmp_path):
    assert command("train", recipe, "train.images=8", "--out", tmp_path / "run").code == 0
    (coloured / "red.json").write_text('{"artist": "nobody"}')  # which the stage does not read
    more = ("train", recipe, "train.images=16", "--out", tmp_path / "run")
    assert command(*more).code == 0
    (coloured / "red.txt").write_text("a crimson dot")
    again = command("train", recipe, "train.images=24", "--out", tmp_path / "run")
    assert again.code == 1
    assert "was trained with other labels (caption): 1 image changed (red). A run" in again.err
    assert len(again.err.strip().splitlines()) == 1


def test_the_contract_and_the_stage_hold_no_path_and_no_weights_of_the_encoder(
    command, recipe, tmp_path
):
    assert command("train", recipe, "train.images=8", "--out", tmp_path / "run").code == 0
    config = json.loads((tmp_path / "run" / "stage" / "stage.json").read_text())
    text = config["contract"]["conditions"]["text"]
    assert text["encoder"] == "tiny-bert"
    assert len(text["sha256"]) == 64
    assert str(tmp_path) not in json.dumps(config)
    assert not any("bert" in name for name in weights(tmp_path / "run"))


def test_pictures_without_a_caption_are_counted_and_named(
    command, recipe, coloured, tmp_path, caplog
):
    (coloured / "red.txt").unlink()
    (coloured / "blue.txt").write_text(" \n")
    line = "2 images without a label: "
    for done in (
        command("validate", recipe),
        command("train", recipe, "train.images=8", "--out", tmp_path / "run"),
    ):
        assert done.code == 0, done.err
        output = done.out + done.err + caplog.text
        assert line in output
        for name in ("red", "blue"):
            assert f"{name}.png: has no caption." in output
    checked = command("data", "check", coloured)
    assert "without caption: 1 image: " in checked.out + checked.err


@pytest.mark.parametrize("action", ["validate", "train"])
def test_captions_that_name_a_side_are_counted_if_images_are_mirrored(
    command, recipe, coloured, tmp_path, caplog, action
):
    (coloured / "red.txt").write_text("a dot at the Left\na dot, right of nothing")
    (coloured / "blue.txt").write_text("a bright dot, upright")
    line = '1 image with "left" or "right" in the caption, which mirroring contradicts; switch it'

    def output(flip: str) -> str:
        caplog.clear()
        out = ["train.images=8", "--out", tmp_path / flip] if action == "train" else []
        done = command(action, recipe, f"data.flip={flip}", *out)
        assert done.code == 0, done.err
        return done.out + done.err + caplog.text

    assert line in output("[x]")
    assert "mirroring" not in output("[y]")


def test_pictures_without_any_caption_are_refused_in_one_line(command, recipe, coloured, tmp_path):
    for file in coloured.glob("*.txt"):
        file.unlink()
    (coloured / "captions.csv").write_text("filename,text\nred.png,a red square\n")
    done = command("train", recipe, "--out", tmp_path / "run")
    assert done.code == 1
    assert "no image has a caption; write NAME.txt" in done.err
    table = "captions.csv: is not read; a table of labels must be called metadata.csv or metadata"
    assert table in done.err
    assert table in command("data", "check", coloured).out
    assert "condition.text=null" in done.err
    assert command("validate", recipe).code == 1


def test_captions_of_json_and_tables_may_be_lists(command, coloured, recipe, tmp_path):
    from cascade.data.folder import FolderSource

    for file in coloured.glob("*.txt"):
        file.unlink()
    rows = [
        {"file_name": f"{name}.png", "caption": [f"a {name}\ndot", f"the {name}"]}
        for name in COLOURS
    ]
    (coloured / "metadata.jsonl").write_text("".join(f"{json.dumps(row)}\n" for row in rows))
    (coloured / "red.json").write_text(json.dumps({"caption": ["a dot", "the dot"]}))
    source = FolderSource(coloured)
    captions = {source.key(i): source.labels(i)["caption"] for i in range(len(source))}
    assert captions["red"] == "a dot\nthe dot"
    assert captions["blue"] == "a blue dot\nthe blue"


def test_an_encoder_that_cannot_be_found_is_refused_in_one_line(command, recipe, tmp_path):
    done = command("train", recipe, "condition.text.encoder=nowhere", "--out", tmp_path / "run")
    assert done.code == 2
    assert "no text encoder 'nowhere'" in done.err
    assert "Traceback" not in done.err
    done = command("train", recipe, "condition.text.max_tokens=100", "--out", tmp_path / "run")
    assert done.code == 2
    assert "max_tokens must be at most 77" in done.err


def test_a_chained_pipeline_carries_known_texts(command, recipe, tmp_path, monkeypatch):
    assert command("train", recipe, "train.images=8", "--out", tmp_path / "run").code == 0
    (tmp_path / "pipeline.yaml").write_text(
        f"kind: pipeline\nname: one\nstages:\n  - {{name: base, recipe: {recipe}}}\n"
    )
    (tmp_path / "known.txt").write_bytes(b"\xef\xbb\xbfa red dot\r\n\r\na blue dot\r\n")
    out = tmp_path / "pipeline"
    line = ["chain", tmp_path / "pipeline.yaml", "--stage", f"base={tmp_path / 'run'}"]
    done = command(*line, "--known-texts", tmp_path / "known.txt", "--out", out)
    assert done.code == 0, done.err
    encoder_of.cache_clear()
    monkeypatch.setattr(encoders, "_opened", {})
    (stage_folder,) = (out / "stages").glob("base")
    stage = load_stage(stage_folder)
    (text,) = stage.conditions
    assert isinstance(text, Text)
    assert text.known.texts == ["a red dot", "a blue dot"]
    assert stage.run([0], Inputs({"prompt": ["A blue dot"]})).shape == (1, 3, 8, 8)
    done = command(*line, "--known-texts", tmp_path / "missing.txt", "--out", tmp_path / "other")
    assert done.code == 2
    assert "missing.txt: cannot be read" in done.err


def test_known_texts_of_a_pipeline_without_text_are_refused(command, trained, tmp_path):
    (tmp_path / "known.txt").write_text("a red dot\n")
    stages = ["--stage", f"base={trained.base}", "--stage", f"upsampler={trained.upsampler}"]
    line = ["chain", "tiny-32", *stages, "--known-texts", tmp_path / "known.txt"]
    done = command(*line, "--out", tmp_path / "out")
    assert done.code == 1
    assert "known texts are for a pipeline with a stage that takes text." in done.err


# ---- Python -------------------------------------------------------------------------------------


def test_a_data_set_of_tensors_has_captions(recipe, text_encoders, caplog):
    from cascade.building.stages import build_stage
    from cascade.recipe.reading import load_stage_recipe

    stage = build_stage(load_stage_recipe(recipe), lambda fields: {})
    image = torch.zeros(3, 8, 8) - 0.5
    items = [
        (image, "a red dot"),
        {"image": image, "labels": {"caption": ["a cat", "a\ndog"]}},
        (image, None),
        image,
    ]
    images = TrainingImages(items, stage.contract, flip=())
    texts = [images._annotated(index)["text"] for index in range(4)]
    assert texts == [("a red dot",), ("a cat", "a dog"), (), ()]
    with caplog.at_level(logging.WARNING):
        TrainingImages([image] * 4, stage.contract, flip=())
    assert "has the label caption; they train without it." in caplog.text


def test_captions_of_held_out_pictures_are_encoded_before_training(recipe, tmp_path, encoded):
    from cascade.building.training import build_trainer
    from cascade.recipe.reading import load_stage_recipe

    held_out = tmp_path / "held-out"
    held_out.mkdir()
    Image.new("RGB", (8, 8), (9, 9, 9)).save(held_out / "new.png")
    (held_out / "new.txt").write_text("a caption of its own\n")
    values = ["train.images=8", "train.batch_size=4", f"data.validation={held_out}"]
    values += ["train.sample_every_images=0", "train.warmup_images=4"]
    trainer = build_trainer(load_stage_recipe(recipe, values), tmp_path / "run")
    assert "a caption of its own" in encoded
    encoded.clear()
    trainer.run()
    assert encoded == []
    assert '"kind": "validation"' in (tmp_path / "run" / "log.jsonl").read_text()


def test_captions_in_shards_are_encoded_once(recipe, coloured, tmp_path, encoded):
    from cascade.building.training import build_trainer
    from cascade.recipe.reading import load_stage_recipe

    with tarfile.open(tmp_path / "pictures.tar", "w") as shard:
        for file in sorted(coloured.iterdir()):
            shard.add(file, file.name)
    values = ["train.images=8", "train.warmup_images=4", f"data.path={tmp_path / 'pictures.tar'}"]
    read = load_stage_recipe(recipe, values)
    build_trainer(read, tmp_path / "one")
    assert len(encoded) == 16
    assert {"a red dot", "the red of a house"} <= {*encoded}
    encoded.clear()
    encoder_of.cache_clear()  # as in another process
    build_trainer(read, tmp_path / "other")
    assert encoded == []


# ---- what is learned ----------------------------------------------------------------------------


def nearest_colour(images: torch.Tensor) -> list[str]:
    means = (images.mean(dim=(2, 3)) + 1) * 127.5  # (B, 3)
    names = list(COLOURS)
    distances = torch.cdist(means, torch.tensor([COLOURS[name] for name in names]).float())
    return [names[number] for number in distances.argmin(dim=1)]


@pytest.mark.slow
def test_eight_captions_give_their_eight_colours(recipe, coloured, tmp_path):
    from cascade.building.training import build_trainer
    from cascade.recipe.reading import load_stage_recipe

    values = [
        "train.images=9600",
        "network.depth=4",
        "network.fine_depth=0",
        "train.batch_size=16",
        "train.learning_rate=6e-3",
        "train.warmup_images=320",
        "train.ema_decay=0.98",
        "train.sample_every_images=0",
        "train.checkpoint_every_images=9600",
    ]
    for file in list(coloured.iterdir()):  # a batch takes 16
        shutil.copy(file, coloured / f"{file.stem}-again{file.suffix}")
    build_trainer(load_stage_recipe(recipe, values), tmp_path / "run").run()
    stage = load_stage(tmp_path / "run" / "stage")
    prompts = [f"a {name} dot" for name in COLOURS] + [f"the {name} of a house" for name in COLOURS]
    prompts = prompts * 8
    expected = [next(name for name in COLOURS if name in prompt) for prompt in prompts]
    for guidance in (1.0, 2.0):
        settings = stage.sampling.changed(steps=8, guidance=guidance)
        images = stage.run(range(128), Inputs({"prompt": prompts}), run=Run(settings=settings))
        hits = [a == b for a, b in zip(nearest_colour(images), expected, strict=True)]
        assert sum(hits) / len(hits) >= 0.99
    # Guidance 0 is without text, whatever the prompt is.
    none = stage.sampling.changed(steps=4, guidance=0.0)
    first, second = (
        stage.run(range(4), Inputs({"prompt": each}), run=Run(settings=none))
        for each in (prompts[:4], prompts[4:8])
    )
    assert first.equal(second)
