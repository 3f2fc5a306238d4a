"""Generates a series of pictures into a folder."""

from __future__ import annotations

import logging
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any, NamedTuple, final

from filelock import FileLock, Timeout
from torch import Tensor

from cascade import __version__
from cascade.chain import StageChain
from cascade.diffusion.noise import make_seeds
from cascade.errors import ContractError, OutputError
from cascade.generation.picture_files import COMMAND, suffix_of_space, write_pictures
from cascade.generation.request import Generation
from cascade.generation.sheet import SeriesSheet
from cascade.imaging.numbered_files import (
    GRID,
    NumberedFiles,
    free_number,
    is_ours,
    picture_name,
)
from cascade.imaging.picture_series import (
    RECORD,
    PictureSeries,
    earlier_series,
    read_series,
)
from cascade.imaging.rasters.reading import read_raster
from cascade.imaging.reading import decode_image
from cascade.imaging.writing import check_can_be_pictures, save_png
from cascade.pipeline import CascadeOutput, CascadePipeline
from cascade.saving.atomic import check_writable_folder
from cascade.saving.pipelines import model_record
from cascade.space import Space

PICTURES_AT_A_TIME = 16  # they are written before the next ones begin
logger = logging.getLogger(__name__)


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
    on_series: Callable[[PictureSeries, int], None] = lambda series, earlier: None,
    on_written: Callable[[], None] = lambda: None,
) -> GeneratedFiles:
    """Generate pictures into a folder: numbered PNGs, or TIFFs of bands, and a contact sheet.

    Numbers continue after those of the files in the folder, so nothing is overwritten. The sheet of
    the first series is `grid.png`, unless another file has this name; later ones carry the number
    of their first picture. It shows the first 64 pictures, on at most 4096 px. Names of pictures
    that have a prompt end in its first words. All settings are checked before the first picture is
    drawn, and files of an earlier series are replaced only when there are new ones. Pictures of a
    resumed series that are gone are made again from their seeds.

    Args:
        pipeline: the pipeline, on the device that should compute.
        out: folder for the pictures; it is created if it does not exist.
        generation: number, seeds and classes of the pictures, and how to sample them.
        name: the pipeline's name or folder, whose last part the PNGs record.
        callback: called after every step, see `callback_on_step_end` of the pipeline.
        on_series: called with the series before its first picture is drawn, and with the number of
            its pictures that are there already.
        on_written: called whenever some pictures have been written.

    Raises:
        CascadeError: if the settings do not fit the pipeline, the folder cannot be written, another
            process generates pictures into it, or its last series is another one than that to be
            resumed.
    """
    every = generation.arguments(range(generation.total))
    run = pipeline.read_call(**every).run
    if not run.last.space.has_bands:
        check_can_be_pictures(run.last.space.channels, run.last.space.kind)
    if generation.keep_intermediates:
        _check_intermediates(run)
    check_writable_folder(out)
    pipeline.set_progress_bar_config(disable=True)
    request = generation.request(name, run)
    with _alone_in(out):
        series = earlier_series(out, request) if generation.resume else None
        series = series or _new_series(out, generation, request)
        making = _SeriesMaking(series, pipeline, run, out, generation, name)
        on_series(series, making.earlier)
        return making.make(callback, on_written)


def _new_series(out: Path, generation: Generation, request: Mapping[str, Any]) -> PictureSeries:
    number = 0 if generation.overwrite else free_number(out)
    return PictureSeries(
        number=number,
        seeds=make_seeds(generation.total, generation.seed, None),
        request=request,
        grid=_grid_name(out, number, may_replace=generation.overwrite),
    )


def _grid_name(out: Path, number: int, *, may_replace: bool) -> str:
    """A name for the contact sheet of a new series that is not that of somebody's file.

    Args:
        out: folder of the pictures.
        number: number of the first picture.
        may_replace: whether the sheet of an earlier series may be replaced.

    Raises:
        OutputError: if there is none.
    """
    numbered = f"{GRID}-{number:05d}.png"
    for name in (f"{GRID}.png", numbered) if number == 0 else (numbered,):
        file = out / name
        if not os.path.lexists(file) or (may_replace and _is_sheet(file)):
            return name
    raise OutputError(f"{out / numbered} is not a contact sheet of this command; move it away.")


def _is_sheet(file: Path) -> bool:
    """Whether a file records how it was made; without metadata, the last series names its sheet."""
    with suppress(OutputError, OSError):
        series = read_series(file.with_name(RECORD))
        if not series.request.get("metadata", True) and series.grid == file.name:
            return True
    return is_ours(file)


