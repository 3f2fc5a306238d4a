"""Turns a user's request to upscale or colourise many pictures into jobs and settings."""

from __future__ import annotations

import hashlib
import math
import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import torch

from cascade import __version__
from cascade.bulk.band_files import BandFiles
from cascade.bulk.earlier import EarlierResults
from cascade.bulk.inputs import find_pictures
from cascade.bulk.jobs import ImageFormat, Job, PageChoice, is_file_name, plan_jobs
from cascade.bulk.making import Method
from cascade.bulk.progress import Note, ProgressUpdate
from cascade.bulk.remarks import colour_remark, model_remark, range_remark
from cascade.bulk.work import Bulk
from cascade.devices import check_engine_device, find_device
from cascade.errors import CascadeError, ContractError
from cascade.imaging.opening import IMAGE_SUFFIXES
from cascade.imaging.picture_reading import Truncated, read_picture
from cascade.imaging.rasters.reading import RASTER_SUFFIXES
from cascade.imaging.value_range import worked_on_stretched
from cascade.pipeline import CascadePipeline
from cascade.restoration.colouring import Colouring, colourise_pictures, colouriser_of
from cascade.restoration.passes import plan_passes, upsamplers_of
from cascade.restoration.upscaling import Upscaling, upscale_pictures
from cascade.sampling.overrides import Overrides
from cascade.sampling.per_stage import ALL
from cascade.saving.atomic import check_writable_folder
from cascade.saving.components import weights_digest
from cascade.stage import Stage

WORK_PER_PIXEL = 0.01  # of colouring a pixel at full size, against drawing one
TOGETHER_PX = {"cpu": 2**17, "accelerator": 2**21}  # more gain nothing on a CPU of one core
OnProgress = Callable[[ProgressUpdate], None]


@dataclass(frozen=True, kw_only=True)
class Request:
    """The pictures to work on, the model, and the place of the results.

    Attributes:
        inputs: names of files, folders and shards, and patterns; see `find_pictures`.
        out: a folder, or for a single input the file of its result.
        model: a bundled pipeline, the folder of a saved one, or a Hub id.
        overrides: changes to the sampling settings of the model's stages.
        device: the device to compute on, such as `cuda`; None for the best one available.
        engine: `openvino` or a folder of `cascade export`, to run the networks on the CPU; None for
            PyTorch.
        image_format: file format of all results; None keeps the formats of the inputs.
        compare: whether to write before/after sheets into `OUT/compare`.
        metadata: whether to write EXIF, resolution and settings into the results.
        overwrite: whether to replace existing files that differ from the results.
        range: the numbers of a picture that are taken for black and white, from 0 to 255 or 65535;
            results have the same numbers. None takes all that the picture's bits allow.
        pages: whether to work on all pages and frames of a file, or on the first alone.
        truncated: whether to take a JPEG whose end is missing as far as it goes.
        axis: for bands, axis of a volume along which it is cut into slices; None for the last one.
        nodata: for bands, the number that stands for a missing one; None for what files say.
    """

    inputs: Sequence[str]
    out: Path
    model: str
    overrides: Overrides = field(default_factory=Overrides)
    device: str | None = None
    engine: str | None = None
    image_format: ImageFormat | None = None
    compare: bool = False
    metadata: bool = True
    overwrite: bool = False
    range: tuple[int, int] | None = None
    pages: PageChoice = "all"
    truncated: Truncated = "refuse"
    axis: int | None = None
    nodata: float | None = None

    def __post_init__(self) -> None:
        if self.range is not None and not 0 <= self.range[0] < self.range[1] <= 65535:
            raise ContractError(
                "the range must be two numbers from 0 to 65535, black first and white larger, got "
                f"{self.range[0]} and {self.range[1]}."
            )


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
    plan = _Preparation("upscale", request, [upscaling.seed])
    stages = plan.load_stages(lambda stages: _stages_that_upscale(stages, upscaling.scale))
    upsamplers = upsamplers_of(list(stages.values()))
    scale = float(upscaling.scale or math.prod(stage.contract.scale for stage in upsamplers))
    method = Method(
        command="upscale",
        description=_description(upsamplers, scale),
        make=lambda pictures, seeds, progress: worked_on_stretched(
            pictures,
            request.range,
            lambda each: upscale_pictures(upsamplers, each, seeds, upscaling, progress=progress),
        ),
        remark=lambda picture: range_remark(picture, request.range),
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
        overwrite=request.overwrite,
        truncated=request.truncated,
        factor=scale,
        before="bicubic",
        work_together=0.0 if plan.reads_bands else _work_together(upsamplers[0]),
        make_file=_band_files(request, upsamplers, upscaling).make if plan.reads_bands else None,
    )
    return plan.bulk(method, on_progress)


