"""The options -q/--quiet and -v/--verbose, which every command has, and what they do.

`with_verbosity` gives a command both, and its code asks `verbosity()` which one was given. Log
lines and progress follow by themselves.

- quiet: errors and failures, and what the command exists to print, such as the rows of `ls` or the
  figures of `evaluate`.
- normal: also progress, notes, and a last line that says what was done.
- verbose: also each result, and in full every list that is otherwise shortened.
"""

from __future__ import annotations

import functools
import inspect
import logging
from collections.abc import Callable, Iterator
from contextlib import contextmanager
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
    "quiet": Annotated[
        bool,
        typer.Option("--quiet", "-q", help="Print only errors, and lists or figures asked for."),
    ],
    "verbose": Annotated[
        bool, typer.Option("--verbose", "-v", help="Print more details, and all lists in full.")
    ],
}
_current = Verbosity.NORMAL  # of the one command that this process runs


def verbosity() -> Verbosity:
    """How much the running command prints."""
    return _current


def note(text: str, *, is_result: bool = True) -> None:
    """Print a line that the user can do without, such as one that says where a result is.

    Args:
        text: the line.
        is_result: whether it goes to the standard output, where programs read results.
    """
    if _current > Verbosity.QUIET:
        typer.echo(text, err=not is_result)


def with_verbosity(command: Callable[..., Any]) -> Callable[..., Any]:
    """Add -q/--quiet and -v/--verbose to the function of a command, which does not see them."""

    @functools.wraps(command)
    def run(*args: Any, quiet: bool = False, verbose: bool = False, **kwargs: Any) -> Any:
        with _set(quiet, verbose):
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


@contextmanager
def _set(quiet: bool, verbose: bool) -> Iterator[None]:
    """Let the code of one command know how much it prints."""
    global _current
    if quiet and verbose:
        raise typer.BadParameter("--quiet and --verbose exclude each other.")
    logger = logging.getLogger("cascade")
    level = logger.level
    _current = Verbosity(verbose - quiet)
    logger.setLevel(LOG_LEVELS[_current])
    try:
        yield
    finally:
        _current = Verbosity.NORMAL
        logger.setLevel(level)
