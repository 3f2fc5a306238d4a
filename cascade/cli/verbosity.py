"""The options -q/--quiet and -v/--verbose, and what they do.

`with_verbosity` gives a command both, and `verbosity()` tells its code which one was given. Log
lines follow by themselves.

- quiet: errors and failures only. Nothing is printed if all goes well.
- normal: also progress, notes and the last line with the counts.
- verbose: also each result, and in full every list that is otherwise shortened.
"""

from __future__ import annotations

import functools
import inspect
import logging
from collections.abc import Callable
from enum import IntEnum
from inspect import Parameter
from typing import Annotated, Any, get_type_hints

import typer


class Verbosity(IntEnum):
    """How much a command prints."""

    QUIET = -1
    NORMAL = 0
    VERBOSE = 1


LOG_LEVELS = {
    Verbosity.QUIET: logging.ERROR,
    Verbosity.NORMAL: logging.INFO,
    Verbosity.VERBOSE: logging.DEBUG,
}
OPTIONS = {
    "quiet": Annotated[bool, typer.Option("--quiet", "-q", help="Print errors and failures only.")],
    "verbose": Annotated[
        bool, typer.Option("--verbose", "-v", help="Print every result, and all lists in full.")
    ],
}
_current = Verbosity.NORMAL  # of the one command that this process runs


def verbosity() -> Verbosity:
    """How much the running command prints."""
    return _current


def with_verbosity(command: Callable[..., Any]) -> Callable[..., Any]:
    """Add -q/--quiet and -v/--verbose to the function of a command, which does not see them."""

    @functools.wraps(command)
    def run(*args: Any, quiet: bool = False, verbose: bool = False, **kwargs: Any) -> Any:
        _set(quiet, verbose)
        return command(*args, **kwargs)

    options = [
        Parameter(name, Parameter.KEYWORD_ONLY, default=False, annotation=annotation)
        for name, annotation in OPTIONS.items()
    ]
    own = inspect.signature(command, eval_str=True)
    run.__signature__ = own.replace(  # pyright: ignore[reportAttributeAccessIssue]
        parameters=[*own.parameters.values(), *options]
    )
    run.__annotations__ = {**get_type_hints(command, include_extras=True), **OPTIONS}
    return run


def _set(quiet: bool, verbose: bool) -> None:
    global _current
    if quiet and verbose:
        raise typer.BadParameter("--quiet and --verbose exclude each other.")
    _current = Verbosity(verbose - quiet)
    logging.getLogger("cascade").setLevel(LOG_LEVELS[_current])