def _band_files(request: Request, stages: Sequence[Stage], upscaling: Upscaling) -> BandFiles:
    axis = 2 if request.axis is None else request.axis
    return BandFiles(stages=stages, upscaling=upscaling, axis=axis, nodata=request.nodata)


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
    variants: int = 1,
    hints: Path | None = None,
    on_progress: OnProgress | None = None,
) -> Bulk:
    """Prepare the colouring of pictures; results are written by `Bulk.run`.

    Args:
        request: the pictures and the place of the results.
        colouring: how to colour each picture; `hints` replaces its hints.
        variants: number of seeds to colour each picture with, counted up from `colouring.seed`.
        hints: file of a picture with coloured strokes; for a single input only.
        on_progress: called with every change.

    Raises:
        CascadeError: if inputs, settings, model and folder do not fit together.
    """
    plan = _Preparation("colourise", request, range(colouring.seed, colouring.seed + variants))
    count = len(plan.inputs.pictures)
    if hints is not None and count != 1:
        raise ContractError(f"hints need exactly one input picture, got {count}; name one picture.")
    if hints is not None:
        _check_one_page(plan.plan.jobs[0])
        colouring = replace(colouring, hints=read_picture(hints))
    stages = plan.load_stages(lambda stages: [colouriser_of(stages)])
    colouriser = colouriser_of(list(stages.values()))
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
        metadata=request.metadata,
        overwrite=request.overwrite,
        truncated=request.truncated,
        before="grey",
        work_together=_work_together(colouriser),
    )
    return plan.bulk(method, on_progress)


def _check_one_page(job: Job) -> None:
    """Check that hints are not for several pages, on which the strokes would lie at random."""
    pages = 1 if job.pages == "first" else job.source.page_count()
    if pages > 1:
        raise ContractError(
            f"hints need a picture of one page, and {job.source.name} has {pages}; take the first "
            "alone, or save the pages as pictures of their own."
        )


def _coloured_px(stage: Stage, size_px: tuple[int, int]) -> float:
    """The number of pixels that a colouriser draws for a picture, and a share for all others."""
    height, width = size_px
    drawn = math.prod(size_px) * min(1.0, stage.space.longer_px / min(height, width)) ** 2
    return drawn + WORK_PER_PIXEL * height * width


def _work_together(stage: Stage) -> float:
    """How many pixels a stage draws at once at most, of several pictures."""
    return TOGETHER_PX["cpu" if stage.device.type == "cpu" else "accelerator"]