@final
@dataclass(frozen=True)
class _SeriesMaking:
    """How a series of pictures is made in a folder.

    Attributes:
        series: numbers and seeds of the pictures, and how many are there.
        pipeline: the pipeline.
        run: the stages that run.
        out: the folder.
        generation: what to generate.
        name: the pipeline's name.
    """

    series: PictureSeries
    pipeline: CascadePipeline
    run: StageChain
    out: Path
    generation: Generation
    name: str

    def make(
        self, callback: Callable[..., None] | None, on_written: Callable[[], None]
    ) -> GeneratedFiles:
        """Generate those pictures that are not there, and the contact sheet."""
        series, total, prompts = self.series, self.generation.total, self.generation.prompts
        rest = range(series.number + series.written, series.number + total)
        numbered = NumberedFiles(self.out, rest, is_listed=bool(prompts))
        files, sheet, earlier = self.files, SeriesSheet(total, self.space), self.earlier
        for places in _parts(self.missing):
            self._make_part(places, numbered, callback)
        for file in files[: min(series.written, sheet.lacks)]:
            sheet.add(_read(file, self.space)[None])
        for places in _parts(range(series.written, total)):
            sheet.add(self._make_part(places, numbered, callback))
            series.save(self.out, places[-1] + 1)
            on_written()
        index = numbered.index if prompts else None
        texts = [self.generation.prompt(i) for i in range(total)]
        grid, seeds = self._write_sheet(sheet), list(series.seeds)
        return GeneratedFiles(files, grid, index, seeds, texts, earlier)

    @property
    def space(self) -> Space:
        """The space of the pictures."""
        return self.run.last.space

    @cached_property
    def files(self) -> list[Path]:
        """The files of all pictures."""
        suffix = suffix_of_space(self.space)
        names = (
            picture_name(self.series.number + i, self.generation.prompt(i), suffix)
            for i in range(self.generation.total)
        )
        return [self.out / name for name in names]

    @cached_property
    def missing(self) -> list[int]:
        """The places of pictures that were written once and are gone."""
        return [i for i in range(self.series.written) if not self.files[i].is_file()]

    @property
    def earlier(self) -> int:
        """How many pictures are there already."""
        return self.series.written - len(self.missing)

    def _make_part(
        self, places: Sequence[int], numbered: NumberedFiles, callback: Callable[..., None] | None
    ) -> Tensor:
        """Generate and write the pictures at some places; returns them, (B, C, H, W)."""
        generation, number = self.generation, self.series.number
        seeds = [self.series.seeds[i] for i in places]
        result = _generate(self.pipeline, generation, seeds, places, callback)
        new = [self.files[i] for i in places]
        written = write_pictures(result, new, self.name, generation, self.pipeline.stages)
        entries = [*_index_entries(result, new, generation)] if generation.prompts else []
        numbered.replace([number + i for i in places], written, entries)
        return result.images

    def _write_sheet(self, sheet: SeriesSheet) -> Path:
        generation, file = self.generation, self.out / self.series.grid
        record = {"command": COMMAND, **model_record(self.name, generation.adapters)}
        record["version"] = __version__
        record["seeds"] = list(self.series.seeds)
        if generation.prompts:
            record["prompts"] = [generation.prompt(i) for i in range(sheet.count)]
        settings = record if generation.metadata else None
        save_png(sheet.picture(), file, settings, signer=generation.signer)
        return file


def _parts(places: Sequence[int]) -> Iterator[Sequence[int]]:
    """The places of pictures that are made and written together."""
    for first in range(0, len(places), PICTURES_AT_A_TIME):
        yield places[first : first + PICTURES_AT_A_TIME]


def _read(file: Path, space: Space) -> Tensor:
    """A picture of an interrupted series, (C, H, W) in [-1, 1]."""
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


def _check_intermediates(run: StageChain) -> None:
    """Check that there are earlier stages, and name those whose images are not written."""
    if len(run.names) == 1:
        raise ContractError(
            f"only stage {run.names[0]!r} runs, so there are no images of earlier stages; leave "
            "out keep_intermediates."
        )
    for name, stage in [*run.items()][:-1]:
        if not stage.space.is_bounded:
            logger.warning(
                "stage %r makes %s, which are not images, so they are not written; get them in "
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
            f"another process is generating images into {out}; wait for it or use another folder."
        ) from error


def _generate(
    pipeline: CascadePipeline,
    generation: Generation,
    seeds: list[int],
    places: Sequence[int],
    callback: Callable[..., None] | None,
) -> CascadeOutput:
    """Generate the pictures at some places of the whole series."""
    result = pipeline(seeds=seeds, callback_on_step_end=callback, **generation.arguments(places))
    assert isinstance(result, CascadeOutput)
    pictures = {
        stage: images
        for stage, images in result.intermediates.items()
        if pipeline.stages[stage].space.is_bounded
    }
    return replace(result, intermediates=pictures)
