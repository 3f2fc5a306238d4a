"""Calls that upscale or colour pictures of any size: they read the arguments and run the chain."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from PIL import Image

from cascade.arguments import check_callable
from cascade.call_arguments import for_each
from cascade.chain import StageChain
from cascade.diffusion.noise import GeneratorLike
from cascade.imaging.exchange import PictureLike, of_each
from cascade.imaging.picture import Picture
from cascade.restoration.bands import upscale_raster
from cascade.restoration.colouring import Colouring, colourise_image, colourise_picture
from cascade.restoration.upscaling import Upscaling, upscale_image, upscale_picture
from cascade.sampling.walk import Progress


def upscale(
    stages: StageChain,
    image: PictureLike,
    settings: Mapping[str, Any],
    progress: Progress | None = None,
    generator: GeneratorLike | None = None,
) -> Any:
    """Upscale pictures; `CascadePipeline.upscale` describes the arguments."""
    check_callable("progress", progress)
    each, chain = for_each(stages, Upscaling, image, settings, generator)
    return of_each(
        image,
        lambda picture, i: upscale_picture(chain, picture, each[i], progress=progress),
        lambda tensor, i: upscale_image(chain, tensor, each[i], progress=progress),
        lambda raster, i: upscale_raster(chain, raster, each[i], progress=progress),
    )


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
    check_callable("progress", progress)
    each, chain = for_each(stages, Colouring, image, settings, generator)
    return of_each(
        image,
        lambda picture, i: colourise_picture(chain, picture, each[i], progress=progress),
        lambda tensor, i: colourise_image(chain, tensor, each[i], progress=progress),
    )
