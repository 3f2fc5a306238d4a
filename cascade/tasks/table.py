"""The kinds of tasks in the order in which they are asked. One of your own is an entry here."""

from __future__ import annotations

from collections.abc import Sequence

from cascade.contract import Contract
from cascade.errors import ContractError, nearest
from cascade.tasks.colouring import ColouringTask
from cascade.tasks.enlarging import EnlargingTask
from cascade.tasks.generating import GeneratingTask
from cascade.tasks.task import Task

TASKS: tuple[Task, ...] = (GeneratingTask(), ColouringTask(), EnlargingTask())


def find_task(contracts: Sequence[Contract]) -> Task | None:
    """What a chain of stages is for; None if no kind of task suits it.

    Args:
        contracts: of the stages, first stage first; see `StageChain.contracts`.
    """
    return next((task for task in TASKS if task.suits(contracts)), None)


def task_of(contracts: Sequence[Contract]) -> Task:
    """What a chain of stages is for.

    Args:
        contracts: of the stages, first stage first; see `StageChain.contracts`.

    Raises:
        ContractError: if no kind of task suits it.
    """
    task = find_task(contracts)
    if task is None:
        names = ", ".join(each.name for each in TASKS)
        raise ContractError(
            f"no task suits a pipeline whose first stage takes {contracts[0].description}; the "
            f"tasks are {names}."
        )
    return task


def task_named(name: str) -> Task:
    """The kind of task of a name, such as `upscale`.

    Raises:
        ContractError: for an unknown name.
    """
    for task in TASKS:
        if task.name == name:
            return task
    raise ContractError(f"unknown task {name!r}: {nearest(name, [each.name for each in TASKS])}")
