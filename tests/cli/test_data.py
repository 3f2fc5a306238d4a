"""`cascade data build` and `cascade data check`."""

from __future__ import annotations

import json
import re
import shlex
import shutil
from pathlib import Path

import numpy as np
import pytest
import tifffile
from PIL import Image

from cascade.data.sources import open_source
from cascade.imaging.reading import decode_image


@pytest.mark.parametrize("verb", ["build", "check"])
def test_help_has_an_example(command, verb):
    outcome = command("data", verb, "--help")
    assert outcome.code == 0
    assert re.search(rf"Examples?: cascade data {verb}", " ".join(outcome.out.split()))


def test_help_lists_the_verbs(command):
    assert re.search(r"(?m)^\W+data ", command("--help").out)
    for verb in ("build", "check"):
        assert re.search(rf"(?m)^\W+{verb} ", command("data", "--help").out)


def test_shards_that_were_built_can_be_checked_and_trained_on(command, pictures, tmp_path):
    options = ["--size", 16, "--square", "--format", "webp", "--split", "0.7,0.3"]
    built = command("data", "build", pictures, "--out", tmp_path / "shards", *options)
    assert built.code == 0, built.err
    assert "holds 2 shards: " in built.out
    assert "18/18" in built.err
    shards = f"{tmp_path}/shards/*.tar"
    assert len(open_source(shards)) == 18
    checked = command("data", "check", shards, "--size", 16)
    assert checked.code == 0
    assert "class:   blue 6, red-dot 6, red 6" in checked.out
    assert "18 images, 0 broken, 0 too small, 0 duplicated" in checked.out


def test_a_broken_image_is_named_and_ends_both_with_1(command, pictures, tmp_path):
    folder = tmp_path / "in"
    shutil.copytree(pictures, folder)
    (folder / "bad.png").write_bytes(b"no image")
    checked = command("data", "check", folder)
    assert checked.code == 1
    assert f"broken: {folder / 'bad.png'}: not a readable image" in checked.out
    built = command("data", "build", folder, "-o", tmp_path / "shards")
    assert built.code == 1
    assert f"left out: {folder / 'bad.png'}: not a readable image" in built.err
    assert "holds 1 shard: 18 train, 0 validation, 0 test, 1 broken, 0 too small, 0 d" in built.out
    assert len(open_source(f"{tmp_path}/shards/train-*.tar")) == 18


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["check", "nowhere"], "no data at nowhere"),
        (["build", "nowhere", "-o", "x"], "no data at nowhere"),
        (["build", "{pictures}", "-o", "file"], "file is a file; choose another folder"),
        (
            ["build", "{pictures}", "-o", "x", "--split", "0.8,0.2", "--split-by", "photo"],
            "no image has a label 'photo'",
        ),
        (["build", "{pictures}", "-o", "x", "--split", "0.8,0.1"], "add up to 1.* got 0.8,0.1"),
        (
            ["build", "{pictures}", "-o", "x", "--split", "0.999,0.001"],
            "a share of 0.001 of the images leaves no images for validation",
        ),
        (
            ["build", "{pictures}", "-o", "x", "--size", "99"],
            "none of the 18 images .* can be",
        ),
    ],
)
def test_errors_are_one_line(command, pictures, tmp_path, monkeypatch, arguments, words):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "file").write_text("x")
    done = command("data", *(argument.format(pictures=pictures) for argument in arguments))
    assert done.code == 1
    assert re.search(words, done.err.splitlines()[-1])
    assert "Traceback" not in done.err
    assert [path.name for path in tmp_path.iterdir()] == ["file"]


def test_wrong_usage_ends_with_2(command):
    for arguments in (["build", "x"], ["build", "x", "-o", "y", "--format", "tiff"], ["chek"]):
        assert command("data", *arguments).code == 2
    for option, words in (
        (["--split", "most"], "must be shares such as 0.8,0.1,0.1, got 'most'"),
        (["--split-by", "class"], "--split-by needs --split"),
        (["--seed", 1], "--seed needs --split"),
    ):
        done = command("data", "build", "x", "-o", "y", *option)
        assert done.code == 2
        assert words in " ".join(done.err.replace("│", " ").split())


def test_every_damaged_shard_is_named_and_the_others_are_read(command, pictures, tmp_path):
    assert command("data", "build", pictures, "--out", tmp_path / "a").code == 0
    (shard,) = (tmp_path / "a").glob("*.tar")
    for name in ("b", "c"):
        (tmp_path / f"{name}.tar").write_bytes(shard.read_bytes()[:3000])
    shard.rename(tmp_path / "d.tar")
    checked = command("data", "check", tmp_path / "*.tar")
    assert checked.code == 1
    lines = [line for line in checked.out.splitlines() if line.startswith("damaged shard: ")]
    assert [line.split(": ")[1] for line in lines] == [f"{tmp_path}/{n}.tar" for n in "bc"]
    assert "18 images, 0 broken" in checked.out
    assert command("data", "check", tmp_path / "[bc].tar").code == 1


