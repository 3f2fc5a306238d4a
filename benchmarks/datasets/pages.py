"""Draw text pages, line art and icons, which are mixed in with photographs to train restoration.

    python benchmarks/datasets/pages.py --icons data/emoji --out data/pages

An upscaler that has seen photographs alone re-invents printed letters. This draws 256 px tiles of
them, by seed: lines of type in all fonts of a folder, on papers and in inks of many colours, a
little turned, as scans are; strokes, curves and hatching; and images of the emoji set, whose
splits it keeps, on backgrounds of one colour. The result is `train-000000.tar` and so on with the
same splits as the photographs; train and held-out text share fonts, but no words.

Other fonts and another Pillow give other pixels, so there is no `--check`.
"""

from __future__ import annotations

import argparse
import io
import json
import random
import sys
import tarfile
from collections.abc import Iterator, Sequence
from pathlib import Path

from PIL import Image, ImageDraw, ImageEnhance, ImageFont

from cascade.data.shard_writing import write_tar

SIDE_PX = 256
OVERSAMPLING = 2
SHARD_SAMPLES = 512
COUNTS = {  # of text pages, line art and icons; about 15 % beside 5,200 tiles and views of photos
    "train": (520, 140, 260),
    "validation": (24, 8, 8),
    "heldout": (48, 12, 12),
}
SYLLABLES = (
    "an ar be ca con de di el en er est fa ga ge in is la le li lo ma me mi mo na ne no o or pa pe "
    "po ra re ri ro sa se si so sta ta te ti to tra un ur va ve vi"
)
TYPE_PX = (11, 52)  # of the result
TURN_DEGREES = 2.0
Colour = tuple[int, int, int]


