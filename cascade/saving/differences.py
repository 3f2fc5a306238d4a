"""Compares nested settings, such as those of two recipes, key by key."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple


class Difference(NamedTuple):
    """One key whose values differ; as text, `train.seed=0 (now 1)`.

    Attributes:
        key: path of the key, with dots.
        before: its earlier value; None if the key was missing.
        now: its current value; None if the key is missing.
    """

    key: str
    before: Any
    now: Any

    def __str__(self) -> str:
        return f"{self.key}={as_typed(self.before)} (now {as_typed(self.now)})"

    def as_change(self) -> str:
        """The difference from the other side: `train.seed=1, which was 0`."""
        return f"{self.key}={as_typed(self.now)}, which was {as_typed(self.before)}"


def differences(before: Mapping[str, Any], now: Mapping[str, Any]) -> list[Difference]:
    """List the keys whose values differ, in alphabetical order.

    A missing key counts as None. Tuples count as lists, since JSON stores them as lists.

    Args:
        before: nested plain values.
        now: nested plain values.
    """
    old, new = flat(before), flat(now)
    pairs = [(key, old.get(key), new.get(key)) for key in sorted(old.keys() | new.keys())]
    return [Difference(*pair) for pair in pairs if _as_list(pair[1]) != _as_list(pair[2])]


def as_typed(value: Any) -> str:
    """A value as people write it in a recipe or after `key=`, such as `[x, y]`, `true`, `null`."""
    if isinstance(value, list | tuple):
        return f"[{', '.join(map(as_typed, value))}]"
    return {None: "null", True: "true", False: "false"}[value] if _is_word(value) else str(value)


def flat(values: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Flatten nested values.

    Args:
        values: nested plain values.
        prefix: text in front of every key.

    Returns:
        The innermost values, by the path of their keys with dots.
    """
    result: dict[str, Any] = {}
    for key, value in values.items():
        if isinstance(value, Mapping):
            result |= flat(value, f"{prefix}{key}.")
        else:
            result[f"{prefix}{key}"] = value
    return result


def _is_word(value: Any) -> bool:
    return value is None or isinstance(value, bool)


def _as_list(value: Any) -> Any:
    return [_as_list(each) for each in value] if isinstance(value, list | tuple) else value
