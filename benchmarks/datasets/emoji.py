"""Rebuild the emoji data set (1,300 emoji in five drawing styles, with captions) from npm packages.

    python benchmarks/datasets/emoji.py --out data/emoji
    python benchmarks/datasets/emoji.py --out data/emoji --check
    python benchmarks/datasets/emoji.py --out data/emoji-1024 --size-px 1024

The packages are pinned by version and sha256, so everyone draws from the same bytes. The result is
webdataset shards, `<split>-NNNNNN.tar`, and a `manifest.json`. A sample is `<style>-<code>.png`
(RGB on white) and `<style>-<code>.json` with the fields caption (the plain name), captions (several
phrasings, see emoji_captions.py), class, style, code and group. emoji_selection.py says which emoji
are left out, and why.

A code is the emoji's code points in hex joined by `-`, without the presentation mark FE0F that the
packages spell differently. The splits are made by hash, so they are the same at every size and for
every choice of groups and styles:

- `heldout` and `validation` are split off by code, never by image: the styles draw the same
  emoji, three of them from one design.
- `unseen` has (emoji, style) pairs. The emoji is in `train` in other styles, and the style with
  other emoji; the two together are new. An emoji gives up one style at most.
- `train` is the rest.

Above 256 px, only the styles that are vector graphics can be drawn. The style `openmoji` is left
out unless `--styles` names it, because its licence, CC-BY-SA-4.0, asks the same licence of what is
made from it. The styles `emojione` and `noto-v1` are left out too: no generator should see them, so
that a judge of alignment can be trained on them (benchmarks/alignment_tower.py).

A rebuild on one machine is bit-identical. PNG bytes still depend on the Pillow and zlib versions,
so `--check` and the sums that it reads, `emoji.sha256` and `emoji-1024.sha256`, are of the decoded
pixels and the JSON of each shard, not of the tar; a pixel that another cairo version draws
differently is a failure, and is meant to be.
"""

from __future__ import annotations

import argparse
import csv
import functools
import hashlib
import importlib.metadata
import io
import itertools
import json
import multiprocessing
import os
import sys
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from emoji_captions import other_name, phrasings, straight, words_of
from emoji_selection import DEFAULT_GROUPS, SKIN_TONES, Emoji, base_code, join_code, select
from emoji_sources import (
    DEFAULT_STYLES,
    EMOJIBASE,
    OPENMOJI,
    STYLES,
    UNDRAWABLE,
    read_sources,
    read_words,
)
from npm_packages import fetch, read_members
from shards import (
    SPLITS,
    DatasetError,
    check,
    content_sha256,
    shard_names,
    write_manifest,
)

from cascade.data.shard_writing import sha256_of, write_tar
from cascade.errors import OutputError

RASTER_PX = 256  # the size of the 3D style's WebP files, and the default
MAX_SIZE_PX = 2048
SHARD_SAMPLES = 512  # at the default size
LARGE_SHARD_SAMPLES = 128  # above it
SHUFFLE_SEED = 0
HELDOUT_FRACTION = 0.05
VALIDATION_FRACTION = 0.03
UNSEEN_FRACTION = 0.04


@dataclass(frozen=True)
class Picture:
    """One emoji in one style, not yet rendered; `source` is an SVG document or a WebP file."""

    emoji: Emoji
    style: str
    source: bytes
    captions: tuple[str, ...] = ()

    @property
    def key(self) -> str:
        """The sample's name in its shard."""
        return f"{self.style}-{self.emoji.code}"

    def label(self) -> bytes:
        """The sample's JSON member."""
        fields = {
            "caption": self.emoji.caption,
            "captions": list(self.captions),
            "class": self.emoji.subgroup,
            "style": self.style,
            "code": self.emoji.code.upper(),
            "group": self.emoji.group,
        }
        return json.dumps(fields, ensure_ascii=False).encode()


# Joining


def fraction_of(text: str) -> float:
    """A number in [0, 1) by hash."""
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:8], "big") / 2**64


def unseen_style(code: str) -> str | None:
    """The style in which an emoji is held out of training, if there is one.

    Only the default styles take part, and all of them in every build, so that a build of fewer
    styles has the same pairs. Every emoji is drawn by noto and twemoji, so another style remains.
    """
    fractions = {style: fraction_of(f"{base_code(code)} {style}") for style in DEFAULT_STYLES}
    style = min(DEFAULT_STYLES, key=fractions.__getitem__)
    return style if fractions[style] < UNSEEN_FRACTION else None


def split_of(code: str, style: str) -> str:
    """The split of an emoji in one style, by hash."""
    fraction = fraction_of(base_code(code))
    if fraction < HELDOUT_FRACTION:
        return "heldout"
    if fraction < HELDOUT_FRACTION + VALIDATION_FRACTION:
        return "validation"
    return "unseen" if unseen_style(code) == style else "train"


