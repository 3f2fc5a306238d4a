"""The bulk commands: which results they make, skip and refuse."""

from __future__ import annotations

import hashlib
import json
import os
import re
import sys
import tarfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from cascade.bulk import commands, making
from cascade.bulk.ledger import Ledger
from cascade.bulk.sheets import write_comparison
from cascade.data.shard_writing import write_tar
from cascade.errors import CascadeError
from cascade.imaging.picture_reading import read_picture
from cascade.imaging.rasters.recorded import read_mark
from cascade.pipeline import CascadePipeline
from cascade.restoration.upscaling import upscale_pictures
from cascade.saving import atomic

RESULTS = ["a.jpg", "b.png", "sub/c.png", "sub/d.webp", "sub/e.png"]


@pytest.fixture
def upscale(command, upscaler) -> Callable:
    """A function that runs `cascade upscale … -o out` with the tiny model."""

    def run(*arguments: object, out: object = "out"):
        options = ["-o", out, "--model", upscaler, "--device", "cpu"]
        return command("upscale", *arguments, *options)

    return run


def tree(folder: Path | str = "out") -> list[str]:
    """All files but the ledger and the locks."""
    paths = [path.relative_to(folder) for path in Path(folder).rglob("*") if path.is_file()]
    return sorted(str(path) for path in paths if not path.name.startswith(".cascade-"))


def state(folder: str = "out") -> dict[str, tuple[int, bytes]]:
    """When each result was written, and its bytes."""
    paths = {name: Path(folder, name) for name in tree(folder)}
    return {name: (path.stat().st_mtime_ns, path.read_bytes()) for name, path in paths.items()}


def failures(outcome) -> dict[str, str]:
    """Reason of each failure, by the name of the input."""
    lines = [line for line in outcome.err.splitlines() if line.startswith("failed: ")]
    return dict(line.removeprefix("failed: ").split(": ", 1) for line in lines)


# ---- what is made -------------------------------------------------------------------------------


def test_variants_of_upscaling_are_the_results_of_each_seed_and_a_sheet(photos, upscale):
    done = upscale(photos / "a.jpg", "-n", 2, "--seed", 5)
    assert done.code == 0, done.err
    assert tree() == ["a-seed5.jpg", "a-seed6.jpg", "a-variants.png"]
    assert upscale(photos / "a.jpg", "--seed", 6, out="single").code == 0
    assert Path("out/a-seed6.jpg").read_bytes() == Path("single/a.jpg").read_bytes()


def test_a_sheet_of_variants_that_is_somebody_else_s_is_named_before_the_work(copying, photos):
    (photos.parent / "out").mkdir()
    Path("out/b-variants.png").write_bytes(b"mine")
    with pytest.raises(CascadeError, match=r"b-variants\.png already exists and is not a sheet"):
        copying(photos, seeds=2).run()
    assert tree() == ["b-variants.png"]


def test_a_sheet_of_variants_that_fails_is_one_failure_and_the_others_are_written(copying, photos):
    def block(pictures, seeds, progress):
        if not Path("out/a-variants.png").exists():  # somebody writes it while the work goes on
            Path("out/a-variants.png").write_bytes(b"mine")
        return list(pictures)

    bulk = copying(photos, seeds=2, make=block)
    bulk.run()
    outcome = bulk.outcome()
    assert [name for name, _ in outcome.failed] == ["a-variants.png"]
    assert outcome.failed[0][1].startswith("out/a-variants.png already exists and is not a sheet")
    assert (outcome.new, outcome.exit_code) == (10, 1)
    assert len([name for name in tree() if name.endswith("-variants.png")]) == 5
    assert Path("out/a-variants.png").read_bytes() == b"mine"


def test_every_result_equals_that_of_the_python_api(upscale, upscaler, photos):
    (photos / "notes.txt").write_text("no picture")
    done = upscale(photos, "--seed", 3, "--steps", 1)
    assert done.code == 0, done.err
    assert done.out == "5 upscaled, 1 left out\n"
    assert tree() == RESULTS
    pipeline = CascadePipeline.from_pretrained(upscaler)
    for result in RESULTS:
        source = next(photos.glob(f"{result.rpartition('.')[0]}.*"))
        expected = pipeline.upscale(read_picture(source), seed=3, steps=1)
        image = read_picture(Path("out", result))
        assert image.size == expected.size == tuple(4 * side for side in read_picture(source).size)
        if result.endswith(".png"):
            assert image.colour.equal(expected.colour)
            assert (image.alpha is None) == (expected.alpha is None)
        assert image.format == {"jpg": "jpeg"}.get(result[-3:], result.rpartition(".")[2])


