"""One call of a pipeline: every stage over all images, a batch at a time.

Shapes: B images, C channels, H and W pixels.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, fields
from typing import Any, Protocol, TypeVar

import torch
from torch import Tensor

from cascade.chain import StageChain
from cascade.conditioning.inputs import Inputs
from cascade.devices import Precision
from cascade.errors import ContractError
from cascade.sampling.settings import Overrides
from cascade.sampling.walk import Hooks
from cascade.stage import Run, Stage

BATCH_PIXELS = 2**18
CALLBACK_TENSORS = ("x_t", "x0")
Options = TypeVar("Options")


@dataclass(frozen=True, kw_only=True)
class CallOptions:
    """Options of a call of a pipeline, besides the usual ones.

    Attributes:
        inputs: what conditions of your own read, by the name of the input.
        overrides: changes of the stages' sampling settings.
        start_at: the stage that takes the image; default: the first that takes its size.
        batch_size: images at a time, which changes memory and time but not the images; default: as
            many as have 2^18 pixels together.
        precision: `auto`, `fp32` or `bf16`.
        keep_intermediates: whether to return the earlier stages' images too.
        callback_on_step_end_tensor_inputs: which of `x_t` and `x0` a callback gets.

    Raises:
        ContractError: if callbacks cannot get one of these.
    """

    inputs: Mapping[str, Any] = field(default_factory=dict)
    overrides: Overrides = field(default_factory=Overrides)
    start_at: str | None = None
    batch_size: int | None = None
    precision: Precision = "auto"
    keep_intermediates: bool = False
    callback_on_step_end_tensor_inputs: Sequence[str] = CALLBACK_TENSORS

    def __post_init__(self) -> None:
        unknown = set(self.callback_on_step_end_tensor_inputs) - set(CALLBACK_TENSORS)
        if unknown:
            raise ContractError(f"callbacks can have {list(CALLBACK_TENSORS)}, not {unknown}.")


class Host(Protocol):
    """What a call needs of its pipeline."""

    @property
    def device(self) -> torch.device:
        """Where the stages are."""
        ...

    def progress_bar(self, *, total: int) -> Any:
        """A bar, as a context."""
        ...

    def enter(self, stage: str | None, steps: int = 0) -> None:
        """Note which stage samples, in how many steps."""
        ...


@dataclass(frozen=True)
class Call:
    """One call of a pipeline.

    Attributes:
        host: the pipeline.
        options: of the call.
        inputs: of the user.
        seeds: of the images.
        on_step: the user's callback, or None.
    """

    host: Host
    options: CallOptions
    inputs: Inputs
    seeds: list[int]
    on_step: Callable[..., Mapping[str, Any] | None] | None

    def run(self, chain: StageChain) -> dict[str, Tensor]:
        """The images of the last stage, and of the others if they are kept, on the CPU."""
        images: dict[str, Tensor] = {}
        previous = None
        for name, stage in chain.items():
            previous = self._run_stage(name, stage, previous)
            if self.options.keep_intermediates or name == chain.names[-1]:
                images[name] = previous
        self.host.enter(None)
        return images

    def _run_stage(self, name: str, stage: Stage, previous: Tensor | None) -> Tensor:
        """The images (B, C, H, W) of one stage."""
        inputs = self.inputs.only(stage.contract.input_names)
        pixels = math.prod(stage.contract.result_size(inputs, previous))
        size = self.options.batch_size or max(1, BATCH_PIXELS // pixels)
        batches = [slice(first, first + size) for first in range(0, len(self.seeds), size)]
        self.host.enter(name)
        results = []
        with self.host.progress_bar(total=len(batches)) as bar:
            bar.set_description(name)
            for part in batches:
                run = Run(
                    hooks=self._hooks(name, part, bar, len(batches)),
                    stream=f"stage {name}",
                    precision=self.options.precision,
                )
                start = None if previous is None else previous[part].to(self.host.device)
                results.append(stage.run(self.seeds[part], inputs.part(part), start, run).cpu())
        return torch.cat(results)

    def _hooks(self, name: str, part: slice, bar: Any, batches: int) -> Hooks:
        """Reports every step of a batch to the progress bar and the callback."""

        def progress(done: int, total: int) -> None:
            self.host.enter(name, total)
            bar.total = total * batches
            bar.update()

        def on_step(step: int, t: int, tensors: dict[str, Tensor]) -> Mapping[str, Any] | None:
            kwargs = {key: tensors[key] for key in self.options.callback_on_step_end_tensor_inputs}
            assert self.on_step is not None
            return self.on_step(self.host, step, t, kwargs | {"seeds": self.seeds[part]})

        return Hooks(callback=None if self.on_step is None else on_step, progress=progress)


def split_fields(kind: type[Options], values: Mapping[str, Any]) -> tuple[Options, dict[str, Any]]:
    """An object of the values that are its fields, and the other values."""
    names = {each.name for each in fields(kind)}  # pyright: ignore[reportArgumentType]
    own = {name: value for name, value in values.items() if name in names}
    return kind(**own), {name: value for name, value in values.items() if name not in names}
