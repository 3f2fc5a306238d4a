"""What makes a job done: the record in its result, and nothing else."""

from __future__ import annotations

import json
import os
import re
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
from PIL import Image, PngImagePlugin

from cascade.bulk import one_job, records
from cascade.bulk.claims import Claims
from cascade.bulk.inputs import InputPicture
from cascade.bulk.ledger import Ledger
from cascade.bulk.records import NotAResultError, Record, difference, record_of, settings_id
from cascade.bulk.searching import find_pictures
from cascade.imaging.picture_reading import decode_picture, read_picture
from cascade.imaging.picture_writing import FORMAT_OF_SUFFIX, write_picture
from cascade.imaging.rasters.recorded import read_mark

LEDGER = Path("out/.cascade-upscale.jsonl")
SUFFIXES = sorted(FORMAT_OF_SUFFIX.keys() - {".gif"})  # GIF is for animations: see test_pages.py


@pytest.fixture
def upscale(command, upscaler) -> Callable:
    """A function that runs `cascade upscale … -o out` with the tiny model, one step."""

    def run(*arguments: object):
        options = ["--model", upscaler, "--device", "cpu", "--steps", 1]
        return command("upscale", *arguments, "-o", "out", *options)

    return run


@pytest.fixture
def result(upscale, photos, draw) -> Path:
    """The result of a PNG of 20x14 px, beside which others are made of other pictures."""
    draw(photos / "x.png", seed=21)
    draw(photos / "y.png", seed=22)
    assert upscale(photos / "x.png", photos / "y.png").code == 0
    return Path("out/x.png")


def write_record(path: Path, settings: dict, size: tuple[int, int] = (8, 12)) -> None:
    """Write a picture of (H, W) with a record."""
    height, width = size
    Image.new("RGB", (width, height), "red").save("plain.png")
    record = Record(settings=settings, input_sha256="ab", size_px=size)
    write_picture(read_picture(Path("plain.png")), path, settings=record.to_json())


# ---- what a result says of itself ---------------------------------------------------------------


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_every_format_holds_the_record(tmp_path, monkeypatch, suffix):
    monkeypatch.chdir(tmp_path)
    write_record(Path(f"a{suffix}"), {"seed": 3, "stages": {"one": {"steps": 2}}})
    record = record_of(Path(f"a{suffix}"), None)
    assert record.settings == {"seed": 3, "stages": {"one": {"steps": 2}}}
    assert (record.input_sha256, record.size_px) == ("ab", (8, 12))


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_a_result_that_was_cut_off_anywhere_does_not_count(tmp_path, monkeypatch, suffix):
    monkeypatch.chdir(tmp_path)
    path = Path(f"a{suffix}")
    write_record(path, {"seed": 3}, size=(40, 60))
    data = path.read_bytes()
    path.write_bytes(b"")
    with pytest.raises(NotAResultError, match=r"^is empty$"):
        record_of(path, None)
    for part in (0.1, 0.5, 0.9):
        path.write_bytes(data[: int(part * len(data))])
        with pytest.raises(NotAResultError):
            record_of(path, None)
    path.write_bytes(data)
    assert record_of(path, None).settings == {"seed": 3}


def test_settings_are_the_same_if_the_results_are():
    one = {"seed": 1, "model": "a", "stages": {"up": {"steps": 2, "interval": (0.1, 0.9)}}}
    other = {"stages": {"up": {"interval": [0.1, 0.9], "steps": 2}}, "seed": 1, "tile_px": None}
    assert settings_id(one) == settings_id(other)
    assert settings_id(one) != settings_id(one | {"seed": 2})


def test_a_difference_names_the_settings_and_then_the_input(photos):
    (source,) = find_pictures([str(photos / "a.jpg")]).pictures
    record = Record(settings={"seed": 1, "a": {"b": 2}}, input_sha256="x", size_px=(1, 1))
    assert difference(record, {"seed": 5, "a": {"b": 2}}, source) == "was made with seed=1 (now 5)"
    assert difference(record, {"seed": 1, "a": {}}, source) == "was made with a.b=2 (now None)"
    other = "was made from another input of that name"
    assert difference(record, {"seed": 1, "a": {"b": 2}}, source) == other
    same = Record(settings=record.settings, input_sha256=source.sha256(), size_px=(1, 1))
    assert difference(same, {"seed": 1, "a": {"b": 2}}, source) == ""


