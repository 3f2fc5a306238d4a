"""The tasks, in the order in which they are tried. A task of your own is an entry here."""

from __future__ import annotations

from collections.abc import Sequence

from cascade.contract import Contract
from cascade.errors import ContractError, nearest
from cascade.tasks.colouring import ColouringTask
from cascade.tasks.drawing import DrawingTask
from cascade.tasks.editing import EditingTask
from cascade.tasks.enlarging import EnlargingTask
from cascade.tasks.generating import GeneratingTask
from cascade.tasks.restoring import RestoringTask
from cascade.tasks.task import PairedTask, Task

TASKS: list[Task] = [
    GeneratingTask(),
    DrawingTask(),
    ColouringTask(),
    EnlargingTask(),
    EditingTask(),
    RestoringTask(),
]


def find_task(contracts: Sequence[Contract]) -> Task | None:
    """Find what a chain of stages is for; None if no task suits it.

    Args:
        contracts: contracts of the stages, first stage first; see `StageChain.contracts`.
    """
    return next((task for task in TASKS if task.suits(contracts)), None)


def task_of(contracts: Sequence[Contract]) -> Task:
    """Find what a chain of stages is for.

    Args:
        contracts: contracts of the stages, first stage first; see `StageChain.contracts`.

    Raises:
        ContractError: if no task suits the chain.
    """
    task = find_task(contracts)
    if task is None:
        names = ", ".join(each.name for each in TASKS)
        raise ContractError(
            f"no task suits a pipeline whose first stage takes {contracts[0].description}; the "
            f"tasks are {names}."
        )
    return task


def paired_task_of(contracts: Sequence[Contract]) -> PairedTask:
    """Find what a chain of stages is for, if its results have originals.

    Args:
        contracts: contracts of the stages, first stage first; see `StageChain.contracts`.

    Raises:
        ContractError: if no task suits the chain, or one without originals does.
    """
    task = task_of(contracts)
    if not isinstance(task, PairedTask):
        raise ContractError(
            f"a pipeline that {task.description} has no originals to compare its results with."
        )
    return task


def task_named(name: str) -> Task:
    """Find a task by its name, such as `upscale`.

    Raises:
        ContractError: for an unknown name.
    """
    for task in TASKS:
        if task.name == name:
            return task
    raise ContractError(f"unknown task {name!r}: {nearest(name, [each.name for each in TASKS])}")
