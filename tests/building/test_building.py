from __future__ import annotations

import shutil
from pathlib import Path

import pytest
import torch

from cascade.building.pipelines import chain_pipeline, find_stage
from cascade.building.stages import build_stage, build_vocabulary
from cascade.building.training import build_trainer
from cascade.conditioning.degradation import Degradation
from cascade.conditioning.labels import LabelVocabulary
from cascade.data.sources import FolderSource
from cascade.errors import CascadeError, DataError, OutputError, RecipeError, WeightsError
from cascade.pipeline import CascadePipeline
from cascade.recipe.finding import find_recipe, list_recipes, recipe_name
from cascade.recipe.reading import load_any_recipe, load_pipeline_recipe, load_stage_recipe
from cascade.recipe.sections import StageRecipe
from cascade.stage import Stage

CHAIN = find_recipe("tiny-32", "pipelines")
CLASSES = LabelVocabulary({"class": ["a", "b"]})


def stage_recipe(*overrides: str, name: str = "tiny-16-to-32") -> StageRecipe:
    return load_stage_recipe(find_recipe(name, "stages"), overrides)


def chained(trained, out: Path, *, recipe: Path = CHAIN, **options) -> CascadePipeline:
    runs = {"base": trained.base, "upsampler": trained.upsampler}
    return chain_pipeline(recipe, runs, out, **options)


# ---- stages -------------------------------------------------------------------------------------


def test_every_value_of_a_recipe_reaches_the_stage():
    stage = build_stage(
        stage_recipe(
            "contract.resize_kernel=area",
            "contract.augmentation_range=[0.1,0.4]",
            "condition.image_drop=0.25",
            "condition.label_drop=0.15",
            "condition.blur_probability=0.5",
            "condition.degradation.probability=0.75",
            "condition.degradation.resize=[0.5,0.9]",
            "network.channels=[8,16]",
            "diffusion.schedule=linear",
            "diffusion.train_steps=77",
            "diffusion.shift=2.0",
            "diffusion.prediction=x0",
            "diffusion.weighting=min_snr",
            "diffusion.min_snr_gamma=3",
            "sampling.steps=9",
            "sampling.augmentation_level=0.2",
            "sampling.threshold=dynamic",
        ),
        CLASSES,
    )
    contract, process, schedule = stage.contract, stage.process, stage.process.schedule
    assert (contract.size_px, contract.low_res_px, contract.resize_kernel) == (32, 16, "area")
    assert contract.augmentation_range == (0.1, 0.4)
    assert (stage.image_drop, stage.label_drop, stage.blur_probability) == (0.25, 0.15, 0.5)
    assert stage.degradation == Degradation(probability=0.75, resize=(0.5, 0.9))
    assert tuple(stage.network.backbone.config["block_out_channels"]) == (8, 16)
    assert (schedule.kind, schedule.train_steps, schedule.shift) == ("linear", 77, 2.0)
    assert (process.prediction, process.weighting, process.min_snr_gamma) == ("x0", "min_snr", 3)
    settings = stage.sampling
    assert (settings.steps, settings.augmentation_level, settings.threshold) == (9, 0.2, "dynamic")
    assert stage.labels is CLASSES


def test_a_stage_without_label_fields_needs_no_labels_in_the_data(pictures):
    recipe = stage_recipe("condition.labels=[]")
    assert build_vocabulary(recipe, FolderSource(pictures)) is None
    assert build_stage(recipe, None).labels is None
    named = build_vocabulary(stage_recipe(), FolderSource(pictures))
    assert named is not None
    assert named.fields == {"class": ["blue", "red", "red-dot"]}


def test_data_without_the_recipe_s_labels_is_refused(pictures, tmp_path):
    with pytest.raises(DataError, match="no image has a label 'style'"):
        build_trainer(
            stage_recipe(f"data.path={pictures}", "condition.labels=[style]"), tmp_path / "run"
        )
    assert not (tmp_path / "run").exists()


