"""Recipes that could be trained, chained and sampled, and those that could not."""

from __future__ import annotations

from pathlib import Path

import pytest

from cascade.building.pipelines import chain_pipeline, check_recipe
from cascade.errors import CascadeError, RecipeError
from cascade.extras import EXTRAS
from cascade.recipe.finding import find_recipe, list_recipes, recipe_name
from cascade.recipe.reading import (
    dump_recipe,
    load_any_recipe,
    load_pipeline_recipe,
    load_stage_recipe,
)
from cascade.recipe.sections import PipelineRecipe

BUNDLED = [path for kind in ("stages", "pipelines") for path in list_recipes(kind)]
TINY = find_recipe("tiny-16", "stages")
CHAIN = find_recipe("tiny-32", "pipelines")

# ---- the bundled ones ---------------------------------------------------------------------------


@pytest.mark.parametrize("path", BUNDLED, ids=recipe_name)
def test_every_bundled_recipe_loads_builds_and_joins(path):
    recipe = load_any_recipe(str(path))
    takes_text = any(name in path.read_text() for name in ("emoji-64-text", "unclip", "prior"))
    if takes_text and not EXTRAS["text"].is_installed:
        pytest.skip("its text encoder comes with the extra `text`")
    assert recipe.name == recipe_name(path)
    assert recipe.description
    lines = check_recipe(recipe)
    assert "M parameters" in lines[0]
    if isinstance(recipe, PipelineRecipe):
        assert len(lines) == len(recipe.stages) + 1
        assert lines[-1] == f"{recipe.name}: the stages fit together"


def test_the_decoder_of_unclip_starts_from_a_bundled_stage_of_its_network():
    base, decoder = (
        load_stage_recipe(find_recipe(name, "stages"))
        for name in ("emoji-64-text", "emoji-64-unclip")
    )
    assert decoder.train.init_from == "emoji-1024/base"
    assert decoder.network == base.network
    assert decoder.diffusion == base.diffusion


def test_the_upsampler_of_emoji_draws_with_the_same_settings_in_every_pipeline():
    settings = [
        section.sampling
        for name in ("emoji-1024", "emoji-unclip")
        for section in load_pipeline_recipe(find_recipe(name, "pipelines")).stages
        if section.recipe == "emoji-64-to-256"
    ]
    assert len(settings) == 2
    assert settings[0] == settings[1]


@pytest.mark.parametrize("path", BUNDLED, ids=recipe_name)
def test_a_dumped_recipe_loads_as_the_same(path, tmp_path):
    recipe = load_any_recipe(str(path))
    (tmp_path / "dumped.yaml").write_text(dump_recipe(recipe))
    assert load_any_recipe(str(tmp_path / "dumped.yaml")) == recipe


def test_a_pipeline_s_stages_are_found_from_its_own_folder(tmp_path, monkeypatch):
    folder = tmp_path / "mine"
    folder.mkdir()
    (tmp_path / "base.yaml").write_text(TINY.read_text().replace("name: tiny-16", "name: mine-16"))
    text = CHAIN.read_text().replace("recipe: tiny-16\n", "recipe: ../base.yaml\n")
    (folder / "pipeline.yaml").write_text(text)
    recipe = load_pipeline_recipe(folder / "pipeline.yaml")
    for working_folder in (tmp_path, folder):
        monkeypatch.chdir(working_folder)
        lines = check_recipe(recipe, folder / "pipeline.yaml")
        assert lines[0].startswith("base: mine-16: ")
        with pytest.raises(CascadeError, match="no trained stage in runs/mine-16"):
            chain_pipeline(folder / "pipeline.yaml", {}, tmp_path / "out")


# ---- numbers that do not fit together -----------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "override", "words"),
    [
        ("tiny-16", "space.size_px=18", ["18", "multiple of", "4"]),
        ("tiny-16", "space.size_px=[16,18]", ["18", "multiple of", "4"]),
        ("tiny-16", "space.range=[255,0]", ["the lower one first", "(255, 0)"]),
        ("tiny-16", "diffusion.zero_terminal_snr=true diffusion.prediction=eps", ["eps"]),
        ("tiny-16", "sampling.steps=1001", ["1 to 1000", "1001"]),
        ("tiny-16", "sampling.sampler=dimm", ["unknown sampler 'dimm'", "'ddim'"]),
        ("tiny-16", "sampling.variance=large", ["'variance' is an option of ddpm"]),
        ("tiny-16", "sampling.config={a:1}", ["key 'sampling.config'", "ddim is Cascade's own"]),
        ("tiny-16", "sampling.temperature=0.5", ["temperature 0.5", "take an image"]),
        ("tiny-16", "sampling.guidance_interval=[2,1]", ["0 <= low < high", "(2.0, 1.0)"]),
        ("tiny-16", "condition.labels.drop=0", ["guidance 1.5 needs a condition", "dropped"]),
        ("tiny-16", "condition.labels=null", ["guidance 1.5 needs a condition", "dropped"]),
        ("tiny-16", "condition.labels.fields=[]", ["at least one field"]),
        ("tiny-16", "train.objective=denoisin", ["unknown objective", "'denoising'"]),
        ("tiny-16-to-32", "space.size_px=40", ["40x40", "16x16"]),
        ("tiny-16-to-32", "condition.luminance.drop=0.1", ["two conditions", "'image'"]),
        (
            "tiny-16-to-32",
            "condition.low_resolution.augmentation_range=[0.5,0.2]",
            ["0.5", "0.2"],
        ),
        ("tiny-16-to-32", "sampling.augmentation_level=0.9", ["[0.0, 0.5]", "0.9"]),
        ("tiny-16-to-32", "data.crop_px=15", ["crop_px", "32", "15"]),
        ("tiny-16-to-32", "data.crop_px=64", ["crop_px", "32", "64"]),
        ("tiny-16-to-32", "data.crop_px=18", ["crop_px", "multiple of 4", "18"]),
    ],
)
def test_a_recipe_that_could_not_be_trained_or_sampled_does_not_validate(name, override, words):
    recipe = load_stage_recipe(find_recipe(name, "stages"), override.split())
    with pytest.raises(CascadeError) as error:
        check_recipe(recipe)
    assert "\n" not in str(error.value)
    for word in words:
        assert word in str(error.value)