class _Preparation:
    """The pictures and jobs of a request, before its model is loaded.

    Args:
        command: `upscale` or `colourise`.
        request: the user's request.
        seeds: one whole number per variant of a picture.

    Raises:
        CascadeError: if the inputs do not fit the place of the results.
    """

    def __init__(self, command: str, request: Request, seeds: Sequence[int]) -> None:
        self.command = command
        self.request = request
        self.model = _Model(request)
        self.reads_bands = self.model.makes_bands
        _check_options(request, bands=self.reads_bands)
        as_file = is_file_name(request.out, request.inputs, bands=self.reads_bands)
        self.folder = None if as_file else request.out
        suffixes = RASTER_SUFFIXES if self.reads_bands else IMAGE_SUFFIXES
        self.inputs = find_pictures(request.inputs, results=self.folder, suffixes=suffixes)
        self.plan = plan_jobs(
            self.inputs.pictures,
            request.out,
            as_file=as_file,
            image_format=request.image_format,
            seeds=seeds,
            compare=request.compare,
            pages=request.pages,
            is_result_of=EarlierResults(self.folder, command).made_from,
            bands=self.reads_bands,
        )
        self.notes = [self.inputs.left_out.note()] if self.inputs.left_out else []
        self.notes += self.plan.notes

    def load_stages(self, select: Callable[[Sequence[Stage]], list[Stage]]) -> dict[str, Stage]:
        """Load the stages of the model by name, onto the device, and apply the user's settings.

        Args:
            select: finds the stages that run.

        Raises:
            ContractError: if settings do not fit, or are for a stage that does not run.
        """
        stages = dict(self.model.load().stages.items())
        overrides = self.request.overrides
        overrides.check(list(stages))
        selected = select(list(stages.values()))
        running = {name: stage for name, stage in stages.items() if stage in selected}
        self._check_that_settings_are_read(list(running))
        changed = {
            name: stage.with_sampling(overrides.apply(name, stage.sampling))
            for name, stage in running.items()
        }
        if remark := model_remark(self._model_name, changed):
            self.notes.append(Note(remark))
        return {**stages, **changed}

    def _check_that_settings_are_read(self, running: Sequence[str]) -> None:
        for stage, settings in self.request.overrides.values.items():
            if stage not in (ALL, *running) and settings:
                raise ContractError(
                    f"{', '.join(f'{stage}.{name}' for name in settings)}: stage {stage!r} does "
                    f"not run in {self.command}; its stages: {', '.join(running)}."
                )

    @property
    def _model_name(self) -> str:
        """The name of the model, without the folders that lead to it."""
        model = self.request.model
        return Path(model).resolve().name if Path(model).exists() else model

    def settings(self, stages: Mapping[str, Stage], running: Sequence[Stage]) -> dict[str, Any]:
        """The settings to record in results: command, model, and sampling of the running stages."""
        sampling = {n: stage.sampling.to_dict() for n, stage in stages.items() if stage in running}
        return {
            "command": self.command,
            "version": __version__,
            "model": self._model_name,
            "weights": weights_digest(*running)[:16],
            "stages": sampling,
            **({} if self.request.metadata else {"metadata": False}),
        }

    def bulk(self, method: Method, on_progress: OnProgress | None) -> Bulk:
        """Make the loop over all jobs, and create the folder of the results."""
        check_writable_folder(self.folder or self.request.out.parent)
        return Bulk(
            self.plan,
            method,
            self.folder,
            inputs=self.inputs,
            notes=self.notes,
            on_progress=on_progress,
        )


class _Model:
    """The model of a request, loaded once and early: it decides which files are inputs.

    An error is kept until the model is asked for, since those of the inputs come first.
    """

    def __init__(self, request: Request) -> None:
        self._pipeline: CascadePipeline | None = None
        self._error: CascadeError | None = None
        try:
            self._pipeline = _load(request)
        except CascadeError as error:
            self._error = error

    @property
    def makes_bands(self) -> bool:
        """Whether its images are bands of measured numbers; no if it cannot be loaded."""
        if self._pipeline is None:
            return False
        space = self._pipeline.stages.last.space
        return space.kind == "pixels" and not space.is_colour

    def load(self) -> CascadePipeline:
        """The pipeline.

        Raises:
            CascadeError: if it cannot be loaded.
        """
        if self._error is not None:
            raise self._error
        assert self._pipeline is not None
        return self._pipeline


def _check_options(request: Request, *, bands: bool) -> None:
    """Refuse options that have no effect on bands, or on colour pictures.

    Raises:
        ContractError: naming the option.
    """
    colours = {
        "a file format for all results": request.image_format,
        "before/after sheets": request.compare or None,
        "a range for black and white": request.range,
        "leaving the metadata out": None if request.metadata else True,
    }
    numbers = {"an axis of volumes": request.axis, "a number for missing ones": request.nodata}
    unused = [name for name, value in (colours if bands else numbers).items() if value is not None]
    if unused:
        kind, other = ("colour pictures", "bands") if bands else ("bands", "colour pictures")
        raise ContractError(f"{unused[0]} is for {kind}, but this model makes {other}; leave it.")


def _load(request: Request) -> CascadePipeline:
    """Load the model onto the device, or let the engine run it."""
    pipeline = CascadePipeline.from_pretrained(request.model)
    if request.engine is None:
        return pipeline.to(_device_of_process(request.device))
    check_engine_device(request.device)
    return pipeline.with_engine(request.engine)


def _device_of_process(name: str | None) -> torch.device:
    """The device with that name, or the best one; each process of a launcher gets its own."""
    device = find_device(name)
    if name is not None or device.type == "cpu":
        return device
    rank = int(os.environ.get("LOCAL_RANK", "0"))
    return torch.device(device.type, rank % torch.accelerator.device_count())
