"""Section: a part of a recipe, and how a section is checked that is made when a recipe is read."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import is_dataclass
from typing import Any, get_args, get_type_hints

from pydantic import BaseModel, BeforeValidator, ConfigDict, ValidationError
from pydantic_core import PydanticCustomError


class Section(BaseModel):
    """A part of a recipe; unknown keys are errors."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=False, allow_inf_nan=False)


def checked_by(section: Callable[[], type[Section]]) -> Any:
    """Check a value by a section that is made when a recipe is read, so that it knows all kinds.

    Raises:
        PydanticCustomError: with type `nested` and the faults of the section.
    """

    def check(value: Any) -> Section:
        model, value = section(), {} if value is None else value
        faults: list[Any] = list(boolean_faults(value, model))
        try:
            if not faults:
                return model.model_validate(value)
        except ValidationError as error:
            faults = error.errors()
        raise PydanticCustomError("nested", "does not fit", {"faults": faults, "model": model})

    return BeforeValidator(check)


def boolean_faults(
    value: Any, hint: Any, place: tuple[int | str, ...] = ()
) -> Iterator[dict[str, Any]]:
    """Faults for booleans where a number is expected; pydantic would read them as 0 and 1."""
    types = _types_in(hint)
    if isinstance(value, bool) and {int, float} & types and bool not in types:
        message = "input should be a number"
        yield {"type": "number", "loc": place, "msg": message, "input": value}
    elif isinstance(value, Mapping):
        for hints in map(_keys_of, types):
            for name in value.keys() & hints.keys():
                yield from boolean_faults(value[name], hints[name], (*place, name))
    elif isinstance(value, list | tuple):
        for number, each in enumerate(value):
            yield from boolean_faults(each, hint, (*place, number))


def _types_in(hint: Any) -> set[Any]:
    """All types that a type hint contains, at any depth."""
    return {hint}.union(*map(_types_in, get_args(hint)))


def _keys_of(kind: Any) -> dict[str, Any]:
    """The type hints of a section or a dataclass by key; none for other types."""
    if isinstance(kind, type) and issubclass(kind, Section):
        return {name: field.annotation for name, field in kind.model_fields.items()}
    return get_type_hints(kind) if is_dataclass(kind) else {}
