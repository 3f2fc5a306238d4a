"""Describes the keys of recipes, from the sections and classes that declare them.

Names, values, limits and defaults come from the types; the meanings from the attributes in the
docstrings.
"""

from __future__ import annotations

import inspect
import json
import re
from collections.abc import Iterator, Mapping
from dataclasses import MISSING, dataclass, fields, is_dataclass
from typing import Any, get_args

from pydantic import TypeAdapter

from cascade.conditioning.kinds import CONDITIONS
from cascade.errors import RecipeError, nearest
from cascade.recipe.section import Section
from cascade.recipe.sections import PipelineRecipe, StageRecipe, sampling_section
from cascade.sampling.samplers.diffusers_sampler import DiffusersOptions
from cascade.sampling.samplers.table import SAMPLERS, sampler_names
from cascade.sampling.settings import SamplingSettings

REFERENCE = re.compile(r" \(see `[\w.]+`\)|[;,]? see `[\w.]+`")  # recipes name no classes
ATTRIBUTES = re.compile(r"^Attributes:\n((?: {4}.*\n?|\n)+)", flags=re.MULTILINE)
LIMITS = {
    "exclusiveMinimum": "above",
    "gt": "above",
    "minimum": "at least",
    "exclusiveMaximum": "below",
    "maximum": "at most",
}
TYPES = {"integer": "whole number", "number": "number", "string": "text", "object": "mapping"}
PLURAL = re.compile(r"\b(number|text|section)\b")
SECTION = "section"
REQUIRED = "required"


@dataclass(frozen=True)
class Key:
    """A key of a recipe.

    Attributes:
        name: the key in its section.
        values: what it may hold, in words.
        default: its default as in a recipe, `required` if there is none, or empty for a section
            whose keys have defaults.
        meaning: what it does.
    """

    name: str
    values: str
    default: str
    meaning: str


@dataclass(frozen=True)
class KeyGroup:
    """The keys of a section of a recipe.

    Attributes:
        place: the keys that lead to the section, such as `condition.labels`; `stage` and `pipeline`
            for the keys outside of all sections.
        choice: value of a key for which the section has these keys, such as `kind: unet`; empty if
            it always has them.
        about: what the section describes.
        keys: its keys.
    """

    place: str
    choice: str
    about: str
    keys: tuple[Key, ...]


def find_key_groups(place: str | None = None) -> list[KeyGroup]:
    """The keys of the recipes of stages and pipelines, in the order of the sections.

    Args:
        place: a section, such as `train` or `condition.text`; None for all.

    Raises:
        RecipeError: for an unknown section; the message offers the nearest.
    """
    groups = list(_all_groups())
    if place is None:
        return groups
    matches = [each for each in groups if f"{each.place}.".startswith(f"{place}.")]
    if not matches:
        places = list(dict.fromkeys(each.place for each in groups))
        raise RecipeError(f"unknown section {place!r}: {nearest(place, places)}")
    return matches


def _all_groups() -> Iterator[KeyGroup]:
    yield _group("stage", StageRecipe)
    for name, field in StageRecipe.model_fields.items():
        if name == "condition":
            yield from _condition_groups()
        elif name == "sampling":
            yield from _sampling_groups()
        else:
            yield from _groups_in(name, field.annotation)
    yield _group("pipeline", PipelineRecipe)
    yield from _groups_in("pipeline.stages", PipelineRecipe.model_fields["stages"].annotation)


def _condition_groups() -> Iterator[KeyGroup]:
    """The conditions that a recipe can have, and the keys of each."""
    kinds = {name: kind for name, kind in CONDITIONS.items() if kind.recipe is not None}
    keys = [Key(name, SECTION, "`null`", _summary(kind)) for name, kind in kinds.items()]
    yield KeyGroup("condition", "", "One key per condition.", tuple(keys))
    for name, kind in kinds.items():
        section: Any = kind.recipe
        place = f"condition.{name}"
        meanings = {**_attributes(kind), **_attributes(section)}
        yield KeyGroup(place, "", _summary(kind), _keys(_schema(section), meanings))
        for key, hint in _hints(section).items():
            yield from _groups_in(f"{place}.{key}", hint)


def _sampling_groups() -> Iterator[KeyGroup]:
    """The sampling settings, and the options of each sampler."""
    schema = sampling_section().model_json_schema()
    schema["properties"]["sampler"] = {"enum": sampler_names()}
    owners: dict[str, type] = {"": SamplingSettings}
    owners |= {f"sampler: {name}": kind.Options for name, kind in SAMPLERS.items()}
    owners["sampler: one of diffusers"] = DiffusersOptions
    for choice, kind in owners.items():
        properties = {
            name: {**schema["properties"][name], "default": default}
            for name, default in vars(kind()).items()
            if name != "options"
        }
        if properties:
            keys = _keys({"properties": properties}, _attributes(kind))
            yield KeyGroup("sampling", choice, _summary(kind), keys)


