"""The option --json: one JSON document on the standard output, and nothing else there.

A command that has the option returns its document instead of printing. If it fails, the document is
`{"error": MESSAGE}`; the exit code and the line on the error output stay the same.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, redirect_stdout
from typing import Annotated, Any

import typer

from cascade.cli.hints import with_listing, with_overwrite
from cascade.errors import CascadeError

OPTION = "--json"
EXIT_CODE = "cascade.exit_code"  # in the meta of a context: with which code the command ends
Document = dict[str, Any]
AsJson = Annotated[bool, typer.Option(OPTION, help="Print one JSON document instead of text.")]


def print_document(work: Callable[[], Document]) -> None:
    """Do the work of a command, and print the document that it returns.

    Whatever prints in the meantime, such as a library, goes to the error output.
    """
    with redirect_stdout(sys.stderr):
        document = work()
    _print(document)


@contextmanager
def errors_in_documents(is_asked: bool) -> Iterator[None]:
    """Print the error of a command as a document before it goes on to whoever reports it.

    Args:
        is_asked: whether the command prints a document; if not, nothing is printed here.
    """
    try:
        yield
    except Exception as error:
        is_wrong_usage = hasattr(error, "format_message")  # of click, which Typer may bundle
        if is_asked and (is_wrong_usage or isinstance(error, CascadeError | OSError)):
            _print({"error": message_of(error)})
        raise


def message_of(error: Exception) -> str:
    """The message of an error that a user can cause, in one line."""
    text = str(error)
    if isinstance(error, OSError):
        text = f"{error.filename or 'output'}: {error.strerror or error}."
    elif format_message := getattr(error, "format_message", None):
        text = format_message()
    return with_listing(with_overwrite(" ".join(text.split())))


def _print(document: Document) -> None:
    # in ASCII: standard output may have any encoding, and names of files may have none
    typer.echo(json.dumps(_as_json(document), indent=2, allow_nan=False))


def _as_json(value: Any) -> Any:
    """The value with null for numbers that JSON does not have, and texts for paths."""
    if isinstance(value, Mapping):
        return {str(key): _as_json(each) for key, each in value.items()}
    if isinstance(value, (list, tuple)):
        return [_as_json(each) for each in value]
    if isinstance(value, float):
        return value if value - value == 0 else None
    return value if isinstance(value, (str, int, bool, type(None))) else str(value)