def test_settings_are_recorded_in_results_and_ledger_unless_switched_off(upscale, photos):
    upscale(photos, "--seed", 3)
    text = Path("out/.cascade-upscale.jsonl").read_text()
    lines = [json.loads(line) for line in text.splitlines()]
    by_output = {line["output"]: line for line in lines if line["event"] == "made"}
    assert sorted(by_output) == RESULTS
    for result, line in by_output.items():
        recorded = read_mark(Path("out", result)).record
        assert recorded is not None
        assert recorded == line["record"]
        height, width = read_picture(Path("out", result)).size
        assert recorded["size_px"] == [height, width]
        assert (
            recorded["input_sha256"] == hashlib.sha256(Path(line["input"]).read_bytes()).hexdigest()
        )
        assert recorded["command"] == "upscale"
        assert recorded["model"] == "tiny-x4"
        assert (recorded["seed"], recorded["scale"]) == (3, 4.0)
        assert recorded["stages"]["upsampler"]["steps"] == 2
        status = os.stat(line["input"])
        assert line["input_stamp"] == [status.st_size, status.st_mtime_ns]
    upscale(photos, "--no-metadata", out="bare")
    assert [read_mark(Path("bare", result)).record for result in RESULTS] == [{}] * 5


def test_shards_and_a_chosen_format(upscale, photos):
    write_tar(Path("set-1.tar"), [("k/x.jpg", (photos / "a.jpg").read_bytes())])
    done = upscale("set-1.tar", photos / "sub" / "c.png", "--format", "tiff")
    assert done.code == 0, done.err
    assert tree() == ["c.tif", "set-1.tar"]
    with tarfile.open("out/set-1.tar") as tar:
        assert tar.getnames() == ["k/x.tif"]
        tar.extract("k/x.tif", filter="data")
    assert read_picture(Path("k/x.tif")).format == "tiff"


def test_a_scale_that_the_model_lacks_is_reached_by_resampling_and_reported(upscale, photos):
    done = upscale("photos/a.jpg", "--scale", 2.5)
    assert done.out == "1 upscaled (x4 by the model, resampled to x2.5)\n"
    assert read_picture(Path("out/a.jpg")).size == (35, 50)
    assert upscale("photos/a.jpg", "--scale", 16, out="more").out == "1 upscaled\n"


@pytest.mark.skipif(sys.platform != "linux", reason="names are not bytes there")
def test_names_may_be_in_any_script_and_even_no_text(upscale, photos):
    names = ["größe 日本.jpg".encode(), b"caf\xe9.jpg"]
    for name in names:
        os.link(os.fsencode(photos / "a.jpg"), os.fsencode(photos) + b"/" + name)
    assert upscale(photos, "--compare").code == 0
    assert set(names) <= set(os.listdir(b"out"))
    assert upscale(photos, "--compare").out == "0 upscaled, 7 already done\n"


@pytest.mark.skipif(os.name == "nt", reason="such names cannot be there")
def test_names_cannot_control_the_terminal(upscale, photos):
    (photos / "good\n\x1b[31m.jpg").write_bytes((photos / "a.jpg").read_bytes())
    (photos / "bad\n\x1b[31m.jpg").write_bytes(b"")
    done = upscale(photos)
    assert done.out.startswith("6 upscaled, 1 failed")
    assert "\x1b" not in done.err
    assert r"upscaled: photos/good\n\x1b[31m.jpg -> out/good\n\x1b[31m.jpg" in done.err
    assert r"failed: photos/bad\n\x1b[31m.jpg: " in done.err


def test_a_single_result_may_have_a_file_name_and_nothing_else_is_left(upscale, photos):
    for words in ("1 upscaled", "0 upscaled, 1 already done"):
        done = upscale(photos / "a.jpg", out="new/large.webp")
        assert (done.code, done.out) == (0, f"{words}\n")
        assert os.listdir("new") == ["large.webp"]
    assert read_picture(Path("new/large.webp")).format == "webp"
    done = upscale(photos / "a.jpg", "--seed", 1, out="new/large.webp")
    assert done.code == 1
    advice = "move it away or allow overwriting (--overwrite)"
    assert f"already exists and was made with seed=0 (now 1); {advice}" in done.err


