"""The bundled pipelines draw the same pictures as when they were recorded, to 1 of 255.

`tests/pinned/` holds the inputs (`input.NAME.png`) and what each pipeline drew from them
(`PIPELINE.CASE.PICTURE.png`). A change that is meant to change pictures records them anew with

    python tests/test_pinned_pictures.py

which keeps the inputs that exist. Look at the new pictures before you commit them.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image, ImageDraw

from cascade.pipeline import CascadePipeline

FOLDER = Path(__file__).parent / "pinned"
TOLERANCE = 1  # of 255: another processor may round another way
MEAN_TOLERANCE = 0.01  # of 255: but not at many pixels
THREADS = 1  # as in conftest.py
FINE = 4  # inputs are drawn this many times as large, so that edges are smooth

# ---- inputs -------------------------------------------------------------------------------------


def photo_input(width_px: int, height_px: int) -> Image.Image:
    """A hut below a hill under a cloudy sky: gradients, edges and texture."""
    width, height = width_px * FINE, height_px * FINE
    x, y = np.meshgrid(np.arange(width) / height, np.arange(height) / height)
    noise = np.random.default_rng(0)

    def texture(cells: int) -> np.ndarray:
        coarse = noise.random((cells, math.ceil(cells * width / height)), dtype=np.float32)
        return np.asarray(Image.fromarray(coarse).resize((width, height), Image.Resampling.BICUBIC))

    def colour(red: int, green: int, blue: int) -> np.ndarray:
        return np.array([red, green, blue], dtype=np.float64)

    cloud = np.clip(0.6 * texture(5) + 0.4 * texture(11) - 0.35, 0, 1)[..., None] * 1.6
    blue = colour(70, 120, 200) + y[..., None] * colour(150, 110, 40)
    pixels = blue * (1 - cloud) + colour(245, 245, 250) * cloud
    hill = y > 0.5 + 0.12 * np.sin(2.6 * x + 0.7) + 0.04 * np.sin(7 * x)
    pixels[hill] = colour(70, 100, 70) * (0.7 + 0.6 * texture(24))[hill][:, None]
    meadow = y > 0.68 + 0.03 * np.sin(3 * x)
    grain = 0.6 * texture(height_px // 2) + 0.4 * texture(height_px)
    pixels[meadow] = colour(140, 150, 60) * (0.55 + 0.9 * grain)[meadow][:, None]
    wall = (abs(x - 0.6) < 0.17) & (abs(y - 0.66) < 0.12)
    pixels[wall] = colour(190, 90, 60) * (1.25 - x)[wall][:, None]
    roof = (y < 0.55) & (y - 0.36 > abs(x - 0.6) * 0.8)
    pixels[roof] = colour(80, 50, 50) * (0.8 + 0.4 * np.sin(60 * y))[roof][:, None]
    window = (abs(abs(x - 0.6) - 0.08) < 0.04) & (abs(y - 0.63) < 0.04)
    pixels[window] = colour(250, 225, 140)
    large = Image.fromarray(pixels.round().clip(0, 255).astype(np.uint8))
    return large.resize((width_px, height_px), Image.Resampling.BOX)


def strokes_input() -> Image.Image:
    """Transparent but for strokes on the sky, the hut and the meadow of the photo."""
    image = Image.new("RGBA", (53, 37))
    draw = ImageDraw.Draw(image)
    draw.rectangle((30, 3, 48, 8), fill=(230, 130, 90, 255))
    draw.rectangle((18, 21, 26, 27), fill=(60, 90, 210, 255))
    draw.rectangle((3, 30, 14, 34), fill=(150, 60, 160, 255))
    return image


def face_input() -> Image.Image:
    """A yellow face on white, 64 px."""
    image = Image.new("RGB", (64 * FINE, 64 * FINE), "white")
    draw = ImageDraw.Draw(image)
    for box, fill in (
        ((4, 4, 60, 60), (250, 200, 50)),
        ((18, 20, 26, 32), (90, 60, 30)),
        ((38, 20, 46, 32), (90, 60, 30)),
    ):
        draw.ellipse([side * FINE for side in box], fill=fill)
    draw.chord([side * FINE for side in (16, 24, 48, 52)], 10, 170, fill=(180, 40, 50))
    return image.resize((64, 64), Image.Resampling.BOX)


INPUTS: dict[str, Callable[[], Image.Image]] = {
    "photo": lambda: photo_input(53, 37),
    "panorama": lambda: photo_input(547, 134),
    "strokes": strokes_input,
    "face": face_input,
}


def saved_input(name: str) -> Image.Image:
    """An input as it was saved."""
    return load_image(FOLDER / f"input.{name}.png")


def load_image(path: Path) -> Image.Image:
    """All pixels of a PNG file."""
    with Image.open(path) as image:
        image.load()
        return image


# ---- cases --------------------------------------------------------------------------------------

Pictures = Mapping[str, Image.Image]


@dataclass(frozen=True)
class Case:
    """One call of a bundled pipeline.

    Attributes:
        pipeline: name of the bundled pipeline.
        name: of the case, unique within the pipeline.
        draw: calls the pipeline and returns its pictures by name.
    """

    pipeline: str
    name: str
    draw: Callable[[CascadePipeline], Pictures]

    def path(self, picture: str) -> Path:
        """Where one of its pictures is recorded."""
        return FOLDER / f"{self.pipeline}.{self.name}.{picture}.png"

    def pictures(self) -> Pictures:
        """Draw them."""
        return self.draw(load_pipeline(self.pipeline))

    def recorded(self) -> Pictures:
        """The recorded pictures by name."""
        paths = FOLDER.glob(self.path("*").name)
        return {path.name.split(".")[-2]: load_image(path) for path in paths}


@cache
def load_pipeline(name: str) -> CascadePipeline:
    """A bundled pipeline without progress bars."""
    pipeline = CascadePipeline.from_pretrained(name)
    pipeline.set_progress_bar_config(disable=True)
    return pipeline


def generating(**settings: Any) -> Callable[[CascadePipeline], Pictures]:
    """Two emoji of given labels and seeds, with the base stage's pictures."""

    def draw(pipeline: CascadePipeline) -> Pictures:
        output = pipeline(
            num_images=2,
            labels=["face-smiling,noto", "cat-face,fluent"],
            seeds=[7, 1234],
            precision="fp32",
            keep_intermediates=True,
            **settings,
        )
        pictures = {f"{number}": image for number, image in enumerate(output.images)}
        base = enumerate(output.intermediates["base"])
        return pictures | {f"base-{number}": image for number, image in base}

    return draw


