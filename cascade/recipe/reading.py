"""Reads recipes: OmegaConf reads the YAML and merges `key=value` overrides, pydantic checks them.

A recipe holds values only: no import paths, nothing that runs.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from dataclasses import is_dataclass
from pathlib import Path
from typing import Annotated, Any, TypeVar, Union, get_args, get_origin, get_type_hints

from omegaconf import OmegaConf
from omegaconf.errors import OmegaConfBaseException
from pydantic import ValidationError
from yaml import YAMLError

from cascade.errors import RecipeError, nearest
from cascade.recipe.finding import find_any_recipe
from cascade.recipe.sections import (
    PipelineRecipe,
    Section,
    StageRecipe,
    condition_section,
    sampling_section,
)
from cascade.recipe.synonyms import LIKENESS, RECIPE_KEYS, Synonym, suggest_key
from cascade.recipe.yaml_files import one_line, read_yaml

logger = logging.getLogger(__name__)
Recipe = TypeVar("Recipe", bound=Section)
NETWORK_KINDS = ("unet", "transformer", "mlp", "autoencoder_kl", "autoencoder_tiny")
ALTERNATIVES = (*NETWORK_KINDS, "int", "float", "str", "bool", "pair", "pairs")
UNKNOWN_KEY = ("extra_forbidden", "unexpected_keyword_argument")


def load_stage_recipe(
    path: Path, overrides: Sequence[str] = (), changes: Mapping[str, Any] | None = None
) -> StageRecipe:
    """Read and check the recipe of a stage.

    Args:
        path: the YAML file.
        overrides: changes as `key=value`, such as `train.batch_size=32`.
        changes: nested values that change the file's, before `overrides` do.

    Raises:
        RecipeError: naming the file, the key, the expected value and the nearest valid key.
    """
    return _load(path, overrides, StageRecipe, changes)


def load_pipeline_recipe(path: Path, overrides: Sequence[str] = ()) -> PipelineRecipe:
    """Read and check the recipe of a pipeline; see `load_stage_recipe`."""
    return _load(path, overrides, PipelineRecipe)


def load_any_recipe(name: str, overrides: Sequence[str] = ()) -> StageRecipe | PipelineRecipe:
    """Find, read and check a recipe of either kind.

    Raises:
        RecipeError: if the recipe is missing, or naming the key that does not fit.
    """
    path = find_any_recipe(name)
    try:
        kind = read_yaml(path).get("kind")
    except OmegaConfBaseException as error:  # a reference such as ${x}
        raise RecipeError(f"{path}: key 'kind': {one_line(error)}.") from error
    if kind not in ("stage", "pipeline"):
        raise RecipeError(f"{path}: key 'kind' must be 'stage' or 'pipeline', got {kind!r}.")
    return _load(path, overrides, StageRecipe if kind == "stage" else PipelineRecipe)


def dump_recipe(recipe: StageRecipe | PipelineRecipe) -> str:
    """The whole recipe, defaults included, as YAML."""
    return dump_values(recipe.model_dump(mode="json"))


def dump_values(values: Mapping[str, Any]) -> str:
    """The values of a recipe as YAML."""
    return OmegaConf.to_yaml(OmegaConf.create(dict(values)))


def recipe_key_of(word: str) -> Synonym | None:
    """Find the key of a stage recipe that a word means, ours or one of other tools.

    Args:
        word: such as `learning_rate`, `train.learning-rate` or `lr`.
    """
    *section, name = word.replace("-", "_").lower().split(".")
    synonym = None if section else RECIPE_KEYS.get(name)
    keys = [key for key in _all_keys().get(name, []) if key.startswith(".".join(section))]
    return synonym or next(map(Synonym, keys), None)


def _load(
    path: Path,
    overrides: Sequence[str],
    model: type[Recipe],
    changes: Mapping[str, Any] | None = None,
) -> Recipe:
    config = OmegaConf.merge(read_yaml(path), changes or {})
    for override in overrides:
        if "=" not in override or override.startswith("="):
            raise RecipeError(
                f"override {override!r} must be key=value, such as train.images=1000."
            )
    try:
        merged = OmegaConf.merge(config, OmegaConf.from_dotlist(list(overrides)))
        _leave_out_validation(merged, overrides)
        values = OmegaConf.to_container(merged, resolve=True)
        return model.model_validate(values)
    except TypeError as error:
        raise RecipeError(
            f"{path}: an override names a place inside a list; give the whole list, such as "
            "network.channels=[64,128]."
        ) from error
    except (OmegaConfBaseException, YAMLError, ValueError) as error:
        if isinstance(error, ValidationError):
            raise RecipeError(_explain(path, error, model)) from error
        raise RecipeError(f"{path}: {one_line(error)}.") from error


def _leave_out_validation(config: Any, overrides: Sequence[str]) -> None:
    """Drop a recipe's validation images if another path of the training images is given alone."""
    keys = {each.partition("=")[0] for each in overrides}
    held_out = OmegaConf.select(config, "data.validation", default=None)
    if isinstance(held_out, str) and "data.path" in keys and "data.validation" not in keys:
        config.data.validation = None
        logger.info(
            "data.validation of the recipe is left out, because it belongs to another data.path; "
            "name your own by data.validation."
        )


