from __future__ import annotations

import logging
from typing import Annotated

import pytest
import typer
from typer.testing import CliRunner

from cascade.cli.verbosity import Verbosity, verbosity, with_verbosity


@pytest.fixture
def app() -> typer.Typer:
    """A program with one command, which prints how much it may print."""

    def command(name: Annotated[str, typer.Argument(help="A name.")], number: int = 3) -> None:
        """Do something."""
        level = logging.getLogger("cascade").getEffectiveLevel()
        typer.echo(f"{name} {number} {verbosity().name} {logging.getLevelName(level)}")

    app = typer.Typer(add_completion=False)
    app.command()(with_verbosity(command))
    return app


@pytest.mark.parametrize(
    ("options", "level", "log"),
    [
        ([], "NORMAL", "INFO"),
        (["-q"], "QUIET", "ERROR"),
        (["--quiet"], "QUIET", "ERROR"),
        (["-v"], "VERBOSE", "DEBUG"),
        (["--verbose", "--number", "4"], "VERBOSE", "DEBUG"),
    ],
)
def test_a_command_gets_both_options_and_keeps_its_own(app, options, level, log):
    done = CliRunner().invoke(app, ["x", *options])
    assert done.output == f"x {4 if '4' in options else 3} {level} {log}\n"


def test_one_command_does_not_influence_the_next(app):
    CliRunner().invoke(app, ["x", "-q"])
    assert "NORMAL" in CliRunner().invoke(app, ["x"]).output
    assert verbosity() is Verbosity.NORMAL


def test_both_together_are_refused(app):
    done = CliRunner().invoke(app, ["x", "-q", "-v"])
    assert done.exit_code == 2
    assert "--quiet and --verbose exclude each other" in done.output


def test_the_help_of_the_command_is_kept(app):
    text = CliRunner().invoke(app, ["--help"]).output
    assert all(words in text for words in ("Do something.", "--number", "-q", "--verbose"))