# ---- going on -----------------------------------------------------------------------------------


def test_the_same_command_again_makes_only_what_is_missing(upscale, photos, draw):
    upscale(photos)
    before = state()
    again = upscale(photos)
    assert (again.code, again.out) == (0, "0 upscaled, 5 already done\n")
    assert state() == before
    Path("out/sub/c.png").unlink()
    draw(photos / "new.png", seed=9)
    again = upscale(photos)
    assert again.out == "2 upscaled, 4 already done\n"
    after = state()
    assert after.pop("new.png")
    assert after["sub/c.png"][1] == before["sub/c.png"][1]
    others = set(RESULTS) - {"sub/c.png"}
    assert {name: after[name] for name in others} == {name: before[name] for name in others}


def test_missing_sheets_are_added_to_finished_results(upscale, photos):
    upscale(photos / "a.jpg")
    before = state()
    assert upscale(photos / "a.jpg", "--compare").out == "0 upscaled, 1 already done\n"
    assert tree() == ["a.jpg", "compare/a.jpg.jpg", "compare/index.html"]
    assert state()["a.jpg"] == before["a.jpg"]


@pytest.mark.parametrize(
    "options", [["--compare"], ["--compare", "-n", "2"], ["--map", "-n", "2"]], ids=" ".join
)
def test_a_clock_that_is_set_back_makes_no_sheet_look_old(upscale, photos, monkeypatch, options):
    write = making.write_picture

    def write_tomorrow(picture, path, **values):
        write(picture, path, **values)
        os.utime(path, (path.stat().st_mtime + 86_400,) * 2)

    monkeypatch.setattr(making, "write_picture", write_tomorrow)
    assert " left" not in upscale(photos / "a.jpg", *options).out
    before = state()
    again = upscale(photos / "a.jpg", *options)
    assert again.out.startswith("0 upscaled")
    assert " left" not in again.out
    after = state()
    for each in (before, after):
        each.pop("compare/index.html", None)  # written by every run
    assert after == before


def test_a_sheet_that_a_killed_process_did_not_come_to_is_made_by_the_others(
    upscale, photos, monkeypatch
):
    def stop(*arguments, **options):
        raise SystemExit(143)

    with monkeypatch.context() as patch:
        patch.setattr(making, "write_comparison", stop)
        upscale(photos / "a.jpg", "--compare")
        patch.setattr(
            Ledger, "start_round", lambda self: None
        )  # as for one that was there meanwhile
        assert tree() == ["a.jpg"]
        patch.setattr(making, "write_comparison", write_comparison)
        assert upscale(photos / "a.jpg", "--compare").out == "1 upscaled\n"
    assert tree() == ["a.jpg", "compare/a.jpg.jpg", "compare/index.html"]


@pytest.mark.parametrize("lost", ["ledger", "records", "times"])
def test_done_results_are_recognised_by_ledger_record_or_content(upscale, photos, lost):
    upscale(photos, *(["--no-metadata"] if lost == "records" else []))
    before = state()
    if lost == "ledger":
        Path("out/.cascade-upscale.jsonl").unlink()
    if lost == "times":
        for path in photos.rglob("*.*"):
            os.utime(path, ns=(1, 1))
    again = upscale(photos, *(["--no-metadata"] if lost == "records" else []))
    assert again.out == "0 upscaled, 5 already done\n"
    assert state() == before


