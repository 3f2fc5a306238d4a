"""One call of a pipeline: every stage runs over all images, a batch at a time.

Shapes: B images, C channels, H and W pixels.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, fields
from typing import Any, NamedTuple, Protocol, TypeVar

import torch
from torch import Tensor

from cascade.arguments import check_callable, check_kind, flag, whole_number
from cascade.chain import StageChain
from cascade.conditioning.inputs import Inputs
from cascade.devices import Precision, check_precision
from cascade.errors import ContractError
from cascade.restoration.editing import Edit
from cascade.sampling.overrides import Overrides
from cascade.sampling.walk import Hooks, Progress
from cascade.stage import Run, Stage

BATCH_PIXELS = 2**18
PARTS = 1000  # of the progress of a stage
CALLBACK_TENSORS = ("x_t", "x0")
Options = TypeVar("Options")
StepEnd = Callable[..., Mapping[str, Any] | None]


@dataclass(frozen=True, kw_only=True)
class CallOptions:
    """Options of a pipeline call that few users need.

    Attributes:
        inputs: inputs for conditions of your own, by input name; `latents` (B, c, h, w), from
            which a run starts at the decoder; and `like`, embeddings (B, E, 1, 1) from which it
            starts at the stage that takes them.
        overrides: changes to the stages' sampling settings.
        start_at: name of the stage that takes the input image; default: the first one that takes
            its size.
        stop_at: name of the last stage to run, whose images are the result; default: the last one.
        batch_size: number of images at a time, which changes memory and time, but the images by
            no more than the rounding of the device; default: as many as have 2^18 pixels together.
        precision: `auto`, `fp32` or `bf16`.
        keep_intermediates: whether to return the earlier stages' images too.
        callback_on_step_end_tensor_inputs: which of `x_t` and `x0` a callback gets.

    Raises:
        ContractError: if a value is of the wrong kind or out of range.
    """

    inputs: Mapping[str, Any] = field(default_factory=dict)
    overrides: Overrides = field(default_factory=Overrides)
    start_at: str | None = None
    stop_at: str | None = None
    batch_size: int | None = None
    precision: Precision = "auto"
    keep_intermediates: bool = False
    callback_on_step_end_tensor_inputs: Sequence[str] = CALLBACK_TENSORS

    def __post_init__(self) -> None:
        check_kind("overrides", self.overrides, Overrides, "Overrides({...})")
        check_kind("inputs", self.inputs, Mapping, "a mapping by name")
        check_kind("start_at", self.start_at, str | None, "the name of a stage")
        check_kind("stop_at", self.stop_at, str | None, "the name of a stage")
        keeps = flag("keep_intermediates", self.keep_intermediates)
        object.__setattr__(self, "keep_intermediates", keeps)
        check_precision(self.precision)
        if self.batch_size is not None:
            batch_size = whole_number("batch_size", self.batch_size, low=1)
            object.__setattr__(self, "batch_size", batch_size)
        tensors = self.callback_on_step_end_tensor_inputs
        if not isinstance(tensors, list | tuple) or any(
            each not in CALLBACK_TENSORS for each in tensors
        ):
            raise ContractError(
                f"callback_on_step_end_tensor_inputs must be a list of {list(CALLBACK_TENSORS)}, "
                f"got {tensors!r}."
            )


@dataclass
class CascadeOutput:
    """The result of a pipeline call.

    Attributes:
        images: the last stage's images: PIL images; for `pt` a tensor (B, C, H, W) in [-1, 1],
            which diffusers has in [0, 1]; for `np` an array (B, H, W, C) in [0, 1]. Latents and
            embeddings are tensors (B, C, H, W).
        seeds: one whole number per image, which makes the same image again.
        prompts: one text per image; empty without a prompt.
        labels: one dictionary per image, from label field to class name.
        settings: each stage's sampling settings, by stage name.
        intermediates: each earlier stage's images by stage name, like `images`; empty unless the
            call keeps them.
    """

    images: Any
    seeds: list[int]
    prompts: list[str]
    labels: list[dict[str, str]]
    settings: dict[str, dict[str, Any]]
    intermediates: dict[str, Any]

    def to_tuple(self) -> tuple[Any, ...]:
        """The values of all attributes, in order."""
        return tuple(getattr(self, each.name) for each in fields(self))

    def __getitem__(self, key: int | slice | str) -> Any:
        """One value by its place or its name, as in the outputs of diffusers."""
        return getattr(self, key) if isinstance(key, str) else self.to_tuple()[key]


class Host(Protocol):
    """The part of a pipeline that a call uses."""

    def progress_bar(self, *, total: int) -> Any:
        """A progress bar for `total` steps, as a context manager."""
        ...

    def enter(self, stage: str | None, steps: int = 0) -> None:
        """Record which stage is sampling and in how many steps."""
        ...


class Place(NamedTuple):
    """A batch of one stage among all batches of a call."""

    stage: int
    stages: int
    batch: int
    batches: int

    def parts(self, share: float) -> tuple[int, int]:
        """How much of the call is done, and how much there is, with a share of this batch."""
        done = self.stage + (self.batch + share) / self.batches
        return round(PARTS * done), PARTS * self.stages


@dataclass(frozen=True)
class Call:
    """One call of a pipeline.

    Attributes:
        host: the pipeline.
        options: batch size, precision and what else the user asked of this call.
        inputs: the user's inputs, read and completed by the conditions.
        seeds: one whole number per image.
        on_step: the user's callback, see `CascadePipeline.__call__`; None for no callback.
        edit: the picture whose hole is filled; None to make images of nothing else.
        progress: called as `progress(done, total)`, in parts of all stages; None for nothing.
    """

    host: Host
    options: CallOptions
    inputs: Inputs
    seeds: list[int]
    on_step: StepEnd | None
    edit: Edit | None = None
    progress: Progress | None = None

    def run(self, chain: StageChain) -> dict[str, Tensor]:
        """Run the chain.

        Returns:
            The last stage's images (B, C, H, W), and those of the earlier stages if the options
            keep them, by stage name, on the CPU.
        """
        images: dict[str, Tensor] = {}
        previous = None
        try:
            for name, stage in chain.items():
                previous = self._run_stage(name, stage, previous, chain)
                if self.options.keep_intermediates or name == chain.names[-1]:
                    images[name] = previous
        finally:  # a callback may raise to stop the call
            self.host.enter(None)
        return images

    def _run_stage(
        self, name: str, stage: Stage, previous: Tensor | None, chain: StageChain
    ) -> Tensor:
        """Run one stage over all images; returns (B, C, H, W) on the CPU."""
        inputs = self.inputs.only(stage.contract.input_names)
        pixels = math.prod(stage.contract.result_size(inputs, previous))
        size = self.options.batch_size or max(1, BATCH_PIXELS // pixels)
        batches = [slice(first, first + size) for first in range(0, len(self.seeds), size)]
        self.host.enter(name)
        results = []
        with stage.placed(), self.host.progress_bar(total=len(batches)) as bar:
            bar.set_description(name)
            for number, part in enumerate(batches):
                place = Place(chain.names.index(name), len(chain.names), number, len(batches))
                hooks = self._hooks(name, part, bar, place)
                if self.edit is not None:
                    hooks = self.edit.hooks(stage, len(self.seeds[part]), hooks)
                run = Run(
                    tiles=None if self.edit is None else self.edit.tiles(stage),
                    hooks=hooks,
                    stream=f"stage {name}",
                    precision=self.options.precision,
                )
                start = None if previous is None else previous[part].to(stage.device)
                results.append(stage.run(self.seeds[part], inputs.part(part), start, run).cpu())
        return torch.cat(results)

    def _hooks(self, name: str, part: slice, bar: Any, place: Place) -> Hooks:
        """Hooks that report every step of a batch to the progress bar and the callback."""

        def progress(done: int, total: int) -> None:
            self.host.enter(name, total)
            bar.total = total * place.batches
            bar.update()
            if self.progress is not None:
                self.progress(*place.parts(done / total))

        def on_step(step: int, t: int, tensors: dict[str, Tensor]) -> Mapping[str, Any] | None:
            kwargs: dict[str, Any] = {
                key: tensors[key] for key in self.options.callback_on_step_end_tensor_inputs
            }
            assert self.on_step is not None
            kwargs["seeds"] = self.seeds[part]
            return _checked(self.on_step(self.host, step, t, dict(kwargs)), kwargs)

        return Hooks(callback=None if self.on_step is None else on_step, progress=progress)


def check_step_end(callback: StepEnd | None) -> None:
    """Check that a callback is a function, and that a callback object of diffusers fits.

    Raises:
        ContractError: if it is not, or it needs tensors that no stage has.
    """
    check_callable("callback_on_step_end", callback)
    for name in getattr(callback, "tensor_inputs", ()):
        if name not in CALLBACK_TENSORS:
            raise ContractError(
                f"{type(callback).__name__} needs {name!r}, but callbacks get "
                f"{' and '.join(CALLBACK_TENSORS)} only; write a function instead."
            )


def _checked(result: Any, kwargs: Mapping[str, Any]) -> Mapping[str, Any] | None:
    """Check that a callback returns nothing, or changes `x_t` only.

    Raises:
        ContractError: if it returns another kind, or changes anything else.
    """
    expected = "a dictionary with a new x_t, or None"
    check_kind("the result of callback_on_step_end", result, Mapping | None, expected)
    for name, value in (result or {}).items():
        if name != "x_t" and (name not in kwargs or value is not kwargs[name]):
            raise ContractError(f"callback_on_step_end can change x_t only, not {name!r}.")
    return result


def split_fields(kind: type[Options], values: Mapping[str, Any]) -> tuple[Options, dict[str, Any]]:
    """Make a dataclass from the values that are fields of it; returns it and the other values."""
    names = {each.name for each in fields(kind)}  # pyright: ignore[reportArgumentType]
    own = {name: value for name, value in values.items() if name in names}
    return kind(**own), {name: value for name, value in values.items() if name not in names}
