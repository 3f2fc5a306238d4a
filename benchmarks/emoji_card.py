"""Images and figures of the `emoji-1024` model card.

    python benchmarks/emoji_card.py --data data/emoji --large data/emoji-1024 --out out/card

Writes into OUT:

    known.png     64 emoji whose names the pipeline knows, spread over the classes, not a selection
    unseen.png    32 pairs of emoji and drawing style that were not in training: ours, then true
    nearest.png   samples beside the training images that are nearest to them, at 64 px
    lines.png     held-out images from 256 to 1024 px, cut out at 100 %: bicubic, ours, true

and prints how far samples are from their nearest training image beside how far held-out images
are from theirs, and how wide edges are.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from PIL import Image, ImageDraw
from torch import Tensor

from cascade import ImageSource, Space, open_source
from cascade.data.fitting import fit_size
from cascade.data.source import with_labels
from cascade.imaging.reading import decode_image
from cascade.imaging.writing import contact_sheet, from_uint8, save_png, to_pil
from cascade.pipeline import CascadePipeline

CAPTION_PX = 26  # height of the text below a picture
CUT_PX = 320  # side of what is cut out at 100 %


PARTS = ("known", "unseen", "nearest", "lines")


def main() -> None:
    """Make the pictures and print the figures."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add = parser.add_argument
    add("parts", nargs="*", help=f"any of {', '.join(PARTS)} (default: all)")
    add("--pipeline", default="emoji-1024")
    add("--data", type=Path, default=Path("data/emoji"), help="shards at 256 px")
    add("--large", type=Path, default=Path("data/emoji-1024"), help="shards at 1024 px")
    add("--shown-px", type=int, default=160, help="side of an image on the sheets")
    add("--seed", type=int, default=0)
    add("--out", type=Path, default=Path("out/card"))
    options = parser.parse_args()
    parts = options.parts or PARTS
    if unknown := set(parts) - set(PARTS):
        parser.error(f"no part {', '.join(sorted(unknown))}; there are {', '.join(PARTS)}.")
    options.out.mkdir(parents=True, exist_ok=True)
    pipeline = CascadePipeline.from_pretrained(options.pipeline)
    pipeline.set_progress_bar_config(disable=True)
    prompts = spread(names_of(pictures(pipeline, options.data, "train"), pipeline), 64)
    if "known" in parts:
        drawn = draw(pipeline, prompts, options)
        captioned_sheet(drawn, prompts, 8).save(options.out / "known.png")
    if "unseen" in parts:
        draw_unseen(pipeline, options)
    if "nearest" in parts:
        draw_nearest(pipeline, prompts, options)
    if "lines" in parts:
        draw_lines(pipeline, pictures(pipeline, options.large, "heldout"), options)


def pictures(pipeline: CascadePipeline, folder: Path, split: str) -> ImageSource:
    """The pictures of a split whose classes the pipeline draws; a split need not have all."""
    assert pipeline.labels is not None
    only = {"class": pipeline.labels.fields["class"]}
    return with_labels(open_source(str(folder / f"{split}-*.tar")), only, all_names=False)


def draw_unseen(pipeline: CascadePipeline, options: argparse.Namespace) -> None:
    """Write `unseen.png`."""
    unseen = pictures(pipeline, options.data, "unseen")
    places = spread(range(len(unseen)), 32)
    captions = [unseen.labels(place)["captions"].split("\n")[0] for place in places]
    drawn = draw(pipeline, captions, options)
    true = F.interpolate(read(unseen, places, 256), size=options.shown_px, mode="area")
    pairs = torch.stack([drawn, true], dim=1).flatten(0, 1)
    labels = [text for caption in captions for text in (caption, "true")]
    captioned_sheet(pairs, labels, 8).save(options.out / "unseen.png")


def draw_nearest(
    pipeline: CascadePipeline, prompts: Sequence[str], options: argparse.Namespace
) -> None:
    """Write `nearest.png`, and print how far pictures are from those of the training."""
    seeds = range(options.seed, options.seed + len(prompts))
    base = pipeline(list(prompts), seeds=seeds, stop_at=pipeline.stages.names[0], output_type="pt")
    samples = base.images
    train, heldout = (
        read_all(pictures(pipeline, options.data, split), samples.shape[-1])
        for split in ("train", "heldout")
    )
    save_png(nearest_sheet(samples[:12], train), options.out / "nearest.png")
    for name, images in (("samples", samples), ("held-out", heldout)):
        nearest = nearest_distances(images, train)[0][:, 0]
        median, low = nearest.median(), nearest.quantile(0.05)
        print(f"{name:8} to nearest training image: median {median:.1f}, 5 % below {low:.1f}")


def spread(values: Sequence[Any], count: int) -> list[Any]:
    """So many of the values, evenly spread."""
    places = torch.linspace(0, len(values) - 1, min(count, len(values))).round().long()
    return [values[int(place)] for place in places]


