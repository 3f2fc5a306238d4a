"""Colourisation of held-out photographs: ours, the greyscale copy, mean chroma and a regression.

    python benchmarks/colours.py --data "data/photos/views/heldout-*.tar" \\
        --regression runs/photo-colour-regression --out out/colours

Every view of 256 px is converted to greyscale and colourised by each method; all results get the
luminance of the greyscale image. Prints a table and writes `scores.json` and `sheet.png`:

    KID x1000           of the results as a set against the truths, on EfficientNet-Lite0; lower is
                        better
    colourful, share    Hasler & Suesstrunk's colourfulness, and as a share of the truths'
    PSNR dB             against the truth, RGB: favours dull colours, so it is no aim
    luma                largest error of luminance, in levels of 255
    s/image             wall time of this machine at this moment

`mean chroma` gives every pixel the mean colour difference of the views in `--train`.

Shapes: B images, H and W pixels.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Sequence
from pathlib import Path

import torch
from photos import Method, load_stages, read_crops, run
from torch import Tensor

from cascade.conditioning.luminance import impose_luminance, luminance
from cascade.errors import CascadeError
from cascade.evaluation.features import extract_features
from cascade.evaluation.set_distances import kernel_estimate
from cascade.imaging.writing import contact_sheet, save_png
from cascade.resizing import quantise
from cascade.restoration.colouring import Colouring, colourise_image
from cascade.tasks.image_metrics import colourfulness, psnr
from cascade.vision.efficientnet import EfficientNetLite, load_efficientnet

COLUMNS = {"KID x1000": 1, "colourful": 2, "share": 2, "PSNR dB": 2, "luma": 2, "s/image": 2}
MEAN_OF_VIEWS = 200


def main() -> None:
    """Run every method on the same views and print the table."""
    arguments = parse_arguments()
    try:
        extractor = load_efficientnet("lite0")
        methods = all_methods(arguments)
        truth = read_crops(arguments.data, arguments.count)
    except CascadeError as error:
        sys.exit(f"colours.py: error: {error}")
    grey = quantise(luminance(truth))
    features = extract_features(extractor, truth)
    scores, shown = {}, []
    on_sheet = torch.linspace(0, len(truth) - 1, min(arguments.shown, len(truth))).long()
    print(f"n = {len(truth)} views of {truth.shape[-1]} px; KID on {extractor.name}; colourfulness")
    print(f"of the truths {float(colourfulness(truth).mean()):.2f}")
    print(f"{'':20}" + "".join(f"{name:>14}" for name in COLUMNS))
    for name, colourise in methods.items():
        results, seconds = run(colourise, grey)
        scores[name] = measure(extractor, results, truth, features) | {"s/image": seconds}
        shown.append(results[on_sheet])
        cells = (f"{scores[name][column]:14.{digits}f}" for column, digits in COLUMNS.items())
        print(f"{name:20}" + "".join(cells), flush=True)
    arguments.out.mkdir(parents=True, exist_ok=True)
    report = {"n": len(truth), "extractor": extractor.name, "methods": scores}
    (arguments.out / "scores.json").write_text(
        json.dumps(report, indent=2) + "\n", encoding="utf-8"
    )
    rows = torch.stack([*shown, truth[on_sheet]], dim=1)  # (B, K, 3, H, W)
    save_png(contact_sheet(rows.flatten(0, 1), columns=rows.shape[1]), arguments.out / "sheet.png")
    print(f"{arguments.out / 'sheet.png'}: {', '.join(scores)}, truth")


def parse_arguments() -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add = parser.add_argument
    add("--data", default="data/photos/views/heldout-*.tar", help="shards or a folder of views")
    add("--train", default="data/photos/views/train-*.tar", help="whose mean chroma is taken")
    add("--ours", default="photo-colour", help="a pipeline, a run, or a stage's folder")
    add("--regression", help="the same for the regression baseline")
    add("--steps", type=int, help="of ours; default: the stage's own")
    add("--count", type=int, help="the first so many views; default: all")
    add("--shown", type=int, default=12, help="views on the sheet, spread over all")
    add("--out", type=Path, default=Path("out/colours"))
    return parser.parse_args()


def all_methods(arguments: argparse.Namespace) -> dict[str, Method]:
    """The methods that can run here, in the order of the table."""
    views = read_crops(arguments.train, MEAN_OF_VIEWS)
    mean = (views - luminance(views)).mean(dim=(0, 2, 3)).view(1, 3, 1, 1)
    methods: dict[str, Method] = {
        "grey": lambda grey, seeds: grey.expand(-1, 3, -1, -1),
        "mean chroma": lambda grey, seeds: impose_luminance(grey + mean, grey),
    }
    if arguments.regression:
        methods["regression"] = load_ours(arguments.regression, None)
    methods["ours"] = load_ours(arguments.ours, arguments.steps)
    return methods


def load_ours(path: str, steps: int | None) -> Method:
    """A run, a stage's folder or a pipeline, used as `cascade colourise` does."""
    stages = load_stages(path, steps=steps)

    def colourise(grey: Tensor, seeds: Sequence[int]) -> Tensor:
        return torch.stack(
            [
                colourise_image(stages, image, Colouring(seed=seed))
                for image, seed in zip(grey, seeds, strict=True)
            ]
        )

    return colourise


def measure(
    extractor: EfficientNetLite, results: Tensor, truth: Tensor, features: Tensor
) -> dict[str, float]:
    """The figures of one method; `features` are those of the truth."""
    kid = kernel_estimate(extract_features(extractor, results), features)
    true_colour = float(colourfulness(truth).mean())
    colour = float(colourfulness(results).mean())
    return {
        "KID x1000": kid.value,
        "KID x1000 low": kid.low,
        "KID x1000 high": kid.high,
        "colourful": colour,
        "share": colour / true_colour,
        "PSNR dB": float(psnr(results, truth).mean()),
        "luma": float((luminance(results) - quantise(luminance(truth))).abs().max() * 127.5),
    }


if __name__ == "__main__":
    main()
