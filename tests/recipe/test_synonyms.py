"""Unknown keys are answered with our keys, in place of words of other tools."""

from __future__ import annotations

import pytest

from cascade.errors import RecipeError
from cascade.recipe.finding import find_recipe
from cascade.recipe.reading import load_pipeline_recipe, load_stage_recipe
from cascade.recipe.sections import StageRecipe, condition_section, sampling_section
from cascade.recipe.synonyms import RECIPE_KEYS

STEPS = "'train.images', which counts images (steps times train.batch_size)?"


NETWORKS = ("tiny-16", "tiny-16-to-32")  # a transformer and a U-Net


def keys() -> set[str]:
    """The full names of all sections and their keys."""
    recipe = load_stage_recipe(find_recipe("tiny-16", "stages"))
    made = {"condition": condition_section(), "sampling": sampling_section()}
    kinds = {name: load_stage_recipe(find_recipe(name, "stages")).network for name in NETWORKS}
    sections = [(n, made.get(n, type(getattr(recipe, n)))) for n in StageRecipe.model_fields]
    sections += [("network", type(network)) for network in kinds.values()]
    names = {name for name, _ in sections} | {"condition.labels.drop"}
    return names | {f"{n}.{k}" for n, s in sections for k in getattr(s, "model_fields", {})}


def test_every_synonym_names_a_key_and_is_none_itself():
    known = keys()
    assert {synonym.name for synonym in RECIPE_KEYS.values()} <= known
    for word, synonym in RECIPE_KEYS.items():
        assert f"{synonym.name.split('.')[0]}.{word}" not in known


@pytest.mark.parametrize(
    ("override", "words"),
    [
        ("train.lr=1", "unknown key 'train.lr'; did you mean 'train.learning_rate'?"),
        ("lr=1", "unknown key 'lr'; did you mean 'train.learning_rate'?"),
        ("train.max_steps=5", STEPS),
        ("train.Max-Steps=5", STEPS),
        ("epochs=3", "'train.images', which counts images (epochs times the number of images)?"),
        ("train.batch=4", "did you mean 'train.batch_size'?"),
        ("train.ema=0.9", "did you mean 'train.ema_decay'?"),
        ("model.width=3", "unknown key 'model'; did you mean 'network'?"),
        ("sampling.cfg=2", "did you mean 'sampling.guidance'?"),
        ("sampling.num_steps=3", "did you mean 'sampling.steps'?"),
        ("data.batch_size=4", "unknown key 'data.batch_size'; did you mean 'train.batch_size'?"),
        ("learning_rate=1", "did you mean 'train.learning_rate'?"),
        ("schedule=cosine", "did you mean 'diffusion.schedule' or 'train.schedule'?"),
        ("train.lerning_rate=1", "did you mean 'train.learning_rate' or 'train.muon_"),
        ("data.size=2", "unknown key 'data.size'; did you mean 'space.size_px'?"),
        ("data.resolution=2", "did you mean 'space.size_px'?"),
        ("train.size=2", "did you mean 'space.size_px'?"),
        ("network.dropuot=2", "unknown key 'network.dropuot'; known: kind, "),
    ],
)
def test_a_word_of_other_tools_or_of_another_section_is_answered(override, words):
    with pytest.raises(RecipeError) as error:
        load_stage_recipe(find_recipe("tiny-16", "stages"), [override])
    assert words in str(error.value)


def test_a_pipeline_recipe_is_answered_with_its_own_keys_alone():
    with pytest.raises(RecipeError, match="unknown key 'train'; known: kind, name"):
        load_pipeline_recipe(find_recipe("tiny-32", "pipelines"), ["train.lr=1"])