def test_other_files_are_only_replaced_if_overwriting_is_allowed(upscale, photos, draw):
    upscale(photos / "a.jpg", photos / "b.png")
    Path("out/c.png").write_bytes(b"mine")
    Path("out/sub").mkdir()
    draw(photos / "b.png", seed=8)
    before = state()
    arguments = [photos / "a.jpg", photos / "b.png", photos / "sub" / "c.png", "--seed", 1]
    again = upscale(*arguments)
    assert again.code == 1
    assert again.out == "0 upscaled, 3 failed\n"
    assert state() == before
    formats = "PNG, JPEG, WebP, BMP, TIFF, GIF, AVIF, HEIC, JPEG XL"
    advice = "already exists and {}; move it away or allow overwriting (--overwrite)."
    assert failures(again) == {
        "photos/a.jpg": "out/a.jpg " + advice.format("was made with seed=0 (now 1)"),
        "photos/sub/c.png": "out/c.png "
        + advice.format(f"is not an intact image: not a readable image (none of {formats})"),
        "1 further image": "the result of each " + advice.format("was made with seed=0 (now 1)"),
    }
    assert "failed: photos/b.png: out/b.png already exists and" in upscale(*arguments, "-v").err
    same_seed = upscale(photos / "b.png")
    assert "was made from another input of that name" in same_seed.err
    replaced = upscale(*arguments, "--overwrite")
    assert (replaced.code, replaced.out) == (0, "3 upscaled\n")
    assert all(state()[name] != before[name] for name in before)
    assert upscale(*arguments, "--overwrite").out == "0 upscaled, 3 already done\n"


def test_results_inside_the_inputs_are_not_worked_on_again(upscale, photos):
    for words in ("5 upscaled", "0 upscaled, 5 already done"):
        done = upscale(photos, "--compare", out=photos / "large")
        assert (done.code, done.out) == (0, f"{words}\n")
    assert len(tree(photos / "large")) == 11


@pytest.mark.parametrize("out", ["photos", "photos/a.jpg", "link", "photos/sub/../a.jpg"])
def test_inputs_are_never_overwritten(upscale, photos, out):
    Path("link").symlink_to("photos")
    before = state("photos")
    done = upscale(photos / "a.jpg", "--overwrite", out=out)
    assert done.code == 1
    assert re.fullmatch(r"cascade: \S+ is the input photos/a.jpg itself; .*\n", done.err)
    assert state("photos") == before
    assert not list(photos.glob(".*"))


# ---- bad pictures -------------------------------------------------------------------------------


def empty(path: Path, draw) -> None:
    path.write_bytes(b"")


def text(path: Path, draw) -> None:
    path.write_text("hello")


