"""Checks of what callers pass: each returns the value as a plain one, or names what was expected.

Numbers of NumPy and 0-dimensional integer tensors count as numbers; True and False do not.
"""

from __future__ import annotations

import inspect
import operator
from collections.abc import Callable, Mapping
from numbers import Integral, Real
from types import UnionType
from typing import Any

from cascade.errors import ContractError, nearest

LONGEST = 60  # characters of a value in an error message


def whole_number(name: str, value: Any, *, low: int | None = None, hint: str = "") -> int:
    """Convert an integer of any type.

    Args:
        name: the argument's name, for the error message.
        value: the argument.
        low: the lowest value allowed; None for no limit.
        hint: what to do instead, for the end of the error message.

    Raises:
        ContractError: if it is no whole number, or too low.
    """
    limit = "" if low is None else f" of at least {low}"
    try:
        if _is_flag(value):
            raise TypeError
        number = operator.index(value)
    except TypeError:
        raise ContractError(
            f"{name} must be a whole number{limit}, got {shown(value)}{hint and f'; {hint}'}."
        ) from None
    if low is not None and number < low:
        raise ContractError(f"{name} must be at least {low}, got {number}.")
    return number


def real_number(name: str, value: Any) -> float:
    """Convert a number of any type; Python's own are returned as they are.

    Raises:
        ContractError: if it is no number.
    """
    if _is_flag(value) or not isinstance(value, Real):
        raise ContractError(f"{name} must be a number, got {shown(value)}.")
    return plain_number(value)


def flag(name: str, value: Any) -> bool:
    """Convert a truth value of Python, NumPy or torch.

    Raises:
        ContractError: if it is anything else.
    """
    if not _is_flag(value) or getattr(value, "ndim", 0):
        raise ContractError(f"{name} must be True or False, got {shown(value)}.")
    return bool(value)


def check_callable(name: str, value: Callable[..., Any] | None) -> None:
    """Check that an argument is a function or None.

    Raises:
        ContractError: if it is anything else.
    """
    if value is not None and not callable(value):
        raise ContractError(f"{name} must be a function, got {shown(value)}.")


def check_kind(name: str, value: Any, kinds: type | UnionType, expected: str) -> None:
    """Check the class of an argument.

    Args:
        name: the argument's name, for the error message.
        value: the argument.
        kinds: the class, or union of classes, that it may have.
        expected: these classes in words, such as `Overrides({...})`.

    Raises:
        ContractError: if it has another class.
    """
    if not isinstance(value, kinds):
        raise ContractError(f"{name} must be {expected}, got {shown(value)}.")


def check_network_options(options: Any, build: Callable[..., Any]) -> None:
    """Check that the keyword arguments of a network exist.

    Args:
        options: the arguments by name.
        build: the function that takes them; one that takes any names checks them itself.

    Raises:
        ContractError: if they are no mapping, or for an unknown name, with the nearest.
    """
    check_kind("network_options", options, Mapping, "a mapping by name")
    parameters = inspect.signature(build).parameters.values()
    known = [each.name for each in parameters if each.kind is each.KEYWORD_ONLY]
    if any(each.kind is each.VAR_KEYWORD for each in parameters):
        return
    for name in options:
        if name not in known:
            raise ContractError(f"unknown network option {name!r}: {nearest(str(name), known)}")


def shown(value: Any) -> str:
    """The value for an error message if it is short, its class otherwise."""
    text = repr(value) if isinstance(value, str | int | float | list | tuple | None) else ""
    if text and len(text) <= LONGEST and "\n" not in text:
        return text
    return value.__name__ if isinstance(value, type) else type(value).__name__


def _is_flag(value: Any) -> bool:
    """Whether a value is a truth value of Python, NumPy or torch."""
    return isinstance(value, bool) or str(getattr(value, "dtype", "")).endswith("bool")


def plain_number(value: Any) -> Any:
    """Convert a number of NumPy to Python's, so that JSON can hold it; others stay as they are."""
    if _is_flag(value) or not isinstance(value, Real) or isinstance(value, int | float):
        return value
    return int(value) if isinstance(value, Integral) else float(value)
