"""Writes generated pictures: PNGs, or TIFFs of bands, that record how they were generated."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from torch import Tensor

from cascade import __version__
from cascade.chain import StageChain
from cascade.chain_settings import sampling_of, setting_changes
from cascade.generation.request import Generation
from cascade.imaging.credentials import signed_file
from cascade.imaging.rasters.file_mark import FileMark
from cascade.imaging.rasters.tiff_writing import write_tiff
from cascade.imaging.writing import save_png, to_pil
from cascade.pipeline import CascadeOutput
from cascade.restoration.bands import raster_of
from cascade.saving.pipelines import model_record
from cascade.space import Space

COMMAND = "generate"  # that pictures record


def write_pictures(
    result: CascadeOutput,
    files: list[Path],
    name: str,
    generation: Generation,
    chain: StageChain,
) -> list[Path]:
    """Write the pictures of all returned stages; each file records how it was generated.

    Without metadata, none does.

    Args:
        result: the pictures, (B, C, H, W) in [-1, 1].
        files: one for each picture.
        name: the pipeline's name or folder, whose last part is recorded.
        generation: what was generated.
        chain: the stages of the pipeline, with its own settings.

    Returns:
        All files.
    """
    shared: dict[str, Any] = {"command": COMMAND, **model_record(name, generation.adapters)}
    shared["version"] = __version__
    if generation.negative_prompt:
        shared["negative_prompt"] = generation.negative_prompt
    if generation.like is not None:
        shared["like"] = generation.like.name
    if generation.stop_at is not None:
        shared["stop_at"] = generation.stop_at
    own = sampling_of(chain.items())
    shared |= {"stages": result.settings, "changed": setting_changes(own, result.settings)}
    records: list[dict[str, Any]] = []
    for seed, prompt, labels in zip(result.seeds, result.prompts, result.labels, strict=True):
        record = {**shared, "seed": seed, "labels": labels}
        records.append(record | ({"prompt": prompt} if generation.prompts else {}))
    *_, last = result.settings
    _write_each(result.images, files, records, chain[last].space, generation)
    written = list(files)
    for stage, images in result.intermediates.items():
        space = chain[stage].space
        suffix = f".{stage}{suffix_of_space(space)}"
        smaller = [file.with_suffix(suffix) for file in files]
        earlier = [_up_to(stage, record) for record in records]
        _write_each(images, smaller, earlier, space, generation)
        written += smaller
    return written


def _up_to(stage: str, record: Mapping[str, Any]) -> dict[str, Any]:
    """The record of a picture of an earlier stage: the later ones did not make it."""
    names = [*record["stages"]]
    run = names[: names.index(stage) + 1]
    stages = {name: record["stages"][name] for name in run}
    changed = [each for each in record["changed"] if each.partition(".")[0] in stages]
    return {**record, "stop_at": stage, "stages": stages, "changed": changed}


def suffix_of_space(space: Space) -> str:
    """The suffix of the files of a stage's pictures."""
    return ".tif" if space.has_bands else ".png"


def _write_each(
    images: Tensor,
    files: list[Path],
    records: list[dict[str, Any]],
    space: Space,
    generation: Generation,
) -> None:
    signer, metadata = generation.signer, generation.metadata
    if suffix_of_space(space) == ".tif":
        for image, file, record in zip(images, files, records, strict=True):
            raster = raster_of(image, space)
            mark = FileMark(source="generated", settings=record) if metadata else None
            signed = signed_file(file, signer, "generated", record)
            with signed as temporary, temporary.open("wb") as opened:
                write_tiff(opened, [raster], raster.values.nbytes, mark=mark)
        return
    for image, file, record in zip(to_pil(images), files, records, strict=True):
        save_png(image, file, record if metadata else None, signer=signer)