def upsample_face(pipeline: CascadePipeline) -> Pictures:
    """The upsampler alone, from a given image."""
    output = pipeline(
        image=saved_input("face"),
        start_at="upsampler_256",
        stop_at="upsampler_256",
        seed=3,
        steps=2,
        precision="fp32",
    )
    return {f"{number}": image for number, image in enumerate(output.images)}


def upscaling(scale: float | None = None, **settings: Any) -> Callable[[CascadePipeline], Pictures]:
    """The photo, upscaled."""

    def draw(pipeline: CascadePipeline) -> Pictures:
        image = saved_input("photo")
        return {"photo": pipeline.upscale(image, scale, precision="fp32", **settings)}

    return draw


def colourising(name: str = "photo", **settings: Any) -> Callable[[CascadePipeline], Pictures]:
    """An input in grey, coloured."""

    def draw(pipeline: CascadePipeline) -> Pictures:
        grey = saved_input(name).convert("L")
        return {name: pipeline.colourise(grey, precision="fp32", **settings)}

    return draw


def colourise_with_hints(pipeline: CascadePipeline) -> Pictures:
    """The photo in grey, coloured after strokes."""
    return colourising(hints=saved_input("strokes"), seed=2, steps=3)(pipeline)


CASES = (
    Case("emoji-1024", "bundled-settings", generating(steps=[3, 2], stop_at="upsampler_256")),
    Case("emoji-1024", "ddpm", generating(steps=[4, 1], sampler="ddpm", stop_at="upsampler_256")),
    Case("emoji-1024", "upsampler-alone", upsample_face),
    Case("photo-x4", "one-tile", upscaling(seed=0, steps=3, timestep_shift=1)),
    Case("photo-x4", "tiles", upscaling(seed=0, steps=3, timestep_shift=1, tile_px=96)),
    Case(
        "photo-x4",
        "ddpm-tiles",
        upscaling(seed=1, steps=3, timestep_shift=1, tile_px=96, sampler="ddpm", consistent=False),
    ),
    Case("photo-x4", "scale-3", upscaling(3, seed=2, steps=2, timestep_shift=1, temperature=0.5)),
    Case(
        "photo-x4",
        "scale-4.5-in-two-passes",
        upscaling(4.5, seed=3, steps=2, timestep_shift=1, tile_px=128),
    ),
    Case("photo-x4", "bundled-settings", upscaling(seed=0)),
    Case("photo-x4-restore", "one-tile", upscaling(seed=0, steps=3)),
    Case("photo-x4-restore", "tiles", upscaling(seed=4, steps=3, tile_px=96, temperature=1.0)),
    Case("photo-colour", "one-tile", colourising(seed=0, steps=3)),
    Case("photo-colour", "tiles", colourising("panorama", seed=1, steps=2, temperature=1.0)),
    Case("photo-colour", "hints", colourise_with_hints),
)

