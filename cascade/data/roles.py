"""The names of pairs that lie together: `NAME.low.*` is the input, `NAME.high.*` the result."""

from __future__ import annotations

from typing import Literal, get_args

from cascade.imaging.rasters.reading import suffix_of

Role = Literal["low", "high"]
ROLES: tuple[Role, ...] = get_args(Role)
NEITHER = "is neither NAME.low nor NAME.high, so it belongs to no pair."


def role_of(name: str) -> Role | None:
    """Which image of a pair a file is by its name, such as `a.low.png`; None for neither."""
    stem = name[: len(name) - len(suffix_of(name))]
    return next((role for role in ROLES if stem.lower().endswith(f".{role}")), None)


def without_role(key: str) -> str:
    """A key without the role at its end: `a.low` -> `a`."""
    return key.rpartition(".")[0]
