"""Generates a series of pictures into a folder."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

import torch
from filelock import FileLock, Timeout
from torch import Tensor

from cascade import __version__
from cascade.diffusion.noise import make_seeds
from cascade.errors import ContractError, OutputError
from cascade.generation.picture_files import suffix_of_space, write_pictures
from cascade.generation.request import Generation
from cascade.imaging.numbered_files import NumberedFiles, free_number, picture_name
from cascade.imaging.picture_series import PictureSeries, earlier_series
from cascade.imaging.rasters.reading import read_raster
from cascade.imaging.rasters.showing import as_rgb, with_scale_bar
from cascade.imaging.reading import decode_image
from cascade.imaging.writing import check_can_be_pictures, contact_sheet, save_png
from cascade.pipeline import CascadeOutput, CascadePipeline
from cascade.saving.atomic import check_writable_folder
from cascade.space import Space
from cascade.stage import Stage

PICTURES_AT_A_TIME = 16  # they are written before the next ones begin
logger = logging.getLogger(__name__)
MOST_IN_GRID = 64


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
