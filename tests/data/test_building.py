from __future__ import annotations

import io
import json
import shutil
import tarfile
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from cascade.data.building import build_shards
from cascade.data.earlier_builds import check_same_request, earlier_build
from cascade.data.encoding import Encoding
from cascade.data.folder import FolderSource
from cascade.data.shard_writing import sha256_of
from cascade.data.shards import ShardSource
from cascade.data.sources import open_source
from cascade.data.splitting import SPLITS, Shares
from cascade.errors import DataError, OutputError
from cascade.imaging.picture_reading import decode_picture
from cascade.imaging.reading import decode_image
from cascade.imaging.writing import to_uint8
from cascade.resizing import resize

AS_THEY_ARE = Encoding()


def build(source, out: Path, encoding: Encoding = AS_THEY_ARE, **options) -> dict:
    return build_shards(source, out, origin="photos", encoding=encoding, **options)


def contents(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def by_key(source) -> dict[str, tuple[bytes, dict[str, str]]]:
    return {source.key(i): (source.read(i), source.labels(i)) for i in range(len(source))}


def test_shards_hold_the_files_and_labels_of_the_folder(pictures, tmp_path):
    build(FolderSource(pictures), tmp_path / "out")
    shards = open_source(str(tmp_path / "out" / "train-*.tar"))
    assert by_key(shards) == by_key(FolderSource(pictures))
    with tarfile.open(tmp_path / "out" / "train-000000.tar") as tar:
        names = tar.getnames()
    assert [name.rpartition(".")[0] for name in names[::2]] != sorted(
        name.rpartition(".")[0] for name in names[::2]
    )  # classes are mixed, for readers that stream


def test_the_manifest_counts_and_hashes_what_is_there(pictures, tmp_path):
    manifest = build(FolderSource(pictures), tmp_path / "out", shares=Shares(0.6, 0.2, 0.2))
    assert json.loads((tmp_path / "out" / "manifest.json").read_text()) == manifest
    for split in SPLITS:
        source = ShardSource(str(tmp_path / "out" / f"{split}-*.tar"))
        assert manifest["counts"][split] == len(source) > 0
        classes = [source.labels(index)["class"] for index in range(len(source))]
        counts = {name: classes.count(name) for name in sorted(set(classes))}
        assert manifest["labels"][split] == {"class": counts}
    for name, shard in manifest["shards"].items():
        assert shard["sha256"] == sha256_of(tmp_path / "out" / name)
    assert set(contents(tmp_path / "out")) == {"manifest.json", *manifest["shards"]}


@pytest.mark.parametrize(("image_format", "side"), [("jpg", 65501), ("webp", 16384)])
def test_a_picture_too_long_for_the_format_is_left_out(tmp_path, image_format, side):
    Image.new("RGB", (side, 8)).save(tmp_path / "long.png")
    Image.new("RGB", (9, 8)).save(tmp_path / "short.png")
    encoding = Encoding(None, False, image_format)
    manifest = build(FolderSource(tmp_path), tmp_path / "out", encoding)
    assert (manifest["counts"]["train"], manifest["counts"]["broken"]) == (1, 1)
    (left_out,) = manifest["skipped"]
    assert left_out["name"] == str(tmp_path / "long.png")
    assert left_out["reason"].startswith(f"{side}x8 px cannot be saved as {image_format} (")


@pytest.mark.parametrize("workers", [0, 2])
def test_the_same_input_gives_the_same_bytes(pictures, tmp_path, workers):
    options = {"encoding": Encoding(16, True, "webp"), "shares": Shares(0.7, 0.3)}
    build(FolderSource(pictures), tmp_path / "a", **options)
    shutil.copytree(pictures, tmp_path / "elsewhere")
    build(FolderSource(tmp_path / "elsewhere"), tmp_path / "b", **options, workers=workers)
    assert contents(tmp_path / "a") == contents(tmp_path / "b")


@pytest.mark.parametrize("square", [False, True])
@pytest.mark.parametrize("image_format", [None, "png", "webp"])
def test_images_are_shrunk_with_the_antialiased_kernel(tmp_path, square, image_format):
    pixels = np.random.default_rng(0).integers(0, 256, (40, 61, 3), dtype=np.uint8)
    (tmp_path / "in").mkdir()
    Image.fromarray(pixels).save(tmp_path / "in" / "a.bmp")
    build(FolderSource(tmp_path / "in"), tmp_path / "out", Encoding(20, square, image_format))
    shards = ShardSource(str(tmp_path / "out" / "train-000000.tar"))
    suffix = image_format or "png"
    assert shards.name(0).endswith(f":a.{suffix}")
    got = to_uint8(decode_image(shards.read(0), "a"))
    whole = decode_image((tmp_path / "in" / "a.bmp").read_bytes(), "a")
    cut = whole[:, :, 10:50] if square else whole
    size = (20, 20) if square else (20, 30)  # 61 * 20 / 40 = 30.5, rounded to even
    assert got.equal(to_uint8(resize(cut[None], size, "bicubic")[0]))


def test_jpegs_are_near_the_picture(tmp_path):
    (tmp_path / "in").mkdir()
    ramp = np.linspace(0, 255, 32 * 32 * 3).reshape(32, 32, 3).astype(np.uint8)
    Image.fromarray(ramp).save(tmp_path / "in" / "a.png")
    build(FolderSource(tmp_path / "in"), tmp_path / "out", Encoding(image_format="jpg"))
    shards = ShardSource(str(tmp_path / "out" / "train-000000.tar"))
    got = to_uint8(decode_image(shards.read(0), "a")).permute(1, 2, 0).numpy()
    assert shards.name(0).endswith(".jpg")
    assert np.abs(got.astype(int) - ramp).max() < 8


def test_what_is_left_out_is_named_with_its_reason(pictures, tmp_path):
    folder = tmp_path / "in"
    shutil.copytree(pictures, folder)
    (folder / "red" / "bad.png").write_bytes(b"no image")
    Image.new("RGB", (50, 12)).save(folder / "flat.png")
    with Image.open(folder / "blue" / "0.png") as image:
        image.save(folder / "again.bmp")  # other bytes, the same pixels
    manifest = build(FolderSource(folder), tmp_path / "out", Encoding(16))
    assert manifest["counts"] == {
        "train": 18,
        "validation": 0,
        "test": 0,
        "broken": 1,
        "too_small": 1,
        "duplicates": 1,
    }
    reasons = {each["name"]: each["reason"] for each in manifest["skipped"]}
    assert reasons[str(folder / "red" / "bad.png")].startswith("not a readable image")
    assert reasons[str(folder / "flat.png")] == "50x12 px is too small"
    pair = {str(folder / "again.bmp"), str(folder / "blue" / "0.png")}
    (duplicate,) = pair & set(reasons)
    first = (pair - {duplicate}).pop()
    assert reasons[duplicate] == f"has the same pixels as {first}, but other labels"


def test_no_group_is_on_both_sides_and_the_split_stays_when_the_set_grows(tmp_path):
    def make(photos: int) -> FolderSource:
        for photo in range(photos):
            for crop in range(2):
                path = tmp_path / "in" / f"{photo:02d}-{crop}.png"
                path.parent.mkdir(exist_ok=True)
                Image.new("RGB", (4, 4), (photo, crop, 0)).save(path)
        return FolderSource(tmp_path / "in", name_pattern=r"(?P<photo>\d+)-")

    def sides(out: Path, photos: int, **options) -> dict[str, set[str]]:
        build(make(photos), out, shares=Shares(0.6, 0.25, 0.15), **options)
        return {
            split: {
                labels["photo"]
                for _, labels in by_key(open_source(f"{out}/{split}-*.tar")).values()
            }
            for split in SPLITS
        }

    small = sides(tmp_path / "a", 20, split_by="photo")
    assert len(set().union(*small.values())) == sum(map(len, small.values())) == 20
    assert min(map(len, small.values())) >= 2
    large = sides(tmp_path / "b", 40, split_by="photo")
    assert all(small[split] <= large[split] for split in SPLITS)
    apart = sides(tmp_path / "c", 40)
    assert apart["train"] & apart["validation"]  # without it, groups are torn
    other = sides(tmp_path / "e", 20, split_by="photo", seed=1)
    assert other["test"] != small["test"]
    with pytest.raises(DataError, match="no image has a label 'foto'"):
        build(make(40), tmp_path / "d", split_by="foto")


def test_a_split_without_images_is_refused(pictures, tmp_path):
    with pytest.raises(
        DataError, match=r"^a share of 0\.001 of the images leaves no images for val"
    ):
        build(FolderSource(pictures), tmp_path / "out", shares=Shares(0.999, 0.001))
    assert not (tmp_path / "out").exists()


def test_keys_without_dots_and_without_repeats_are_all_read_back(tmp_path):
    (tmp_path / "in").mkdir()
    names = ["a.b.png", "a_b.png", "a.png", "a.bmp", "grün.png", "long-" + "x" * 200 + ".png"]
    for number, name in enumerate(names):
        Image.new("RGB", (4, 4), (number, 0, 0)).save(tmp_path / "in" / name)
    build(FolderSource(tmp_path / "in"), tmp_path / "out")
    shards = ShardSource(str(tmp_path / "out" / "train-000000.tar"))
    numbers = {
        int(to_uint8(decode_image(shards.read(i), "x"))[0, 0, 0]) for i in range(len(shards))
    }
    assert numbers == set(range(len(names)))
    assert len({shards.key(index) for index in range(len(shards))}) == len(names)


def test_shards_end_at_the_size_given(tmp_path):
    (tmp_path / "in").mkdir()
    noise = np.random.default_rng(0)
    for number in range(5):
        pixels = noise.integers(0, 256, (400, 400, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(tmp_path / "in" / f"{number}.bmp")  # 0.46 MiB each
    manifest = build(FolderSource(tmp_path / "in"), tmp_path / "out", shard_mib=1)
    assert [shard["images"] for shard in manifest["shards"].values()] == [3, 2]


def test_an_earlier_build_is_replaced_only_if_that_is_allowed(pictures, tmp_path):
    out = tmp_path / "out"
    split = {"shares": Shares(0.6, 0.2, 0.2)}
    build(FolderSource(pictures), out, **split)
    before = contents(out)
    build(FolderSource(pictures), out, **split)  # the same again changes nothing
    differences = r"out was built with split=0\.6,0\.2,0\.2 \(now 1,0,0\); .*allow overwriting\.$"
    with pytest.raises(OutputError, match=differences):
        build(FolderSource(pictures), out)
    shutil.copytree(pictures, tmp_path / "others")
    (tmp_path / "others" / "red" / "0.png").unlink()
    with pytest.raises(OutputError, match=r"images=18 \(now 17\)"):
        build(FolderSource(tmp_path / "others"), out, **split)
    Image.new("RGB", (5, 5)).save(tmp_path / "others" / "red" / "0.png")
    with pytest.raises(OutputError, match="was built from other images"):
        build(FolderSource(tmp_path / "others"), out, **split)
    assert contents(out) == before
    build(FolderSource(pictures), out, overwrite=True)
    assert not list(out.glob("validation-*"))


@pytest.mark.parametrize(
    "change",
    [
        {"settings": []},
        {"counts": None},
        {"counts": {"train": "all"}},
        {"skipped": 3},
        {"source": None},
        {"shards": ["train-000000.tar"]},
    ],
)
def test_a_manifest_that_no_build_wrote_is_one_clear_error(tmp_path, change):
    manifest = {"source": "a", "settings": {}, "counts": {}, "skipped": [], "shards": {}}
    (tmp_path / "manifest.json").write_text(json.dumps(manifest))
    assert earlier_build(tmp_path) == manifest
    (tmp_path / "manifest.json").write_text(json.dumps(manifest | change))
    with pytest.raises(OutputError, match=r"manifest\.json was not written by a build; choose"):
        earlier_build(tmp_path)


@pytest.mark.parametrize(
    ("old", "new", "is_same"),
    [
        ("imgs", "imgs/", True),
        ("imgs", "./sub/../imgs", True),
        ("imgs", "{here}/imgs", True),
        ("imgs", "others", False),
        ("imgs", "s3://imgs", False),
        ("s3://a/imgs", "s3://a/imgs", True),
        ("hf:imgs", "hf:imgs", True),
    ],
)
def test_the_source_of_an_earlier_build_may_be_spelled_otherwise(
    tmp_path, monkeypatch, old, new, is_same
):
    monkeypatch.chdir(tmp_path)
    head = {"source": new.format(here=tmp_path), "settings": {}}
    earlier = {"source": old, "settings": {}, "counts": {"train": 3}, "skipped": []}
    if is_same:
        check_same_request(earlier, tmp_path, head, 3)
    else:
        with pytest.raises(OutputError, match=rf"was built with source={old} \(now {new}\)"):
            check_same_request(earlier, tmp_path, head, 3)


def test_other_people_s_files_stay(pictures, tmp_path):
    out = tmp_path / "out"
    build(FolderSource(pictures), out)
    before = contents(out)
    (out / "notes.txt").write_text("mine")
    with pytest.raises(OutputError, match=r"holds other things, such as notes\.txt"):
        build(FolderSource(pictures), out, Encoding(16), overwrite=True)
    assert contents(out) == before | {"notes.txt": b"mine"}
    (out / "manifest.json").write_text("[]")
    with pytest.raises(OutputError, match="choose another folder"):
        build(FolderSource(pictures), out)


def test_the_shards_that_are_read_are_not_replaced(pictures, tmp_path, monkeypatch):
    build(FolderSource(pictures), tmp_path / "out", Encoding(), shares=Shares(0.5, 0.5))
    before = contents(tmp_path / "out")
    assert {"train-000000.tar", "validation-000000.tar"} < set(before)
    monkeypatch.chdir(tmp_path)
    for folder in (tmp_path / "out", Path("out"), tmp_path / "out" / ".." / "out"):
        with pytest.raises(OutputError, match="holds the shards being read"):
            build(ShardSource("out/train-*.tar"), folder, Encoding())
    assert contents(tmp_path / "out") == before


def test_an_interrupted_build_leaves_what_was_there(pictures, tmp_path):
    build(FolderSource(pictures), tmp_path / "out")
    before = contents(tmp_path / "out")

    def stop(task: str, images: int, total: int) -> None:
        if images == 9:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        build(FolderSource(pictures), tmp_path / "out", progress=stop, overwrite=True)
    assert contents(tmp_path / "out") == before
    assert [path.name for path in tmp_path.iterdir()] == ["out"]


def test_too_many_broken_images_or_none_that_can_be_used_write_nothing(tmp_path):
    (tmp_path / "in").mkdir()
    for number in range(4):
        (tmp_path / "in" / f"{number}.png").write_bytes(b"no image")
    source = FolderSource(tmp_path / "in")
    with pytest.raises(DataError, match="4 of 4 images are broken"):
        build(source, tmp_path / "out")
    with pytest.raises(DataError, match="none of the 4 images of photos can be used"):
        build(source, tmp_path / "out", max_broken_share=1.0)
    assert not (tmp_path / "out").exists()


def test_files_as_they_are_keep_their_bytes_whatever_they_are_called(tmp_path):
    (tmp_path / "in").mkdir()
    file = io.BytesIO()
    Image.new("RGB", (4, 4)).save(file, "JPEG")
    (tmp_path / "in" / "a.png").write_bytes(file.getvalue())
    build(FolderSource(tmp_path / "in"), tmp_path / "out")
    shards = ShardSource(str(tmp_path / "out" / "train-000000.tar"))
    assert shards.read(0) == file.getvalue()
    assert shards.name(0).endswith(":a.jpg")


def test_sixteen_bits_stay_sixteen_in_a_png_and_what_is_lost_elsewhere_is_counted(tmp_path):
    folder = tmp_path / "in"
    folder.mkdir()
    draw = np.random.default_rng(0)
    grey = draw.integers(0, 65536, (8, 8), dtype=np.uint16)
    Image.fromarray(grey).save(folder / "deep.png")
    frames = [Image.fromarray(draw.integers(0, 256, (8, 8, 3), np.uint8)) for _ in range(2)]
    frames[0].save(folder / "two.gif", save_all=True, append_images=frames[1:])
    Image.fromarray(draw.integers(0, 256, (8, 8, 4), np.uint8)).save(folder / "clear.png")
    manifest = build(FolderSource(folder), tmp_path / "png", Encoding(8))
    losses = {"only the first page is kept": 1, "transparency is composited on white": 1}
    assert manifest["losses"] == losses
    shards = by_key(open_source(str(tmp_path / "png" / "*.tar")))
    deep = decode_picture(shards["deep"][0], "deep")
    assert deep.bits == 16
    assert np.array_equal(deep.colour[0].numpy(), grey)
    webp = build(FolderSource(folder), tmp_path / "webp", Encoding(8, False, "webp"))
    assert webp["losses"] == {"16 bits are reduced to 8": 1, **losses}
    assert build(FolderSource(folder), tmp_path / "copy")["losses"] == {}


def test_a_jpeg_of_a_phone_with_further_pictures_is_read_back(tmp_path):
    folder = tmp_path / "in"
    folder.mkdir()
    pictures = [Image.new("RGB", (8, 8), name) for name in ("red", "blue")]
    pictures[0].save(folder / "1.mpo", format="MPO", save_all=True, append_images=pictures[1:])
    (folder / "1.mpo").rename(folder / "1.jpg")
    build(FolderSource(folder), tmp_path / "out")
    assert len(open_source(str(tmp_path / "out" / "*.tar"))) == 1
    assert build(FolderSource(folder), tmp_path / "png", Encoding(8))["losses"] == {}


def test_an_image_whose_labels_are_not_known_is_left_out_and_named(tmp_path):
    folder = tmp_path / "in"
    folder.mkdir()
    for name, colour in (("1.png", "red"), ("2.png", "blue")):
        Image.new("RGB", (8, 8), colour).save(folder / name)
    (folder / "metadata.csv").write_text("file_name,class\n1.png,a\n2.png,a\n2.png,b\n")
    manifest = build(FolderSource(folder), tmp_path / "out")
    reason = f"lines 3, 4 of {folder / 'metadata.csv'} give it different labels; keep one."
    assert manifest["skipped"] == [{"name": str(folder / "2.png"), "reason": reason}]
    assert manifest["faults"] == {
        "images with contradicting rows": [f"{folder / '2.png'}: {reason}"]
    }


def test_values_of_json_that_are_not_text_are_kept(tmp_path):
    folder = tmp_path / "in"
    folder.mkdir()
    for name, colour in (("1.png", "red"), ("2.png", "blue")):
        Image.new("RGB", (8, 8), colour).save(folder / name)
    (folder / "1.json").write_text('{"class": "cat", "width": 4, "tags": ["é", 1], "none": null}')
    (folder / "metadata.jsonl").write_text('{"file_name": "2.png", "class": "dog", "box": [1.5]}\n')
    once, twice = tmp_path / "once", tmp_path / "twice"
    for source, out in ((str(folder), once), (f"{once}/*.tar", twice)):
        build(open_source(source), out)
        with tarfile.open(out / "train-000000.tar") as tar:
            texts = {name: tar.extractfile(name) for name in ("1.json", "2.json")}
            values = {name: json.load(text) for name, text in texts.items() if text is not None}
        assert values == {
            "1.json": {"class": "cat", "width": 4, "tags": ["é", 1], "none": None},
            "2.json": {"class": "dog", "box": [1.5]},
        }
        assert by_key(open_source(f"{out}/*.tar"))["1"][1] == {"class": "cat"}
