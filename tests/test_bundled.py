"""The bundled cascade: what it holds, and what it draws."""

from __future__ import annotations

import itertools
import resource
import subprocess
import sys

import pytest
import torch.nn.functional as F

from cascade.pipeline import CascadePipeline
from cascade.recipe.finding import find_recipe, recipes_root
from cascade.recipe.reading import load_pipeline_recipe, load_stage_recipe

MIB = 2**20
FOLDER = recipes_root() / "pipelines" / "emoji-1024"
KNOWN_TEXTS = "known_texts.safetensors"
FACE = "smiling face with smiling eyes"


@pytest.fixture(scope="module")
def emoji() -> CascadePipeline:
    pipeline = CascadePipeline.from_pretrained("emoji-1024")
    pipeline.set_progress_bar_config(disable=True)
    return pipeline


def test_weights_are_small_and_of_the_recipes(emoji):
    weights = [file for file in FOLDER.rglob("*.safetensors") if file.name != KNOWN_TEXTS]
    assert sum(file.stat().st_size for file in weights) < 45e6
    assert (FOLDER / "stages" / "base" / KNOWN_TEXTS).stat().st_size < 4e6
    pipeline_recipe = load_pipeline_recipe(FOLDER / "pipeline.yaml")
    assert emoji.stages.names == [section.name for section in pipeline_recipe.stages]
    for section in pipeline_recipe.stages:
        recipe = load_stage_recipe(find_recipe(section.recipe, "stages"))
        stage = emoji.stages[section.name]
        assert stage.space.longer_px == recipe.space.size_px
        assert stage.network.kind == recipe.network.kind
        assert stage.process.prediction == recipe.diffusion.prediction
    base = load_stage_recipe(find_recipe("emoji-64-text", "stages"))
    fields = emoji.stages.first.contract.condition("labels").fields
    assert list(fields) == base.condition.labels.fields
    assert fields["class"] == sorted(base.data.only["class"])


def test_a_yellow_face_on_white_comes_out_of_a_known_caption(emoji):
    settings = {"steps": [12, 3], "stop_at": "upsampler_256", "output_type": "pt"}
    result = emoji(FACE, labels="noto", num_images=2, seed=0, **settings)
    images = (result.images + 1) / 2
    assert images.shape == (2, 3, 256, 256)
    corners = images[..., :16, :16].mean(dim=(1, 2, 3))
    assert (corners > 0.95).all()
    red, green, blue = images[..., 140:200, 60:200].mean(dim=(0, 2, 3))
    assert red > green > blue + 0.2  # yellow to orange


@pytest.mark.slow
def test_four_pictures_take_less_than_a_minute_and_two_gib(tmp_path):
    command = [
        "-m",
        "cascade.cli",
        "generate",
        "emoji-1024",
        "a cat face",
        "-n",
        "4",
        "--seed",
        "0",
    ]
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    subprocess.run([sys.executable, *command, "-o", str(tmp_path)], check=True)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    assert after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime < 60  # on any core
    assert after.ru_maxrss < 2 * MIB  # in KiB
    assert len(list(tmp_path.glob("[0-9]*.png"))) == 4


@pytest.mark.slow
def test_outputs_are_sharper_than_bicubic_enlargements(emoji):
    result = emoji("a red heart", num_images=4, seed=0, keep_intermediates=True, output_type="pt")
    sizes = [*result.intermediates.values(), result.images]

    def steepest(images):
        step = (images[..., 1:] - images[..., :-1]).abs().amax(dim=1).flatten(1)
        return step.quantile(0.999, dim=1).mean()  # at 1024 px, few pixels lie on edges

    for small, large in itertools.pairwise(sizes):
        enlarged = F.interpolate(small, size=large.shape[-1], mode="bicubic").clamp(-1, 1)
        assert steepest(large) > 2 * steepest(enlarged)