def _explain(path: Path, error: ValidationError, model: type[Section]) -> str:
    """Describe the most telling fault in one line, and count the others."""
    faults = [fault for each in error.errors() for fault in _unfolded(each, model)]
    # A recipe of the other kind lacks keys, and so does one in which a key is misspelt.
    first = min(faults, key=lambda f: (f["loc"] != ("kind",), f["type"] not in UNKNOWN_KEY))
    others = len({_keys(fault) for fault in faults}) - 1
    more = f" ({others} more)" if others else ""
    return f"{path}: {_text(first, model)}{more}"


def _text(fault: Mapping[str, Any], model: type[Section]) -> str:
    """Describe a fault: its key, what was expected and what came."""
    location, kind, value = _keys(fault), fault["type"], fault["input"]
    key = ".".join(location)
    if kind in UNKNOWN_KEY:
        valid_keys = _known_keys(fault["model"], fault["inner"][:-1])
        suggestion = _suggestion(location, valid_keys, model)
        if suggestion is None:
            section = key.removesuffix(location[-1])
            suggestion = nearest(location[-1], valid_keys, likeness=LIKENESS, section=section)
        return f"unknown key {key!r}; {suggestion}"
    if kind == "missing" and location[-1].isdigit():
        return f"key {'.'.join(location[:-1])!r}: has too few values, got {value!r}"
    if kind == "missing":
        return f"key {key!r} is missing"
    if kind == "value_error":  # from our own checks, whose messages quote the value
        return f"key {key!r}: {str(fault['ctx']['error']).removesuffix('.')}"
    if kind in ("model_type", "model_attributes_type"):
        keys = ", ".join(dict.fromkeys(_known_keys(fault["model"], fault["inner"])))
        return f"key {key!r} is a section, whose keys are {keys}; got {value!r}"
    if kind == "union_tag_invalid":
        names = fault["ctx"]["expected_tags"]
        return f"key '{key}.kind': input should be one of {names}, got {fault['ctx']['tag']!r}"
    message = fault["msg"].lower().replace("tuple", "list")
    return f"key {key!r}: {message}, got {value!r}"


def _suggestion(
    location: tuple[str, ...], valid_keys: list[str], model: type[Section]
) -> str | None:
    """Suggest a key of another section, or in place of a word of other tools."""
    if model is StageRecipe:
        return suggest_key(location, valid_keys, _all_keys(), RECIPE_KEYS)
    sampling = {word: s for word, s in RECIPE_KEYS.items() if s.name.startswith("sampling.")}
    return suggest_key(location, valid_keys, {}, sampling if "sampling" in location else {})


def _all_keys() -> dict[str, list[str]]:
    """The full names of the keys in all sections of a stage recipe, by their last part."""
    keys: dict[str, list[str]] = {}
    for section, annotation in _fields(StageRecipe).items():
        made = {"condition": condition_section, "sampling": sampling_section}.get(section)
        for option in [made()] if made else _section_options(annotation):
            for name in _fields(option):
                full = f"{section}.{name}"
                keys[name] = [*keys.get(name, []), *([] if full in keys.get(name, []) else [full])]
    return keys


def _keys(fault: Mapping[str, Any]) -> tuple[str, ...]:
    """The keys that lead to a fault, without the types that pydantic tried in between."""
    location = fault["loc"]
    unknown = location[-1:] if fault["type"] in UNKNOWN_KEY else ()  # may look like such a type
    parts = [str(each) for each in location[: len(location) - len(unknown)]]
    keys = (part for part in parts if part not in ALTERNATIVES and not set("[(") & set(part))
    return (*keys, *map(str, unknown))


def _unfolded(fault: Any, model: type[Section]) -> list[dict[str, Any]]:
    """The faults inside a section that was checked on its own, with their places in the recipe."""
    if fault["type"] != "nested":
        return [{**fault, "model": model, "inner": fault["loc"]}]
    inner = fault["ctx"]
    faults = [deeper for each in inner["faults"] for deeper in _unfolded(each, inner["model"])]
    return [{**each, "loc": (*fault["loc"], *each["loc"])} for each in faults]


def _known_keys(model: type[Section], location: Sequence[int | str]) -> list[str]:
    """Names of the keys of the section at a location of a pydantic error."""
    current: Any = model
    for part in location:
        options = _section_options(current)
        if isinstance(part, int):
            continue
        by_kind = {_kind_of(option): option for option in options}
        if part in by_kind:
            current = by_kind[part]
            continue
        for option in options:
            if part in _fields(option):
                current = _fields(option)[part]
    return [name for option in _section_options(current) for name in _fields(option)]


def _section_options(annotation: Any) -> list[Any]:
    """The sections, or dataclasses of values, that an annotation allows."""
    if isinstance(annotation, type) and (
        issubclass(annotation, Section) or is_dataclass(annotation)
    ):
        return [annotation]
    if get_origin(annotation) in (Annotated, Union, list) or get_args(annotation):
        return [option for part in get_args(annotation) for option in _section_options(part)]
    return []


def _fields(option: Any) -> dict[str, Any]:
    """The annotations of the keys of a section or a dataclass."""
    if is_dataclass(option):
        return get_type_hints(option)
    return {name: field.annotation for name, field in option.model_fields.items()}


def _kind_of(option: Any) -> str | None:
    kind = _fields(option).get("kind")
    return get_args(kind)[0] if kind is not None else None
