"""Facts about benchmarks/restoration.py and benchmarks/datasets/pages.py."""

from __future__ import annotations

import importlib.util
import io
import json
import sys
import tarfile
from pathlib import Path
from types import ModuleType

import pytest
import torch
from PIL import Image

from cascade.conditioning.jpeg_quality import jpeg_quality
from cascade.conditioning.noise_level import noise_level
from cascade.resizing import resize

BENCHMARKS = Path(__file__).parents[2] / "benchmarks"
SMALL_PX = 64


def load_script(path: str) -> ModuleType:
    spec = importlib.util.spec_from_file_location(f"{Path(path).stem}_script", BENCHMARKS / path)
    module = importlib.util.module_from_spec(spec)
    sys.path.insert(0, str(BENCHMARKS))
    try:
        spec.loader.exec_module(module)
    finally:
        sys.path.remove(str(BENCHMARKS))
    return module


restoration = load_script("restoration.py")
pages = load_script("datasets/pages.py")


@pytest.fixture(scope="module")
def crops():
    draw = torch.Generator().manual_seed(0)
    return resize(torch.rand(3, 3, 6, 6, generator=draw) - 0.5, (256, 256), "bicubic")


@pytest.mark.parametrize(
    ("kind", "noise", "quality"), [("clean", 0.5, 100), ("soft", 2.5, 50), ("grain", 17.0, 80)]
)
def test_each_kind_of_damage_is_what_the_table_says(crops, kind, noise, quality):
    images = restoration.degraded(crops, restoration.KINDS[kind][1])
    assert images.shape == (3, 3, SMALL_PX, SMALL_PX)
    for image in images:
        assert noise_level(image) == pytest.approx(noise, rel=0.35, abs=0.5)
        assert jpeg_quality(image) == pytest.approx(quality, abs=2)
    alone = restoration.degraded(crops[:1], restoration.KINDS[kind][1])
    assert alone.equal(images[:1])


@pytest.fixture(scope="module")
def fonts():
    found = sorted(Path("/usr/share/fonts").rglob("*.ttf"))
    if not found:
        pytest.skip("no fonts here")
    return found[:2]


def test_pages_follow_from_their_seed_and_show_type(fonts):
    page = pages.text_page("train 1", fonts)
    assert page.size == (256, 256)
    assert page.tobytes() == pages.text_page("train 1", fonts).tobytes()
    assert page.tobytes() != pages.text_page("heldout 1", fonts).tobytes()
    levels = page.convert("L").getextrema()
    assert levels[1] - levels[0] > 80


def test_line_art_follows_from_its_seed():
    assert pages.line_art("train 1").tobytes() == pages.line_art("train 1").tobytes()
    assert pages.line_art("train 1").tobytes() != pages.line_art("train 2").tobytes()


def test_icons_come_from_the_shards_of_their_split(tmp_path):
    for split, level in (("train", 10), ("heldout", 200)):
        with tarfile.open(tmp_path / f"{split}-000000.tar", "w") as archive:
            file = io.BytesIO()
            Image.new("RGBA", (32, 32), (level, level, level, 255)).save(file, "PNG")
            member = tarfile.TarInfo(f"{split}.png")
            member.size = len(file.getvalue())
            archive.addfile(member, io.BytesIO(file.getvalue()))
    ((name, icon),) = pages.read_icons(tmp_path, "heldout", 1)
    assert name == "icon-heldout"
    assert icon.getpixel((5, 5)) == (200, 200, 200)
    with pytest.raises(SystemExit, match="1 train emoji, fewer than 2"):
        pages.read_icons(tmp_path, "train", 2)
    names = [name for name, _ in pages.members([(name, icon)])]
    assert names == ["icon-heldout.png", "icon-heldout.json"]
    assert json.loads(dict(pages.members([(name, icon)]))["icon-heldout.json"]) == {"kind": "icon"}
