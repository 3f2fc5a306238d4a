"""Reading recipes: values, overrides, and one line for everything that is wrong."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest

from cascade.conditioning.degradation import Degradation
from cascade.errors import RecipeError
from cascade.recipe.finding import find_recipe
from cascade.recipe.reading import load_any_recipe, load_pipeline_recipe, load_stage_recipe
from cascade.recipe.sections import PipelineRecipe, StageRecipe

TINY = find_recipe("tiny-16", "stages")
UPSAMPLER = find_recipe("tiny-16-to-32", "stages")
CHAIN = find_recipe("tiny-32", "pipelines")


def refused(path: Path, *overrides: str) -> str:
    """The one line with which a stage recipe is refused."""
    with pytest.raises(RecipeError) as error:
        load_stage_recipe(path, overrides)
    assert "\n" not in str(error.value)
    return str(error.value)


def changed(tmp_path: Path, *replacements: tuple[str, str]) -> Path:
    """A copy of tiny-16 with lines changed."""
    text = TINY.read_text()
    for old, new in replacements:
        assert old in text
        text = text.replace(old, new)
    (tmp_path / "mine.yaml").write_text(text)
    return tmp_path / "mine.yaml"


# ---- values -------------------------------------------------------------------------------------


def value_of(recipe: Any, key: str) -> Any:
    """The value under a key such as `train.images`."""
    for name in key.split("."):
        recipe = getattr(recipe, name)
    return recipe


@pytest.mark.parametrize(
    ("override", "value"),
    [
        ("train.learning_rate=1e-4", 1e-4),
        ("train.learning_rate=3E-05", 3e-5),
        ("train.images=200_000", 200_000),
        ("train.images=1e6", 1_000_000),
        ("train.betas=[0.5,0.75]", (0.5, 0.75)),
        ("train.compile=true", True),
        ("train.objective=denoising", "denoising"),
        ("data.crop_px=null", None),
        ("data.path=a b/{0..3}.tar", "a b/{0..3}.tar"),
        ("condition.labels.fields=[class,style]", ["class", "style"]),
        ("condition.labels.drop=0.25", 0.25),
        ("condition.labels=null", None),
        ("condition.low_resolution.size_px=8", 8),
        ("condition.low_resolution.quantised=false", False),
        ("condition.low_resolution.augmentation_range=[0.1,0.4]", (0.1, 0.4)),
        ("condition.low_resolution.degradation.compression.webp=0.5", 0.5),
        ("condition.low_resolution.generated.strength=[0.1,0.2]", (0.1, 0.2)),
        ("condition.luminance.drop=0.5", 0.5),
        ("space.size_px=16", 16),
        ("space.size_px=[48,80]", (48, 80)),
        ("space.channels=5", 5),
        ("space.range=[0,10000]", (0.0, 10_000.0)),
        ("space.unit=HU", "HU"),
        ("sampling.steps=9", 9),
        ("sampling.eta=5e-1", 0.5),
        ("sampling.variance=large", "large"),
        ("sampling.guidance_interval=[0.5,2]", (0.5, 2.0)),
        ("sampling.temperature=1", 1.0),
        ("sampling.config={solver_order: 3}", {"solver_order": 3}),
    ],
)
def test_overrides_are_read_as_yaml_values(override, value):
    read = value_of(load_stage_recipe(UPSAMPLER, [override]), override.split("=")[0])
    assert read == value
    assert type(read) is type(value)


def test_what_a_recipe_does_not_state_is_left_to_the_parts():
    recipe = load_stage_recipe(TINY, ["condition.labels=null", "sampling=null"])
    assert recipe.condition.model_dump() == {
        "labels": None,
        "text": None,
        "image_embedding": None,
        "low_resolution": None,
        "luminance": None,
        "mask": None,
        "defects": None,
        "paired_image": None,
    }
    assert set(recipe.sampling.model_dump().values()) == {None}
    assert recipe.space.model_dump() == {
        "size_px": 16,
        "channels": 3,
        "kind": "pixels",
        "range": (0.0, 255.0),
        "unit": "",
        "resize_kernel": "bicubic",
        "show": (),
        "colour_map": "grey",
    }


def test_a_degradation_is_read_with_its_own_values():
    override = "condition.low_resolution.degradation.probability=0.75"
    condition = load_stage_recipe(UPSAMPLER, [override]).condition
    assert condition.low_resolution.degradation == Degradation(probability=0.75)
    assert load_stage_recipe(UPSAMPLER).condition.low_resolution.degradation is None


def test_1e_4_in_a_file_is_a_number(tmp_path):
    path = changed(tmp_path, ("learning_rate: 2e-3", "learning_rate: 1e-4"))
    assert load_stage_recipe(path).train.learning_rate == 1e-4


def test_the_last_override_wins_and_the_rest_stays():
    plain = load_stage_recipe(TINY)
    recipe = load_stage_recipe(TINY, ["train.seed=1", "train.seed=2"])
    assert recipe == plain.model_copy(update={"train": plain.train.model_copy(update={"seed": 2})})
    assert recipe != plain


def test_a_checked_recipe_cannot_be_changed():
    with pytest.raises(ValueError, match="frozen"):
        load_stage_recipe(TINY).train.seed = 1


# ---- what is refused ----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("override", "words"),
    [
        ("train.lerning_rate=1", ["unknown key 'train.lerning_rate'", "'train.learning_rate'"]),
        ("trian.images=1", ["unknown key 'trian'", "'train'"]),
        ("a(b=3", ["unknown key 'a(b'", "known: kind"]),
        ("int=3", ["unknown key 'int'"]),
        ("train.pair=3", ["unknown key 'train.pair'"]),
        ("network.widht=64", ["unknown key 'network.widht'", "'network.width'"]),
        ("network.channels=[8]", ["unknown key 'network.channels'", "'network.head_channels'"]),
        ("sampling.xyz=1", ["unknown key 'sampling.xyz'", "known: sampler, steps"]),
        ("train.images=many", ["'train.images'", "valid integer", "'many'"]),
        ("train.images=1.5", ["'train.images'", "integer", "1.5"]),
        ("train.images=0", ["'train.images'", "greater than 0", "0"]),
        ("train.trackers=wandb", ["'train.trackers': input should be a valid list, got 'wandb'"]),
        ("data=photos", ["key 'data' is a section, whose keys are path, only, ", "got 'photos'"]),
        ("data.range=[10]", ["'data.range': has too few values, got [10]"]),
        ("data.range=[1,2,3]", ["'data.range': list should have at most 2 items"]),
        (
            "network.kind=vit",
            ["'network.kind': input should be one of 'unet', 'transformer', 'mlp', 'autoenc"],
        ),
        ("train.learning_rate=.inf", ["'train.learning_rate'", "finite", "inf"]),
        ("train.learning_rate=.nan", ["'train.learning_rate'", "nan"]),
        ("train.ema_decay=1", ["'train.ema_decay'", "less than 1"]),
        ("train.optimiser=adam", ["'train.optimiser'", "'adamw' or 'muon'", "'adam'"]),
        ("train.betas=[0.9]", ["'train.betas': has too few values, got [0.9]"]),
        ("train=5", ["'train'", "5"]),
        ("condition.labels.fields=class", ["'condition.labels.fields'", "valid list", "'class'"]),
        (
            "condition.labels.feilds=[a]",
            ["unknown key 'condition.labels.feilds'", "'condition.labels.fields'"],
        ),
        ("condition.lables.drop=0", ["unknown key 'condition.lables'", "'condition.labels'"]),
        ("condition.labels.drop=x", ["'condition.labels.drop'", "valid number", "'x'"]),
        ("condition.luminance.size_px=8", ["unknown key 'condition.luminance.size_px'", "known:"]),
        ("condition.low_resolution.drop=0", ["'condition.low_resolution.size_px' is missing"]),
        ("contract.size_px=16", ["unknown key 'contract'"]),
        ("sampling.steps=many", ["'sampling.steps'", "valid integer", "'many'"]),
        ("sampling.etaa=1", ["unknown key 'sampling.etaa'", "'sampling.eta'"]),
        ("network.kind=resnet", ["'network.kind'", "'unet'", "'resnet'"]),
        ("space.resize_kernel=lanczos", ["'space.resize_kernel'", "'bicubic'", "'lanczos'"]),
        ("space.size_px.x=1", ["'space.size_px", "valid integer"]),
        ("space.size_px=0", ["key 'space.size_px': input should be greater than 0, got 0"]),
        ("space.size-px=0", ["unknown key 'space.size-px'"]),
        (
            "condition.low_resolution={size_px: 8, degradation: {probability: 2}}",
            ["degradation': degradation.probability must be within 0 and 1, low end first, got 2"],
        ),
        ("space.size_px=[16]", ["'space.size_px", "[16]"]),
        ("space.channels=0", ["'space.channels'", "greater than 0", "0"]),
        ("space.range=[0]", ["'space.range': has too few values, got [0]"]),
        ("train.objective=3", ["'train.objective'", "valid string", "3"]),
        ("train.betas=[0.9,1.0]", ["'train.betas.1'", "less than 1", "1.0"]),
        ("train.seed=-1", ["'train.seed'", "greater than or equal to 0", "-1"]),
        ("data.only=red", ["'data.only'", "valid dictionary", "'red'"]),
        ("data.path=null", ["'data.path'", "valid string", "None"]),
        ("kind=pipeline", ["'kind'", "'stage'", "'pipeline'"]),
        ("condition.labels.fields[0]=x", ["inside a list"]),
        ("data.path=${nope}", ["'nope' not found"]),
        ("train.images=[1", ["',' or ']'"]),
    ],
)
def test_a_wrong_override_names_file_key_expectation_and_the_nearest(override, words):
    message = refused(TINY, override)
    assert message.startswith(f"{TINY}: ")
    for word in words:
        assert word in message


@pytest.mark.parametrize("override", ["train.images", "=5", ""])
def test_an_override_without_key_or_value_is_refused(override):
    assert f"override {override!r} must be key=value" in refused(TINY, override)


def test_a_misspelt_key_is_named_although_the_right_one_is_missing(tmp_path):
    message = refused(changed(tmp_path, ("size_px: 16", "size_pxx: 16")))
    expected = "unknown key 'space.size_pxx'; did you mean 'space.size_px'"
    assert f"{tmp_path / 'mine.yaml'}: {expected}" in message


def test_a_missing_key_is_named(tmp_path):
    path = changed(tmp_path, ("  size_px: 16", "  channels: 3"))
    assert "key 'space.size_px' is missing" in refused(path)


def test_faults_in_a_pipeline_s_stages_are_named_by_their_place(tmp_path):
    text = CHAIN.read_text().replace("recipe: tiny-16-to-32", "recpie: tiny-16-to-32")
    (tmp_path / "pipeline.yaml").write_text(text)
    with pytest.raises(RecipeError, match=r"unknown key 'stages\.1\.recpie'; .*'stages.1.recipe'"):
        load_pipeline_recipe(tmp_path / "pipeline.yaml")
    with pytest.raises(RecipeError, match="at least 1 item"):
        load_pipeline_recipe(CHAIN, ["stages=[]"])
    twice = "stages=[{name: a, recipe: tiny-16}, {name: a, recipe: tiny-16-to-32}]"
    with pytest.raises(RecipeError, match=r"names of the stages must differ, got \['a', 'a'\]"):
        load_pipeline_recipe(CHAIN, [twice])


@pytest.mark.parametrize(
    "data",
    [
        b": :",
        b"a: [",
        b"\t- x",
        b"\xff\xfe\x00",
        b"a: 1\na: 2",
        b"- a\n- b",
        b"just text",
        b"",
        b"a: &a [*a]",
        b"!!python/object/apply:os.system [touch ran]",
    ],
)
def test_a_file_that_is_no_recipe_is_refused_and_nothing_runs(tmp_path, monkeypatch, data):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "bad.yaml").write_bytes(data)
    assert refused(tmp_path / "bad.yaml").startswith(f"{tmp_path / 'bad.yaml'}: ")
    with pytest.raises(RecipeError, match=r"bad\.yaml: "):
        load_any_recipe(str(tmp_path / "bad.yaml"))
    assert [path.name for path in tmp_path.iterdir()] == ["bad.yaml"]


@pytest.mark.parametrize(
    "override",
    [
        "train.images=true",
        "train.learning_rate=True",
        "train.betas=[0.9,false]",
        "data.crop_px=false",
        "network.depth=true",
        "space.size_px=true",
        "space.range=[0,true]",
        "condition.labels.drop=true",
        "condition.low_resolution={size_px: true}",
        "condition.low_resolution={size_px: 8, degradation: {probability: true}}",
        "condition.low_resolution={size_px: 8, generated: {strength: [0, true]}}",
        "condition.luminance.augmentation_range=[0,true]",
        "sampling.steps=true",
        "sampling.guidance=true",
        "sampling.eta=true",
        "sampling.guidance_interval=[0,true]",
    ],
)
def test_a_boolean_is_no_number(override):
    key = override.partition("=")[0]
    message = refused(TINY, override)
    assert f": key '{key}" in message
    assert re.search("input should be a number, got (True|False)", message)


def test_a_whole_number_may_be_written_as_a_float():
    assert load_stage_recipe(TINY, ["train.images=1e6"]).train.images == 1_000_000


def test_a_missing_file_is_named(tmp_path):
    assert refused(tmp_path / "no.yaml").startswith(f"{tmp_path / 'no.yaml'}: cannot be read")


def test_a_recipe_of_the_other_kind_is_refused():
    assert "key 'kind': input should be 'stage', got 'pipeline'" in refused(CHAIN)
    with pytest.raises(RecipeError, match="key 'kind': input should be 'pipeline', got 'stage'"):
        load_pipeline_recipe(TINY)


def test_either_kind_is_read_by_what_it_says(tmp_path):
    assert isinstance(load_any_recipe("tiny-16"), StageRecipe)
    assert isinstance(load_any_recipe("tiny-32"), PipelineRecipe)
    with pytest.raises(RecipeError, match="'kind' must be 'stage' or 'pipeline', got 'stag'"):
        load_any_recipe(str(changed(tmp_path, ("kind: stage", "kind: stag"))))
    with pytest.raises(RecipeError, match="key 'kind': Interpolation key 'x' not found"):
        load_any_recipe(str(changed(tmp_path, ("kind: stage", "kind: ${x}"))))