def test_a_record_from_json_equals_the_settings_that_it_was_made_of(photos):
    (source,) = find_pictures([str(photos / "a.jpg")]).pictures
    settings = {"interval": (0.1, 0.9), "tile_px": None}
    record = Record(settings=settings, input_sha256=source.sha256(), size_px=(3, 4))
    loaded = Record.from_json(json.loads(json.dumps(record.to_json())))
    assert loaded.size_px == (3, 4)
    assert difference(loaded, settings, source) == ""


@pytest.mark.parametrize("values", [{}, {"input_sha256": "ab"}, {"size_px": 3}, {"size_px": [1]}])
def test_values_of_others_are_no_record(values):
    with pytest.raises(NotAResultError, match="is not a result of this command"):
        Record.from_json(values)


# ---- harmed results -----------------------------------------------------------------------------


def emptied(path: Path) -> None:
    path.write_bytes(b"")


def cut_off(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-40])


def replaced_by_another_size(path: Path) -> None:
    Image.new("RGB", (7, 5)).save(path)


def replaced_by_the_same_size(path: Path) -> None:
    with Image.open(path) as image:
        size = image.size
    Image.new("RGB", size, "green").save(path)


def replaced_by_the_result_of_another_input(path: Path) -> None:
    os.replace("out/y.png", path)


def scaled_with_its_record(path: Path) -> None:
    with Image.open(path) as image:
        text = PngImagePlugin.PngInfo()
        text.add_text("cascade", image.info["cascade"])
        image.resize((10, 8)).save(path, pnginfo=text)


def turned_into_a_dangling_link(path: Path) -> None:
    path.unlink()
    path.symlink_to("nowhere")


HARM = [
    (emptied, "is empty"),
    (cut_off, r"is not an intact image: not a readable image \(.*\)"),
    (replaced_by_another_size, "is not a result of this command"),
    (replaced_by_the_same_size, "is not a result of this command"),
    (replaced_by_the_result_of_another_input, "was made from another input of that name"),
    (scaled_with_its_record, r"was changed to 10x8 px \(made with 80x56 px\)"),
    (turned_into_a_dangling_link, r"cannot be read \(No such file or directory\)"),
]


@pytest.mark.parametrize("with_ledger", [True, False])
@pytest.mark.parametrize(("harm", "reason"), HARM)
def test_a_harmed_result_is_not_done_and_only_replaced_if_allowed(
    upscale, photos, result, harm, reason, with_ledger
):
    right = result.read_bytes()
    harm(result)
    if not with_ledger:
        LEDGER.unlink()
    done = upscale(photos / "x.png")
    assert (done.code, done.out) == (1, "0 upscaled, 1 failed\n")
    message = (
        f"out/x.png already exists and {reason}; move it away or allow overwriting .--overwrite.."
    )
    assert re.search(f"failed: photos/x.png: {message}\n", done.err)
    assert result.is_symlink() or result.read_bytes() != right
    done = upscale(photos / "x.png", "--overwrite")
    assert (done.code, done.out) == (0, "1 upscaled\n")
    assert result.read_bytes() == right


def test_a_result_with_its_old_size_and_time_is_still_opened(upscale, photos, result):
    status, data = result.stat(), result.read_bytes()
    result.write_bytes(bytes(len(data)))
    os.utime(result, ns=(status.st_atime_ns, status.st_mtime_ns))
    assert upscale(photos / "x.png").code == 1


def test_a_result_that_was_tagged_is_still_done(upscale, photos, result):
    with Image.open(result) as image:
        text = PngImagePlugin.PngInfo()
        text.add_text("cascade", image.info["cascade"])
        text.add_text("Comment", "the garden")
        image.save(result, pnginfo=text)
    assert upscale(photos / "x.png").out == "0 upscaled, 1 already done\n"