def truncated(path: Path, draw) -> None:
    data = draw(path, size=(64, 64)).read_bytes()
    path.write_bytes(data[: len(data) // 2])


def bomb(path: Path, draw) -> None:
    Image.new("1", (20_000, 20_000)).save(path)


def floats(path: Path, draw) -> None:
    Image.fromarray(np.zeros((4, 4), np.float32)).save(path, "TIFF")


def transparent(path: Path, draw) -> None:
    draw(path, mode="RGBA")


def deep(path: Path, draw) -> None:
    Image.fromarray(np.zeros((4, 4), np.uint16)).save(path)


def wordy(path: Path, draw) -> None:
    exif = Image.Exif()
    exif[270] = "long " * 14_000
    Image.new("RGB", (4, 4)).save(path, exif=exif)


def pipe(path: Path, draw) -> None:
    os.mkfifo(path)


@pytest.mark.parametrize(
    ("name", "make", "arguments", "reason"),
    [
        ("bad.png", empty, [], "not a readable image"),
        ("bad.jpg", text, [], "not a readable image"),
        ("bad.txt", text, [], "not a readable image"),
        ("bad.jpg", truncated, [], "not a readable image .*[Tt]runcated"),
        ("bad.png", truncated, [], "not a readable image"),
        ("bad.png", bomb, [], "exceeds limit|more than the .* pixels allowed"),
        ("bad.tiff", floats, [], "range"),
        ("bad.png", transparent, ["--format", "jpeg"], "no transparency"),
        ("bad.png", deep, ["--format", "jpeg"], "no 16 bits"),
        ("bad.png", wordy, ["--format", "jpeg"], "64 KiB"),
        ("bad.png", pipe, [], "not a file"),
    ],
)
def test_a_bad_picture_is_listed_and_does_not_stop_the_others(
    upscale, photos, draw, name, make, arguments, reason
):
    make(photos / name, draw)
    done = upscale(photos / name, photos / "a.jpg", *arguments)
    assert (done.code, done.out) == (1, "1 upscaled, 1 failed\n")
    assert list(failures(done)) == [f"photos/{name}"]
    assert re.search(reason, failures(done)[f"photos/{name}"])
    assert tree() == ["a.jpg"]


def test_what_is_not_kept_is_reported_once_for_all_pictures(upscale, photos):
    for name in ("a.jpg", "b.jpg"):
        exif = Image.Exif()
        exif.get_ifd(0x8769)[0x927C] = b"private notes"
        Image.new("RGB", (8, 8)).save(photos / name, exif=exif, comment=b"seen")
    line = (
        "not kept: maker notes of 2 images (their inner offsets break when they are moved); "
        "comments of 2 images (WebP cannot hold them)"
    )
    arguments = [photos / "a.jpg", photos / "b.jpg", "--format", "webp"]
    done = upscale(*arguments)
    assert [each for each in done.err.splitlines() if "not kept" in each] == [line]
    assert "not kept" not in upscale(*arguments, "--overwrite", "--no-metadata").err


def test_files_and_folders_that_cannot_be_read_are_listed(upscale, photos, monkeypatch):
    (photos / "loop.png").symlink_to("loop.png")
    scandir = os.scandir

    def refuse(path):
        if path == str(photos / "sub"):
            raise PermissionError(13, "Permission denied", path)
        return scandir(path)

    monkeypatch.setattr(os, "scandir", refuse)
    done = upscale(photos)
    assert (done.code, done.out) == (1, "2 upscaled, 2 failed\n")
    assert failures(done) == {
        "photos/sub": "cannot be read (Permission denied).",
        "photos/loop.png": "cannot be read (Too many levels of symbolic links).",
    }


def test_a_picture_that_needs_too_much_memory_does_not_stop_the_others(
    upscale, photos, monkeypatch
):
    def make(stages, pictures, *options, progress):
        if pictures[0].size == (31, 9):
            raise errors.pop()
        return upscale_pictures(stages, pictures, *options, progress=progress)

    errors = [ZeroDivisionError("odd"), MemoryError(), CascadeError("needs 9 GiB.\nUse --tile.")]
    monkeypatch.setattr(commands, "upscale_pictures", make)
    for reason, words in (
        ("needs 9 GiB. Use --tile.", "4 upscaled"),
        ("not enough memory.", "0 upscaled, 4 already done"),
        ("unexpected ZeroDivisionError: odd", "0 upscaled, 4 already done"),
    ):
        done = upscale(photos)
        assert (done.code, done.out) == (1, f"{words}, 1 failed\n")
        assert failures(done) == {"photos/sub/d.webp": reason}


@pytest.mark.parametrize("make", [transparent, deep, wordy])
def test_what_a_format_cannot_hold_is_reported_before_the_work(
    upscale, photos, draw, monkeypatch, make
):
    def refuse(*_, **__):
        raise AssertionError("the work was begun")

    make(photos / "bad.png", draw)
    monkeypatch.setattr(commands, "upscale_pictures", refuse)
    done = upscale(photos / "bad.png", "--format", "jpeg")
    assert "cannot write" in failures(done)["photos/bad.png"]


def test_a_full_disk_ends_the_work_at_once_and_keeps_what_is_done(upscale, photos, monkeypatch):
    sync, written = atomic._sync, []

    def fill(path: Path) -> None:
        if path.suffix == ".tmp":
            written.append(path)
            if len(written) > 2:
                raise OSError(28, "No space left on device")
        sync(path)

    with monkeypatch.context() as patch:
        patch.setattr(atomic, "_sync", fill)
        done = upscale(photos)
    assert done.code == 1
    assert done.out == "2 upscaled, 3 left; run the same command again to continue\n"
    assert (
        done.err.splitlines()[-1] == "cascade: cannot write out/sub/c.png: No space left on device."
    )
    assert len(written) == 3
    assert tree() == ["a.jpg", "b.png"]
    assert upscale(photos).out == "3 upscaled, 2 already done\n"


@pytest.mark.parametrize(("stop", "code"), [(KeyboardInterrupt(), 130), (SystemExit(143), 143)])
def test_stopped_in_the_middle_nothing_is_half_written(upscale, photos, monkeypatch, stop, code):
    def make(stages, pictures, *options, progress):
        if pictures[0].size == (31, 9):
            raise stop
        return upscale_pictures(stages, pictures, *options, progress=progress)

    with monkeypatch.context() as patch:
        patch.setattr(commands, "upscale_pictures", make)
        done = upscale(photos)
    assert done.code == code
    assert done.out.startswith("3 upscaled, 2 left; run the same command again to continue\n")
    assert tree() == ["a.jpg", "b.png", "sub/c.png"]
    assert upscale(photos).out == "2 upscaled, 3 already done\n"


def test_a_stopped_process_also_counts_what_others_made(upscale, photos, monkeypatch):
    def make(stages, pictures, *options, progress):
        if pictures[0].size == (31, 9):
            file = Path("out/.cascade-upscale.jsonl")
            line = json.loads(file.read_text().splitlines()[-1]) | {"output": "sub/e.png"}
            with file.open("a") as ledger:
                ledger.write(json.dumps(line) + "\n")  # as another process does
            raise KeyboardInterrupt
        return upscale_pictures(stages, pictures, *options, progress=progress)

    monkeypatch.setattr(commands, "upscale_pictures", make)
    assert upscale(photos).out.startswith("4 upscaled, 1 left; run the same command")


def test_what_a_killed_process_left_half_written_is_removed(upscale, photos):
    Path("out/compare").mkdir(parents=True)
    leftovers = ["out/.a.jpg.123.tmp", "out/compare/.a.jpg.jpg.9.tmp"]
    for name in (*leftovers, "out/.mine.png.123.tmp"):
        Path(name).write_bytes(b"half")
    assert upscale(photos, "--compare").code == 0
    assert [name for name in tree() if ".tmp" in name] == [".mine.png.123.tmp"]


# ---- several processes --------------------------------------------------------------------------


def test_only_the_first_process_of_a_launcher_prints_and_fails(upscale, photos, monkeypatch):
    (photos / "bad.png").write_bytes(b"")
    monkeypatch.setenv("RANK", "1")
    done = upscale(photos)
    assert (done.code, done.out, done.err) == (0, "", "")
    monkeypatch.setenv("RANK", "0")
    done = upscale(photos)
    assert (done.code, done.out) == (1, "0 upscaled, 5 already done, 1 failed\n")


# ---- names --------------------------------------------------------------------------------------


@pytest.mark.parametrize("lost", [None, "ledger"])
def test_results_keep_their_names_when_pictures_are_added(upscale, photos, draw, lost):
    assert upscale(photos, "--format", "png").code == 0
    before = state()
    if lost is not None:
        Path("out/.cascade-upscale.jsonl").unlink()
    draw(photos / "a.bmp", seed=11)  # comes before a.jpg, whose result is a.png
    draw(photos / "b.jpg", seed=12)
    again = upscale(photos, "--format", "png")
    assert (again.code, again.out) == (0, "2 upscaled, 5 already done\n"), again.err
    after = state()
    assert {name: after[name] for name in before} == before
    assert set(after) - set(before) == {"a.bmp.png", "b.jpg.png"}
    assert (
        "2 results keep the suffix of the input, to differ from another result: "
        "photos/a.bmp -> a.bmp.png, photos/b.jpg -> b.jpg.png\n"
    ) in again.err
    alone = upscale(photos / "b.jpg", "--format", "png")
    assert (alone.code, alone.out) == (0, "0 upscaled, 1 already done\n")


@pytest.mark.skipif(sys.platform != "linux", reason="a name holds 255 bytes there")
@pytest.mark.parametrize("name", ["n" * 251 + ".png", "ä" * 125 + ".jpeg", "n" * 250 + ".webp"])
def test_names_of_255_bytes_can_be_written(upscale, photos, draw, name):
    draw(photos / name)
    for words in ("6 upscaled\n", "0 upscaled, 6 already done\n"):
        done = upscale(photos, "--compare")
        assert (done.code, done.out) == (0, words), done.err
    assert Path("out", name).is_file()
    assert upscale(photos / name, "--format", "tiff", out="tiff").code == 0
    (result,) = Path("tiff").glob("*.tif")
    assert upscale(photos / name, "--format", "tiff", out="tiff").out.startswith("0 upscaled, 1 al")
    assert len(os.fsencode(result.name)) <= 255


# ---- what is printed ----------------------------------------------------------------------------


def test_the_work_is_estimated_from_what_is_left_to_do(upscale, photos):
    done = upscale(photos / "a.jpg", photos / "b.png")
    assert "2 images, 0.009 megapixels to make with tiny-x4\n" in done.err
    done = upscale(photos)
    line = "3 images (2 more are already done), 0.01 megapixels to make with tiny-x4\n"
    assert line in done.err
    assert "to make" not in upscale(photos).err


def test_each_failure_is_printed_once(upscale, photos):
    (photos / "bad.png").write_text("x")
    for _ in range(2):
        assert upscale(photos).err.count("failed: photos/bad.png") == 1


def test_files_that_are_not_pictures_are_counted_and_listed_on_request(upscale, photos):
    for name in ("a.xmp", "b.txt", "c.TXT", ".d.png", "e.nef"):
        (photos / name).write_text("x")
    (photos / ".git").mkdir()
    counts = (
        "left out: 5 files that are not images (2 .txt, 1 .nef raw camera file, 1 .xmp, 1 "
        "hidden) and 1 hidden folder; --verbose lists them"
    )
    lines = upscale(photos).err.splitlines()
    assert [line for line in lines if "left out" in line] == [counts]
    lines = upscale(photos, "--verbose").err.splitlines()
    assert {line for line in lines if "left out: photos" in line} == {
        "left out: photos/a.xmp (.xmp)",
        "left out: photos/b.txt (.txt)",
        "left out: photos/c.TXT (.txt)",
        "left out: photos/.d.png (hidden)",
        "left out: photos/e.nef (raw camera file)",
        "left out: photos/.git (hidden folder)",
    }
    named = upscale(photos / "b.txt", out="named")
    assert list(failures(named)) == ["photos/b.txt"]


def test_quiet_prints_nothing_but_failures(upscale, photos):
    done = upscale(photos, "--quiet")
    assert (done.code, done.out, done.err) == (0, "", "")
    (photos / "bad.png").write_text("x")
    (photos / "notes.txt").write_text("x")
    done = upscale(photos, "-q")
    assert (done.code, done.out) == (1, "")
    assert done.err.startswith("failed: photos/bad.png: ")
    assert done.err.count("\n") == 1


def test_a_page_of_somebody_else_is_not_replaced(upscale, photos):
    Path("out/compare").mkdir(parents=True)
    Path("out/compare/index.html").write_text("mine")
    done = upscale(photos, "--compare")
    assert done.code == 1
    assert "out/compare/index.html already exists and is not a page of this command" in done.err
    assert tree() == ["compare/index.html"]


def test_a_stopped_run_leaves_a_page_of_the_sheets_made_so_far(upscale, photos, monkeypatch):
    def make(stages, pictures, *options, progress):
        if pictures[0].size == (31, 9):
            raise KeyboardInterrupt
        return upscale_pictures(stages, pictures, *options, progress=progress)

    monkeypatch.setattr(commands, "upscale_pictures", make)
    upscale(photos, "--compare")
    page = Path("out/compare/index.html").read_text()
    assert page.count('<div class="pair"') == 3


# ---- usage --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        (["nowhere", "-o", "out"], 1, "nowhere: no such file or folder"),
        (["photos"], 2, "Missing option '--out'"),
        (["photos", "-o", "out", "--steps", "0"], 2, "greater than or equal to 1"),
        (["photos", "-o", "out", "--format", "jp2"], 2, "'jp2' is not one of"),
        (["photos", "-o", "photos"], 1, "photos is an input, so the results cannot go there"),
        (["photos", "-o", "out.png"], 1, "names one image, but there may be several inputs"),
        (["photos", "-o", "file"], 1, "cannot write to folder file"),
        (
            ["photos", "-o", "out", "--sampler", "dimm"],
            1,
            "unknown sampler 'dimm': did you mean 'ddim'",
        ),
        (["photos", "-o", "out", "--scale", "0.5"], 2, "greater than or equal to 1"),
        (["photos", "-o", "out", "--steps", "101"], 1, "101"),
        (["photos", "-o", "out", "--guidance", "2"], 1, "guidance 2.0 needs a condition"),
        (["photos", "-o", "out", "--augmentation", "0.9"], 1, "0.9"),
        (["photos", "-o", "out", "--model", "photo-x5"], 1, "no pipeline 'photo-x5'"),
        (["nosuch.jpg", "-o", "out.jpg"], 1, "nosuch.jpg: no such file or folder."),
        (["photos", "-o", "out", "-q", "-v"], 2, "--quiet and --verbose exclude each other"),
        (
            ["photos", "-o", "out", "--temperature", "0", "--sampler", "euler-ancestral"],
            1,
            "EulerAncestralDiscreteScheduler adds noise at temperature 1 only, got 0.0",
        ),
        (["photos", "-o", "out", "--set", "base.steps=1"], 1, "no stage 'base' in this pipeline"),
    ],
)
def test_wrong_usage_is_reported_before_any_work(
    command, photos, upscaler, arguments, code, message
):
    Path("file").write_text("x")
    model = [] if "--model" in arguments else ["--model", upscaler]
    done = command("upscale", *arguments, *model)
    assert done.code == code
    assert message in " ".join(done.err.split())
    assert "Traceback" not in done.err
    assert not Path("out").exists() or os.listdir("out") == []
    assert sorted(os.listdir(".")) in (["file", "photos"], ["file", "out", "photos"])