# ---- comparing and recording --------------------------------------------------------------------


def difference(picture: Image.Image, recorded: Image.Image) -> str | None:
    """How a picture differs from the recorded one, or None if it does not beyond the tolerance."""
    if (picture.mode, picture.size) != (recorded.mode, recorded.size):
        return f"{picture.mode} {picture.size}, recorded {recorded.mode} {recorded.size}"
    apart = np.abs(np.asarray(picture, dtype=np.int16) - np.asarray(recorded, dtype=np.int16))
    if apart.max() <= TOLERANCE and apart.mean() <= MEAN_TOLERANCE:
        return None
    return f"differs by up to {apart.max()}, on average by {apart.mean():.4f} of 255"


@pytest.mark.parametrize("case", CASES, ids=lambda case: f"{case.pipeline}-{case.name}")
def test_pictures_are_the_recorded_ones(case):
    recorded, pictures = case.recorded(), case.pictures()
    assert set(pictures) == set(recorded), f"{case.pipeline}, {case.name}: which pictures exist"
    differences = {name: difference(pictures[name], recorded[name]) for name in pictures}
    assert not any(differences.values()), "\n".join(
        f"{case.pipeline}, {case.name}: picture {name} {text}"
        for name, text in differences.items()
        if text
    )


def test_every_file_is_an_input_or_the_picture_of_a_case():
    used = {f"input.{name}" for name in INPUTS}
    used |= {f"{case.pipeline}.{case.name}.{name}" for case in CASES for name in case.recorded()}
    assert {path.name.removesuffix(".png") for path in FOLDER.iterdir()} == used


def record() -> None:
    """Draw every picture and save it in place of the recorded one; add inputs that are missing."""
    torch.set_num_threads(THREADS)
    for name, draw in INPUTS.items():
        path = FOLDER / f"input.{name}.png"
        if not path.exists():
            draw().save(path, optimize=True)
    for path in FOLDER.glob("*.png"):
        if not path.name.startswith("input."):
            path.unlink()
    for case in CASES:
        for name, picture in case.pictures().items():
            picture.save(case.path(name), optimize=True)
            print(case.path(name).name)


if __name__ == "__main__":
    record()