def names_of(source: ImageSource, pipeline: CascadePipeline) -> list[str]:
    """The names of all emoji, sorted by class."""
    assert pipeline.labels is not None
    order = {name: place for place, name in enumerate(pipeline.labels.fields["class"])}
    found = {
        each["caption"]: order[each["class"]]
        for each in (source.labels(place) for place in range(len(source)))
    }
    return sorted(found, key=lambda name: found[name])


def read(source: ImageSource, places: Sequence[int], size_px: int) -> Tensor:
    """Pictures at one size: (N, 3, size, size) in [-1, 1]."""
    space = Space(size_px=size_px)
    images = [decode_image(source.read(place), source.name(place)) for place in places]
    fitted = [
        fit_size(image, space, source.name(place))
        for image, place in zip(images, places, strict=True)
    ]
    return from_uint8(torch.stack(fitted))


def draw(pipeline: CascadePipeline, prompts: Sequence[str], options: argparse.Namespace) -> Tensor:
    """One picture per prompt, made small for the sheet."""
    shown = []
    for start in range(0, len(prompts), 8):
        result = pipeline(
            list(prompts[start : start + 8]),
            seeds=range(options.seed + start, options.seed + min(start + 8, len(prompts))),
            output_type="pt",
        )
        shown.append(F.interpolate(result.images, size=options.shown_px, mode="area"))
    return torch.cat(shown)


def captioned_sheet(images: Tensor, texts: Sequence[str], columns: int) -> Image.Image:
    """Pictures in rows, each with its text below."""
    width, height = images.shape[-1] + 4, images.shape[-2] + CAPTION_PX
    rows = -(-len(images) // columns)
    sheet = Image.new("RGB", (columns * width, rows * height), "white")
    pen = ImageDraw.Draw(sheet)
    for place, (picture, text) in enumerate(zip(to_pil(images), texts, strict=True)):
        row, column = divmod(place, columns)
        sheet.paste(picture, (column * width + 2, row * height))
        middle = (column * width + width // 2, row * height + images.shape[-2] + 2)
        pen.text(middle, text[: width // 6], fill="black", anchor="ma")
    return sheet


def draw_lines(pipeline: CascadePipeline, source: ImageSource, options: argparse.Namespace) -> None:
    """Write `lines.png`, and print the widths of edges."""
    stage = pipeline.stages.last
    true = read(source, spread(range(len(source)), 6), 1024)
    small = (F.interpolate(true, size=256, mode="area") * 127.5).round() / 127.5
    ours = torch.cat([pipeline_stage(stage, each[None]) for each in small])
    enlarged = bicubic(small, 1024)
    for name, images in (("bicubic", enlarged), ("ours", ours), ("true", true)):
        print(f"{name:8} edge width {edge_width_px(images):5.2f} px at 1024 px")
    columns = torch.stack([enlarged, ours, true], dim=1).flatten(0, 1)
    start = (1024 - CUT_PX) // 2
    cut = columns[..., start : start + CUT_PX, start : start + CUT_PX]
    save_png(contact_sheet(cut, columns=6), options.out / "lines.png")


def pipeline_stage(stage: Any, image: Tensor) -> Tensor:
    """A stage's result for an image (1, 3, 256, 256), by its own settings."""
    from cascade.conditioning.inputs import Inputs

    return stage.run([0], Inputs({"image": image}))


def read_all(source: ImageSource, size_px: int) -> Tensor:
    """All pictures of a source at one size: (N, 3, size, size) in [-1, 1]."""
    return read(source, range(len(source)), size_px)


def nearest_distances(images: Tensor, among: Tensor) -> tuple[Tensor, Tensor]:
    """Root mean squared distances in 8-bit levels, nearest first: values and indices (B, N)."""
    distances = torch.cdist(images.flatten(1), among.flatten(1)) / images[0].numel() ** 0.5 * 127.5
    return distances.sort(dim=1)


def nearest_sheet(samples: Tensor, train: Tensor):
    """Each row: a sample, then its three nearest training images."""
    _, order = nearest_distances(samples, train)
    rows = torch.cat([samples[:, None], train[order[:, :3]]], dim=1).flatten(0, 1)
    return contact_sheet(F.interpolate(rows, scale_factor=2), columns=12)


def bicubic(images: Tensor, size_px: int) -> Tensor:
    """Enlarge by bicubic interpolation."""
    return F.interpolate(images, size=size_px, mode="bicubic", antialias=True).clamp(-1, 1)


def edge_width_px(images: Tensor) -> float:
    """Width of the edges: 2, from black to white, over the steepest gradient but 0.1 %."""
    step = (images[..., 1:] - images[..., :-1]).abs().amax(dim=1).flatten(1)
    steepest = step.kthvalue(round(step.shape[1] * 0.999), dim=1).values
    return float((2 / steepest.clamp(min=1e-3)).mean())


if __name__ == "__main__":
    main()
