from __future__ import annotations

from pathlib import Path

import pytest

from cascade.building.pipelines import chain_pipeline, check_recipe
from cascade.errors import CascadeError, RecipeError
from cascade.recipe.finding import (
    find_any_recipe,
    find_recipe,
    list_recipes,
    recipe_name,
    recipes_root,
)
from cascade.recipe.reading import (
    dump_recipe,
    load_any_recipe,
    load_pipeline_recipe,
    load_stage_recipe,
)
from cascade.recipe.sections import PipelineRecipe, StageRecipe

KINDS = ("stages", "pipelines")
BUNDLED = [path for kind in KINDS for path in list_recipes(kind)]
TINY = find_recipe("tiny-16", "stages")
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


# ---- the bundled ones ---------------------------------------------------------------------------


@pytest.mark.parametrize("path", BUNDLED, ids=recipe_name)
def test_every_bundled_recipe_loads_builds_and_joins(path):
    recipe = load_any_recipe(str(path))
    assert recipe.name == recipe_name(path)
    assert recipe.description
    lines = check_recipe(recipe)
    assert "M parameters" in lines[0]
    if isinstance(recipe, PipelineRecipe):
        assert len(lines) == len(recipe.stages) + 1
        assert lines[-1] == f"{recipe.name}: the stages join"


@pytest.mark.parametrize("path", BUNDLED, ids=recipe_name)
def test_a_dumped_recipe_loads_as_the_same(path, tmp_path):
    recipe = load_any_recipe(str(path))
    (tmp_path / "dumped.yaml").write_text(dump_recipe(recipe))
    assert load_any_recipe(str(tmp_path / "dumped.yaml")) == recipe


def test_the_recipes_of_first_steps_and_of_bundled_weights_are_there():
    names = {kind: [recipe_name(path) for path in list_recipes(kind)] for kind in KINDS}
    photos = {"photo-x4", "photo-x4-blind", "photo-colour"}
    wanted = {"tiny-16", "tiny-16-to-32", "emoji-64", "emoji-64-to-256"}
    assert wanted | photos <= set(names["stages"])
    assert {"tiny-32", "emoji-256"} | photos <= set(names["pipelines"])
    assert all(len(each) == len(set(each)) for each in names.values())


# ---- finding ------------------------------------------------------------------------------------


def test_recipes_are_found_by_name_file_and_folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "pipeline.yaml").write_text(CHAIN.read_text())
    assert find_recipe("mine", "pipelines") == Path("mine/pipeline.yaml")
    assert find_recipe("tiny-16", "stages") == recipes_root() / "stages" / "tiny-16.yaml"
    assert find_recipe(str(TINY), "stages") == TINY
    assert find_any_recipe("tiny-32") == CHAIN
    assert find_any_recipe("tiny-16") == TINY
    assert find_any_recipe("photo-x4") == recipes_root() / "stages" / "photo-x4.yaml"
    both = recipes_root() / "pipelines" / "photo-x4" / "pipeline.yaml"
    assert find_any_recipe("pipelines/photo-x4") == both


def test_a_missing_recipe_offers_the_nearest():
    with pytest.raises(RecipeError, match=r"no stage recipe 'tiny-61'.* 'tiny-16'"):
        find_recipe("tiny-61", "stages")
    with pytest.raises(RecipeError, match=r"no pipeline recipe 'tiny-16'.*'tiny-32'"):
        find_recipe("tiny-16", "pipelines")
    with pytest.raises(RecipeError, match=r"no recipe 'tniy-32'.*'tiny-32'"):
        find_any_recipe("tniy-32")


# ---- values -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("override", "value"),
    [
        ("train.learning_rate=1e-4", 1e-4),
        ("train.learning_rate=3E-05", 3e-5),
        ("train.images=200_000", 200_000),
        ("train.images=1e6", 1_000_000),
        ("train.betas=[0.5,0.75]", (0.5, 0.75)),
        ("train.compile=true", True),
        ("data.crop_px=null", None),
        ("data.path=a b/{0..3}.tar", "a b/{0..3}.tar"),
        ("condition.labels=[class,style]", ["class", "style"]),
    ],
)
def test_overrides_are_read_as_yaml_values(override, value):
    section, key = override.split("=")[0].split(".")
    read = getattr(getattr(load_stage_recipe(TINY, [override]), section), key)
    assert read == value
    assert type(read) is type(value)


