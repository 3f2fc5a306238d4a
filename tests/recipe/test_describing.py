"""The descriptions of recipe keys: all keys are there, with what the classes declare."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import pytest

from cascade.errors import RecipeError
from cascade.recipe.describing import Key, find_key_groups
from cascade.recipe.finding import list_recipes
from cascade.recipe.reading import load_stage_recipe
from cascade.sampling.samplers.table import SAMPLERS
from cascade.sampling.settings import setting_names


def key_of(place: str, name: str, choice: str = "") -> Key:
    """The one key with a name in a section."""
    groups = [
        each for each in find_key_groups(place) if (each.place, each.choice) == (place, choice)
    ]
    (key,) = [key for group in groups for key in group.keys if key.name == name]
    return key


def keys_in(values: Mapping[str, Any], place: str = "") -> Iterator[str]:
    """All keys of a recipe, such as `train.images`."""
    for name, value in values.items():
        yield f"{place}{name}"
        if isinstance(value, Mapping) and name not in ("only", "config"):
            yield from keys_in(value, f"{place}{name}.")


def test_every_key_of_the_bundled_recipes_is_listed():
    places = {
        (each.place.replace("stage", ""), key.name)
        for each in find_key_groups()
        for key in each.keys
    }
    listed = {f"{place}.{name}".lstrip(".") for place, name in places}
    for path in list_recipes("stages"):
        assert set(keys_in(load_stage_recipe(path).model_dump(mode="json"))) <= listed


def test_every_sampling_setting_and_option_is_listed():
    listed = {key.name for group in find_key_groups("sampling") for key in group.keys}
    assert listed == set(setting_names(SAMPLERS)) - {"options"}


def test_values_limits_and_defaults_are_those_of_the_classes():
    assert key_of("train", "batch_size").values == "whole number above 0"
    assert key_of("train", "batch_size").default == "`64`"
    assert key_of("diffusion", "prediction").values == "`eps`, `x0`, `v`"
    assert key_of("space", "size_px").default == "required"
    assert key_of("space", "range").values == "two numbers or list of two numbers each"
    assert key_of("condition.text", "fields").default == '`["caption"]`'
    assert key_of("condition.low_resolution", "degradation").values == "section"
    assert key_of("network", "depth", "kind: mlp").default == "`6`"
    assert key_of("sampling", "corrections", "sampler: langevin").default == "`5`"
    assert key_of("sampling", "corrections", "sampler: predictor-corrector").default == "`1`"


def test_a_condition_is_described_by_its_class_and_by_its_section():
    assert "None" not in key_of("condition.paired_image", "channels").meaning
    assert "number of its bands" in key_of("condition.paired_image", "channels").meaning.lower()
    assert "class names come from the data" in key_of("condition.labels", "fields").meaning


def test_a_section_comes_with_those_inside_it():
    places = [each.place for each in find_key_groups("train")]
    assert places == ["train", "train.lora"]


def test_an_unknown_section_is_an_error_that_offers_the_nearest():
    with pytest.raises(RecipeError, match="unknown section 'trian': did you mean 'train'"):
        find_key_groups("trian")