def test_settings_for_a_stage_that_does_not_run_are_refused_before_any_work(command, photos):
    options = ["-o", "out", "--model", "emoji-1024", "--set", "base.steps=1"]
    done = command("upscale", photos, *options)
    assert done.code == 1
    assert done.err == (
        "cascade: base.steps: stage 'base' does not run in upscale; its stages: upsampler_256, "
        "upsampler_1024.\n"
    )
    assert not Path("out").exists()


def test_a_setting_that_the_model_does_not_read_is_refused(command, upscaler, photos):
    done = command("upscale", photos, "-o", "out", "--model", upscaler, "--denoise", 1)
    assert done.code == 1
    assert "denoise 1 is for models that measure noise and compression, but tiny-x4" in done.err
    assert not Path("out").exists()


def test_a_part_of_the_numbers_is_upscaled_as_black_to_white_and_mapped_back(upscale, photos):
    folder = photos.parent / "camera"
    folder.mkdir()
    steps = np.arange(12 * 10, dtype=np.uint16).reshape(12, 10)
    Image.fromarray(840 + 2 * steps).save(folder / "narrow.tif")  # 840 to 1078
    Image.fromarray((steps * (65535 / 119)).round().astype(np.uint16)).save(folder / "full.tif")
    done = upscale(folder / "narrow.tif", out="plain.tif")
    assert done.err.count("uses 840 to 1078 of 65,535, so it has almost no contrast") == 1
    done = upscale(folder / "narrow.tif", "--range", 840, 1078, out="ranged.tif")
    assert (done.code, done.err.count("uses 840")) == (0, 0)
    upscale(folder / "full.tif", out="full.tif")
    ranged, full = (read_picture(Path(f"{name}.tif")) for name in ("ranged", "full"))
    expected = 840 + full.colour.double() / 65535 * 238
    assert (ranged.colour.double() - expected).abs().max() <= 1.5
    refused = upscale(folder / "narrow.tif", "--range", 9, 3, out="x.tif")
    assert refused.code == 1
    assert "black first and white larger, got (9, 3)" in refused.err


