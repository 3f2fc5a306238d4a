"""A command of ours: what its help lists, and how it answers an option that it does not have."""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import Any

import typer
from typer.core import TyperCommand

from cascade.cli.defaults import FILE
from cascade.cli.documents import EXIT_CODE, OPTION, errors_in_documents, print_document
from cascade.cli.synonyms import advice_on, names_like, synonyms_of
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
        """Parse the command line, and say more about its errors.

        An unknown option is answered with ours of the same meaning, and a wrong value names the
        file of defaults if it comes from there.
        """
        with errors_in_documents(OPTION in args and OPTION in self.options()):
            return self._parsed(ctx, args)

    def _parsed(self, ctx: Any, args: list[str]) -> list[str]:
        try:
            return super().parse_args(ctx, args)
        except Exception as error:
            fault: Any = error
            if hasattr(fault, "possibilities"):  # click's NoSuchOption
                answer = self._answer(fault.option_name)
                fault.message = answer or fault.message
                fault.possibilities = (
                    [] if answer else names_like(fault.option_name, self.options())
                )
            name = getattr(getattr(fault, "param", None), "name", "")
            if hasattr(fault, "message") and _is_from_file(ctx, name):
                fault.message = f"{FILE}: {fault.message}"
            raise

    def _answer(self, option: str) -> str:
        """What to use in place of an option that the command does not have; empty if unknown."""
        own = synonyms_of(option, self.options())
        if own:
            return f"{option} is called {own[0]} here."
        if advice := advice_on(option, self.options()):
            return f"No such option: {option}. {advice}"
        arguments = {each.name for each in self.params}
        if option.startswith("--") and "axes" in arguments:
            from cascade.recipe.sections import sampling_section

            setting = option.removeprefix("--").replace("-", "_")
            if setting in sampling_section().model_fields:
                return f"No such option: {option}. Settings are given as {setting}=VALUE,VALUE."
        if option.startswith("--") and "overrides" in arguments:
            from cascade.recipe.reading import recipe_key_of

            key = recipe_key_of(option.removeprefix("--"))
            if key is not None:
                note = key.note and f", {key.note}"
                return f"No such option: {option}. Give the recipe key {key.name}=VALUE{note}."
        return ""

    def invoke(self, ctx: Any) -> Any:
        """Say which options come from the user's file of defaults, and run the command."""
        defaults = {o: n for o, n in self.long_options().items() if _is_from_file(ctx, n)}
        if all(ctx.params.get(name) for name in OPTIONS):  # the command line overrides the file
            ctx.params |= dict.fromkeys(OPTIONS.keys() & set(defaults.values()), False)
        options = [_as_typed(o, ctx.params[n]) for o, n in defaults.items() if ctx.params[n]]
        if options and not ctx.params.get("quiet"):
            logger.info("%s sets %s", FILE, " ".join(options))
        if ctx.params.get("as_json"):
            with errors_in_documents(True):
                print_document(lambda: super(Verb, self).invoke(ctx))
        else:
            super().invoke(ctx)
        if code := ctx.meta.get(EXIT_CODE):
            raise typer.Exit(code)

    def default(self, name: str, value: Any) -> Any:
        """Turn a value from the file of defaults into what the command line would give.

        Args:
            name: name of the parameter.
            value: a text, number, truth value or list.
        """
        option: Any = next(each for each in self.params if each.name == name)
        values = [str(each) for each in (value if isinstance(value, list) else [value])]
        if option.is_flag:
            return value
        return values if option.multiple or option.nargs > 1 else ",".join(values)

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


def _is_from_file(ctx: Any, name: str) -> bool:
    """Whether the value of a parameter is from the user's file of defaults."""
    return getattr(ctx.get_parameter_source(name), "name", "") == "DEFAULT_MAP"


def _as_typed(option: str, value: Any) -> str:
    """An option with its value as on the command line."""
    if value is True:
        return f"--{option}"
    if isinstance(value, list):
        return " ".join(f"--{option} {each}" for each in value)
    return f"--{option} {' '.join(map(str, value)) if isinstance(value, tuple) else value}"
