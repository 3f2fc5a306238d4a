"""The files that the pages of the documentation name, as small as they can be."""

from __future__ import annotations

import io
import json
import shutil
import tarfile
from collections.abc import Mapping
from pathlib import Path

import nibabel
import numpy as np
import tifffile
import torch
from certificates import write_certificate
from PIL import Image
from safetensors.torch import save_file

PHOTO_PX = {"docs/training.md": 260, "docs/recipes.md": 72}  # where no page upscales photos
PACKING = {"docs/training.md"}  # pages that write the folder of shards
KINDS = ("cat-face", "heart", "face-smiling")
STYLES = ("noto", "openmoji")
CAPTIONS = {"cat-face": "a cat face", "heart": "a red heart", "face-smiling": "a smiling face"}
BASE_ALONE = "kind: pipeline\nname: base\nstages: [{name: base, recipe: emoji-64-text}]\n"
GEO_TAGS = [  # ModelPixelScale, ModelTiepoint and a GeoKeyDirectory that names WGS 84
    (33550, "d", 3, (10.0, 10.0, 0.0), True),
    (33922, "d", 6, (0.0, 0.0, 0.0, 4e5, 5e6, 0.0), True),
    (34735, "H", 8, (1, 1, 0, 1, 2048, 0, 1, 4326), True),
]


def write_inputs(folder: Path, page: str) -> None:
    """Fill a folder with everything that the commands and snippets of a page read."""
    noise = np.random.default_rng(0)
    photo_px = PHOTO_PX.get(page, 40)
    for name, side_px, count in (
        ("photos", photo_px, 24 if page in PACKING else 8),
        ("more-photos", photo_px, 4),
        ("more", photo_px, 8),
        ("cats", 40, 8),
        ("validation", 260, 8),
        ("heldout", 260, 8),
        ("my-pictures", 260, 10),
        ("my-test-pictures", 260, 8),
    ):
        for number in range(count):
            kind = ("blue", "red")[number % 2]
            write_picture(folder / name / kind / f"{number}.png", side_px, noise)
    for number in range(30):
        write_picture(folder / "portraits" / f"{number}.png", 40, noise)
        person = json.dumps({"class": ("blue", "red")[number % 2], "person": f"person-{number}"})
        (folder / "portraits" / f"{number}.json").write_text(person)
    for name in ("old", "scans", "small-pictures"):
        for number in range(2):
            write_picture(folder / name / f"{'ab'[number]}.png", 32, noise)
    for name in ("photo.jpg", "a.jpg", "b.png", "scans/1890/c.tif"):
        write_picture(folder / name, 32, noise)
    for name in ("scan", "face", "sketch", "drawing", "tile", "picture"):
        write_picture(folder / f"{name}.png", 32, noise)
    for name in ("eyes", "logo", "scratches", "dust"):
        mask = np.zeros((32, 32), np.uint8)
        mask[8:14, 10:20] = 255
        Image.fromarray(mask).save(folder / f"{name}.png")
    write_layered_pictures(folder, noise)
    write_pairs(folder, noise)
    write_measured_images(folder, noise)
    write_shards(folder, page, noise)
    (folder / "base.yaml").write_text(BASE_ALONE)
    (folder / "known.txt").write_text("a cat face\na red heart\n")
    (folder / "prompts.txt").write_text("a cat face\na red heart\n")
    certificate, key = write_certificate(folder / "signing")
    shutil.copy(certificate, folder / "archive.pem")
    shutil.copy(key, folder / "archive.key")
    write_peer(folder / "RealESRGAN_x4plus.safetensors")


def picture(side_px: int, noise: np.random.Generator) -> np.ndarray:
    """A smooth picture with a shape and some texture: (H, W, 3) uint8."""
    rows, columns = np.mgrid[:side_px, :side_px] / side_px
    colours = noise.uniform(0, 255, (3, 3))
    pixels = rows[..., None] * colours[0] + columns[..., None] * colours[1]
    pixels[np.hypot(rows - 0.5, columns - 0.4) < noise.uniform(0.1, 0.4)] = colours[2]
    return (pixels + noise.normal(0, 6, pixels.shape)).clip(0, 255).astype(np.uint8)


def write_picture(path: Path, side_px: int, noise: np.random.Generator) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(picture(side_px, noise)).save(path)


