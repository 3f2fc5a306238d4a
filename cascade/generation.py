"""Generating picture files with a pipeline."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch import Tensor

from cascade.build import load_pipeline
from cascade.devices import find_device
from cascade.files import check_writable_folder
from cascade.imaging.writing import contact_sheet, save_png, to_pil
from cascade.pipeline import CascadeOutput

NUMBERED = "[0-9][0-9][0-9][0-9][0-9].png"


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
    pipeline = load_pipeline(name)
    check_writable_folder(out)
    pipeline.to(device)
    pipeline.set_progress_bar_config(disable=True)
    turns = [
        wanted.classes[i % len(wanted.classes)]
        for i in range(wanted.num_images if wanted.classes else 0)
    ]
    result = pipeline(
        wanted.num_images,
        seed=wanted.seed,
        labels=turns or None,
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
    return _write_pictures(result, out, name, wanted)


def _write_pictures(result: CascadeOutput, out: Path, name: str, wanted: Generation) -> list[Path]:
    settings = {
        "pipeline": name,
        "steps": wanted.steps,
        "sampler": wanted.sampler,
        "guidance": wanted.guidance,
        "augmentation_level": wanted.augmentation_level,
    }
    given = {key: value for key, value in settings.items() if value is not None}
    first = 1 + max((int(path.stem) for path in out.glob(NUMBERED)), default=-1)
    files = [out / f"{first + i:05d}.png" for i in range(len(result.seeds))]
    described = [
        given | {"seed": seed, "labels": labels}
        for seed, labels in zip(result.seeds, result.labels, strict=True)
    ]
    _write_each(result.images, files, described)
    for stage, images in result.intermediates.items():
        _write_each(images, [file.with_suffix(f".{stage}.png") for file in files], described)
    save_png(contact_sheet(result.images), out / "grid.png", given | {"seeds": result.seeds})
    return files


def _write_each(images: Tensor, files: list[Path], described: list[dict[str, Any]]) -> None:
    for image, file, text in zip(to_pil(images), files, described, strict=True):
        save_png(image, file, text)
