"""Generates picture files with a pipeline."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from cascade.diffusion.noise import make_seeds
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
    """

    num_images: int = 1
    seed: int | None = None
    classes: Sequence[str] = ()
    overrides: Overrides = field(default_factory=Overrides)
    batch_size: int | None = None
    keep_intermediates: bool = False


def generate_files(
    pipeline: CascadePipeline,
    out: Path,
    generation: Generation,
    *,
    name: str,
    callback: Callable[..., None] | None = None,
) -> list[Path]:
    """Generate pictures into a folder: numbered PNGs and `grid.png`.

    Numbers continue after those of the files in the folder, so nothing is overwritten.

    Args:
        pipeline: the pipeline, on the device that should compute.
        out: folder for the pictures; it is created if it does not exist.
        generation: number, seeds and classes of the pictures, and how to sample them.
        name: the pipeline's name, which the PNGs record.
        callback: called after every step, see `callback_on_step_end` of the pipeline.

    Returns:
        The numbered files.

    Raises:
        CascadeError: if the settings do not fit the pipeline or the folder cannot be written.
    """
    check_can_be_pictures(pipeline.stages.last.space.channels)
    check_writable_folder(out)
    pipeline.set_progress_bar_config(disable=True)
    numbers = _free_numbers(out, generation.num_images)
    seeds = make_seeds(generation.num_images, generation.seed, None)
    in_grid: list[Tensor] = []
    files: list[Path] = []
    for first in range(0, generation.num_images, PICTURES_AT_A_TIME):
        part = range(first, min(first + PICTURES_AT_A_TIME, generation.num_images))
        result = _generate(pipeline, generation, [seeds[i] for i in part], part, callback)
        files += _write_pictures(result, [out / f"{numbers[i]:05d}.png" for i in part], name)
        in_grid += list(result.images[: MOST_IN_GRID - len(in_grid)])
    grid = contact_sheet(torch.stack(in_grid))
    save_png(grid, out / "grid.png", {"pipeline": name, "seeds": seeds})
    return files


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
        len(seeds),
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


def _free_numbers(out: Path, count: int) -> range:
    """The numbers for new pictures, which follow those of the pictures in the folder."""
    numbers = [int(path.stem) for path in out.glob("*.png") if path.stem.isdecimal()]
    first = max(numbers, default=-1) + 1
    return range(first, first + count)


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
