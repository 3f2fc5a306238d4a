"""The bundled cascade: what it holds, and what it draws."""

from __future__ import annotations

import resource
import subprocess
import sys
import time

import pytest
import torch.nn.functional as F

from cascade.pipeline import CascadePipeline
from cascade.recipe.finding import find_recipe, recipes_root
from cascade.recipe.reading import load_stage_recipe

MIB = 2**20
FOLDER = recipes_root() / "pipelines" / "emoji-1024"


@pytest.fixture(scope="module")
def emoji() -> CascadePipeline:
    pipeline = CascadePipeline.from_pretrained("emoji-1024")
    pipeline.set_progress_bar_config(disable=True)
    return pipeline


def test_weights_are_small_and_of_the_recipes(emoji):
    assert sum(file.stat().st_size for file in FOLDER.rglob("*.safetensors")) < 24 * MIB
    for name, recipe_name in (("base", "emoji-64"), ("upsampler", "emoji-64-to-256")):
        recipe = load_stage_recipe(find_recipe(recipe_name, "stages"))
        stage = emoji.stages[name]
        assert stage.space.longer_px == recipe.space.size_px
        assert stage.network.kind == recipe.network.kind
        assert stage.process.prediction == recipe.diffusion.prediction
        labels = stage.contract.condition("labels")
        assert list(labels.fields) == recipe.condition.labels.fields
    base = load_stage_recipe(find_recipe("emoji-64", "stages"))
    fields = emoji.stages.first.contract.condition("labels").fields
    assert fields["class"] == sorted(base.data.only["class"])


def test_a_yellow_face_on_white_comes_out(emoji):
    labels = "face-smiling,noto"
    result = emoji(num_images=2, seed=0, labels=labels, steps=[12, 6], output_type="pt")
    images = (result.images + 1) / 2
    assert images.shape == (2, 3, 256, 256)
    corners = images[..., :16, :16].mean(dim=(1, 2, 3))
    assert (corners > 0.95).all()
    red, green, blue = images[..., 140:200, 60:200].mean(dim=(0, 2, 3))
    assert red > green > blue + 0.2  # yellow to orange


@pytest.mark.slow
def test_sixteen_pictures_take_less_than_a_minute_and_two_gib(tmp_path):
    command = ["-m", "cascade.cli", "generate", "emoji-1024", "-n", "16", "--seed", "0"]
    start = time.monotonic()
    subprocess.run([sys.executable, *command, "-o", str(tmp_path)], check=True)
    assert time.monotonic() - start < 60
    assert resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss < 2 * MIB  # in KiB
    assert len(list(tmp_path.glob("[0-9]*.png"))) == 16


@pytest.mark.slow
def test_outputs_are_sharper_than_bicubic_enlargements(emoji):
    result = emoji(num_images=16, seed=0, keep_intermediates=True, output_type="pt")
    enlarged = F.interpolate(result.intermediates["base"], size=256, mode="bicubic").clamp(-1, 1)

    def steepest(images):
        step = (images[..., 1:] - images[..., :-1]).abs().amax(dim=1).flatten(1)
        return step.quantile(0.995, dim=1).mean()

    assert steepest(result.images) > 1.5 * steepest(enlarged)
