"""`--part` and `--join` of the bulk commands: parts of the inputs, and what is missing of them."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import typer

if TYPE_CHECKING:
    from cascade.bulk.parts import Part

ARRAY = "SLURM_ARRAY_TASK_"  # of SLURM's environment variables for the tasks of an array
WITH_JOIN = ("inputs", "join", "quiet", "verbose")  # what may be given together with --join


def chosen_part(text: str | None) -> Part | None:
    """The part that `--part` names, or the one of this task of a SLURM array; None for all inputs.

    A part that only the environment names is reported on the error output.

    Raises:
        BadParameter: if there is no such part, or the array does not name one.
    """
    from cascade.bulk.parts import Part
    from cascade.errors import ContractError

    try:
        if text is not None:
            return Part.parse(text)
        part = part_of_array(os.environ)
    except ContractError as error:
        raise typer.BadParameter(str(error), param_hint="--part") from error
    if part is not None and os.environ.get("RANK", "0") == "0":
        task = os.environ[f"{ARRAY}ID"]
        typer.echo(  # also when quiet, because nobody asked for inputs to be left out
            f"part {part} of the inputs, by task {task} of the SLURM array; --part 1/1 takes all",
            err=True,
        )
    return part


def part_of_array(environment: Mapping[str, str]) -> Part | None:
    """The part of a task of a SLURM array: the first task gets the first part.

    Args:
        environment: the environment variables.

    Returns:
        None outside of an array.

    Raises:
        ContractError: if the tasks of the array have gaps, so that their numbers say nothing.
    """
    from cascade.bulk.parts import Part
    from cascade.errors import ContractError

    names = {"id": "ID", "count": "COUNT", "first": "MIN", "last": "MAX", "step": "STEP"}
    texts = {name: environment.get(f"{ARRAY}{ending}") for name, ending in names.items()}
    if texts["id"] is None or texts["count"] is None:
        return None
    try:
        number, count = int(texts["id"]), int(texts["count"])
        first, step = int(texts["first"] or 1), int(texts["step"] or 1)
        last = int(texts["last"] or first + (count - 1) * step)
        position, rest = divmod(number - first, step)
        is_regular = rest == 0 and first + (count - 1) * step == last
    except (ValueError, ZeroDivisionError):
        is_regular, position, count = False, 0, 1
    if not is_regular:
        raise ContractError(
            "the tasks of this SLURM array are not numbered evenly, so they do not say which part "
            "is meant; name it, such as 3/8."
        )
    return Part(count=count, number=position + 1)


def check_alone(context: typer.Context) -> None:
    """Check that no option without effect is given together with `--join`.

    Raises:
        BadParameter: naming the option.
    """
    for parameter in context.command.params:
        name = parameter.name or ""
        source = getattr(context.get_parameter_source(name), "name", "")
        if source == "COMMANDLINE" and name not in WITH_JOIN:
            raise typer.BadParameter(
                f"it takes only the folders of the parts; leave out {parameter.opts[0]}.",
                param_hint="--join",
            )


def join(command: str, folders: Sequence[str]) -> None:
    """Print what is missing of the results of all parts, and their number.

    Raises:
        Exit: if something is missing.
    """
    from cascade.bulk.joining import join_parts
    from cascade.cli.progress import printable

    joined = join_parts(folders, command)
    for line in joined.lines():
        typer.echo(printable(line))
    joined.merge()
    typer.echo(joined.last_line())
    if joined.exit_code:
        raise typer.Exit(joined.exit_code)