@pytest.mark.parametrize("prediction", ["eps", "x0", "v"])
def test_every_prediction_validates(prediction):
    overrides = [f"diffusion.prediction={prediction}", "diffusion.weighting=uniform"]
    assert len(check_recipe(load_stage_recipe(TINY, overrides))) == 1


def pipeline_of(tmp_path: Path, *stages: str) -> PipelineRecipe:
    sections = "\n".join(f"  - {{name: s{number}, {stage}}}" for number, stage in enumerate(stages))
    (tmp_path / "pipeline.yaml").write_text(f"kind: pipeline\nname: mine\nstages:\n{sections}\n")
    return load_pipeline_recipe(tmp_path / "pipeline.yaml")


def test_a_pipeline_whose_stages_do_not_join_does_not_validate(tmp_path):
    upsampler = "recipe: tiny-16-to-32"
    with pytest.raises(CascadeError, match="'s0' gives size_px 32x32, 's1' takes 16x16"):
        check_recipe(pipeline_of(tmp_path, upsampler, upsampler))
    level = upsampler + ", sampling: {augmentation_level: 0.9}"
    with pytest.raises(CascadeError, match=r"\[0\.0, 0\.5\].*0\.9"):
        check_recipe(pipeline_of(tmp_path, "recipe: tiny-16", level))
    with pytest.raises(RecipeError, match="no stage recipe 'tiny-61'"):
        check_recipe(pipeline_of(tmp_path, "recipe: tiny-61"))


def test_a_rectangular_recipe_validates():
    (line,) = check_recipe(load_stage_recipe(TINY, ["space.size_px=[48,80]"]))
    assert "noise -> 80x48 px" in line


def test_images_that_no_file_holds_are_refused_before_training():
    with pytest.raises(CascadeError, match="images of at most 64 bands are read, but the stage"):
        check_recipe(load_stage_recipe(TINY, ["space.channels=65"]))


# ---- messages -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("override", "words"),
    [
        ("space.range=[255,0]", "key 'space.range': range must be two finite numbers"),
        ("space.channels=65", "key 'space': images of at most 64 bands are read"),
        ("network.patch_size=6", "key 'network.patch_size': size 16 px must be a multiple"),
        ("diffusion.zero_terminal_snr=true diffusion.prediction=eps", "key 'diffusion.prediction'"),
        ("condition.labels.drop=2", "key 'condition.labels.drop': drop must be from 0 to 1"),
        ("train.objective=denoise", "key 'train.objective': unknown objective 'denoise': did you"),
        ("data.crop_px=15", "key 'data.crop_px': crop_px must be a multiple of 4"),
        ("data.name_pattern=(", "key 'data.name_pattern': name_pattern '(' is not valid"),
        ("sampling.percentile=2", "key 'sampling.percentile': percentile must be in (0, 1], got"),
        ("sampling.sampler=dimm", "key 'sampling.sampler': unknown sampler 'dimm': did you mean"),
        ("sampling.steps=1001", "key 'sampling.steps': steps must be from 1 to 1000"),
    ],
)
def test_a_value_that_does_not_fit_is_an_error_of_the_recipe_with_file_and_key(override, words):
    recipe = load_stage_recipe(TINY, override.split())
    with pytest.raises(RecipeError) as error:
        check_recipe(recipe, TINY)
    assert str(error.value).startswith(f"{TINY}: {words}")


def test_the_sampling_of_a_pipeline_s_stage_is_named_by_its_place(tmp_path):
    stage = "recipe: tiny-16, sampling: {percentile: 2}"
    with pytest.raises(RecipeError, match=r"p\.yaml: key 'stages.0.sampling.percentile': perc"):
        check_recipe(pipeline_of(tmp_path, stage), tmp_path / "p.yaml")
