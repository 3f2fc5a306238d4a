"""Generating picture files with a pipeline."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from cascade.devices import find_device
from cascade.diffusion.noise import make_seeds
from cascade.imaging.writing import contact_sheet, save_png, to_pil
from cascade.pipeline import CascadeOutput, CascadePipeline
from cascade.saving.atomic import check_writable_folder

PICTURES_AT_A_TIME = 16  # written before the next are begun
MOST_IN_GRID = 64


@dataclass(frozen=True, kw_only=True)
class Generation:
    """What to generate; see `CascadePipeline.__call__`.

    Attributes:
        classes: such as `cat-face,noto`; several take turns over the images.
        device: to compute on; None for the best that is there.
    """

    num_images: int = 1
    seed: int | None = None
    classes: Sequence[str] = ()
    steps: Any = None
    sampler: Any = None
    guidance: Any = None
    augmentation_level: float | None = None
    batch_size: int | None = None
    device: str | None = None
    keep_intermediates: bool = False


def generate_files(
    name: str, out: Path, wanted: Generation, *, callback: Callable[..., None] | None = None
) -> list[Path]:
    """Generate pictures into a folder: numbered PNGs and `grid.png`.

    Numbers go on after those that are already there, so that nothing is overwritten.

    Returns:
        The numbered files.

    Raises:
        CascadeError: if the pipeline, the settings or the folder do not do.
    """
    device = find_device(wanted.device)
    pipeline = CascadePipeline.from_pretrained(name)
    check_writable_folder(out)
    pipeline.to(device)
    pipeline.set_progress_bar_config(disable=True)
    numbers = _free_numbers(out, wanted.num_images)
    seeds = make_seeds(wanted.num_images, wanted.seed, None)
    shown: list[Tensor] = []
    files: list[Path] = []
    for first in range(0, wanted.num_images, PICTURES_AT_A_TIME):
        part = range(first, min(first + PICTURES_AT_A_TIME, wanted.num_images))
        result = pipeline(
            len(part),
            seeds=[seeds[i] for i in part],
            labels=[wanted.classes[i % len(wanted.classes)] for i in part]
            if wanted.classes
            else None,
            steps=wanted.steps,
            sampler=wanted.sampler,
            guidance=wanted.guidance,
            augmentation_level=wanted.augmentation_level,
            batch_size=wanted.batch_size,
            keep_intermediates=wanted.keep_intermediates,
            callback_on_step_end=callback,
            output_type="pt",
        )
        assert isinstance(result, CascadeOutput)
        files += _write_pictures(result, [out / f"{numbers[i]:05d}.png" for i in part], name)
        shown += list(result.images[: MOST_IN_GRID - len(shown)])
    save_png(
        contact_sheet(torch.stack(shown)), out / "grid.png", {"pipeline": name, "seeds": seeds}
    )
    return files


def _free_numbers(out: Path, count: int) -> range:
    """The numbers after those of the pictures that are there."""
    taken = [int(path.stem) for path in out.glob("*.png") if path.stem.isdecimal()]
    first = max(taken, default=-1) + 1
    return range(first, first + count)


def _write_pictures(result: CascadeOutput, files: list[Path], name: str) -> list[Path]:
    described = [
        {"pipeline": name, "seed": seed, "labels": labels, "stages": result.settings}
        for seed, labels in zip(result.seeds, result.labels, strict=True)
    ]
    _write_each(result.images, files, described)
    for stage, images in result.intermediates.items():
        _write_each(images, [file.with_suffix(f".{stage}.png") for file in files], described)
    return files


def _write_each(images: Tensor, files: list[Path], described: list[dict[str, Any]]) -> None:
    for image, file, text in zip(to_pil(images), files, described, strict=True):
        save_png(image, file, text)
