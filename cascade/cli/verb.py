"""A command of ours: what its help lists, and how it answers an option that it does not have."""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import Any

import typer
from typer.core import TyperCommand

from cascade.cli.defaults import FILE
from cascade.cli.synonyms import synonyms_of
from cascade.cli.verbosity import OPTIONS, with_verbosity

SAMPLER_NAMES = "{sampler names}"  # placeholder for all names in the help of an option
logger = logging.getLogger(__name__)


def add_verb(
    app: typer.Typer, command: Callable[..., Any], name: str | None = None, *, hidden: bool = False
) -> None:
    """Add a command with the options that all commands share.

    Args:
        app: the program, or a group of commands.
        command: the function of the command.
        name: its name; None for that of the function.
        hidden: whether the help of the program leaves it out.
    """
    app.command(name, cls=Verb, hidden=hidden)(with_verbosity(command))


class Verb(TyperCommand):
    """A command that imports the samplers, to list their names, only when its help is shown."""

    def format_help(self, ctx: Any, formatter: Any) -> None:
        """Fill in the names and show the help."""
        for option in self.params:
            text = getattr(option, "help", None) or ""
            if SAMPLER_NAMES in text:
                from cascade.sampling.samplers.table import sampler_names

                option.help = text.replace(  # pyright: ignore[reportAttributeAccessIssue]
                    SAMPLER_NAMES, ", ".join(sampler_names())
                )
        super().format_help(ctx, formatter)

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        """Parse the command line; an unknown option is answered with ours of the same meaning."""
        try:
            return super().parse_args(ctx, args)
        except Exception as error:
            option = getattr(error, "option_name", None)  # of click's NoSuchOption
            own = synonyms_of(option or "", self.options())
            if own:
                error.message = f"{option} is called {own[0]} here."  # pyright: ignore
                error.possibilities = None  # pyright: ignore
            raise

    def invoke(self, ctx: Any) -> Any:
        """Say which options come from the user's file of defaults, and run the command."""
        defaults = {
            option: name
            for option, name in self.long_options().items()
            if getattr(ctx.get_parameter_source(name), "name", "") == "DEFAULT_MAP"
        }
        if all(ctx.params.get(name) for name in OPTIONS):  # the command line overrides the file
            ctx.params |= dict.fromkeys(OPTIONS & defaults.keys(), False)
        options = [f"--{o} {_as_typed(ctx.params[name])}".rstrip() for o, name in defaults.items()]
        if options and not ctx.params.get("quiet"):
            logger.info("%s sets %s", FILE, ", ".join(options))
        return super().invoke(ctx)

    def long_options(self) -> dict[str, str]:
        """The names of the parameters by their options without dashes, such as `out`."""
        return {
            option.removeprefix("--"): name
            for option, name in self.options().items()
            if option.startswith("--") and option != "--help"
        }

    def options(self) -> dict[str, str]:
        """The names of the parameters by the options that set them, such as `--out` and `-o`."""
        return {
            option: parameter.name or ""
            for parameter in self.params
            for option in parameter.opts
            if option.startswith("-")
        }


def _as_typed(value: Any) -> str:
    """The value of an option on the command line; empty for a flag."""
    if value is True:
        return ""
    return ",".join(map(str, value)) if isinstance(value, list | tuple) else str(value)
