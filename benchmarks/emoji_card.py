"""Pictures and figures of the `emoji-1024` model card.

    python benchmarks/emoji_card.py --data "data/emoji/train-*.tar" --out out/card

Writes `samples.png` (16 pictures of the default draw), `nearest.png` (samples beside the training
pictures that are nearest to them) and `sharpness.png` (64 px outputs enlarged by bicubic beside the
upsampler's), and prints: how sharp the outputs are beside bicubic and beside real pictures, how
white the background is, how far the mean colour is from the training pictures', and how far a
sample is from its nearest training picture beside how far held-out pictures are from theirs.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor

from cascade import ImageSource, Space, open_source
from cascade.data.fitting import fit_size
from cascade.imaging.reading import decode_image
from cascade.imaging.writing import contact_sheet, from_uint8, save_png
from cascade.pipeline import CascadePipeline


def main() -> None:
    """Make the pictures and print the figures."""
    arguments = parse_arguments()
    pipeline = CascadePipeline.from_pretrained(arguments.pipeline)
    pipeline.set_progress_bar_config(disable=True)
    result = pipeline(
        num_images=arguments.count,
        seed=arguments.seed,
        keep_intermediates=True,
        output_type="pt",
    )
    large = result.images
    small = next(iter(result.intermediates.values()))
    assert pipeline.labels is not None
    only = {"class": pipeline.labels.fields["class"]}
    train = read_all(open_source(arguments.data, only=only), small.shape[-1])
    held_out_names = set(open_source(arguments.heldout).vocabulary(["class"])["class"])
    held_out_only = {"class": [name for name in only["class"] if name in held_out_names]}
    heldout = read_all(open_source(arguments.heldout, only=held_out_only), small.shape[-1])
    real = read_all(open_source(arguments.heldout, only=held_out_only), large.shape[-1])

    save_png(contact_sheet(large[:16]), arguments.out / "samples.png")
    save_png(nearest_sheet(small[:12], train), arguments.out / "nearest.png")
    save_png(sharpness_sheet(small[:8], large[:8]), arguments.out / "sharpness.png")
    print_figures(small, large, train, heldout, real)


def parse_arguments() -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--pipeline", default="emoji-1024")
    parser.add_argument("--data", default="data/emoji/train-*.tar")
    parser.add_argument("--heldout", default="data/emoji/heldout-*.tar")
    parser.add_argument("--count", type=int, default=64, help="samples to draw, at least 16")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=Path, default=Path("out/card"))
    return parser.parse_args()


def read_all(source: ImageSource, size_px: int) -> Tensor:
    """All images of a source at one size: (N, 3, size, size) in [-1, 1]."""
    space = Space(size_px=size_px)
    images = []
    for index in range(len(source)):
        name = source.name(index)
        images.append(fit_size(decode_image(source.read(index), name), space, name))
    return from_uint8(torch.stack(images))


def nearest_distances(images: Tensor, among: Tensor) -> tuple[Tensor, Tensor]:
    """Root mean squared distances in 8-bit levels, nearest first: values and indices (B, N)."""
    distances = torch.cdist(images.flatten(1), among.flatten(1)) / images[0].numel() ** 0.5 * 127.5
    return distances.sort(dim=1)


def nearest_sheet(samples: Tensor, train: Tensor):
    """Each row: a sample, then its three nearest training pictures."""
    _, order = nearest_distances(samples, train)
    rows = torch.cat([samples[:, None], train[order[:, :3]]], dim=1).flatten(0, 1)
    return contact_sheet(F.interpolate(rows, scale_factor=2), columns=12)


def sharpness_sheet(small: Tensor, large: Tensor):
    """Pairs: bicubic enlargement, upsampler."""
    pairs = torch.stack([bicubic(small, large.shape[-1]), large], dim=1).flatten(0, 1)
    return contact_sheet(pairs, columns=4)


def bicubic(images: Tensor, size_px: int) -> Tensor:
    """Enlarge by bicubic interpolation."""
    return F.interpolate(images, size=size_px, mode="bicubic", antialias=True).clamp(-1, 1)


def edge_width_px(images: Tensor) -> float:
    """Width of the edges: total variation divided by the mean of the steepest 1 % of gradients."""
    step = (images[..., 1:] - images[..., :-1]).abs().amax(dim=1).flatten(1)
    steepest = step.quantile(0.995, dim=1)
    return float((2 / steepest.clamp(min=1e-3)).mean())


def noise_in_flat_areas(images: Tensor) -> float:
    """Median over images of the local standard deviation in its flattest tenth, 8-bit levels."""
    mean = F.avg_pool2d(images, 5, 1)
    variance = (F.avg_pool2d(images**2, 5, 1) - mean**2).clamp(min=0).mean(dim=1).flatten(1)
    inside = (mean.mean(dim=1).flatten(1) < 0.9) | (variance > 1)
    local = torch.where(inside, variance.sqrt(), torch.nan)
    return float(local.nanquantile(0.1, dim=1).nanmedian()) * 127.5


def corners(images: Tensor) -> Tensor:
    """The four corners, an eighth of the side each: (B, 4 n)."""
    n = images.shape[-1] // 8
    rows = torch.cat([images[..., :n, :], images[..., -n:, :]], dim=-2)
    return torch.cat([rows[..., :n], rows[..., -n:]], dim=-1).flatten(1)


def print_figures(small: Tensor, large: Tensor, train: Tensor, heldout: Tensor, real: Tensor):
    """Print what the model card quotes."""
    print(f"n = {len(large)} samples")
    enlarged = bicubic(small, large.shape[-1])
    for name, images in (("ours", large), ("bicubic", enlarged), ("real", real)):
        print(
            f"{name:8} edge width {edge_width_px(images):5.2f} px, "
            f"noise in flat areas {noise_in_flat_areas(images):5.2f} of 255"
        )
    for name, images in (("samples", large), ("training", train)):
        white = (corners(images).mean(dim=1) > 0.97).float().mean()
        print(f"{name:8} with white corners (mean above 0.97): {100 * white:.0f} %")
    cast = (small.mean(dim=(0, 2, 3)) - train.mean(dim=(0, 2, 3))) * 127.5
    print("mean colour minus the training mean, R G B: " + " ".join(f"{c:+.1f}" for c in cast))
    for name, images in (("samples", small), ("held-out", heldout)):
        nearest = nearest_distances(images, train)[0][:, 0]
        print(
            f"{name:8} to nearest training picture: median {nearest.median():.1f}, "
            f"5 % below {nearest.quantile(0.05):.1f} of 255"
        )


if __name__ == "__main__":
    main()