@pytest.mark.parametrize("harm", [emptied, cut_off, replaced_by_the_same_size])
def test_without_metadata_a_changed_result_is_not_done(upscale, photos, draw, harm):
    draw(photos / "x.png", seed=21)
    assert upscale(photos / "x.png", "--no-metadata").code == 0
    harm(Path("out/x.png"))
    done = upscale(photos / "x.png", "--no-metadata")
    assert (done.code, done.out) == (1, "0 upscaled, 1 failed\n")


@pytest.mark.parametrize("image_format", ["png", "jpeg", "webp", "tiff"])
def test_without_metadata_the_ledger_knows_a_result_by_its_bytes(upscale, photos, image_format):
    arguments = [photos / "a.jpg", "--format", image_format, "--no-metadata"]
    assert upscale(*arguments).out == "1 upscaled\n"
    (result,) = (path for path in Path("out").iterdir() if path.name[0] != ".")
    assert read_mark(result).record == {}
    os.utime(result, ns=(1, 1))
    for _ in range(2):
        assert upscale(*arguments).out == "0 upscaled, 1 already done\n"
    LEDGER.unlink()
    done = upscale(*arguments)
    assert "already exists and is not a result of this command" in done.err


# ---- killed runs --------------------------------------------------------------------------------


def test_a_run_killed_before_it_noted_a_result_has_still_made_it(upscale, photos, monkeypatch):
    def stop(self, *arguments):
        raise SystemExit(143)

    with monkeypatch.context() as patch:
        patch.setattr(Ledger, "add", stop)
        assert upscale(photos / "a.jpg").out.startswith("0 upscaled, 1 left")
    before = Path("out/a.jpg").stat().st_mtime_ns
    assert upscale(photos / "a.jpg").out == "0 upscaled, 1 already done\n"
    assert Path("out/a.jpg").stat().st_mtime_ns == before


def test_an_input_that_changed_while_it_was_worked_on_is_noticed(
    upscale, photos, draw, monkeypatch
):
    def make(*arguments):
        record = make_result(*arguments)
        draw(photos / "a.jpg", seed=77)
        return record

    make_result = one_job.make_result
    with monkeypatch.context() as patch:
        patch.setattr(one_job, "make_result", make)
        assert upscale(photos / "a.jpg").code == 0
    done = upscale(photos / "a.jpg")
    assert "was made from another input of that name" in done.err


# ---- many finished results ----------------------------------------------------------------------


@pytest.mark.parametrize("options", [[], ["--no-metadata"], ["--compare"]])
def test_finished_results_are_neither_opened_nor_claimed_again(
    upscale, photos, monkeypatch, options
):
    def refuse(*arguments, **keywords):
        raise AssertionError("a finished job was not left alone")

    assert upscale(photos, *options).code == 0
    for owner, name in (
        (records, "decode_picture"),
        (records, "mark_in"),
        (records, "_sha256"),
        (InputPicture, "sha256"),
        (InputPicture, "read_bytes"),
        (InputPicture, "heads"),
        (Claims, "take"),
    ):
        monkeypatch.setattr(owner, name, refuse)
    assert upscale(photos, *options).out == "0 upscaled, 5 already done\n"


def test_results_without_a_ledger_are_opened_once(upscale, photos, monkeypatch):
    assert upscale(photos).code == 0
    LEDGER.unlink()
    opened = []
    monkeypatch.setattr(
        records, "decode_picture", lambda *file: (opened.append(file), decode_picture(*file))[1]
    )
    for _ in range(2):
        assert upscale(photos).out == "0 upscaled, 5 already done\n"
    assert len(opened) == 5


def test_a_copy_of_the_folder_is_known_by_its_bytes(upscale, photos, monkeypatch):
    def refuse(*file):
        raise AssertionError("a result was decoded")

    assert upscale(photos).code == 0
    shutil.copytree("out", "copy")
    shutil.rmtree("out")
    os.rename("copy", "out")
    monkeypatch.setattr(records, "decode_picture", refuse)
    for _ in range(2):
        assert upscale(photos).out == "0 upscaled, 5 already done\n"
