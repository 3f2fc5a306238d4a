"""Generates picture files with a pipeline."""

from __future__ import annotations

import json
import logging
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import Any, NamedTuple

import torch
from filelock import FileLock, Timeout
from torch import Tensor

from cascade import __version__
from cascade.diffusion.noise import make_seeds
from cascade.errors import ContractError, OutputError
from cascade.imaging.credentials import Signer, signed_file
from cascade.imaging.numbered_files import NumberedFiles, free_number, picture_name
from cascade.imaging.picture_series import PictureSeries, digest, earlier_series
from cascade.imaging.rasters.reading import read_raster
from cascade.imaging.rasters.showing import as_rgb, with_scale_bar
from cascade.imaging.rasters.tiff_writing import write_tiff
from cascade.imaging.reading import decode_image, read_image
from cascade.imaging.writing import (
    RECORD,
    check_can_be_pictures,
    contact_sheet,
    save_png,
    to_pil,
)
from cascade.pipeline import CascadeOutput, CascadePipeline
from cascade.restoration.bands import raster_of
from cascade.sampling.overrides import Overrides
from cascade.saving.atomic import check_writable_folder
from cascade.space import Space
from cascade.stage import Stage

PICTURES_AT_A_TIME = 16  # they are written before the next ones begin
logger = logging.getLogger(__name__)
MOST_IN_GRID = 64