def read_table(text: str, groups: Sequence[str]) -> list[Emoji]:
    """Parse the OpenMoji table, without skin-tone variants and the tones themselves.

    Args:
        text: the CSV file.
        groups: names from its `group` column, or `("all",)`.

    Raises:
        DatasetError: a group is not in the table.
    """
    rows = list(csv.DictReader(io.StringIO(text)))
    known = sorted({row["group"] for row in rows})
    unknown = sorted(set(groups) - {*known, "all"})
    if unknown:
        raise DatasetError(f"unknown group {unknown[0]!r}; expected all, or {', '.join(known)}")
    # A base names itself in skintone_base_hexcode; only a variant has a skintone.
    return [
        Emoji(
            join_code(row["hexcode"]),
            straight(row["annotation"]),
            row["subgroups"],
            row["group"],
            tuple(row["openmoji_tags"].split(",")),
        )
        for row in rows
        if ("all" in groups or row["group"] in groups)
        and not row["skintone"]
        and row["hexcode"].lower() not in SKIN_TONES
    ]


def read_style(
    name: str, emojis: Sequence[Emoji], cache: Path, words: tuple[Mapping, Mapping]
) -> list[Picture]:
    """The pictures of one style, in the order of the table."""
    codes = [emoji.code for emoji in emojis if (name, emoji.code) not in UNDRAWABLE]
    sources = read_sources(name, codes, cache)
    print(f"{name}: {len(sources)} of {len(emojis)} emoji", flush=True)
    keywords, shortcodes = words
    names = {words_of(emoji.caption) for emoji in emojis}
    pictures = []
    for emoji in emojis:
        if emoji.code in sources:
            tags = (*emoji.keywords, *keywords.get(emoji.code, ()))
            other = other_name(emoji.caption, shortcodes.get(emoji.code, ()), names)
            salt = f"{emoji.code} {name}"
            captions = tuple(phrasings(emoji.caption, name, tags, other, salt))
            pictures.append(Picture(emoji, name, sources[emoji.code], captions))
    return pictures


# Rendering


def require_renderers() -> None:
    """Raise DatasetError with the install hint unless CairoSVG and Pillow can be imported."""
    try:
        import cairosvg  # noqa: F401
        import PIL  # noqa: F401
    except (ImportError, OSError) as error:  # OSError: the cairo library itself is missing
        reason = str(error).split("\n")[0]
        hint = 'pip install "cascade-diffusion[datasets]" (CairoSVG also needs the cairo library)'
        raise DatasetError(f"cannot render: {reason}; {hint}") from None


def on_white(image_file: bytes, size_px: int) -> bytes:
    """Composite an image file on white, `size_px` square; returns an RGB PNG file.

    A few WebP files are 256 x 264 px; they are shrunk into the square. Nothing is enlarged.
    """
    from PIL import Image, ImageOps

    with Image.open(io.BytesIO(image_file), formats=("PNG", "WEBP")) as image:
        if max(image.size) < size_px:
            raise ValueError(f"is {image.size} px, expected at least {size_px}")
        white = Image.new("RGBA", image.size, "white")
        flat = Image.alpha_composite(white, image.convert("RGBA")).convert("RGB")
    buffer = io.BytesIO()
    ImageOps.pad(flat, (size_px, size_px), color="white").save(buffer, "PNG")
    return buffer.getvalue()


def render(picture: Picture, size_px: int) -> bytes:
    """The PNG file of one picture."""
    source = picture.source
    try:
        if STYLES[picture.style].vector:
            import cairosvg

            source = cairosvg.svg2png(source, output_width=size_px, output_height=size_px)
        return on_white(source, size_px)
    except Exception as error:  # CairoSVG raises whatever a bad document runs into
        raise DatasetError(f"{picture.key}: cannot render: {error!r}") from error


# Shards


def shuffled(pictures: Iterable[Picture]) -> list[Picture]:
    """Pictures in an order that depends on SHUFFLE_SEED and their keys alone."""
    return sorted(
        pictures,
        key=lambda picture: hashlib.sha256(f"{SHUFFLE_SEED}:{picture.key}".encode()).digest(),
    )


def shard_samples(size_px: int) -> int:
    """The number of samples in a full shard."""
    return SHARD_SAMPLES if size_px <= RASTER_PX else LARGE_SHARD_SAMPLES


def plan_shards(pictures: Sequence[Picture], samples: int) -> dict[str, list[Picture]]:
    """Shard file names and the pictures of each, at most `samples` in one shard."""
    shards = {}
    for split in SPLITS:
        members = shuffled(p for p in pictures if split_of(p.emoji.code, p.style) == split)
        for index, start in enumerate(range(0, len(members), samples)):
            shards[f"{split}-{index:06d}.tar"] = members[start : start + samples]
    return shards