def write_layered_pictures(folder: Path, noise: np.random.Generator) -> None:
    """Pictures with transparent parts: one to fill, and strokes of colour as hints."""
    cut_out = np.dstack([picture(32, noise), np.full((32, 32), 255, np.uint8)])
    cut_out[10:20, 10:20, 3] = 0
    Image.fromarray(cut_out).save(folder / "cut-out.png")
    strokes = np.zeros((32, 32, 4), np.uint8)
    strokes[4:8, 4:20] = (200, 40, 40, 255)
    Image.fromarray(strokes).save(folder / "strokes.png")


def write_pairs(folder: Path, noise: np.random.Generator) -> None:
    """Pairs of the same size, and of four times the size."""
    for result, given, scale in (
        ("clean", "damaged", 1),
        ("test/clean", "test/damaged", 1),
        ("4m", "16m", 4),
        ("high", "low", 4),
        ("test/high", "test/low", 4),
    ):
        for number in range(30 if result == "high" else 12):  # a tenth of them is held out
            image = Image.fromarray(picture(256, noise))
            small = image.resize((256 // scale, 256 // scale), Image.Resampling.BICUBIC)
            for name, each in ((result, image), (given, small)):
                (folder / name).mkdir(parents=True, exist_ok=True)
                each.save(folder / name / f"{number}.png")


def write_measured_images(folder: Path, noise: np.random.Generator) -> None:
    """Tiles of five bands, a scene with a georeference, and volumes of 12 bits."""
    (folder / "tiles").mkdir()
    for number in range(6):
        bands = noise.integers(0, 3000, (5, 64, 64)).astype(np.uint16)
        tifffile.imwrite(folder / "tiles" / f"{number}.tif", bands, photometric="minisblack")
    scene = noise.integers(0, 3000, (5, 32, 32)).astype(np.uint16)
    tifffile.imwrite(folder / "scene.tif", scene, photometric="minisblack", extratags=GEO_TAGS)
    for number in range(12):
        write_volume(folder / "volumes" / f"patient-{number}" / "scan.nii.gz", (160, 160, 6), noise)
    write_volume(folder / "scan.nii.gz", (24, 24, 2), noise)
    write_volume(folder / "series" / "slices.nii.gz", (24, 24, 2), noise)


def write_volume(path: Path, shape: tuple[int, int, int], noise: np.random.Generator) -> None:
    """A volume with numbers of 12 bits, whose slices lie along the last axis."""
    path.parent.mkdir(parents=True, exist_ok=True)
    numbers = noise.integers(0, 4096, shape).astype(np.int16)
    nibabel.save(nibabel.Nifti1Image(numbers, np.eye(4)), path)


def write_shards(folder: Path, page: str, noise: np.random.Generator) -> None:
    """Shards of emoji with captions, class and style, and shards of small pictures."""
    for name in ("data/emoji", "data/emoji-1024"):
        for split in ("train", "validation", "heldout"):
            write_shard(folder / name / f"{split}-000000.tar", 256, noise)
    write_shard(folder / "heldout-000000.tar", 256, noise)
    if page not in PACKING:
        for number in range(2):
            write_shard(folder / "shards" / f"{number:06}.tar", 16, noise)


def write_shard(path: Path, side_px: int, noise: np.random.Generator) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    with tarfile.open(path, "w") as shard:
        for number in range(8):
            kind, style = KINDS[number % len(KINDS)], STYLES[number % len(STYLES)]
            labels = {"class": kind, "style": style, "captions": [CAPTIONS[kind]]}
            image = io.BytesIO()
            Image.fromarray(picture(side_px, noise)).save(image, "png")
            add_member(shard, f"{number}.png", image.getvalue())
            add_member(shard, f"{number}.json", json.dumps(labels).encode())


def add_member(shard: tarfile.TarFile, name: str, content: bytes) -> None:
    member = tarfile.TarInfo(name)
    member.size = len(content)
    shard.addfile(member, io.BytesIO(content))


def write_peer(path: Path) -> None:
    """Random weights of an upscaler of another project, x4."""
    shapes: Mapping[str, tuple[int, ...]] = {
        "body.0.weight": (8, 3, 3, 3),
        "body.0.bias": (8,),
        "body.1.weight": (8,),
        "body.2.weight": (48, 8, 3, 3),
        "body.2.bias": (48,),
    }
    save_file({name: torch.randn(shape) for name, shape in shapes.items()}, path)