def test_a_damaged_page_behind_the_first_is_warned_of(command, tmp_path):
    first, *others = [Image.effect_noise((24, 16), 40 + place) for place in range(3)]
    first.save(tmp_path / "a.png", save_all=True, append_images=others)
    (tmp_path / "a.png").write_bytes((tmp_path / "a.png").read_bytes()[:-300])
    checked = command("data", "check", tmp_path)
    assert checked.code == 0
    assert "warning: a later page is damaged (the first one is used): " in checked.out


def test_a_12_bit_camera_is_pointed_out_and_its_range_builds_bright_images(command, tmp_path):
    folder = tmp_path / "in"
    folder.mkdir()
    frame = np.linspace(840, 1177, 256).round().astype(np.uint16).reshape(16, 16)
    Image.fromarray(frame).save(folder / "a.tif")
    checked = command("data", "check", folder)
    assert checked.code == 0
    assert "warning: values 840 to 1177 of 65,535 in 1 image" in checked.out
    assert "--range 840 1177" in checked.out
    assert "data.range=[840,1177]" in checked.out
    assert "warning" not in command("data", "check", folder, "--range", 840, 1177).out
    built = command("data", "build", folder, "-o", tmp_path / "out", "--range", 840, 1177)
    assert built.code == 0, built.err
    values = decode_image(open_source(f"{tmp_path}/out/*.tar").read(0), "a")
    assert values.min() == -1
    assert values.max() == 1


def test_bands_are_checked_and_built_into_shards_with_their_range(command, tmp_path):
    folder = tmp_path / "tiles"
    folder.mkdir()
    for number in range(2):
        np.save(folder / f"{number}.npy", np.full((2, 8, 8), number * 700 + 9, np.uint16))
    done = command("data", "check", folder, "--bands", 2)
    assert done.code == 0
    assert "band 1 9 to 709; band 2 9 to 709" in done.out
    arguments = ("data", "build", folder, "--out", tmp_path / "shards", "--bands", 2)
    done = command(*arguments, "--percentiles", 0, 100)
    assert done.code == 0
    assert "data.range=[[9,709],[9,709]]" in done.out + done.err
    done = command("data", "check", tmp_path / "shards" / "train-*.tar", "--bands", 2)
    assert "2 bands of uint16" in done.out
    wrong = command("data", "check", folder, "--bands", 3)
    assert wrong.code == 1
    assert "has the shape (2, 8, 8), in which neither" in wrong.out


def test_channels_that_a_picture_has_no_place_for_are_counted(command, tmp_path):
    (tmp_path / "tiles").mkdir()
    options = {"photometric": "minisblack", "planarconfig": "contig"}
    for count, name in ((5, "a"), (2, "b")):
        tile = np.full((16, 16, count), 900, np.uint16)
        tifffile.imwrite(tmp_path / f"tiles/{name}.tif", tile, **options)
    Image.new("L", (16, 16)).save(tmp_path / "tiles/c.png")
    checked = command("data", "check", tmp_path / "tiles", "--verbose")
    words = "2 images of up to 5 channels, of which only the colour channels are read; to read all"
    assert words in checked.out
    assert f"channels left out: {tmp_path / 'tiles/a.tif'}: 5 in all" in checked.out
    assert "c.png" not in checked.out


def test_slices_of_one_file_that_are_too_small_have_one_line(command, tmp_path):
    folder = tmp_path / "volumes"
    folder.mkdir()
    draw = np.random.default_rng(0)
    for name, slices, side in (("a", 3, 8), ("b", 2, 8), ("c", 2, 20)):
        values = draw.integers(0, 999, (slices, side, side, 1), dtype=np.uint16)
        np.save(folder / f"{name}.npy", values)
    arguments = ("data", "check", folder, "--bands", 1, "--size", 16)
    assert re.findall(r"too small: \S+volumes/(.*)", command(*arguments).out) == [
        "a.npy#1 to #3: 8x8 px",
        "b.npy#1 to #2: 8x8 px",
    ]
    assert command(*arguments, "-v").out.count("too small: ") == 5


def test_images_with_missing_numbers_are_named_when_shards_are_built(command, tmp_path):
    folder = tmp_path / "tiles"
    folder.mkdir()
    for number in range(5):
        values = np.full((1, 8, 8), number, np.float32)
        values[:, 0, :number] = np.nan if number != 2 else -9
        np.save(folder / f"{number}.npy", values)
    arguments = ("data", "build", folder, "--bands", 1, "--nodata", -9)
    done = command(*arguments, "--out", tmp_path / "shards")
    assert done.code == 0
    assert "4 images with NaN or nodata, which the shards keep" in done.err
    assert f"{folder / '2.npy'} 3.1 %, {folder / '3.npy'} 4.7 %, …; --verbose" in done.err
    manifest = json.loads((tmp_path / "shards" / "manifest.json").read_text())
    assert manifest["missing"] == {str(folder / f"{n}.npy"): n / 64 for n in range(1, 5)}
    checked = command("data", "check", tmp_path / "shards" / "train-*.tar", "--bands", 1)
    assert checked.code == 1
    assert checked.out.count("of its values are NaN or nodata") == 4
    assert "unless data.missing=mask leaves these areas out of the loss" in done.err
    masked = command("data", "check", *arguments[2:], "--missing", "mask")
    assert masked.code == 0
    assert "4 images with NaN or nodata: up to 6.2 % of an image" in masked.out


