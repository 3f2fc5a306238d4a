"""Images of the model cards of `photo-x4`, `photo-x4-restore` and `photo-colour`.

    python benchmarks/photo_card.py IMAGE … --out out/card

Takes the crop of 256 px with most detail of each image and writes, a row for each:

    enlarged.png    downscaled | bicubic | photo-x4 | truth
    mended.png      downscaled and degraded | bicubic | photo-x4 | photo-x4-restore | truth; first
                    all of them soft, grainy and compressed, then with strong grain
    coloured.png    greyscale | three seeds of photo-colour | truth (whole images, cut square)

The cards show `rocket.jpg` of scikit-image (CC0) and `grace_hopper.jpg` of matplotlib
(public domain), which none of the models has seen. Seeds are the first ones.

Shapes: all images (1, 3, H, W).
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path

import torch
import torch.nn.functional as F
from photos import load_stages
from restoration import Damage, grain, soft
from torch import Tensor

from cascade.conditioning.luminance import luminance
from cascade.data.fitting import fit_size
from cascade.diffusion.noise import SeededNoise
from cascade.imaging.reading import read_image
from cascade.imaging.writing import contact_sheet, from_uint8, save_png
from cascade.resizing import quantise, resize
from cascade.restoration.colouring import Colouring, colourise_image
from cascade.restoration.upscaling import Upscaling, upscale_image
from cascade.space import Space
from cascade.stage import Stage

SIDE_PX = 256
STRIDE_PX = 32
DAMAGE_SEED = 1


def main() -> None:
    """Make the pictures."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("pictures", type=Path, nargs="+", metavar="IMAGE")
    parser.add_argument("--clean", default="photo-x4", help="a pipeline, a run, or a stage")
    parser.add_argument("--restore", default="photo-x4-restore")
    parser.add_argument("--colour", default="photo-colour")
    parser.add_argument("--out", type=Path, default=Path("out/card"))
    given = parser.parse_args()
    clean, restore, colour = (load_stages(n) for n in (given.clean, given.restore, given.colour))
    pictures = [read_image(path) for path in given.pictures]
    crops = [sharpest_crop(picture) for picture in pictures]
    save(given.out / "enlarged.png", [enlarged_row(crop, clean) for crop in crops])
    mended = [mended_row(c, damage, clean, restore) for damage in (soft, grain) for c in crops]
    save(given.out / "mended.png", mended)
    save(given.out / "coloured.png", [coloured_row(picture, colour) for picture in pictures])


def sharpest_crop(picture: Tensor) -> Tensor:
    """The square (1, 3, 256, 256) of a picture (3, H, W) whose neighbouring pixels differ most."""
    change = luminance(picture[None]).diff(dim=-1).abs()
    mean = F.avg_pool2d(change, (SIDE_PX, SIDE_PX - 1), stride=STRIDE_PX)[0, 0]
    top, left = (STRIDE_PX * int(n) for n in divmod(int(mean.argmax()), mean.shape[1]))
    return picture[None, :, top : top + SIDE_PX, left : left + SIDE_PX]


def enlarged_row(truth: Tensor, clean: Sequence[Stage]) -> list[Tensor]:
    """The same crop by each method."""
    small = quantise(resize(truth, (SIDE_PX // 4, SIDE_PX // 4), "bicubic"))
    return [pixels(small), bicubic(small), enlarge(small, clean), truth]


def mended_row(
    truth: Tensor, damage: Damage, clean: Sequence[Stage], restore: Sequence[Stage]
) -> list[Tensor]:
    """The same crop, damaged as `restoration.py` does it, by each method."""
    small = resize(truth, (SIDE_PX // 4, SIDE_PX // 4), "bicubic")
    small = quantise(damage(small, SeededNoise([DAMAGE_SEED], "restoration")))
    by_models = [enlarge(small, stages) for stages in (clean, restore)]
    return [pixels(small), bicubic(small), *by_models, truth]


def coloured_row(picture: Tensor, colour: Sequence[Stage]) -> list[Tensor]:
    """The grey picture, its colours by three seeds, and the truth."""
    square = fit_size(picture, Space(size_px=SIDE_PX), "a picture")
    truth = from_uint8(square)[None]
    grey = quantise(luminance(truth))
    coloured = [colourise_image(colour, grey[0], Colouring(seed=seed))[None] for seed in range(3)]
    return [grey.expand_as(truth), *coloured, truth]


def pixels(small: Tensor) -> Tensor:
    """The small image with its pixels as squares."""
    return F.interpolate(small, size=(SIDE_PX, SIDE_PX))


def bicubic(small: Tensor) -> Tensor:
    """The small image enlarged as viewers do."""
    return resize(small, (SIDE_PX, SIDE_PX), "bicubic")


def enlarge(small: Tensor, stages: Sequence[Stage]) -> Tensor:
    """The small image enlarged by a model, as `cascade upscale` does."""
    return upscale_image(stages, small[0], Upscaling(scale=4))[None]


def save(path: Path, rows: Sequence[Sequence[Tensor]]) -> None:
    """Write a sheet of rows."""
    images = torch.cat([image for row in rows for image in row])
    save_png(contact_sheet(images, columns=len(rows[0])), path)
    print(path)


if __name__ == "__main__":
    main()
