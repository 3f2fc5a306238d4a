"""Generates picture files with a pipeline."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

import torch
from filelock import FileLock, Timeout
from torch import Tensor

from cascade.diffusion.noise import make_seeds
from cascade.errors import OutputError
from cascade.imaging.numbered_files import NumberedFiles, free_number, picture_name
from cascade.imaging.rasters.showing import as_rgb, with_scale_bar
from cascade.imaging.rasters.tiff_writing import write_tiff
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
from cascade.saving.atomic import atomic_file, check_writable_folder
from cascade.space import Space

PICTURES_AT_A_TIME = 16  # they are written before the next ones begin
MOST_IN_GRID = 64


@dataclass(frozen=True, kw_only=True)
class Generation:
    """What to generate; see `CascadePipeline.__call__`.

    Attributes:
        num_images: number of pictures; of each prompt, if there are prompts.
        prompts: texts to draw; empty for none.
        negative_prompt: text from which guidance pushes all pictures away; None for none.
        seed: whole number for the first picture; the others count up from it; None for a random
            one.
        classes: class names of pictures, such as `cat-face,noto`, which take turns over the
            pictures; empty to draw them.
        overrides: changes to the stages' sampling settings.
        batch_size: number of pictures at a time; None for the default of `CascadePipeline`.
        keep_intermediates: whether to write the pictures of the earlier stages too.
        overwrite: whether to replace the pictures in the folder instead of counting on.
    """

    num_images: int = 1
    prompts: Sequence[str] = ()
    negative_prompt: str | None = None
    seed: int | None = None
    classes: Sequence[str] = ()
    overrides: Overrides = field(default_factory=Overrides)
    batch_size: int | None = None
    keep_intermediates: bool = False
    overwrite: bool = False

    @property
    def total(self) -> int:
        """Number of pictures of all prompts together."""
        return self.num_images * max(1, len(self.prompts))

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
    """

    pictures: list[Path]
    grid: Path
    index: Path | None


def generate_files(
    pipeline: CascadePipeline,
    out: Path,
    generation: Generation,
    *,
    name: str,
    callback: Callable[..., None] | None = None,
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

    Raises:
        CascadeError: if the settings do not fit the pipeline, the folder cannot be written, or
            another process generates pictures into it.
    """
    space = pipeline.stages.last.space
    if space.kind != "pixels" or space.is_colour:
        check_can_be_pictures(space.channels)
    if generation.prompts:
        pipeline.check_prompts(generation.prompts)
    check_writable_folder(out)
    pipeline.set_progress_bar_config(disable=True)
    with _alone_in(out):
        first = 0 if generation.overwrite else free_number(out)
        return _generate_from(first, pipeline, out, generation, name, callback)


def _generate_from(
    number: int,
    pipeline: CascadePipeline,
    out: Path,
    generation: Generation,
    name: str,
    callback: Callable[..., None] | None,
) -> GeneratedFiles:
    """Generate pictures, the first of which has a number."""
    total = generation.total
    seeds = make_seeds(total, generation.seed, None)
    numbered = NumberedFiles(out, range(number, number + total))
    in_grid: list[Tensor] = []
    files: list[Path] = []
    for first in range(0, total, PICTURES_AT_A_TIME):
        part = range(first, min(first + PICTURES_AT_A_TIME, total))
        result = _generate(pipeline, generation, [seeds[i] for i in part], part, callback)
        suffix = _suffix_of(pipeline.stages.last.space)
        new = [out / picture_name(number + i, generation.prompt(i), suffix) for i in part]
        spaces = {stage: each.space for stage, each in pipeline.stages.items()}
        written = _write_pictures(result, new, name, generation, spaces)
        for i in part:
            numbered.replace(number + i, written)
        if generation.prompts:
            numbered.add_to_index(_index_entries(result, new, generation))
        files += new
        in_grid += list(result.images[: MOST_IN_GRID - len(in_grid)])
    sheet = out / ("grid.png" if number == 0 else f"grid-{number:05d}.png")
    record: dict[str, Any] = {"pipeline": name, "seeds": seeds}
    if generation.prompts:
        record["prompts"] = [generation.prompt(i) for i in range(len(in_grid))]
    space = pipeline.stages.last.space
    grid = contact_sheet(as_rgb(torch.stack(in_grid), space))
    save_png(with_scale_bar(grid, space), sheet, record)
    return GeneratedFiles(files, sheet, numbered.index if generation.prompts else None)


def _index_entries(
    result: CascadeOutput, files: list[Path], generation: Generation
) -> Iterator[dict[str, Any]]:
    """What the index says of each picture."""
    negative = generation.negative_prompt
    further = {"negative_prompt": negative} if negative else {}
    for file, prompt, seed in zip(files, result.prompts, result.seeds, strict=True):
        yield {"file": file.name, "prompt": prompt, **further, "seed": seed}


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
        seeds=seeds,
        labels=[classes[i % len(classes)] for i in places] if classes else None,
        overrides=generation.overrides,
        batch_size=generation.batch_size,
        keep_intermediates=generation.keep_intermediates,
        callback_on_step_end=callback,
        output_type="pt",
    )
    assert isinstance(result, CascadeOutput)
    return result


def _write_pictures(
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
        record: dict[str, Any] = {"pipeline": name, "seed": seed}
        if generation.prompts:
            record["prompt"] = prompt
        if generation.negative_prompt:
            record["negative_prompt"] = generation.negative_prompt
        records.append(record | {"labels": labels, "stages": result.settings})
    *_, last = spaces.values()
    _write_each(result.images, files, records, last)
    written = list(files)
    for stage, images in result.intermediates.items():
        suffix = f".{stage}{_suffix_of(spaces[stage])}"
        smaller = [file.with_suffix(suffix) for file in files]
        _write_each(images, smaller, records, spaces[stage])
        written += smaller
    return written


def _suffix_of(space: Space) -> str:
    return ".tif" if space.kind == "pixels" and not space.is_colour else ".png"


def _write_each(
    images: Tensor, files: list[Path], records: list[dict[str, Any]], space: Space
) -> None:
    if _suffix_of(space) == ".tif":
        for image, file, record in zip(images, files, records, strict=True):
            raster = raster_of(image, space)
            with atomic_file(file) as temporary, temporary.open("wb") as opened:
                text = json.dumps({RECORD: record})
                write_tiff(opened, [raster], raster.values.nbytes, description=text)
        return
    for image, file, record in zip(to_pil(images), files, records, strict=True):
        save_png(image, file, record)