@dataclass(frozen=True, kw_only=True)
class Generation:
    """What to generate; see `CascadePipeline.__call__`.

    Attributes:
        num_images: number of pictures; of each prompt, if there are prompts.
        prompts: texts to draw; empty for none.
        like: file of a picture to vary; None for none.
        negative_prompt: text from which guidance pushes all pictures away; None for none.
        seed: whole number for the first picture; the others count up from it; None for a random
            one.
        classes: class names of pictures, such as `cat-face,noto`, which take turns over the
            pictures; empty to draw them.
        overrides: changes to the stages' sampling settings.
        batch_size: number of pictures at a time; None for the default of `CascadePipeline`.
        signer: who signs the pictures; None for nobody.
        keep_intermediates: whether to write the pictures of the earlier stages too.
        stop_at: name of the last stage to run, whose pictures are written; None for the last one.
        overwrite: whether to replace the pictures in the folder instead of counting on.
        resume: whether to complete the last series in the folder, if it was interrupted.
    """

    num_images: int = 1
    prompts: Sequence[str] = ()
    like: Path | None = None
    negative_prompt: str | None = None
    seed: int | None = None
    classes: Sequence[str] = ()
    overrides: Overrides = field(default_factory=Overrides)
    batch_size: int | None = None
    signer: Signer | None = None
    keep_intermediates: bool = False
    stop_at: str | None = None
    overwrite: bool = False
    resume: bool = False

    @property
    def total(self) -> int:
        """Number of pictures of all prompts together."""
        return self.num_images * max(1, len(self.prompts))

    @cached_property
    def picture(self) -> Tensor | None:
        """The picture to vary, (1, 3, H, W) in [-1, 1]; None without one.

        Raises:
            DataError: if it cannot be read.
        """
        return None if self.like is None else read_image(self.like)[None]

    def request(self, name: str) -> dict[str, Any]:
        """What decides the pictures, as plain values; `name` is that of the pipeline."""
        return {
            "pipeline": name,
            "prompts": digest(self.prompts),
            "negative_prompt": self.negative_prompt or "",
            "like": None if self.like is None else digest([self.like.read_bytes().hex()]),
            "num_images": self.num_images,
            "seed": self.seed,
            "classes": list(self.classes),
            "settings": repr(self.overrides),
            "keep_intermediates": self.keep_intermediates,
            "stop_at": self.stop_at,
            "signer": self.signer and self.signer.fingerprint,
        }

    def stages(self, pipeline: CascadePipeline) -> dict[str, Stage]:
        """The stages that run, or would run from noise, by name.

        Raises:
            ContractError: if the pipeline has no stage that is named `stop_at`.
        """
        return dict(pipeline.stages.between(pipeline.stages.names[0], self.stop_at).items())

    def prompt(self, place: int) -> str:
        """The prompt of the picture at a place of the series; empty without prompts."""
        return self.prompts[place // self.num_images] if self.prompts else ""


class GeneratedFiles(NamedTuple):
    """The files of one series of pictures.

    Attributes:
        pictures: one file per picture, in order.
        grid: the contact sheet.
        index: lists the prompt and the seed of each picture in the folder that has a prompt, as a
            line of JSON; None if this series has no prompts.
        seeds: one per picture.
        prompts: one per picture; empty texts without prompts.
        earlier: number of pictures that were there before, from a series that was interrupted.
    """

    pictures: list[Path]
    grid: Path
    index: Path | None
    seeds: list[int]
    prompts: list[str]
    earlier: int = 0


def generate_files(
    pipeline: CascadePipeline,
    out: Path,
    generation: Generation,
    *,
    name: str,
    callback: Callable[..., None] | None = None,
    on_written: Callable[[], None] = lambda: None,
) -> GeneratedFiles:
    """Generate pictures into a folder: numbered PNGs, or TIFFs of bands, and a contact sheet.

    Numbers continue after those of the files in the folder, so nothing is overwritten. The sheet of
    the first series is `grid.png`; later ones carry the number of their first picture. Names of
    pictures that have a prompt end in its first words.

    Args:
        pipeline: the pipeline, on the device that should compute.
        out: folder for the pictures; it is created if it does not exist.
        generation: number, seeds and classes of the pictures, and how to sample them.
        name: the pipeline's name, which the PNGs record.
        callback: called after every step, see `callback_on_step_end` of the pipeline.
        on_written: called before the first picture, and whenever some have been written.

    Raises:
        CascadeError: if the settings do not fit the pipeline, the folder cannot be written, another
            process generates pictures into it, or its last series is another one than that to be
            resumed.
    """
    space = _last_space(pipeline, generation)
    if not space.has_bands:
        check_can_be_pictures(space.channels, space.kind)
    if generation.prompts:
        pipeline.check_prompts(generation.prompts)
    _ = generation.picture  # before anything is written
    if generation.keep_intermediates:
        _check_intermediates(generation.stages(pipeline))
    check_writable_folder(out)
    pipeline.set_progress_bar_config(disable=True)
    with _alone_in(out):
        series = earlier_series(out, generation.request(name)) if generation.resume else None
        series = series or PictureSeries(
            number=0 if generation.overwrite else free_number(out),
            seeds=make_seeds(generation.total, generation.seed, None),
            request=generation.request(name),
        )
        return _generate_series(series, pipeline, out, generation, name, callback, on_written)


def _generate_series(
    series: PictureSeries,
    pipeline: CascadePipeline,
    out: Path,
    generation: Generation,
    name: str,
    callback: Callable[..., None] | None,
    on_written: Callable[[], None],
) -> GeneratedFiles:
    """Generate those pictures of a series that are not there, and the contact sheet."""
    number, total, seeds = series.number, generation.total, series.seeds
    space = _last_space(pipeline, generation)
    files = [
        out / picture_name(number + i, generation.prompt(i), suffix_of_space(space))
        for i in range(total)
    ]
    numbered = NumberedFiles(out, range(number + series.written, number + total))
    in_grid = [_read(file, space) for file in files[: min(series.written, MOST_IN_GRID)]]
    series.save(out, series.written)
    on_written()
    for first in range(series.written, total, PICTURES_AT_A_TIME):
        part = range(first, min(first + PICTURES_AT_A_TIME, total))
        result = _generate(pipeline, generation, [seeds[i] for i in part], part, callback)
        new = files[part.start : part.stop]
        spaces = {stage: each.space for stage, each in generation.stages(pipeline).items()}
        written = write_pictures(result, new, name, generation, spaces)
        for i in part:
            numbered.replace(number + i, written)
        if generation.prompts:
            numbered.add_to_index(_index_entries(result, new, generation))
        series.save(out, part.stop)
        on_written()
        in_grid += list(result.images[: MOST_IN_GRID - len(in_grid)])
    sheet = out / ("grid.png" if number == 0 else f"grid-{number:05d}.png")
    record: dict[str, Any] = {"pipeline": name, "version": __version__, "seeds": list(seeds)}
    if generation.prompts:
        record["prompts"] = [generation.prompt(i) for i in range(len(in_grid))]
    grid = contact_sheet(as_rgb(torch.stack(in_grid), space))
    save_png(with_scale_bar(grid, space), sheet, record, signer=generation.signer)
    index = numbered.index if generation.prompts else None
    prompts = [generation.prompt(i) for i in range(total)]
    return GeneratedFiles(files, sheet, index, list(seeds), prompts, series.written)


def _read(file: Path, space: Space) -> Tensor:
    """A picture of an interrupted series, (C, H, W) in [-1, 1].

    Raises:
        OutputError: if it is gone.
    """
    if not file.is_file():
        raise OutputError(f"{file} of the interrupted series is gone; begin a new series.")
    if space.has_bands:
        return read_raster(file).unit_image(space)
    return decode_image(file.read_bytes(), file.name)


def _index_entries(
    result: CascadeOutput, files: list[Path], generation: Generation
) -> Iterator[dict[str, Any]]:
    """What the index says of each picture."""
    negative = generation.negative_prompt
    further = {"negative_prompt": negative} if negative else {}
    for file, prompt, seed in zip(files, result.prompts, result.seeds, strict=True):
        yield {"file": file.name, "prompt": prompt, **further, "seed": seed}


def _last_space(pipeline: CascadePipeline, generation: Generation) -> Space:
    *_, last = generation.stages(pipeline).values()
    return last.space


def _check_intermediates(stages: Mapping[str, Stage]) -> None:
    """Check that there are earlier stages, and name those whose images are not written."""
    if len(stages) == 1:
        raise ContractError(
            f"only stage {next(iter(stages))!r} runs, so there are no pictures of earlier stages; "
            "leave out keep_intermediates."
        )
    for name, stage in [*stages.items()][:-1]:
        if not stage.space.is_bounded:
            logger.warning(
                "stage %r makes %s, which are no pictures, so they are not written; get them in "
                "Python with keep_intermediates.",
                name,
                stage.space.kind,
            )


@contextmanager
def _alone_in(out: Path) -> Iterator[None]:
    """Keep a second process from giving its pictures the same numbers.

    Raises:
        OutputError: if another process generates pictures into the folder.
    """
    file = out / ".cascade-generate.lock"
    try:
        with FileLock(file, timeout=0):
            try:
                yield
            finally:
                file.unlink(missing_ok=True)
    except Timeout as error:
        raise OutputError(
            f"another process generates pictures into {out}; wait for it or use another folder."
        ) from error


def _generate(
    pipeline: CascadePipeline,
    generation: Generation,
    seeds: list[int],
    places: range,
    callback: Callable[..., None] | None,
) -> CascadeOutput:
    """Generate the pictures at some places of the whole series."""
    classes = generation.classes
    result = pipeline(
        [generation.prompt(i) for i in places] if generation.prompts else None,
        negative_prompt=generation.negative_prompt,
        num_images=len(seeds),
        like=generation.picture,
        seeds=seeds,
        labels=[classes[i % len(classes)] for i in places] if classes else None,
        overrides=generation.overrides,
        batch_size=generation.batch_size,
        keep_intermediates=generation.keep_intermediates,
        stop_at=generation.stop_at,
        callback_on_step_end=callback,
        output_type="pt",
    )
    assert isinstance(result, CascadeOutput)
    pictures = {
        stage: images
        for stage, images in result.intermediates.items()
        if pipeline.stages[stage].space.is_bounded
    }
    return replace(result, intermediates=pictures)


def write_pictures(
    result: CascadeOutput,
    files: list[Path],
    name: str,
    generation: Generation,
    spaces: Mapping[str, Space],
) -> list[Path]:
    """Write the pictures of all returned stages; each file records how it was generated.

    Returns:
        All files.
    """
    places = zip(result.seeds, result.prompts, result.labels, strict=True)
    records: list[dict[str, Any]] = []
    for seed, prompt, labels in places:
        record: dict[str, Any] = {"pipeline": name, "version": __version__, "seed": seed}
        if generation.prompts:
            record["prompt"] = prompt
        if generation.negative_prompt:
            record["negative_prompt"] = generation.negative_prompt
        if generation.like is not None:
            record["like"] = generation.like.name
        if generation.stop_at is not None:
            record["stop_at"] = generation.stop_at
        records.append(record | {"labels": labels, "stages": result.settings})
    *_, last = spaces.values()
    _write_each(result.images, files, records, last, generation.signer)
    written = list(files)
    for stage, images in result.intermediates.items():
        suffix = f".{stage}{suffix_of_space(spaces[stage])}"
        smaller = [file.with_suffix(suffix) for file in files]
        _write_each(images, smaller, records, spaces[stage], generation.signer)
        written += smaller
    return written


def suffix_of_space(space: Space) -> str:
    """The suffix of the files of a stage's pictures."""
    return ".tif" if space.has_bands else ".png"


def _write_each(
    images: Tensor,
    files: list[Path],
    records: list[dict[str, Any]],
    space: Space,
    signer: Signer | None,
) -> None:
    if suffix_of_space(space) == ".tif":
        for image, file, record in zip(images, files, records, strict=True):
            raster = raster_of(image, space)
            signed = signed_file(file, signer, "generated", record)
            with signed as temporary, temporary.open("wb") as opened:
                text = json.dumps({RECORD: record})
                write_tiff(opened, [raster], raster.values.nbytes, description=text)
        return
    for image, file, record in zip(to_pil(images), files, records, strict=True):
        save_png(image, file, record, signer=signer)
