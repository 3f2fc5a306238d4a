"""The prompts of a command line: one text, or a file with one per line."""

from __future__ import annotations

import sys
from pathlib import Path

import typer

from cascade.cli.verbosity import note

STANDARD_INPUT = "-"


def read_prompts(prompt: str | None, option: str | None, file: str | None) -> list[str]:
    """Collect the prompts of a command line.

    Args:
        prompt: the argument PROMPT.
        option: the value of --prompt, which means the same.
        file: the file of --prompts; `-` for the standard input.

    Returns:
        The prompts; empty if there are none.

    Raises:
        BadParameter: if there is more than one of the three.
        DataError: if the file cannot be read or has no prompts.
    """
    if sum(each is not None for each in (prompt, option, file)) > 1:
        raise typer.BadParameter("PROMPT and --prompts FILE exclude each other; give one of them.")
    if file is not None:
        return _prompts_in(file)
    text = option if prompt is None else prompt
    if text is None:
        return []
    if not text.strip():
        note("the prompt is empty, so the images are generated without text", is_result=False)
    return [text]


def _prompts_in(file: str) -> list[str]:
    """The lines of a file that are not empty."""
    from cascade.errors import DataError
    from cascade.reporting.words import counted

    name = "the standard input" if file == STANDARD_INPUT else file
    lines = [line.strip() for line in _text(file, name).split("\n")]
    if not lines[-1]:  # after the last line feed
        lines.pop()
    prompts = [line for line in lines if line]
    empty = counted(len(lines) - len(prompts), "empty line")
    if not prompts:
        only = f", only {empty}" if lines else ""
        raise DataError(f"{name} has no prompts{only}; write one prompt per line.")
    if len(prompts) < len(lines):
        note(f"skipped {empty} of {name}", is_result=False)
    return prompts


def _text(file: str, name: str) -> str:
    from cascade.errors import DataError

    try:
        content = sys.stdin.buffer.read() if file == STANDARD_INPUT else Path(file).read_bytes()
        return content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = content[: error.start].count(b"\n") + 1  # pyright: ignore
        raise DataError(f"{name} is not UTF-8 text, see line {line}; save it as UTF-8.") from error
    except OSError as error:
        raise DataError(f"{name}: cannot be read ({error.strerror or error}).") from error
