"""Turns a user's request to edit pictures into jobs and settings."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Literal

from torch import Tensor

from cascade.bulk.method import Method, PartProgress
from cascade.bulk.preparing import OnProgress, Preparation
from cascade.bulk.request import Request
from cascade.bulk.work import Bulk
from cascade.errors import ContractError
from cascade.imaging.picture import Picture
from cascade.imaging.picture_reading import read_picture
from cascade.pipeline import CascadePipeline
from cascade.restoration.editing import (
    Editing,
    check_can_edit,
    check_samplers,
    check_without_surroundings,
)
from cascade.restoration.holes import Borders, grown, hole_in, hole_of
from cascade.restoration.subject import NO_HOLE
from cascade.saving.pipelines import model_record
from cascade.stage import Stage

TEXT_OPTIONS = {"prompt": "--prompt", "negative_prompt": "--negative"}
NO_DAMAGE = (
    "no damaged area is marked: pass --mask, or an image that is transparent there. cascade "
    "upscale removes noise and JPEG blocks; a --model that was trained on pairs repairs other "
    "damage."
)


@dataclass(frozen=True, kw_only=True)
class Repainting:
    """What to repaint in each picture, and by what.

    Attributes:
        editing: how to edit.
        mask: file of a mask for all pictures, white where to repaint; None for their transparent
            pixels.
        uncrop: pixels to add at left, top, right and bottom; None for no pixels.
        words: `prompt`, `negative_prompt` and `labels` as for `CascadePipeline.edit`.
        seed: seed of the first variant.
        command: the command that asks for it, which results record.
    """

    editing: Editing = field(default_factory=Editing)
    mask: Path | None = None
    uncrop: Sequence[int] | None = None
    words: Mapping[str, str] = field(default_factory=dict)
    seed: int = 0
    command: Literal["edit", "restore"] = "edit"


def prepare_editing(
    request: Request, repainting: Repainting, *, on_progress: OnProgress | None = None
) -> Bulk:
    """Prepare the editing of pictures; results are written by `Bulk.run`.

    Args:
        request: the pictures and the place of the results.
        repainting: what to repaint, and by what.
        on_progress: called with every change.

    Raises:
        CascadeError: if inputs, mask, settings, model and folder do not fit together.
    """
    plan = Preparation(repainting.command, request, repainting.seed, repainting.mask)
    return edits(plan, repainting, on_progress=on_progress)


def edits(
    plan: Preparation, repainting: Repainting, *, on_progress: OnProgress | None = None
) -> Bulk:
    """Prepare the editing of pictures whose jobs are planned; see `prepare_editing`."""
    request, editing = plan.request, repainting.editing
    mask = None if repainting.mask is None else _read_mask(repainting.mask)
    uncrop = None if repainting.uncrop is None else Borders.of(list(repainting.uncrop))
    if mask is not None and uncrop is None:
        _check_not_empty(mask, repainting.mask, plan)
    pipeline = plan.model.load().with_sampling(request.overrides)
    pipeline.set_progress_bar_config(disable=True)
    is_full = mask is not None and _is_full(mask, editing.grow_px)
    is_whole = is_full or (mask is None and uncrop is None)
    check_can_edit(pipeline.stages.contracts, editing, is_whole=is_whole)
    stages, first = dict(pipeline.stages.items()), pipeline.stages.first.contract
    running = list(stages.values())
    _check_texts_are_read(repainting.words, running, model_record(request.model)["model"])
    if "prompt" in repainting.words:
        pipeline.check_prompts([repainting.words["prompt"]])
    # Evaluation reads captions, so that its figures of models that take text hold for none.
    has_words = bool(repainting.words) or any(each.contract.takes_text for each in running)
    if is_full:
        editing.check_resampling("the whole image is redrawn")
        check_without_surroundings(first, editing)
    check_samplers(running, editing, is_whole=is_whole)

    def make(
        pictures: Sequence[Picture], seeds: Sequence[int], progress: PartProgress
    ) -> list[Picture]:
        arguments: dict[str, Any] = {**asdict(editing), **repainting.words}
        arguments |= {"uncrop": uncrop, "progress": progress, "on_remark": _ignore}
        return [
            pipeline.edit(picture, mask, seed=seed, **arguments).images[0]
            for picture, seed in zip(pictures, seeds, strict=True)
        ]

    def hole(picture: Picture) -> Tensor:
        return hole_in(picture, mask, uncrop, editing.grow_px)

    def check(picture: Picture) -> None:
        if hole(picture).any():
            return
        if repainting.command == "restore":
            raise ContractError(NO_DAMAGE)
        if mask is None and uncrop is None and editing.strength == 1:
            raise ContractError(NO_HOLE)

    method = Method(
        command=plan.command,
        description=f"{repainting.command.removesuffix('e')}ed",
        make=make,
        settings=plan.settings(stages, running) | _recorded(repainting),
        work=lambda size_px: _drawn_px(pipeline, size_px),
        remark=lambda picture: editing.remark(first, hole(picture)),
        metadata=request.metadata,
        signer=request.signer,
        overwrite=request.overwrite,
        truncated=request.truncated,
        before="same",
        check=check,
        added_px=(0, 0) if uncrop is None else uncrop.added_px,
        expected=plan.expected_error(running, editing, has_words=has_words),
        hole=hole,
    )
    return plan.bulk(method, on_progress)


def _check_texts_are_read(words: Mapping[str, str], stages: Sequence[Stage], model: str) -> None:
    """Check that the model takes text if there is a text.

    Raises:
        ContractError: if it takes none.
    """
    given = [name for name in TEXT_OPTIONS if name in words]
    if not given or any(each.contract.takes_text for each in stages):
        return
    name, option = given[0], TEXT_OPTIONS[given[0]]
    has_classes = any(each.classes for stage in stages for each in stage.conditions)
    raise ContractError(
        f"{model} takes no {name.replace('_', ' ')}; leave {option} out"
        f"{', give a class with --class' if has_classes else ''}, or name a pipeline that takes "
        "text with --model."
    )


def _ignore(remark: str) -> None:
    """Pass over what the method remarks of each picture itself."""


def _read_mask(path: Path) -> Picture:
    """Read a mask.

    Raises:
        CascadeError: if it cannot be read, or has colours.
    """
    mask = read_picture(path)
    try:
        hole_of(mask, mask.size)
    except ContractError as error:
        raise ContractError(f"{path}: {error}") from error
    return mask


def _check_not_empty(mask: Picture, path: Path | None, plan: Preparation) -> None:
    """Check that something in a mask is white.

    Raises:
        CascadeError: if it is black, or does not even have the size of the only picture.
    """
    if hole_of(mask, mask.size).any():
        return
    if len(plan.inputs.pictures) == 1:
        hole_of(mask, plan.inputs.pictures[0].read(plan.request.truncated).size)
    raise ContractError(
        f"{path}: the mask is empty, because no pixel is brighter than middle grey; paint the "
        "area to inpaint white."
    )


def _is_full(mask: Picture, grow_px: int) -> bool:
    """Whether a mask leaves nothing of its pictures once it has grown."""
    return bool(grown(hole_of(mask, mask.size), grow_px).all())


def _recorded(repainting: Repainting) -> dict[str, Any]:
    """The settings to record in results, without those that say nothing."""
    mask = repainting.mask
    values = {
        **asdict(repainting.editing),
        **repainting.words,
        "mask_sha256": mask and hashlib.sha256(mask.read_bytes()).hexdigest(),
        "uncrop": repainting.uncrop and list(repainting.uncrop),
    }
    return {name: value for name, value in values.items() if value is not None}


def _drawn_px(pipeline: CascadePipeline, size_px: tuple[int, int]) -> int:
    """The number of pixels that all stages draw for a picture, at most."""
    if pipeline.stages.first.contract.needs_image:
        return math.prod(size_px)
    return sum(math.prod(stage.space.size) for _, stage in pipeline.stages.items())