def test_images_of_which_nothing_is_known_at_the_size_are_listed_before_training(command, tmp_path):
    """As training counts them: what it calls broken, both other commands do."""
    folder = tmp_path / "tiles"
    folder.mkdir()
    for number in range(6):
        values = np.full((2, 40, 40), np.nan, np.float32)
        values[:, ::2, ::2] = 100
        if number < 2:
            values[:, :20] = 100
        np.save(folder / f"{number}.npy", values)
    recipe = ["tiny-16", "condition.labels=null", "sampling.guidance=1", "space.channels=2"]
    recipe += ["data.range=[0,400]", f"data.path={folder}", "data.missing=mask"]
    trained = command("train", *recipe, "train.batch_size=2", "--out", tmp_path / "run")
    assert trained.code == 1
    (listing,) = re.findall(r"(cascade data check .*) lists them all", trained.err)
    _, *words = shlex.split(listing)
    checked = command(*words)
    assert checked.code == 1
    lines = [line for line in checked.out.splitlines() if line.startswith("broken: ")]
    assert [Path(line.split(": ")[1]).name for line in lines] == [f"{n}.npy" for n in range(2, 6)]
    validated = command("validate", *recipe, "train.batch_size=2")
    assert validated.code == 1
    assert "broken images: 4 of 6" in validated.out + validated.err
    assert listing in validated.out + validated.err
    assert command("data", "check", folder, "--bands", 2, "--missing", "mask").code == 0


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (("--axis", 1), "--axis needs --bands"),
        (("--nodata", 0), "--nodata needs --bands"),
        (("--missing", "mask"), "--missing needs --bands"),
        (("--bands", 2, "--range", 0, 9), "--range cannot be used with --bands"),
    ],
)
def test_options_that_have_no_effect_on_bands_are_refused(command, tmp_path, options, words):
    done = command("data", "check", tmp_path, *options)
    assert done.code == 2
    assert words in " ".join(done.err.split())


def test_images_of_both_sets_are_listed_even_if_they_were_saved_anew(command, pictures, tmp_path):
    held_out = tmp_path / "held-out"
    held_out.mkdir()
    shutil.copy(pictures / "red" / "0.png", held_out / "same.png")
    with Image.open(pictures / "blue" / "1.png") as image:
        large = image.resize((72, 80), Image.Resampling.BOX)
    large.save(held_out / "large.jpg", quality=90, subsampling=0)
    noise = np.random.default_rng(5).integers(0, 256, (40, 40, 3), dtype=np.uint8)
    Image.fromarray(noise).save(held_out / "new.png")
    checked = command("data", "check", pictures, "--validation", held_out)
    assert checked.code == 1
    lines = [line for line in checked.out.splitlines() if line.startswith("in both sets: ")]
    assert lines == [
        f"in both sets: {held_out}/same.png has the same pixels as {pictures}/red/0.png",
        f"in both sets: {held_out}/large.jpg looks nearly like {pictures}/blue/1.png",
    ]
    (held_out / "same.png").unlink()
    assert command("data", "check", pictures, "--validation", held_out).code == 0


# ---- pairs --------------------------------------------------------------------------------------


def test_pairs_are_checked_and_built(command, tmp_path):
    for number in range(3):
        large = np.random.default_rng(number).integers(0, 256, (32, 48, 3), np.uint8)
        for name, array in (("high", large), ("low", large[::2, ::2])):
            (tmp_path / name).mkdir(exist_ok=True)
            Image.fromarray(array).save(tmp_path / name / f"{number}.png")
    done = command("data", "check", tmp_path / "high", "--pairs", tmp_path / "low")
    assert "pairs:   3 of scale 2" in done.out
    assert done.code == 0
    out = tmp_path / "shards"
    done = command("data", "build", tmp_path / "high", "--pairs", tmp_path / "low", "-o", out)
    assert done.code == 0
    done = command("data", "check", out / "train-*.tar", "--pairs", "beside")
    assert "pairs:   3 of scale 2" in done.out
    (tmp_path / "low" / "1.png").unlink()
    done = command("data", "check", tmp_path / "high", "--pairs", tmp_path / "low")
    assert done.code == 1
    assert "1.png: has no partner of the same name in" in done.out
    for words in (["--pair-bands", "2"], ["--max-shift-px", "1"]):
        done = command("data", "check", tmp_path / "high", *words)
        assert done.code == 2
        assert f"{words[0]} needs --pairs" in done.err
