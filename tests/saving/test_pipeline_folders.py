"""Where saved pipelines are found: by folder, by name, and what is refused."""

from __future__ import annotations

import shutil

import pytest

from cascade.errors import WeightsError
from cascade.pipeline import CascadePipeline
from cascade.recipe.finding import list_recipes, recipe_name
from cascade.recipe.reading import load_pipeline_recipe


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
    (tmp_path / "photo-x4-restore").write_bytes(b"")
    assert CascadePipeline.from_pretrained("photo-x4").stages.names == ["upsampler"]
    assert CascadePipeline.from_pretrained("photo-x4-restore").stages.names == ["upsampler"]


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
