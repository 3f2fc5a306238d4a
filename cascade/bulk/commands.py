"""Turns a user's request to upscale or colourise many pictures into jobs and settings."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from cascade.bulk.band_files import BandFiles
from cascade.bulk.jobs import Job, is_one_file
from cascade.bulk.method import Method
from cascade.bulk.preparing import OnProgress, Preparation
from cascade.bulk.remarks import (
    colour_remark,
    defects_remark,
    range_remark,
    reason_not_to_colour,
)
from cascade.bulk.request import Request
from cascade.bulk.work import Bulk
from cascade.errors import ContractError
from cascade.imaging.picture import Picture
from cascade.imaging.picture_reading import read_picture
from cascade.imaging.rasters.raster import Raster
from cascade.imaging.value_range import worked_on_stretched
from cascade.restoration.bands import upscale_raster
from cascade.restoration.colouring import (
    Colouring,
    check_hints,
    colourise_pictures,
    colouriser_of,
)
from cascade.restoration.expected_error import ExpectedError
from cascade.restoration.passes import plan_passes, upsamplers_of
from cascade.restoration.upscaling import Upscaling, upscale_pictures
from cascade.sampling.walk import Progress
from cascade.stage import Stage

WORK_PER_PIXEL = 0.01  # of colouring a pixel at full size, against drawing one
TOGETHER_PX = {"cpu": 2**17, "accelerator": 2**21}  # more gain nothing on a CPU of one core


def prepare_upscaling(
    request: Request, upscaling: Upscaling, *, on_progress: OnProgress | None = None
) -> Bulk:
    """Prepare the upscaling of pictures; results are written by `Bulk.run`.

    Args:
        request: the pictures and the place of the results.
        upscaling: how to upscale each picture.
        on_progress: called with every change.

    Raises:
        CascadeError: if inputs, settings, model and folder do not fit together.
    """
    plan = Preparation("upscale", request, upscaling.seed)
    stages = plan.load_stages(lambda stages: _stages_that_upscale(stages, upscaling.scale))
    upsamplers = upsamplers_of(list(stages.values()))
    expected = plan.expected_error(upsamplers, upscaling)
    scale = float(upscaling.scale or math.prod(stage.contract.scale for stage in upsamplers))
    files = _band_files(request, upsamplers, upscaling, expected) if plan.reads_bands else None
    method = Method(
        command="upscale",
        description=_description(upsamplers, scale),
        make=lambda pictures, seeds, progress: worked_on_stretched(
            pictures,
            request.range,
            lambda each: upscale_pictures(upsamplers, each, seeds, upscaling, progress=progress),
        ),
        remark=lambda picture: "; it ".join(
            filter(
                None, (range_remark(picture, request.range), defects_remark(picture, upsamplers))
            )
        ),
        settings={
            **plan.settings(stages, upsamplers),
            "scale": scale,
            "tile_px": upscaling.tile_px,
            "consistent": upscaling.is_consistent(upsamplers),
            **({} if request.range is None else {"range": list(request.range)}),
            **({} if request.axis is None else {"axis": request.axis}),
            **({} if request.nodata is None else {"nodata": request.nodata}),
        },
        work=lambda size_px: _drawn_px(upsamplers, size_px, scale),
        metadata=request.metadata,
        signer=request.signer,
        overwrite=request.overwrite,
        truncated=request.truncated,
        factor=scale,
        before="bicubic",
        work_together=0.0 if files else _work_together(upsamplers[0]),
        make_file=files and files.make,
        check_file=files and files.check,
        layout=files and files.layout,
        expected=expected,
    )
    return plan.bulk(method, on_progress)


def _band_files(
    request: Request,
    stages: Sequence[Stage],
    upscaling: Upscaling,
    expected: ExpectedError | None,
) -> BandFiles:
    def restore(raster: Raster, seed: int, progress: Progress) -> Raster:
        return upscale_raster(stages, raster, replace(upscaling, seed=seed), progress=progress)

    space = stages[0].space
    return BandFiles(
        restore=restore, space=space, result_space=space, expected=expected, **request.of_bands()
    )


def _stages_that_upscale(stages: Sequence[Stage], scale: float | None) -> list[Stage]:
    passes, _ = plan_passes(stages, (1, 1), scale)
    return [step.stage for step in passes]


def _drawn_px(stages: Sequence[Stage], size_px: tuple[int, int], scale: float) -> int:
    """The number of pixels that all passes over a picture draw."""
    passes, _ = plan_passes(stages, size_px, scale)
    return sum(math.prod(step.size_px) * step.stage.contract.scale**2 for step in passes)


def _description(stages: Sequence[Stage], scale: float) -> str:
    """The word `upscaled`, with both factors if the model alone does not give the scale."""
    passes, _ = plan_passes(stages, (1, 1), scale)
    model_scale = math.prod(step.stage.contract.scale for step in passes)
    if model_scale == scale:
        return "upscaled"
    return f"upscaled (x{model_scale} by the model, resampled to x{scale:g})"


def prepare_colouring(
    request: Request,
    colouring: Colouring,
    *,
    hints: Path | None = None,
    recolour: bool = False,
    on_progress: OnProgress | None = None,
) -> Bulk:
    """Prepare the colouring of pictures; results are written by `Bulk.run`.

    Args:
        request: the pictures and the place of the results.
        colouring: how to colour each picture; `hints` replaces its hints.
        hints: file of a picture with coloured strokes; for a single input only.
        recolour: whether to work on pictures that have colours already, too. A single picture that
            is named by itself or that the hints are for, and those of shards, are always worked on.
        on_progress: called with every change.

    Raises:
        CascadeError: if inputs, settings, model and folder do not fit together.
    """
    plan = Preparation("colourise", request, colouring.seed)
    count = len(plan.inputs.pictures)
    if hints is not None and count != 1:
        raise ContractError(f"hints need exactly one input image, got {count}; name one image.")
    if hints is not None:
        _check_one_page(plan.plan.jobs[0])
        colouring = replace(colouring, hints=read_picture(hints))
    is_named = hints is not None or request.listing is not None or is_one_file(request.inputs)
    stages = plan.load_stages(lambda stages: [colouriser_of(stages)])
    colouriser = colouriser_of(list(stages.values()))

    def check(picture: Picture) -> None:
        if colouring.hints is not None:
            check_hints(colouriser, colouring.hints, picture.size)

    method = Method(
        command="colourise",
        description="coloured",
        make=lambda pictures, seeds, progress: colourise_pictures(
            [colouriser], pictures, seeds, colouring, progress=progress
        ),
        settings={
            **plan.settings(stages, [colouriser]),
            "hints_sha256": hints and hashlib.sha256(hints.read_bytes()).hexdigest(),
        },
        work=lambda size_px: _coloured_px(colouriser, size_px),
        remark=colour_remark,
        check=check,
        reason_to_leave_out=_takes_all if recolour or is_named else reason_not_to_colour,
        metadata=request.metadata,
        signer=request.signer,
        overwrite=request.overwrite,
        truncated=request.truncated,
        before="grey",
        work_together=_work_together(colouriser),
        expected=plan.expected_error([colouriser], colouring),
    )
    return plan.bulk(method, on_progress)


def _takes_all(picture: Picture) -> str:
    return ""


def _check_one_page(job: Job) -> None:
    """Check that hints are not for several pages, on which the strokes would lie at random."""
    pages = 1 if job.pages == "first" else job.source.page_count()
    if pages > 1:
        raise ContractError(
            f"hints need an image of one page, but {job.source.name} has {pages}; take the first "
            "alone, or save the pages as separate images."
        )


def _coloured_px(stage: Stage, size_px: tuple[int, int]) -> float:
    """The number of pixels that a colouriser draws for a picture, and a share for all others."""
    height, width = size_px
    drawn = math.prod(size_px) * min(1.0, stage.space.longer_px / min(height, width)) ** 2
    return drawn + WORK_PER_PIXEL * height * width


def _work_together(stage: Stage) -> float:
    """How many pixels a stage draws at once at most, of several pictures."""
    return TOGETHER_PX["cpu" if stage.device.type == "cpu" else "accelerator"]
