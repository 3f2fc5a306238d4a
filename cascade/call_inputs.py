"""What each image of a call gets: the inputs of its conditions, read and completed.

Shapes: B images, C channels, h and w pixels of input images.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, SupportsIndex

from torch import Tensor

from cascade.arguments import shown
from cascade.chain import StageChain
from cascade.conditioning.condition import Condition
from cascade.conditioning.inputs import Inputs
from cascade.conditioning.text import PromptLike
from cascade.errors import ContractError
from cascade.stage import Stage
from cascade.text.encoder import CutText

MOST_NAMES = 6  # of a label field, in an error message


def image_count(
    num_images: SupportsIndex | None,
    prompt: PromptLike | None,
    labels: object,
    start: Tensor | None,
    like: Tensor | None = None,
) -> SupportsIndex:
    """The number of images that a call makes.

    Args:
        num_images: the number that the caller wants; None to make one per prompt or label.
        prompt: a text or a list of texts; None for no prompt.
        labels: class names for all images, or a list with those of each.
        start: the images to start from, (B, C, h, w), which make one result each.
        like: the images to vary, (B, C, h, w); several make one result each.

    Raises:
        ContractError: if the prompt is neither a text nor a list.
    """
    if not isinstance(prompt, str | list | tuple | None):
        raise ContractError(
            "prompt must be a text, or a list of texts with one per image, got "
            f"{shown(prompt)}; the number of images goes in num_images."
        )
    if isinstance(prompt, list | tuple) and not prompt:
        raise ContractError("prompt is an empty list; give at least one text, or leave it out.")
    if start is not None:
        return len(start)
    if num_images is not None:
        return num_images
    for each in (prompt, labels):
        if isinstance(each, list | tuple):
            return len(each)
    return 1 if like is None else len(like)


def completed_inputs(
    run: StageChain,
    further: Mapping[str, Any],
    arguments: Mapping[str, Any],
    seeds: list[int],
    *,
    draw: bool = True,
    chain: StageChain | None = None,
) -> Inputs:
    """The inputs of a call, each read and completed by the first condition that takes it.

    Args:
        run: the stages that run.
        further: inputs for conditions of the user's own, by name.
        arguments: the inputs that are arguments of a call, by name; None for those left out.
        seeds: one whole number per image.
        draw: whether to draw what the user leaves out, unless there is a prompt or an image.
        chain: all stages of the pipeline, for error messages; None if all of them run.

    Raises:
        ContractError: if no stage reads an input, or one cannot be read.
    """
    for name in further:
        if name in ("labels", "image") or arguments.get(name) is not None:
            raise ContractError(f"{name} is an argument of its own; leave it out of inputs.")
    values = {**arguments, **further}
    is_open = all(values.get(name) is None for name in ("image", "prompt", "like"))
    draw = draw and is_open
    completed = {}
    for condition in (each for _, stage in run.items() for each in stage.conditions):
        name, negative = condition.input_name, condition.negative_name
        if name not in completed:
            completed[name] = condition.completed(values.get(name), seeds, draw=draw)
        if negative and negative not in completed:
            completed[negative] = _negative(condition, values.get(negative), seeds, run)
    for name, value in values.items():
        if value is not None and name not in completed:
            raise ContractError(_not_read(name, run, list(completed), chain or run))
    return Inputs(completed)


def _negative(condition: Condition, value: Any, seeds: list[int], run: StageChain) -> Any:
    """The completed input from which guidance pushes away; None if there is none."""
    name = condition.negative_name
    if value is None:
        return None
    try:
        completed = condition.completed(value, seeds, draw=False)
    except ContractError as error:
        raise ContractError(f"{name}: {error}") from error
    if not any(completed):
        return None
    readers = [stage for _, stage in run.items() if name in stage.contract.input_names]
    if all(stage.sampling.guidance == 1 for stage in readers):
        raise ContractError(
            f"{name} has no effect at guidance 1; use guidance above 1, such as 3, or leave it out."
        )
    return completed


def _not_read(name: str, run: StageChain, readable: list[str], chain: StageChain) -> str:
    """The error message for an input that no stage reads."""
    if any(_reads(stage, name) for _, stage in chain.items()):
        ends = [f"starts at {run.names[0]!r}"] if run.names[0] != chain.names[0] else []
        ends += [f"stops at {run.names[-1]!r}"] if run.names[-1] != chain.names[-1] else []
        words = f"a {name.replace('_', ' ')}" if name.endswith("prompt") else repr(name)
        return (
            f"no stage of this run reads {words}, since the run {' and '.join(ends)}; leave it out."
        )
    if name not in ("prompt", "negative_prompt"):
        return (
            f"no stage of this pipeline has a condition that reads {name!r}; its inputs: "
            f"{', '.join(readable) or 'none'}."
        )
    classes = next((c.classes for _, s in run.items() for c in s.conditions if c.classes), {})
    fields = [f"{field} ({_few(names)})" for field, names in classes.items()]
    inputs = f"labels: {', '.join(fields)}" if fields else ", ".join(readable) or "no input"
    return f"this pipeline takes no {name.replace('_', ' ')}; it takes {inputs}."


def _reads(stage: Stage, name: str) -> bool:
    """Whether a stage has a condition that reads an input, or guides away from it."""
    return any(name in (each.input_name, each.negative_name) for each in stage.conditions)


def _few(names: Sequence[str]) -> str:
    """The first names of a list."""
    return ", ".join([*names[:MOST_NAMES], *(["…"] if len(names) > MOST_NAMES else [])])


def cut_texts(run: StageChain, inputs: Inputs) -> dict[str, CutText]:
    """The texts among the inputs of a call that do not reach every stage in full.

    Args:
        run: the stages that run.
        inputs: the completed inputs of a call.
    """
    cuts: dict[str, CutText] = {}
    for condition in (each for _, stage in run.items() for each in stage.conditions):
        for name in (condition.input_name, condition.negative_name):
            values = inputs.get(name)
            cuts |= {} if values is None else condition.cuts(values)
    return cuts