def _groups_in(place: str, hint: Any) -> Iterator[KeyGroup]:
    """The groups of the sections that a type hint allows, and of those inside them."""
    if not (isinstance(hint, type) and (issubclass(hint, Section) or is_dataclass(hint))):
        for part in get_args(hint):
            yield from _groups_in(place, part)
        return
    hints = _hints(hint)
    kinds = get_args(hints.get("kind")) if place == "network" else ()
    yield _group(place, hint, f"kind: {kinds[0]}" if kinds else "")
    for name, inner in hints.items():
        yield from _groups_in(f"{place}.{name}", inner)


def _group(place: str, kind: type, choice: str = "") -> KeyGroup:
    """The group of a section, or of a dataclass of values."""
    return KeyGroup(place, choice, _summary(kind), _keys(_schema(kind), _attributes(kind)))


def _keys(schema: Mapping[str, Any], meanings: Mapping[str, str]) -> tuple[Key, ...]:
    """The keys of a JSON schema.

    Args:
        meanings: what each key does, by its name.
    """
    keys = []
    for name, value in schema["properties"].items():
        values, default = _values(value), _default(value)
        if name in schema.get("required", ()):
            default = REQUIRED
        keys.append(Key(name, values, default, meanings.get(name, "")))
    return tuple(keys)


def _default(schema: Mapping[str, Any]) -> str:
    """The default of a JSON schema, as in a recipe; empty for a section whose keys have some."""
    if "default" not in schema or ("$ref" in schema and schema["default"] is not None):
        return ""
    default = schema["default"]
    is_plain = isinstance(default, str) and default
    return f"`{default if is_plain else json.dumps(default)}`"


def _values(schema: Mapping[str, Any]) -> str:
    """What a JSON schema allows, in words; None is not named."""
    options = schema.get("anyOf", schema.get("oneOf"))
    if options is not None:
        return " or ".join(dict.fromkeys(filter(None, map(_values, options))))
    if "enum" in schema or "const" in schema:
        return ", ".join(f"`{each}`" for each in schema.get("enum", [schema.get("const")]))
    if "prefixItems" in schema:  # always a pair
        return f"two {_plural(schema['prefixItems'][0])}"
    if schema.get("type") == "array":
        return f"list of {_plural(schema['items'])}"
    if schema.get("type") == "boolean":
        return "`true`, `false`"
    if "type" in schema:
        limits = [f"{word} {schema[name]:,}" for name, word in LIMITS.items() if name in schema]
        return f"{TYPES.get(schema['type'], '')} {', '.join(limits)}".strip()
    return SECTION


def _plural(schema: Mapping[str, Any]) -> str:
    """What the items of a list may be."""
    text = _values(schema)
    return f"{text} each" if text.startswith("two") else PLURAL.sub(r"\1s", text, count=1)


def _schema(kind: type) -> dict[str, Any]:
    """The JSON schema of a section, or of a dataclass of values with all its defaults."""
    schema = TypeAdapter(kind).json_schema()
    for each in fields(kind) if is_dataclass(kind) else ():
        if each.default_factory is not MISSING and not is_dataclass(each.default_factory):
            schema["properties"][each.name]["default"] = each.default_factory()
    return schema


def _hints(kind: type) -> dict[str, Any]:
    return inspect.get_annotations(kind, eval_str=True)


def _summary(kind: type) -> str:
    """The first paragraph of a docstring."""
    text = " ".join((inspect.getdoc(kind) or "").split("\n\n")[0].split())
    return REFERENCE.sub("", text)


def _attributes(kind: type) -> dict[str, str]:
    """What a class and its bases say about each attribute, in the words of a recipe."""
    blocks = [ATTRIBUTES.search(inspect.cleandoc(each.__doc__ or "")) for each in kind.__mro__]
    block = "\n".join(each[1] for each in reversed(blocks) if each)
    parts = re.split(r"^ {4}(\w+): ", block, flags=re.MULTILINE)[1:]
    texts = [REFERENCE.sub("", " ".join(each.split())) for each in parts[1::2]]
    meanings = [text[0].upper() + re.sub(r"\bNone\b", "`null`", text[1:]) for text in texts]
    return dict(zip(parts[::2], meanings, strict=True))
