"""The command `cascade`: its verbs, and its exit codes."""

from __future__ import annotations

import logging
import os
import sys
import time
from io import TextIOWrapper
from typing import Annotated, Any

import typer

from cascade import __version__
from cascade.cli.chain import chain
from cascade.cli.colourise import colourise
from cascade.cli.copy import copy
from cascade.cli.data import data
from cascade.cli.defaults import defaults_file, read_defaults
from cascade.cli.distil import distil
from cascade.cli.doctor import doctor
from cascade.cli.documents import OPTION, errors_in_documents, message_of
from cascade.cli.edit import edit
from cascade.cli.ema import ema
from cascade.cli.evaluate import evaluate
from cascade.cli.export import export
from cascade.cli.generate import generate
from cascade.cli.import_ import import_weights
from cascade.cli.inspect import inspect
from cascade.cli.keys import keys
from cascade.cli.ls import ls
from cascade.cli.report import report
from cascade.cli.restore import restore
from cascade.cli.show import show
from cascade.cli.sweep import sweep
from cascade.cli.train import train
from cascade.cli.ui import ui
from cascade.cli.upscale import upscale
from cascade.cli.validate import validate
from cascade.cli.verb import Verb, add_verb
from cascade.errors import CascadeError, OtherProcessError, RecipeError, SettingsError

REPORTING_TIME_S = 2.0  # for the process that failed first
COMPLETION = "_CASCADE_COMPLETE"  # variable by which the shell asks what may follow
SPIN_COUNT = "1000"  # for idle OpenMP threads; parallel commands stall at the default of 300,000
app = typer.Typer(
    no_args_is_help=True,
    rich_markup_mode="rich" if sys.stderr.isatty() else None,  # a box would break messages up
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
    help="Cascaded and super-resolution diffusion in pixel space.\n\n"
    "Try: cascade generate emoji-1024 -n 16 -o out",
)
for verb in (generate, upscale, colourise, restore, edit):
    add_verb(app, verb)
for verb in (evaluate, sweep, train, distil, report, ema):
    add_verb(app, verb)
for verb in (ui, chain, export, inspect, ls, show, keys, copy, validate, doctor):
    add_verb(app, verb)
OTHER_SPELLINGS = {"colorize": "colourise", "distill": "distil"}
add_verb(app, import_weights, "import")
add_verb(app, colourise, "colorize", hidden=True)
add_verb(app, distil, "distill", hidden=True)
app.add_typer(data, name="data")


def _print_version(version: bool) -> None:
    if version:
        typer.echo(__version__)
        raise typer.Exit


@app.callback()
def options(
    version: Annotated[
        bool, typer.Option("--version", help="Print the version.", callback=_print_version)
    ] = False,
) -> None:
    """Declare the options that all commands share."""


def run() -> None:
    """Run the command line.

    The exit code is 0 for success, 1 for failure, 2 for wrong usage and 130 for Ctrl-C.
    """
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, TextIOWrapper):  # its encoding may lack characters of names
            stream.reconfigure(errors="backslashreplace")
    if "OMP_WAIT_POLICY" not in os.environ:  # set before torch loads OpenMP
        os.environ.setdefault("GOMP_SPINCOUNT", SPIN_COUNT)
    handler = logging.StreamHandler()
    handler.setFormatter(_LogLine())
    logging.basicConfig(handlers=[handler])
    logging.getLogger("cascade").setLevel(logging.INFO)
    try:
        with errors_in_documents(OPTION in sys.argv):
            defaults = _default_map()
        app(default_map=defaults)
    except OtherProcessError:
        time.sleep(REPORTING_TIME_S)  # torchrun kills the others as soon as one process ends
        sys.exit(1)
    except (RecipeError, SettingsError) as error:
        _fail(error, 2)
    except (CascadeError, OSError) as error:
        _fail(error, 1)


def _default_map() -> dict[str, Any]:
    """The values of the user's file of defaults, in the form that click takes."""
    path = defaults_file()
    only_helps = COMPLETION in os.environ or {"-h", "--help", "--version"} & set(sys.argv)
    if path is None or only_helps:  # a fault of the file must not stop what helps to mend it
        return {}
    verbs = _verbs()
    values = read_defaults(path, {name: verb.long_options() for name, verb in verbs.items()})
    for other, name in OTHER_SPELLINGS.items():
        values[other] = values[name] = {**values[name], **values[other]}
    nested: dict[str, Any] = {}
    for name, options in values.items():
        *group, last = name.split()
        place = nested
        for word in group:
            place = place.setdefault(word, {})
        verb = verbs[name]
        place[last] = {option: verb.default(option, value) for option, value in options.items()}
    return nested


def _verbs() -> dict[str, Verb]:
    """All commands; those of a group are called `group command`."""
    verbs = {}
    for name, command in typer.main.get_command(app).commands.items():  # pyright: ignore
        inner = getattr(command, "commands", None)
        if inner is None:
            verbs[name] = command
        else:
            verbs |= {f"{name} {each}": verb for each, verb in inner.items()}
    return verbs


class _LogLine(logging.Formatter):
    """A line of the log, with everything escaped that names of files may contain."""

    def formatMessage(self, record: logging.LogRecord) -> str:  # noqa: N802
        from cascade.cli.progress import printable

        return f"cascade: {printable(record.message)}"


def _fail(error: Exception, code: int) -> None:
    from cascade.cli.progress import printable

    sys.stderr.write(f"cascade: {printable(message_of(error))}\n")
    sys.exit(code)
