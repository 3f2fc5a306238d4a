"""From what a user asked for to the work on many pictures: upscaling and colourising."""

from __future__ import annotations

import hashlib
import math
import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import torch

from cascade import __version__
from cascade.bulk.inputs import Found, find_inputs
from cascade.bulk.jobs import ImageFormat, is_file_name, plan_jobs
from cascade.bulk.work import Bulk, Method, Moment
from cascade.devices import find_device
from cascade.errors import ContractError
from cascade.imaging.picture_reading import read_picture
from cascade.pipeline import CascadePipeline
from cascade.restoration.colouring import Colouring, colourise_picture, colouriser_of
from cascade.restoration.upscaling import Upscaling, plan_passes, upsamplers_of, upscale_picture
from cascade.saving.atomic import check_writable_folder
from cascade.stage import Stage

Report = Callable[[Moment], None]


@dataclass(frozen=True, kw_only=True)
class Request:
    """What to work on, with which model, and where the results go.

    Attributes:
        inputs: see `find_inputs`.
        out: a folder, or for one input file the name of a file.
        model: a bundled pipeline, a saved one's folder, or a Hub id.
        device: to compute on; None for the best that is there.
        image_format: of all results; None keeps each input's own.
        compare: whether before/after sheets are wanted, in `OUT/compare`.
        metadata: whether EXIF, resolution and settings go into the results.
        overwrite: whether results that were made otherwise may be replaced.
    """

    inputs: Sequence[str]
    out: Path
    model: str
    device: str | None = None
    image_format: ImageFormat | None = None
    compare: bool = False
    metadata: bool = True
    overwrite: bool = False


def prepare_upscaling(
    request: Request, wanted: Upscaling, *, report: Report | None = None
) -> tuple[Bulk, Found]:
    """Make ready to upscale pictures; nothing is written yet.

    Args:
        request: which pictures.
        wanted: how.
        report: called with every change.

    Returns:
        The work, and what the inputs stand for.

    Raises:
        CascadeError: if inputs, settings, model and folder do not go together.
    """
    planned = _Plan(request, [wanted.seed])
    stages = planned.load_stages()
    enlarging = upsamplers_of(list(stages.values()))
    scale = float(wanted.scale or math.prod(stage.contract.scale for stage in enlarging))
    method = Method(
        command="upscale",
        done=_enlarged(enlarging, scale),
        make=lambda picture, seed, progress: upscale_picture(
            enlarging, picture, replace(wanted, seed=seed), progress=progress
        ),
        settings={
            **planned.settings("upscale", stages, enlarging, wanted),
            "scale": scale,
            "tile_px": wanted.tile_px,
            "consistent": wanted.is_consistent(enlarging),
        },
        metadata=request.metadata,
        overwrite=request.overwrite,
        factor=scale,
        before="bicubic",
    )
    return planned.bulk(method, report), planned.found


def _enlarged(stages: Sequence[Stage], scale: float) -> str:
    """What is done to pictures, in words, which say so where the scale is not the model's."""
    passes, _ = plan_passes(stages, (1, 1), scale)
    reached = math.prod(step.stage.contract.scale for step in passes)
    said = "" if reached == scale else f" (x{reached} by the model, resampled to x{scale:g})"
    return f"upscaled{said}"


def prepare_colouring(
    request: Request,
    wanted: Colouring,
    *,
    variants: int = 1,
    hints: Path | None = None,
    report: Report | None = None,
) -> tuple[Bulk, Found]:
    """Make ready to colourise pictures; nothing is written yet.

    Args:
        request: which pictures.
        wanted: how; the hints are given apart.
        variants: how many seeds to make each picture with, counted up from `wanted.seed`.
        hints: a picture with coloured strokes; for one picture only.
        report: called with every change.

    Returns:
        The work, and what the inputs stand for.

    Raises:
        CascadeError: if inputs, settings, model and folder do not go together.
    """
    planned = _Plan(request, range(wanted.seed, wanted.seed + variants))
    count = len(planned.found.pictures)
    if hints is not None and count != 1:
        raise ContractError(f"hints are for one picture, and the inputs are {count}.")
    if hints is not None:
        wanted = replace(wanted, hints=read_picture(hints))
    stages = planned.load_stages()
    colouring = [colouriser_of(list(stages.values()))]
    method = Method(
        command="colourise",
        done="coloured",
        make=lambda picture, seed, progress: colourise_picture(
            colouring, picture, replace(wanted, seed=seed), progress=progress
        ),
        settings={
            **planned.settings("colourise", stages, colouring, wanted),
            "hints_sha256": hints and hashlib.sha256(hints.read_bytes()).hexdigest(),
        },
        metadata=request.metadata,
        overwrite=request.overwrite,
        before="grey",
    )
    return planned.bulk(method, report), planned.found


class _Plan:
    """A request with its inputs found and its jobs checked."""

    def __init__(self, request: Request, seeds: Sequence[int]) -> None:
        self.request = request
        as_file = is_file_name(request.out, request.inputs)
        self.folder = None if as_file else request.out
        self.found = find_inputs(request.inputs, results=self.folder)
        self.jobs, self.variants = plan_jobs(
            self.found.pictures,
            request.out,
            as_file=as_file,
            image_format=request.image_format,
            seeds=seeds,
            compare=request.compare,
        )

    def load_stages(self) -> dict[str, Stage]:
        """The model's stages by name, on the device."""
        device = _own_device(self.request.device)
        return dict(CascadePipeline.from_pretrained(self.request.model).to(device).stages.items())

    def settings(
        self,
        command: str,
        stages: Mapping[str, Stage],
        used: Sequence[Stage],
        wanted: Upscaling | Colouring,
    ) -> dict[str, Any]:
        """What to record; those of the stages that are used are checked first."""
        sampling = {}
        for name, stage in stages.items():
            if stage in used:
                sampling[name] = wanted.settings_of(stage)
                stage.check_settings(sampling[name])
        model = self.request.model
        return {
            "command": command,
            "version": __version__,
            "model": Path(model).name if Path(model).exists() else model,
            "weights": _hash_of(used),
            "stages": {name: asdict(each) for name, each in sampling.items()},
            **({} if self.request.metadata else {"metadata": False}),
        }

    def bulk(self, method: Method, report: Report | None) -> Bulk:
        check_writable_folder(self.folder or self.request.out.parent)
        return Bulk(self.jobs, method, self.folder, variants=self.variants, report=report)


def _own_device(name: str | None) -> torch.device:
    """The device of that name, or the best; processes of one launcher each take their own."""
    device = find_device(name)
    if name is not None or device.type == "cpu":
        return device
    rank = int(os.environ.get("LOCAL_RANK", "0"))
    return torch.device(device.type, rank % torch.accelerator.device_count())


def _hash_of(stages: Sequence[Stage]) -> str:
    """Sixteen hex digits that tell the weights of one model from those of another."""
    digest = hashlib.sha256()
    for stage in stages:
        for name, tensor in sorted(stage.state_dict().items()):
            digest.update(name.encode())
            digest.update(tensor.detach().cpu().reshape(-1).view(torch.uint8).numpy())
    return digest.hexdigest()[:16]