@pytest.fixture
def workspace_of_jpegs(tmp_path, monkeypatch) -> tuple[str, str]:
    """A working folder with a JPEG of 16 x 64 px, and the same JPEG without its last third."""
    monkeypatch.chdir(tmp_path)
    ramp = np.linspace(30, 220, 64)[:, None, None].repeat(16, 1).repeat(3, 2).astype(np.uint8)
    pixels = ramp + np.random.default_rng(0).integers(0, 30, ramp.shape, dtype=np.uint8)
    Image.fromarray(pixels).save("a.jpg", quality=95)
    data = Path("a.jpg").read_bytes()
    Path("cut.jpg").write_bytes(data[: len(data) * 2 // 3])
    return "a.jpg", "cut.jpg"


def test_a_cut_off_jpeg_is_refused_or_taken_as_far_as_it_goes(upscale, workspace_of_jpegs):
    whole, cut = workspace_of_jpegs
    refused = upscale(cut)
    assert refused.code == 1
    reason = "its end is missing; --truncated keep reads it as far as it goes"
    assert failures(refused) == {"cut.jpg": f"not a readable image ({reason})."}
    assert not Path("out/cut.jpg").exists()
    kept = upscale(whole, cut, "--truncated", "keep", "--compare")
    assert kept.code == 0
    assert kept.err.count("cut.jpg is truncated; the missing part is grey in the result") == 1
    assert {"a.jpg", "cut.jpg", "compare/cut.jpg.jpg"} <= set(tree())
    assert read_picture(Path("out/cut.jpg")).size == read_picture(Path("out/a.jpg")).size
