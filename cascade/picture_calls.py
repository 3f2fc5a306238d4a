"""Calls on pictures of any size: they read the arguments and run the chain."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any, TypeVar

from PIL import Image

from cascade.arguments import check_callable, flag, whole_number
from cascade.call_arguments import for_each
from cascade.chain import StageChain
from cascade.diffusion.noise import GeneratorLike
from cascade.imaging.exchange import PictureLike, of_each
from cascade.imaging.picture import Picture
from cascade.restoration.bands import upscale_raster
from cascade.restoration.colouring import Colouring, colourise_image, colourise_picture
from cascade.restoration.doubt import check_seeds, over_seeds, std_like
from cascade.restoration.measured import as_given, measured
from cascade.restoration.passes import upsamplers_of
from cascade.restoration.restoring import (
    Restoration,
    input_space_of,
    restore_image,
    restore_picture,
    restore_raster,
    restorer_of,
)
from cascade.restoration.upscaling import Upscaling, upscale_image, upscale_picture
from cascade.sampling.walk import Progress
from cascade.stage import Stage

logger = logging.getLogger(__name__)
NUMBER = "it is their number, and seed is the first one"
Restoring = TypeVar("Restoring", Upscaling, Colouring, Restoration)
Restore = Callable[..., Any]  # (stages, picture, how, progress=…) -> its result


def upscale(
    stages: StageChain,
    image: PictureLike,
    settings: Mapping[str, Any],
    progress: Progress | None = None,
    generator: GeneratorLike | None = None,
) -> Any:
    """Upscale pictures; `CascadePipeline.upscale` describes the arguments."""
    restore = (upscale_picture, upscale_image, upscale_raster)
    return _restored(stages, Upscaling, restore, image, settings, progress, generator)


def colourise(
    stages: StageChain,
    image: PictureLike,
    settings: Mapping[str, Any],
    progress: Progress | None = None,
    generator: GeneratorLike | None = None,
) -> Any:
    """Colour grey pictures; `CascadePipeline.colourise` describes the arguments."""
    hints = settings.get("hints")
    if isinstance(hints, Image.Image):
        settings = {**settings, "hints": Picture.from_pil(hints)}
    restore = (colourise_picture, colourise_image)
    return _restored(stages, Colouring, restore, image, settings, progress, generator)


def _restored(
    stages: StageChain,
    kind: type[Restoring],
    restore: tuple[Restore, ...],
    image: PictureLike,
    settings: Mapping[str, Any],
    progress: Progress | None,
    generator: GeneratorLike | None,
) -> Any:
    """Restore pictures with one seed each, or take mean and standard deviation over several.

    Args:
        stages: the chain of the pipeline.
        kind: `Upscaling`, `Colouring` or `Restoration`.
        restore: for pictures, for tensors and perhaps for images of bands.
        image: the pictures.
        settings: `seeds`, `return_std`, fields of `kind` and sampling settings.
        progress: called while stages run.
        generator: see `for_each`.
    """
    check_callable("progress", progress)
    count = whole_number("seeds", settings.get("seeds", 1), low=1, hint=NUMBER)
    returns_std = flag("return_std", settings.get("return_std", False))
    if returns_std:
        check_seeds(count)
    own = {name: each for name, each in settings.items() if name not in ("seeds", "return_std")}
    each, chain = for_each(stages, kind, image, own, generator)
    saved, stds = stages.expected_error if returns_std else None, []
    expected = saved if saved is not None and saved.holds_for(chain, count, each[0]) else None
    if expected is not None:
        logger.info("std is the expected error, measured on %d images.", expected.pictures)

    def work(restore: Restore) -> Callable[[Any, int], Any]:
        def one(picture: Any, place: int) -> Any:
            how = each[place]
            if count == 1:
                return restore(chain, picture, how, progress=progress)
            mean, std = over_seeds(
                lambda seed, part: restore(chain, picture, replace(how, seed=seed), progress=part),
                range(how.seed, how.seed + count),
                progress=progress,
            )
            stds.append(std if expected is None else expected.of(std, mean, chain[-1].space))
            return mean

        return one

    def all_of(image: PictureLike) -> Any:
        results = of_each(image, *(work(each) for each in restore))
        return (results, std_like(image, stds)) if returns_std else results

    if not _takes_bands(chain, kind):
        return all_of(image)
    done = all_of(measured(image))
    return tuple(as_given(e, image) for e in done) if returns_std else as_given(done, image)


def _takes_bands(stages: list[Stage], kind: type) -> bool:
    """Whether the images to restore are bands of measured numbers."""
    if kind is Upscaling:
        return upsamplers_of(stages)[0].space.has_bands
    return kind is Restoration and input_space_of(restorer_of(stages)).has_bands


def restore(
    stages: StageChain,
    image: PictureLike,
    settings: Mapping[str, Any],
    progress: Progress | None = None,
    generator: GeneratorLike | None = None,
) -> Any:
    """Restore pictures; `CascadePipeline.restore` describes the arguments."""
    ways = (restore_picture, restore_image, restore_raster)
    return _restored(stages, Restoration, ways, image, settings, progress, generator)
