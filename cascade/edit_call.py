"""One call that edits a picture: reads its arguments, runs the chain and pastes the results.

Shapes: B images, C channels, H and W pixels.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Protocol

from torch import Tensor

from cascade.arguments import check_callable
from cascade.call import (
    Call,
    CallOptions,
    CascadeOutput,
    Host,
    StepEnd,
    check_step_end,
    split_fields,
)
from cascade.call_arguments import (
    check_call_arguments,
    check_can_compute,
    field_names,
    with_settings,
)
from cascade.call_inputs import completed_inputs, image_count
from cascade.chain import StageChain
from cascade.chain_settings import sampling_of
from cascade.conditioning.inputs import Inputs
from cascade.diffusion.noise import make_seeds
from cascade.errors import ContractError
from cascade.imaging.exchange import as_output
from cascade.restoration.editing import (
    Editing,
    check_can_edit,
    check_samplers,
    check_without_surroundings,
    prepare_edit,
)
from cascade.restoration.holes import MaskLike
from cascade.restoration.subject import EditedLike, Subject
from cascade.sampling.walk import Progress

EDIT_ARGUMENTS = (
    "image",
    "mask",
    "prompt",
    "negative_prompt",
    "num_images",
    "labels",
    "seed",
    "seeds",
    "generator",
    "uncrop",
)
logger = logging.getLogger(__name__)
OnInputs = Callable[[StageChain, Inputs], None]
OnRemark = Callable[[str], None]


class EditHost(Host, Protocol):
    """The part of a pipeline that an edit uses."""

    stages: StageChain


def edit(
    host: EditHost,
    image: EditedLike,
    mask: MaskLike | None,
    arguments: Mapping[str, Any],
    *,
    on_inputs: OnInputs,
    on_remark: OnRemark | None,
    callback: StepEnd | None,
    progress: Progress | None,
) -> CascadeOutput:
    """Edit a picture; see `CascadePipeline.edit`.

    Args:
        host: the pipeline.
        image: one picture.
        mask: white where to repaint; None for none.
        arguments: the other arguments of the call by name.
        on_inputs: called with the chain and its inputs before any work.
        on_remark: called with what the user should know; None for a warning in the log.
        callback: called after every step; None for nothing.
        progress: called as `progress(done, total)`; None for nothing.

    Raises:
        ContractError: if an argument does not fit the stages.
    """
    chain = host.stages
    check_step_end(callback)
    check_callable("progress", progress)
    check_callable("on_remark", on_remark)
    on_remark = on_remark or logger.warning
    request = _Request.of(chain, arguments)
    options, editing = request.options, request.editing
    subject = Subject.of(
        image,
        mask,
        uncrop=request.own["uncrop"],
        whole=editing.strength < 1,
        grow_px=editing.grow_px,
    )
    is_empty = not bool(subject.hole.any())
    if is_empty:
        on_remark("the mask is empty, so the image stays as it is")
    if subject.hole.all():
        editing.check_resampling("the whole image is redrawn")
    hole = ~subject.hole if is_empty else subject.hole  # so that all settings are checked
    work, box = prepare_edit(chain.contracts, subject.image, hole, editing)
    if work.hole.all() and not is_empty:
        check_without_surroundings(chain.first.contract, editing)
    if remark := editing.remark(chain.first.contract, subject.hole):
        on_remark(f"the image {remark}")
    start = work.input_image(chain.first)
    run = with_settings(chain, chain, options, request.settings)
    check_samplers((stage for _, stage in run.items()), editing, is_whole=bool(hole.all()))
    inputs, seeds = request.inputs(run, start), request.seeds
    on_inputs(run, inputs)
    if is_empty:
        results, images = subject.unchanged(len(seeds)), {}
    else:
        call = Call(host, options, inputs, seeds, callback, edit=work, progress=progress)
        images = call.run(run)
        window, from_hole = images.pop(run.names[-1]), editing.strength < 1
        results = subject.pasted(
            window, box, editing.feather_px, from_hole=from_hole, stays_grey=editing.stays_grey
        )
    return CascadeOutput(
        images=results,
        seeds=seeds,
        prompts=inputs.get("prompt") or ["" for _ in seeds],
        labels=inputs.get("labels") or [{} for _ in seeds],
        settings=sampling_of(run.items()),
        intermediates={name: _shown(each) for name, each in images.items()},
    )


@dataclass(frozen=True)
class _Request:
    """The arguments of an edit, sorted.

    Attributes:
        own: those of `EDIT_ARGUMENTS` by name; None for those left out.
        editing: how to edit.
        options: options of a call.
        settings: sampling settings.
        seeds: one whole number per result.
    """

    own: Mapping[str, Any]
    editing: Editing
    options: CallOptions
    settings: Mapping[str, Any]
    seeds: list[int]

    @classmethod
    def of(cls, chain: StageChain, arguments: Mapping[str, Any]) -> _Request:
        """Sort the arguments, and check that they exist and that the chain can edit."""
        known = (*EDIT_ARGUMENTS, *field_names(Editing), *field_names(CallOptions))
        check_call_arguments(chain, arguments, known)
        own = {name: arguments.get(name) for name in EDIT_ARGUMENTS}
        further = {name: each for name, each in arguments.items() if name not in EDIT_ARGUMENTS}
        editing, further = split_fields(Editing, further)
        options, settings = split_fields(CallOptions, further)
        for name in ("start_at", "stop_at"):
            if getattr(options, name) is not None:
                raise ContractError(
                    f"{name} has no effect here: edits run all stages; leave it out."
                )
        check_can_compute(chain, options.precision)
        check_can_edit(chain.contracts, editing, is_whole=True)
        count = image_count(own["num_images"], own["prompt"], own.get("labels"), None)
        seeds = make_seeds(count, own["seed"], own["seeds"], own["generator"])
        return cls(own, editing, options, settings, seeds)

    def inputs(self, run: StageChain, start: Tensor | None) -> Inputs:
        """The completed inputs of the stages.

        Args:
            run: the stages.
            start: (1, C or C + 1, h, w), the input of a first stage that takes an image; else None.
        """
        names = ("labels", "prompt", "negative_prompt")
        values = {name: self.own[name] for name in names}
        values["image"] = None if start is None else start.expand(len(self.seeds), -1, -1, -1)
        return completed_inputs(run, self.options.inputs, values, self.seeds, draw=False)


def _shown(images: Tensor) -> Any:
    """Images of an earlier stage as PIL images, or as tensors if PIL cannot hold them."""
    return as_output(images, "pil" if images.shape[1] in (1, 3) else "pt")