def sample_members(
    pictures: Iterable[Picture], pngs: Iterable[bytes]
) -> Iterator[tuple[str, bytes]]:
    """The (name, data) tar members of samples."""
    for picture, png in zip(pictures, pngs, strict=True):
        yield f"{picture.key}.png", png
        yield f"{picture.key}.json", picture.label()


def write_shards(shards: Mapping[str, Sequence[Picture]], out: Path, size_px: int) -> None:
    """Render all pictures on all cores that the process may use and write their shards."""
    draw = functools.partial(render, size_px=size_px)
    with multiprocessing.Pool(len(os.sched_getaffinity(0))) as pool:
        pngs = pool.imap(draw, itertools.chain.from_iterable(shards.values()), chunksize=8)
        for name, pictures in shards.items():
            members = sample_members(pictures, itertools.islice(pngs, len(pictures)))
            write_tar(out / name, members)
            print(f"{name}: {len(pictures)} samples", flush=True)


# Manifest and check


def count_samples(pictures: Iterable[Picture]) -> dict[str, dict]:
    """Counts by style, and by class and style, of each split."""
    counts: dict[str, dict] = {split: {"styles": Counter(), "classes": {}} for split in SPLITS}
    for picture in pictures:
        count = counts[split_of(picture.emoji.code, picture.style)]
        count["styles"][picture.style] += 1
        count["classes"].setdefault(picture.emoji.subgroup, Counter())[picture.style] += 1
    return counts


def renderer_versions() -> dict[str, str]:
    """The versions that decide the pixels."""
    import cairocffi

    versions = {name: importlib.metadata.version(name) for name in ("cairosvg", "pillow")}
    return versions | {"cairo": cairocffi.cairo_version_string()}


@dataclass(frozen=True)
class Choice:
    """What a user may choose of a build."""

    groups: tuple[str, ...] = DEFAULT_GROUPS
    styles: tuple[str, ...] = DEFAULT_STYLES
    size_px: int = RASTER_PX

    def settings(self) -> dict:
        """Everything that decides which samples are in which shard."""
        return {
            "groups": list(self.groups),
            "styles": list(self.styles),
            "image_px": self.size_px,
            "shard_samples": shard_samples(self.size_px),
            "shuffle_seed": SHUFFLE_SEED,
            "heldout_fraction": HELDOUT_FRACTION,
            "validation_fraction": VALIDATION_FRACTION,
            "unseen_fraction": UNSEEN_FRACTION,
        }

    def sums_path(self) -> Path:
        """The file with the recorded sums of the default build at this size."""
        suffix = "" if self.size_px == RASTER_PX else f"-{self.size_px}"
        return Path(__file__).with_name(f"emoji{suffix}.sha256")


def default_styles(size_px: int) -> tuple[str, ...]:
    """The default styles that can be drawn at a size."""
    return tuple(s for s in DEFAULT_STYLES if STYLES[s].vector or size_px <= RASTER_PX)


def describe(shards: Mapping[str, Sequence[Picture]], out: Path, choice: Choice) -> dict:
    """The manifest of a finished build."""
    packages = {OPENMOJI, EMOJIBASE}.union(*(STYLES[s].packages() for s in choice.styles))
    return {
        "settings": choice.settings(),
        "packages": {
            package.name: {
                "version": package.version,
                "licence": package.licence,
                "sha256": package.sha256,
            }
            for package in packages
        },
        "renderers": renderer_versions(),
        "shards": {
            name: {
                "samples": len(pictures),
                "sha256": sha256_of(out / name),
                "content_sha256": content_sha256(out / name),
            }
            for name, pictures in shards.items()
        },
        "counts": count_samples(itertools.chain.from_iterable(shards.values())),
    }


def record(out: Path, sums: Path) -> None:
    """Write the content sha256 of every shard of a default build in `out`."""
    settings = json.loads((out / "manifest.json").read_text(encoding="utf-8"))["settings"]
    size_px = settings["image_px"]
    if settings != Choice(styles=default_styles(size_px), size_px=size_px).settings():
        raise DatasetError(f"{out} was not built with the default settings; nothing recorded")
    lines = [f"{content_sha256(out / name)}  {name}\n" for name in sorted(shard_names(out))]
    header = "# sha256 of decoded pixels and JSON (not of the tar); see emoji.py --check\n"
    sums.write_text(header + "".join(lines), encoding="utf-8")


# Command line


def read_pictures(cache: Path, choice: Choice) -> list[Picture]:
    """Fetch the packages and join what they say of each emoji."""
    table = read_members(fetch(OPENMOJI, cache), {"package/data/openmoji.csv"})
    rows = read_table(table["package/data/openmoji.csv"].decode("utf-8-sig"), choice.groups)
    emojis = select(rows)
    print(f"{len(emojis)} of {len(rows)} emoji are in; emoji_selection.py says why", flush=True)
    words = read_words(cache)
    return [p for style in choice.styles for p in read_style(style, emojis, cache, words)]


