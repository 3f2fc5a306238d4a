"""Upscaling of degraded images x4: ours beside bicubic and RealESRGAN, for each degradation.

    python benchmarks/restoration.py --models photo-x4 photo-x4-restore runs/photo-x4-restore \\
        --data "data/photos/heldout-*.tar" --pages "data/pages/heldout-*.tar" --out out/restoration

Every crop of 256 px is downscaled by antialiased bicubic, degraded by its own seed, rounded to 8
bits, and upscaled again by each method. The kinds:

    clean       nothing else
    soft        blur of 0.6 px of the small image, grain of sigma 8, JPEG of quality 50
    grain       grain of sigma 18, JPEG of quality 80
    page        pages of text, line art and icons, clean
    old page    the same as `grain`, of pages

The grain is white, and the same in all channels. The columns are those of `photos.py`: PSNR, PD and
KID against the truth, LR, which means little here, and time; see there for the peers and where they
come from. Use `--data` with validation crops to choose between models, and held-out ones to report.
`--quick` takes 8 crops of each kind. Prints a table, and writes `scores.json` and one sheet of each
kind: input, methods in the order of the table, truth.

Shapes: B images, H and W pixels, h and w of the small image.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Callable, Mapping
from pathlib import Path

import photos
import torch
import torch.nn.functional as F
from torch import Tensor

from cascade.conditioning.faults.blurs import gaussian_blur
from cascade.conditioning.faults.compression import jpeg
from cascade.diffusion.noise import SeededNoise
from cascade.errors import CascadeError
from cascade.evaluation.features import extract_features
from cascade.imaging.writing import contact_sheet, save_png
from cascade.resizing import quantise, resize
from cascade.vision.efficientnet import EfficientNetLite, load_efficientnet

UNITS_8_BIT = 127.5  # per unit of [-1, 1]
QUICK_CROPS = 8


def main() -> None:
    """Run every method on every kind of damage and print the tables."""
    arguments = parse_arguments()
    count = QUICK_CROPS if arguments.quick else arguments.count
    try:
        extractor = load_efficientnet("lite0")
        methods = all_methods(arguments)
        crops = {"photo": photos.read_crops(arguments.data, count)}
        if arguments.pages:
            crops["page"] = photos.read_crops(arguments.pages, count)
    except CascadeError as error:
        sys.exit(f"restoration.py: error: {error}")
    arguments.out.mkdir(parents=True, exist_ok=True)
    scores = {}
    for kind, (of, degrade) in KINDS.items():
        if of in crops and (not arguments.kinds or kind in arguments.kinds):
            print(f"\n{kind}, n = {len(crops[of])}")
            print(f"{'':20}" + "".join(f"{name:>14}" for name in photos.COLUMNS))
            low_res = degraded(crops[of], degrade)
            path = arguments.out / f"{kind.replace(' ', '-')}.png"
            scores[kind] = compare(methods, extractor, crops[of], low_res, path)
            (arguments.out / "scores.json").write_text(json.dumps(scores, indent=2) + "\n")


def parse_arguments() -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add = parser.add_argument
    add("--models", nargs="+", default=["photo-x4", "photo-x4-restore"])
    add("--data", default="data/photos/heldout-*.tar", help="shards or a folder of crops")
    add("--pages", default="", help="the same of pages; default: none")
    add("--kinds", nargs="*", choices=list(KINDS), help="default: all")
    add("--steps", type=int, help="of all models; default: their own")
    add("--count", type=int, help="the first so many crops of each kind; default: all")
    add("--quick", action="store_true", help=f"{QUICK_CROPS} crops of each kind")
    add("--no-peers", action="store_true", help="only bicubic and the models")
    add("--out", type=Path, default=Path("out/restoration"))
    return parser.parse_args()


def all_methods(arguments: argparse.Namespace) -> dict[str, photos.Method]:
    """The methods that can run here, in the order of the tables."""
    methods: dict[str, photos.Method] = {"bicubic": photos.bicubic}
    if not arguments.no_peers:
        try:
            methods["RealESRGAN-x4plus"] = photos.realesrgan()
        except ImportError as error:
            print(f"RealESRGAN-x4plus is left out ({error})")
    for model in arguments.models:
        methods[Path(model).name] = photos.load_ours(model, steps=arguments.steps)
    return methods


def compare(
    methods: Mapping[str, photos.Method],
    extractor: EfficientNetLite,
    truth: Tensor,
    low_res: Tensor,
    sheet: Path,
) -> dict[str, dict[str, float]]:
    """Run all methods on degraded small images, print their rows, and draw a sheet."""
    features = extract_features(extractor, truth)
    on_sheet = torch.linspace(0, len(truth) - 1, min(6, len(truth))).long()
    scores, shown = {}, [F.interpolate(low_res[on_sheet], scale_factor=photos.SCALE)]
    for name, method in methods.items():
        results, seconds = photos.run(method, low_res)
        measured = photos.measure(extractor, results, truth, low_res, features)
        scores[name] = measured | {"s/image": seconds}
        print(f"{name:20}" + photos.table_cells(scores[name]), flush=True)
        shown.append(results[on_sheet])
    rows = torch.stack([*shown, truth[on_sheet]], dim=1)  # (B, K, 3, H, W)
    save_png(contact_sheet(rows.flatten(0, 1), columns=rows.shape[1]), sheet)
    return scores


# Damage

Damage = Callable[[Tensor, SeededNoise], Tensor]  # of a small image (1, 3, h, w)


def degraded(truth: Tensor, degrade: Damage) -> Tensor:
    """Small images (B, 3, h, w) of crops, each degraded by the number of its place."""
    low_res = resize(truth, photos.small_size(truth), "bicubic")
    images = [
        degrade(low_res[i : i + 1], SeededNoise([i], "restoration")) for i in range(len(truth))
    ]
    return quantise(torch.cat(images))


def clean(small: Tensor, noise: SeededNoise) -> Tensor:
    """Nothing."""
    return small


def soft(small: Tensor, noise: SeededNoise) -> Tensor:
    """Blur of 0.6 px of the small image, grain of sigma 8, JPEG of quality 50."""
    blurred = gaussian_blur(small, (0.6, 0.6), 0.0)
    return jpeg(with_grain(blurred, 8.0, noise), 50)


def grain(small: Tensor, noise: SeededNoise) -> Tensor:
    """Grain of sigma 18, JPEG of quality 80."""
    return jpeg(with_grain(small, 18.0, noise), 80)


def with_grain(small: Tensor, std: float, noise: SeededNoise) -> Tensor:
    """White noise of a standard deviation in 8-bit steps, the same in all channels."""
    return (small + noise.normal(1, *small.shape[-2:]) * std / UNITS_8_BIT).clamp(-1, 1)


KINDS: dict[str, tuple[str, Damage]] = {
    "clean": ("photo", clean),
    "soft": ("photo", soft),
    "grain": ("photo", grain),
    "page": ("page", clean),
    "old page": ("page", grain),
}


if __name__ == "__main__":
    main()