def test_1e_4_in_a_file_is_a_number(tmp_path):  # trap 40
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
        ("train.lerning_rate=1", ["unknown key 'train.lerning_rate'", "'learning_rate'"]),
        ("trian.images=1", ["unknown key 'trian'", "'train'"]),
        ("network.widht=64", ["unknown key 'network.widht'", "'width'"]),
        ("network.channels=[8]", ["unknown key 'network.channels'", "'head_channels'"]),
        ("sampling.xyz=1", ["unknown key 'sampling.xyz'", "known: sampler, steps"]),
        ("train.images=many", ["'train.images'", "valid integer", "'many'"]),
        ("train.images=1.5", ["'train.images'", "integer", "1.5"]),
        ("train.images=0", ["'train.images'", "greater than 0", "0"]),
        ("train.learning_rate=.inf", ["'train.learning_rate'", "finite", "inf"]),
        ("train.learning_rate=.nan", ["'train.learning_rate'", "nan"]),
        ("train.ema_decay=1", ["'train.ema_decay'", "less than 1"]),
        ("train.optimiser=adam", ["'train.optimiser'", "'adamw' or 'muon'", "'adam'"]),
        ("train.betas=[0.9]", ["'train.betas.1'", "missing"]),
        ("train=5", ["'train'", "5"]),
        ("condition.labels=class", ["'condition.labels'", "valid list", "'class'"]),
        ("network.kind=resnet", ["'network'", "'resnet'", "'unet', 'transformer'"]),
        ("contract.resize_kernel=lanczos", ["'contract.resize_kernel'", "'bicubic'", "'lanczos'"]),
        ("contract.size_px.x=1", ["'contract.size_px'", "valid integer"]),
        ("contract.channels=4", ["'contract.channels'", "3", "4"]),
        ("train.betas=[0.9,1.0]", ["'train.betas.1'", "less than 1", "1.0"]),
        ("train.seed=-1", ["'train.seed'", "greater than or equal to 0", "-1"]),
        ("data.only=red", ["'data.only'", "valid dictionary", "'red'"]),
        ("data.path=null", ["'data.path'", "valid string", "None"]),
        ("kind=pipeline", ["'kind'", "'stage'", "'pipeline'"]),
        ("condition.labels[0]=x", ["inside a list"]),
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
    assert f"{tmp_path / 'mine.yaml'}: unknown key 'contract.size_pxx'; did you mean 'size_px'" in (
        message
    )
    assert message.endswith("(1 more)")


def test_a_missing_key_is_named(tmp_path):
    path = changed(tmp_path, ("  size_px: 16", "  channels: 3"))
    assert "key 'contract.size_px' is missing" in refused(path)


def test_faults_in_a_pipeline_s_stages_are_named_by_their_place(tmp_path):
    text = CHAIN.read_text().replace("recipe: tiny-16-to-32", "recpie: tiny-16-to-32")
    (tmp_path / "pipeline.yaml").write_text(text)
    with pytest.raises(RecipeError, match=r"unknown key 'stages\.1\.recpie'; .*'recipe'"):
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
        "contract.augmentation_range=[0,true]",
    ],
)
def test_a_boolean_is_no_number(override):
    key = override.partition("=")[0]
    assert f": key '{key}" in (said := refused(TINY, override))
    assert "input should be a number, got " in said


def test_a_whole_number_may_be_written_as_a_float():
    assert load_stage_recipe(TINY, ["train.images=1e6"]).train.images == 1_000_000


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


# ---- numbers that do not fit together -----------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "override", "words"),
    [
        ("tiny-16", "contract.size_px=18", ["18", "multiple of", "4"]),
        ("tiny-16", "diffusion.zero_terminal_snr=true diffusion.prediction=eps", ["eps"]),
        ("tiny-16", "sampling.steps=1001", ["1 to 1000", "1001"]),
        ("tiny-16", "sampling.sampler=dimm", ["unknown sampler 'dimm'", "'ddim'"]),
        ("tiny-16", "condition.label_drop=0", ["guidance", "label_drop"]),
        ("tiny-16-to-32", "contract.size_px=40", ["40", "16"]),
        ("tiny-16-to-32", "contract.augmentation_range=[0.5,0.2]", ["0.5", "0.2"]),
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
    with pytest.raises(CascadeError, match="'s0' gives size_px 32, 's1' takes low_res_px 16"):
        check_recipe(pipeline_of(tmp_path, upsampler, upsampler))
    level = upsampler + ", sampling: {augmentation_level: 0.9}"
    with pytest.raises(CascadeError, match=r"\[0\.0, 0\.5\].*0\.9"):
        check_recipe(pipeline_of(tmp_path, "recipe: tiny-16", level))
    with pytest.raises(RecipeError, match="no stage recipe 'tiny-61'"):
        check_recipe(pipeline_of(tmp_path, "recipe: tiny-61"))
