"""The request of a bulk command, and its pictures, model and jobs before the work begins."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch

from cascade import __version__
from cascade.bulk.earlier import EarlierResults
from cascade.bulk.inputs import find_pictures
from cascade.bulk.jobs import ImageFormat, PageChoice, is_file_name, plan_jobs
from cascade.bulk.making import Method
from cascade.bulk.progress import Note, ProgressUpdate
from cascade.bulk.remarks import model_remark
from cascade.bulk.work import Bulk
from cascade.conditioning.paired_image import PairedImage
from cascade.devices import check_engine_device, find_device
from cascade.errors import CascadeError, ContractError
from cascade.imaging.credentials import Signer
from cascade.imaging.opening import IMAGE_SUFFIXES
from cascade.imaging.picture_reading import Truncated
from cascade.imaging.rasters.reading import RASTER_SUFFIXES
from cascade.pipeline import CascadePipeline
from cascade.restoration.doubt import check_seeds
from cascade.sampling.overrides import Overrides
from cascade.sampling.per_stage import ALL
from cascade.saving.atomic import check_writable_folder
from cascade.saving.components import weights_digest
from cascade.stage import Stage

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
        signer: who signs the results; None for nobody.
        overwrite: whether to replace existing files that differ from the results.
        range: the numbers of a picture that are taken for black and white, from 0 to 255 or 65535;
            results have the same numbers. None takes all that the picture's bits allow.
        pages: whether to work on all pages and frames of a file, or on the first alone.
        truncated: whether to take a JPEG whose end is missing as far as it goes.
        adapters: folders of adapters, each with the factor of its change.
        axis: for bands, axis of a volume along which it is cut into slices; None for the last one.
        nodata: for bands, a number that stands for a missing one besides what files say; None for
            none.
        seeds: number of seeds for each picture, counted up from that of the settings.
        map: whether to write the mean over these seeds and the standard deviation, instead of a
            result per seed.
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
    signer: Signer | None = None
    overwrite: bool = False
    range: tuple[int, int] | None = None
    pages: PageChoice = "all"
    truncated: Truncated = "refuse"
    adapters: Sequence[tuple[str, float]] = ()
    axis: int | None = None
    nodata: float | None = None
    seeds: int = 1
    map: bool = False

    def __post_init__(self) -> None:
        if self.map:
            check_seeds(self.seeds)
        if self.signer is not None and not self.metadata:
            raise ContractError(
                "a signature is metadata, and metadata is to be left out; choose one of the two."
            )
        if self.range is not None and not 0 <= self.range[0] < self.range[1] <= 65535:
            raise ContractError(
                "the range must be two numbers from 0 to 65535, black first and white larger, got "
                f"{self.range[0]} and {self.range[1]}."
            )

    def of_bands(self) -> dict[str, Any]:
        """How files of bands are read and made; arguments of `BandFiles`."""
        axis, seeds = 2 if self.axis is None else self.axis, self.seeds if self.map else 1
        return {"axis": axis, "nodata": self.nodata, "seeds": seeds}


class Preparation:
    """The pictures and jobs of a request, before its model is loaded.

    Args:
        command: `upscale`, `colourise`, `restore` or `edit`.
        request: the user's request.
        seed: seed of the first result of a picture.

    Raises:
        CascadeError: if the inputs do not fit the place of the results.
    """

    def __init__(self, command: str, request: Request, seed: int) -> None:
        self.command = command
        self.request = request
        self.model = _Model(request)
        self.reads_bands = self.model.takes_bands
        writes_bands = self.model.makes_bands
        self.has_bands = self.reads_bands or writes_bands
        _check_options(request, bands=self.has_bands)
        as_file = is_file_name(request.out, request.inputs, bands=writes_bands)
        self.folder = None if as_file else request.out
        suffixes = RASTER_SUFFIXES if self.reads_bands else IMAGE_SUFFIXES
        self.inputs = find_pictures(request.inputs, results=self.folder, suffixes=suffixes)
        self.plan = plan_jobs(
            self.inputs.pictures,
            request.out,
            as_file=as_file,
            image_format=request.image_format,
            seeds=[seed] if request.map else range(seed, seed + request.seeds),
            compare=request.compare,
            pages=request.pages,
            is_result_of=EarlierResults(self.folder, command).made_from,
            bands=writes_bands,
            doubt=request.map,
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
            **({} if (signer := self.request.signer) is None else {"signer": signer.fingerprint}),
        }

    def bulk(self, method: Method, on_progress: OnProgress | None) -> Bulk:
        """Make the loop over all jobs, and create the folder of the results."""
        check_writable_folder(self.folder or self.request.out.parent)
        return Bulk(
            self.plan,
            method.over_seeds(self.request.seeds) if self.request.map else method,
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
    def is_of_pairs(self) -> bool:
        """Whether it makes one image of a pair from the other; no if it cannot be loaded."""
        contracts = self._pipeline.stages.contracts if self._pipeline is not None else []
        return any(each.condition(PairedImage.name) is not None for each in contracts)

    @property
    def takes_bands(self) -> bool:
        """Whether its inputs are bands of measured numbers; no if it cannot be loaded."""
        if self._pipeline is None:
            return False
        first = self._pipeline.stages.first
        condition = first.contract.condition(PairedImage.name)
        space = None if condition is None else condition.image_space(first.space)
        return self.makes_bands if space is None else space.has_bands

    @property
    def makes_bands(self) -> bool:
        """Whether its images are bands of measured numbers; no if it cannot be loaded."""
        if self._pipeline is None:
            return False
        return self._pipeline.stages.last.space.has_bands

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
        "a signature": request.signer,
    }
    numbers = {"an axis of volumes": request.axis, "a number for missing ones": request.nodata}
    unused = [name for name, value in (colours if bands else numbers).items() if value is not None]
    if unused:
        kind, other = ("colour pictures", "bands") if bands else ("bands", "colour pictures")
        raise ContractError(f"{unused[0]} is for {kind}, but this model makes {other}; leave it.")


def _load(request: Request) -> CascadePipeline:
    """Load the model onto the device, or let the engine run it."""
    pipeline = CascadePipeline.from_pretrained(request.model)
    for folder, scale in request.adapters:
        pipeline = pipeline.with_adapter(folder, scale)
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