def build(out: Path, cache: Path, choice: Choice) -> None:
    """Fetch, join, render and write the data set and its manifest."""
    require_renderers()
    out.mkdir(parents=True, exist_ok=True)
    cache.mkdir(parents=True, exist_ok=True)
    shards = plan_shards(read_pictures(cache, choice), shard_samples(choice.size_px))
    stale = sorted(shard_names(out) - shards.keys())
    if stale:
        raise DatasetError(f"{out} has {stale[0]} of another build; remove it or change --out")
    manifest_path = out / "manifest.json"
    manifest_path.unlink(missing_ok=True)  # it would describe shards that are being replaced
    write_shards(shards, out, choice.size_px)
    write_manifest(describe(shards, out, choice), manifest_path)


def style_list(text: str) -> tuple[str, ...]:
    """Parse `--styles`."""
    styles = tuple(text.split(","))
    for style in styles:
        if style not in STYLES:
            message = f"unknown style {style!r}; expected some of {','.join(STYLES)}"
            raise argparse.ArgumentTypeError(message)
    return tuple(style for style in STYLES if style in styles)


def group_list(text: str) -> tuple[str, ...]:
    """Parse `--groups`; the names are checked against the table when it has been fetched."""
    return tuple(dict.fromkeys(text.split(",")))


def size(text: str) -> int:
    """Parse `--size-px`."""
    if not text.isdecimal() or not 1 <= int(text) <= MAX_SIZE_PX:
        raise argparse.ArgumentTypeError(f"expected 1 to {MAX_SIZE_PX} px, got {text!r}")
    return int(text)


def parse_arguments(arguments: Sequence[str] | None) -> argparse.Namespace:
    """Parse the command line."""
    parser = argparse.ArgumentParser(
        description="Rebuild the emoji data set as webdataset shards from pinned npm packages.",
        epilog="example: python benchmarks/datasets/emoji.py --out data/emoji",
    )
    add = parser.add_argument
    add("--out", type=Path, required=True, help="folder of the shards and manifest.json")
    add("--cache", type=Path, help="folder of the npm tarballs (default: OUT/downloads)")
    groups_help = f"OpenMoji groups, or all (default: {','.join(DEFAULT_GROUPS)})"
    add("--groups", type=group_list, help=groups_help)
    styles_help = f"drawing styles, of {','.join(STYLES)} (default: {','.join(DEFAULT_STYLES)})"
    add("--styles", type=style_list, help=styles_help)
    size_help = f"side of the images in pixels (default: {RASTER_PX}); above it, vector styles only"
    add("--size-px", type=size, default=RASTER_PX, help=size_help)
    after = parser.add_mutually_exclusive_group()
    check_help = "build nothing; verify the default shards in OUT against the recorded sha256"
    after.add_argument("--check", action="store_true", help=check_help)
    record_help = "build nothing; rewrite the recorded sha256 from OUT (for maintainers)"
    after.add_argument("--record", action="store_true", help=record_help)
    args = parser.parse_args(arguments)
    if (args.check or args.record) and (args.cache or args.groups or args.styles):
        parser.error("--check and --record take no --cache, --groups or --styles")
    raster = [style for style in args.styles or () if not STYLES[style].vector]
    if raster and args.size_px > RASTER_PX:
        parser.error(f"{raster[0]} is a raster of {RASTER_PX} px; leave it out of --styles")
    return args


def choice_of(args: argparse.Namespace) -> Choice:
    """The build that the command line asks for; prints which default style is left out."""
    styles = args.styles or default_styles(args.size_px)
    missing = set(DEFAULT_STYLES) - set(styles)
    if missing and not args.styles:
        names = ", ".join(sorted(missing))
        print(f"left out at {args.size_px} px: {names}, a raster of {RASTER_PX} px", flush=True)
    return Choice(args.groups or DEFAULT_GROUPS, styles, args.size_px)


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the command line; a failure that the user can mend ends it with one line."""
    args = parse_arguments(arguments)
    choice = choice_of(args)
    sums = choice.sums_path()
    try:
        if args.record:
            record(args.out, sums)
        elif args.check:
            if not sums.is_file():
                raise DatasetError(f"no sums are recorded for {choice.size_px} px")
            check(args.out, sums)
            print(f"{args.out}: all shards match {sums.name}")
        else:
            build(args.out, args.cache or args.out / "downloads", choice)
    except (DatasetError, OutputError, OSError) as error:
        sys.exit(f"emoji.py: error: {error}")


if __name__ == "__main__":
    main()