def main() -> None:
    """Draw all splits."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--out", type=Path, default=Path("data/pages"))
    parser.add_argument("--icons", type=Path, default=Path("data/emoji"), help="the emoji set")
    parser.add_argument("--fonts", type=Path, default=Path("/usr/share/fonts"))
    arguments = parser.parse_args()
    fonts = sorted(arguments.fonts.rglob("*.[to]tf"))
    if not fonts:
        sys.exit(f"pages.py: error: {arguments.fonts} has no .ttf or .otf fonts; name a folder.")
    arguments.out.mkdir(parents=True, exist_ok=True)
    for split, (texts, drawings, icons) in COUNTS.items():
        samples = [(f"text-{i:05d}", text_page(f"{split} {i}", fonts)) for i in range(texts)]
        samples += [(f"art-{i:05d}", line_art(f"{split} {i}")) for i in range(drawings)]
        samples += read_icons(arguments.icons, split, icons)
        random.Random(split).shuffle(samples)
        for first in range(0, len(samples), SHARD_SAMPLES):
            path = arguments.out / f"{split}-{first // SHARD_SAMPLES:06d}.tar"
            write_tar(path, members(samples[first : first + SHARD_SAMPLES]))
            print(path)


def members(samples: Sequence[tuple[str, Image.Image]]) -> Iterator[tuple[str, bytes]]:
    """The (name, data) tar members of samples."""
    for key, image in samples:
        file = io.BytesIO()
        image.save(file, "PNG")
        yield f"{key}.png", file.getvalue()
        yield f"{key}.json", json.dumps({"kind": key.partition("-")[0]}).encode()


def text_page(seed: str, fonts: Sequence[Path]) -> Image.Image:
    """Lines of invented words, sometimes in two columns and with a heading or rules."""
    rng = random.Random(f"text {seed}")
    paper, ink = paper_and_ink(rng)
    side = round(SIDE_PX * OVERSAMPLING * 1.1)  # the rest is cut off after turning
    image = Image.new("RGB", (side, side), paper)
    draw = ImageDraw.Draw(image)
    low, high = TYPE_PX
    size = round(OVERSAMPLING * low * (high / low) ** (rng.random() ** 1.3))
    font = ImageFont.truetype(rng.choice(fonts), size)
    heading = ImageFont.truetype(rng.choice(fonts), round(size * rng.uniform(1.2, 2)))
    columns = 2 if size < OVERSAMPLING * 20 and rng.random() < 0.4 else 1
    spacing, dense = size * rng.uniform(1.1, 1.7), rng.random() < 0.8
    for column in range(columns):
        left = side * column / columns + rng.uniform(-0.3, 1) * size
        y = rng.uniform(-1, 1) * size
        while y < side:
            own = heading if rng.random() < 0.06 else font
            if rng.random() < 0.04:
                draw.line((left, y, left + side / columns - size, y), ink, rng.randint(1, 4))
            if dense or rng.random() < 0.6:
                draw.text((left, y), line_of_words(rng, own, side / columns - size), ink, own)
            y += spacing * own.size / size
    return finished(image.rotate(rng.gauss(0, TURN_DEGREES / 2), Image.Resampling.BICUBIC), rng)


def line_of_words(rng: random.Random, font: ImageFont.FreeTypeFont, width: float) -> str:
    """Invented words and numbers that fill a line of this width."""
    line = ""
    while font.getlength(line) < width:
        word = "".join(rng.choices(SYLLABLES.split(), k=rng.randint(1, 4)))
        word = rng.choice((word, word, word, word.capitalize(), word.upper()))
        if rng.random() < 0.08:
            word = f"{rng.choice('$€£ ')}{rng.randint(0, 9999)}"
        line += word + rng.choice(("", "", "", "", ",", ".", ";", "?", "-")) + " "
    return line


def line_art(seed: str) -> Image.Image:
    """Strokes, curves, hatching and outlines of simple shapes."""
    rng = random.Random(f"art {seed}")
    paper, ink = paper_and_ink(rng)
    side = SIDE_PX * OVERSAMPLING
    image = Image.new("RGB", (side, side), paper)
    draw = ImageDraw.Draw(image)
    width = round(OVERSAMPLING * rng.uniform(0.8, 5))
    for _ in range(rng.randint(5, 16)):
        x, y, reach = rng.uniform(0, side), rng.uniform(0, side), rng.uniform(30, side / 2)
        box = (x - reach, y - reach * rng.uniform(0.3, 1), x + reach, y + reach)
        kind = rng.randrange(5)
        fill = rng.choice((None, None, tuple(rng.randrange(256) for _ in range(3))))
        if kind == 0:
            draw.ellipse(box, fill, ink, width)
        elif kind == 1:
            draw.rectangle(box, fill, ink, width)
        elif kind == 2:
            draw.arc(box, rng.uniform(0, 360), rng.uniform(0, 360), ink, width)
        elif kind == 3:
            step = rng.uniform(3, 14) * OVERSAMPLING
            for number in range(rng.randint(4, 20)):
                at = x + number * step
                draw.line((at, y, at + reach / 2, y + reach), ink, max(1, width // 2))
        else:
            points = [(x, y)]
            for _ in range(rng.randint(3, 12)):
                points.append((points[-1][0] + rng.gauss(0, 50), points[-1][1] + rng.gauss(0, 50)))
            draw.line(points, ink, width, joint="curve")
    return finished(image, rng)


def paper_and_ink(rng: random.Random) -> tuple[Colour, Colour]:
    """Mostly dark ink on light paper; sometimes any colours, sometimes light on dark."""
    paper, ink = tint(rng, 225, 255), tint(rng, 0, 70)
    if rng.random() < 0.2:
        paper, ink = tint(rng, 120, 255), tint(rng, 0, 110)
    return (ink, paper) if rng.random() < 0.12 else (paper, ink)


def tint(rng: random.Random, low: int, high: int) -> Colour:
    """A colour whose channels are about equally bright."""
    level = rng.uniform(low, high)
    red, green, blue = (round(min(255, max(0, level + rng.gauss(0, 6)))) for _ in range(3))
    return red, green, blue


def finished(image: Image.Image, rng: random.Random) -> Image.Image:
    """The middle of a page at the size of a tile, with the light falling off to one side."""
    side = SIDE_PX * OVERSAMPLING
    margin = (image.width - side) // 2
    image = image.crop((margin, margin, margin + side, margin + side))
    image = image.resize((SIDE_PX, SIDE_PX), Image.Resampling.LANCZOS)
    if rng.random() < 0.4:
        shade = Image.linear_gradient("L").rotate(rng.choice((0, 90, 180, 270)))
        dark = ImageEnhance.Brightness(image).enhance(rng.uniform(0.6, 0.95))
        image = Image.composite(image, dark, shade)
    return image


def read_icons(folder: Path, split: str, count: int) -> list[tuple[str, Image.Image]]:
    """Emoji of a split, each on one colour, spread over all of its shards."""
    names: list[tuple[Path, str]] = []
    for path in sorted(folder.glob(f"{split}-*.tar")):
        with tarfile.open(path, "r:") as archive:
            names += [(path, name) for name in archive.getnames() if name.endswith(".png")]
    if len(names) < count:
        sys.exit(f"pages.py: error: {folder} has {len(names)} {split} emoji, fewer than {count}.")
    rng, icons = random.Random(f"icons {split}"), []
    for path, name in sorted(rng.sample(names, count)):
        with tarfile.open(path, "r:") as archive:
            file = archive.extractfile(name)
            assert file is not None, "it is listed as a picture"
            image = Image.open(io.BytesIO(file.read()), formats=("PNG",))
            image = image.convert("RGBA").resize((SIDE_PX, SIDE_PX), Image.Resampling.LANCZOS)
        colour = rng.choice(((255, 255, 255), tint(rng, 0, 255)))
        background = Image.new("RGBA", image.size, colour)
        icons.append((f"icon-{name[:-4]}", Image.alpha_composite(background, image).convert("RGB")))
    return icons


if __name__ == "__main__":
    main()