def test_the_seed_decides_the_first_weights(pictures, tmp_path):
    def first(name: str, seed: int) -> torch.Tensor:
        values = [f"data.path={pictures}", f"train.seed={seed}"]
        trainer = build_trainer(stage_recipe(*values), tmp_path / name)
        return torch.cat([p.detach().flatten() for p in trainer.state.stage.parameters()])

    assert first("a", 0).equal(first("b", 0))
    assert not first("a", 0).equal(first("c", 1))


# ---- chaining -----------------------------------------------------------------------------------


def test_a_trained_stage_is_found_in_its_run_or_as_itself(trained, tmp_path):
    assert find_stage(trained.base) == trained.base / "stage"
    assert find_stage(trained.base / "stage") == trained.base / "stage"
    with pytest.raises(WeightsError, match=r"no trained stage in .*; train it first"):
        find_stage(tmp_path)


def test_chaining_joins_the_trained_weights_and_keeps_the_recipe(trained, tmp_path):
    pipeline = chained(trained, tmp_path / "out")
    loaded = CascadePipeline.from_pretrained(tmp_path / "out")
    for name, run in (("base", trained.base), ("upsampler", trained.upsampler)):
        stage = Stage.from_pretrained(run / "stage")
        for key, tensor in stage.state_dict().items():
            assert loaded.stages[name].state_dict()[key].equal(tensor)
            assert pipeline.stages[name].state_dict()[key].equal(tensor)
        assert loaded.stages[name].sampling == stage.sampling
    assert (tmp_path / "out" / "pipeline.yaml").read_text() == CHAIN.read_text()
    assert load_any_recipe(str(tmp_path / "out")).name == "tiny-32"


def test_a_pipeline_s_own_sampling_is_saved_into_its_stages(trained, tmp_path):
    text = CHAIN.read_text().replace(
        "recipe: tiny-16\n", "recipe: tiny-16\n    sampling: {steps: 7, guidance: 2.5}\n"
    )
    (tmp_path / "pipeline.yaml").write_text(text)
    chained(trained, tmp_path / "out", recipe=tmp_path / "pipeline.yaml")
    sampling = CascadePipeline.from_pretrained(tmp_path / "out").stages["base"].sampling
    trained_with = Stage.from_pretrained(trained.base / "stage").sampling
    assert sampling == trained_with.changed(steps=7, guidance=2.5)


