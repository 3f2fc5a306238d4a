"""Recipes by name, file and folder."""

from __future__ import annotations

from pathlib import Path

import pytest

from cascade.errors import RecipeError
from cascade.recipe.finding import (
    find_any_recipe,
    find_recipe,
    list_recipes,
    recipe_name,
    recipes_root,
)

KINDS = ("stages", "pipelines")
TINY = find_recipe("tiny-16", "stages")
CHAIN = find_recipe("tiny-32", "pipelines")


def test_the_recipes_of_first_steps_and_of_bundled_weights_are_there():
    names = {kind: [recipe_name(path) for path in list_recipes(kind)] for kind in KINDS}
    photos = {"photo-x4", "photo-x4-restore", "photo-colour"}
    first_steps = {"tiny-16", "tiny-16-to-32", "emoji-64", "emoji-64-to-256"}
    assert first_steps | photos <= set(names["stages"])
    assert {"tiny-32", "emoji-1024"} | photos <= set(names["pipelines"])
    assert all(len(each) == len(set(each)) for each in names.values())


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
