"""How much colour and noise models add where an image has none, with and without the correction.

    python benchmarks/kept_areas.py

It draws a greyscale scan with a red stamp and a white page with text, upscales both with the
bundled upsamplers, and prints a table: the largest difference between the channels that appears
more than 4 pixels of the input away from any colour, in levels of 255; and the share of pixels that
deviate more than 4 pixels away from anything that varies.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from contextlib import contextmanager
from unittest.mock import patch

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image, ImageDraw

from cascade.pipeline import CascadePipeline
from cascade.restoration.kept_areas import NEUTRAL_LEVELS, KeptAreas

MODELS = ("photo-x4", "photo-x4-restore", "emoji-1024")
WIDTH_PX, HEIGHT_PX = 96, 64
AWAY_PX = 4  # pixels of the input


def stamped_scan() -> np.ndarray:
    """(H, W, 3) uint8: grey texture with a red ring."""
    draw = np.random.default_rng(3)
    total = np.zeros((HEIGHT_PX, WIDTH_PX))
    for side in (4, 8, 16, 32):
        coarse = draw.random((HEIGHT_PX // side, WIDTH_PX // side)).astype(np.float32)
        size = (WIDTH_PX, HEIGHT_PX)
        total += np.asarray(Image.fromarray(coarse).resize(size, Image.Resampling.BICUBIC))
    texture = (80 + 120 * (total - total.min()) / np.ptp(total)).round().astype(np.uint8)
    image = Image.fromarray(np.stack([texture] * 3, axis=-1))
    ImageDraw.Draw(image).ellipse((70, 40, 86, 56), outline=(200, 20, 30), width=3)
    return np.asarray(image)


def page() -> np.ndarray:
    """(H, W, 3) uint8: black text on white, a black and a blue area."""
    image = Image.new("RGB", (WIDTH_PX, HEIGHT_PX), "white")
    draw = ImageDraw.Draw(image)
    draw.text((4, 2), "Black text", fill="black")
    draw.text((4, 14), "on a page", fill="black")
    draw.rectangle((60, 30, 95, 63), fill="black")
    draw.rectangle((4, 36, 30, 60), fill=(30, 90, 200))
    return np.asarray(image)


@contextmanager
def uncorrected() -> Iterator[None]:
    """Leave results as networks draw them."""
    with (
        patch.object(KeptAreas, "restore", lambda *_: None),
        patch.object(KeptAreas, "reduce_on", lambda *_, **__: lambda correction: correction),
    ):
        yield


def upscaled(model: str, picture: np.ndarray) -> np.ndarray:
    """Upscale (H, W, 3) uint8 with the model's own settings: (4 H, 4 W, 3) int."""
    pipeline = CascadePipeline.from_pretrained(model)
    return np.asarray(pipeline.upscale(Image.fromarray(picture), 4, seed=0)).astype(int)


def colour_added(result: np.ndarray, picture: np.ndarray) -> int:
    """Largest difference between channels away from any colour, in levels of 255."""
    coloured = torch.from_numpy(np.ptp(picture.astype(int), axis=-1) > NEUTRAL_LEVELS)
    near = _largest(coloured[None, None].float(), AWAY_PX)
    return int(np.ptp(result, axis=-1)[~_enlarged(near)].max())


def deviating_share(result: np.ndarray, picture: np.ndarray) -> float:
    """Share of pixels of flat areas that deviate from their value."""
    pixels = torch.from_numpy(picture.copy()).permute(2, 0, 1)[None].float()
    varies = (_largest(pixels, AWAY_PX) + _largest(-pixels, AWAY_PX)).amax(dim=1, keepdim=True)
    same = np.kron(picture, np.ones((4, 4, 1), dtype=int))
    return float((result != same).any(axis=-1)[~_enlarged(varies)].mean())


def _largest(images: torch.Tensor, reach_px: int) -> torch.Tensor:
    return F.max_pool2d(images, 2 * reach_px + 1, stride=1, padding=reach_px)


def _enlarged(mask: torch.Tensor) -> np.ndarray:
    return np.kron(mask[0, 0].numpy() > 0, np.ones((4, 4), dtype=bool))


def main() -> None:
    """Print the table."""
    argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    ).parse_args()
    print("| Model | Most colour added to neutral areas | Flat pixels that deviate |")
    print("|---|---|---|")
    for model in MODELS:
        with uncorrected():
            before = [upscaled(model, picture) for picture in (stamped_scan(), page())]
        after = [upscaled(model, picture) for picture in (stamped_scan(), page())]
        colours = [colour_added(results[0], stamped_scan()) for results in (before, after)]
        shares = [deviating_share(results[1], page()) for results in (before, after)]
        print(
            f"| `{model}` | {colours[0]} -> {colours[1]} levels "
            f"| {shares[0]:.1%} -> {shares[1]:.1%} |"
        )


if __name__ == "__main__":
    main()