def test_runs_are_looked_for_by_their_recipe_s_name(trained, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    shutil.copytree(trained.base / "stage", "runs/tiny-16/stage")
    shutil.copytree(trained.upsampler / "stage", "runs/tiny-16-to-32/stage")
    chain_pipeline(CHAIN, {}, Path("out"))
    assert (tmp_path / "out" / "model_index.json").is_file()


@pytest.mark.parametrize("dtype", ["bf16", "fp16"])
def test_a_dtype_is_written(trained, tmp_path, dtype):
    chained(trained, tmp_path / "out", dtype=dtype)
    stages = CascadePipeline.from_pretrained(tmp_path / "out").stages
    kind = {"bf16": torch.bfloat16, "fp16": torch.float16}[dtype]
    plain = CascadePipeline.from_pretrained(trained.pipeline).stages
    for name, parameter in stages.named_parameters():
        assert parameter.equal(plain.get_parameter(name).to(kind).float())


def test_a_card_is_taken_from_a_file(trained, tmp_path):
    (tmp_path / "card.md").write_text("# Größe\n", encoding="utf-8")
    chained(trained, tmp_path / "out", card=tmp_path / "card.md")
    assert (tmp_path / "out" / "README.md").read_text(encoding="utf-8") == "# Größe\n"


def test_what_cannot_be_chained_is_one_clear_line_and_leaves_nothing(trained, tmp_path):
    runs = {"base": trained.base, "upsampler": trained.upsampler}
    (tmp_path / "photos").mkdir()
    (tmp_path / "photos" / "1.jpg").write_text("x")
    cases = [
        (runs | {"bsae": trained.base}, {}, RecipeError, "no stage 'bsae'; did you mean 'base'"),
        (runs | {"base": tmp_path / "no"}, {}, WeightsError, "no trained stage in"),
        (runs, {"dtype": "fp8"}, RecipeError, "fp32, bf16, fp16, got 'fp8'"),
        (runs, {"card": tmp_path / "no.md"}, RecipeError, r"no\.md: cannot be read"),
        (runs | {"base": trained.upsampler}, {}, CascadeError, "gives size_px 32, .* 16"),
        (runs, {"out": tmp_path / "photos"}, OutputError, r"holds other things, such as 1\.jpg"),
    ]
    for chosen, options, kind, words in cases:
        arguments = {"out": tmp_path / "out"} | options
        with pytest.raises(kind, match=words) as error:
            chain_pipeline(CHAIN, chosen, **arguments)
        assert "\n" not in str(error.value)
    assert [path.name for path in tmp_path.iterdir()] == ["photos"]


# ---- loading ------------------------------------------------------------------------------------


def test_a_pipeline_is_loaded_by_its_folder(trained):
    assert CascadePipeline.from_pretrained(str(trained.pipeline)).stages.names == [
        "base",
        "upsampler",
    ]


@pytest.mark.parametrize("path", list_recipes("pipelines"), ids=recipe_name)
def test_a_bundled_pipeline_is_loaded_by_name_or_says_that_it_has_no_weights(path):
    name = recipe_name(path)
    if (path.parent / "model_index.json").is_file():
        recipe = load_pipeline_recipe(path)
        assert CascadePipeline.from_pretrained(name).stages.names == [
            stage.name for stage in recipe.stages
        ]
    else:
        with pytest.raises(WeightsError, match=f"'{name}' has no weights yet: train its stages"):
            CascadePipeline.from_pretrained(name)


@pytest.mark.parametrize("name", ["tiny-23", "pipelines/tiny-23", "./tiny-23", "/tiny-23"])
def test_an_unknown_pipeline_offers_the_nearest_and_is_no_id_of_the_hub(name):
    with pytest.raises(WeightsError, match=f"no pipeline '{name}'.*'tiny-32'"):
        CascadePipeline.from_pretrained(name)


def test_a_file_is_no_pipeline_but_its_recipe_leads_there(trained, tmp_path):
    (tmp_path / "photo.png").write_bytes(b"")
    with pytest.raises(WeightsError, match=r"photo\.png is a file; give the folder"):
        CascadePipeline.from_pretrained(tmp_path / "photo.png")
    loaded = CascadePipeline.from_pretrained(trained.pipeline / "pipeline.yaml")
    assert loaded.stages.names == ["base", "upsampler"]


def test_an_empty_folder_or_file_does_not_hide_a_bundled_pipeline(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "photo-x4").mkdir()
    (tmp_path / "photo-x4-blind").write_bytes(b"")
    assert CascadePipeline.from_pretrained("photo-x4").stages.names == ["upsampler"]
    assert CascadePipeline.from_pretrained("photo-x4-blind").stages.names == ["upsampler"]


def test_a_damaged_pipeline_is_not_replaced_by_the_bundled_one_of_its_name(
    trained, tmp_path, monkeypatch
):
    monkeypatch.chdir(tmp_path)
    shutil.copytree(trained.pipeline / "stages", tmp_path / "photo-x4" / "stages")
    with pytest.raises(WeightsError, match=r"photo-x4/model_index\.json is missing"):
        CascadePipeline.from_pretrained("photo-x4")


def test_a_damaged_folder_is_named(trained, tmp_path):
    shutil.copytree(trained.pipeline, tmp_path / "a")
    shutil.rmtree(tmp_path / "a" / "stages" / "base")
    with pytest.raises(WeightsError, match=r"no stage at .*base"):
        CascadePipeline.from_pretrained(str(tmp_path / "a"))
