"""Generates picture files with a pipeline."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

import torch
from filelock import FileLock, Timeout
from torch import Tensor

from cascade.diffusion.noise import make_seeds
from cascade.errors import OutputError
from cascade.imaging.writing import check_can_be_pictures, contact_sheet, save_png, to_pil
from cascade.pipeline import CascadeOutput, CascadePipeline
from cascade.sampling.overrides import Overrides
from cascade.saving.atomic import check_writable_folder

PICTURES_AT_A_TIME = 16  # they are written before the next ones begin
MOST_IN_GRID = 64


@dataclass(frozen=True, kw_only=True)
class Generation:
    """What to generate; see `CascadePipeline.__call__`.

    Attributes:
        num_images: number of pictures.
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
    seed: int | None = None
    classes: Sequence[str] = ()
    overrides: Overrides = field(default_factory=Overrides)
    batch_size: int | None = None
    keep_intermediates: bool = False
    overwrite: bool = False


class GeneratedFiles(NamedTuple):
    """The files of one series of pictures.

    Attributes:
        pictures: one file per picture, in order.
        grid: the contact sheet.
    """

    pictures: list[Path]
    grid: Path


def generate_files(
    pipeline: CascadePipeline,
    out: Path,
    generation: Generation,
    *,
    name: str,
    callback: Callable[..., None] | None = None,
) -> GeneratedFiles:
    """Generate pictures into a folder: numbered PNGs and a contact sheet.

    Numbers continue after those of the files in the folder, so nothing is overwritten. The sheet of
    the first series is `grid.png`; later ones carry the number of their first picture.

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
    check_can_be_pictures(pipeline.stages.last.space.channels)
    check_writable_folder(out)
    pipeline.set_progress_bar_config(disable=True)
    with _alone_in(out):
        first = 0 if generation.overwrite else _free_number(out)
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
    seeds = make_seeds(generation.num_images, generation.seed, None)
    in_grid: list[Tensor] = []
    files: list[Path] = []
    for first in range(0, generation.num_images, PICTURES_AT_A_TIME):
        part = range(first, min(first + PICTURES_AT_A_TIME, generation.num_images))
        result = _generate(pipeline, generation, [seeds[i] for i in part], part, callback)
        files += _write_pictures(result, [out / f"{number + i:05d}.png" for i in part], name)
        in_grid += list(result.images[: MOST_IN_GRID - len(in_grid)])
    sheet = out / ("grid.png" if number == 0 else f"grid-{number:05d}.png")
    save_png(contact_sheet(torch.stack(in_grid)), sheet, {"pipeline": name, "seeds": seeds})
    return GeneratedFiles(files, sheet)


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


def _free_number(out: Path) -> int:
    """The number of the first new picture, which follows those in the folder."""
    words = [path.name.split(".")[0].removeprefix("grid-") for path in out.glob("*.png")]
    numbers = [int(word) for word in words if word.isdecimal()]
    return max(numbers, default=-1) + 1


def _write_pictures(result: CascadeOutput, files: list[Path], name: str) -> list[Path]:
    """Write the pictures of all returned stages; each PNG records how it was generated."""
    records = [
        {"pipeline": name, "seed": seed, "labels": labels, "stages": result.settings}
        for seed, labels in zip(result.seeds, result.labels, strict=True)
    ]
    _write_each(result.images, files, records)
    for stage, images in result.intermediates.items():
        _write_each(images, [file.with_suffix(f".{stage}.png") for file in files], records)
    return files


def _write_each(images: Tensor, files: list[Path], records: list[dict[str, Any]]) -> None:
    for image, file, record in zip(to_pil(images), files, records, strict=True):
        save_png(image, file, record)
