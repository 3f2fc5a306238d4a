"""What pictures say about how they were made, whoever wrote it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from PIL.PngImagePlugin import PngInfo

from cascade import save_marked
from cascade.bulk.sheets import save_sheet
from cascade.errors import ContractError, DataError
from cascade.imaging.marks import TYPES
from cascade.imaging.rasters.raster import Raster
from cascade.inspection import Inspection, PictureRecord, inspect_picture


@pytest.fixture
def recorded(tmp_path):
    """A function that writes a picture with a record, and returns its file."""

    def write(record: object):
        text = PngInfo()
        text.add_text("cascade", json.dumps(record))
        Image.new("RGB", (4, 4)).save(tmp_path / "a.png", pnginfo=text)
        return tmp_path / "a.png"

    return write


def test_labels_are_told_by_field_or_as_they_were_given(recorded):
    for labels in ("cat,noto", {"animal": "cat", "style": "noto"}):
        inspection = inspect_picture(recorded({"command": "edit", "labels": labels}))
        assert ("labels", "cat, noto") in inspection.lines()


@pytest.mark.parametrize(
    "record",
    [
        {"stages": 5},
        {"stages": {"upsampler": 3}},
        {"labels": ["cat"]},
        {"labels": {"animal": 3}},
        {"scale": "2"},
        {"scale": float("nan")},
        {"range": 7},
        {"range": [0]},
        {"prompt": ["a", "cat"]},
        {"model": 5},
        {"seed": -1},
        {"seed": True},
        {"adapters": [["cats"]]},
        {"version": "\ud800"},
        {"input_sha256": 5},
    ],
)
def test_a_record_of_wrong_types_cannot_be_read(recorded, command, record):
    path, (key,) = recorded(record), record
    inspection = inspect_picture(path)
    assert inspection.record is None
    assert key in inspection.fault or key == "version"
    done = command("inspect", path)
    assert (done.code, len(done.out.splitlines())) == (0, 2), done.err
    assert "record   cannot be read (" in done.out
    done = command("inspect", path, "--json")
    (document,) = json.loads(done.out)["images"]
    assert (document["command"], len(document["notes"])) == ("", 1)


def test_texts_of_a_record_cannot_write_to_the_terminal(recorded, command):
    path = recorded({"command": "generate", "model": "a\x1b[2J\n", "prompt": "\x07", "seed": 1})
    done = command("inspect", path)
    assert done.code == 0
    assert done.out.replace("\n", "").isprintable()
    assert "no command: it would hold characters that cannot be printed" in done.out


def test_keys_that_are_not_declared_are_kept():
    record = PictureRecord.read({"seed": 3, "sharpness": 2, "like": None})
    assert record.recorded == {"seed": 3, "sharpness": 2}


def test_a_picture_without_a_record_says_so(tmp_path, command):
    Image.new("RGB", (4, 4)).save(tmp_path / "a.png")
    assert inspect_picture(tmp_path / "a.png") == Inspection()
    assert "Cascade did not make it" in command("inspect", tmp_path / "a.png").out
    (tmp_path / "b.png").write_text("no picture")
    with pytest.raises(DataError, match="not a readable image"):
        inspect_picture(tmp_path / "b.png")


def test_a_picture_saved_from_python_has_the_mark(tmp_path):
    image = Image.new("RGB", (4, 4), "red")
    for name, source in (("a.jpg", "restored"), ("b.png", "generated")):
        save_marked(image, tmp_path / name, source, model="photo-x4")
        inspection = inspect_picture(tmp_path / name)
        assert inspection.source_type == TYPES[source]
        assert ("model", "photo-x4") in inspection.lines()
    raster = Raster(values=np.zeros((5, 4, 4), np.uint16))
    save_marked(raster, tmp_path / "c.tif", "restored", model="field-x2")
    assert ("model", "field-x2") in inspect_picture(tmp_path / "c.tif").lines()
    assert inspect_picture(tmp_path / "c.tif").source_type == TYPES["restored"]
    with pytest.raises(ContractError, match="one of generated, restored, got 'drawn'"):
        save_marked(image, tmp_path / "c.png", "drawn")  # pyright: ignore[reportArgumentType]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (
            {"image": [Image.new("L", (4, 4))]},
            r"image must be one PIL image, Picture or Raster; .* got \[",
        ),
        ({"image": np.zeros((4, 4, 3))}, "one PIL image, Picture or Raster; .* got ndarray"),
        ({"path": 3}, "path must be the path of a file, got 3"),
        ({"source": ["generated"]}, r"source must be one of .* got \['generated'\]"),
        ({"model": Path("photo-x4")}, "model must be the name of a model, got PosixPath"),
    ],
)
def test_what_cannot_be_saved_from_python_is_refused(tmp_path, change, message):
    arguments: dict[str, Any] = {
        "image": Image.new("L", (4, 4)),
        "path": tmp_path / "a.png",
        "source": "restored",
    }
    with pytest.raises(ContractError, match=message):
        save_marked(**arguments | change)
    assert not list(tmp_path.iterdir())


def test_a_folder_is_inspected_as_a_whole(command, tmp_path):
    folder = tmp_path / "archive"
    (folder / "sub" / ".hidden").mkdir(parents=True)
    image = Image.new("RGB", (4, 4))
    image.save(folder / "sub" / "plain.png")
    image.save(folder / "sub" / ".hidden" / "h.png")
    sheets = ("made-compare.jpg", "made-doubt.png")
    for name in sheets:
        save_sheet(image, folder / name)
    save_marked(image, folder / "made.png", "generated")
    (folder / "broken.jpg").write_bytes(b"no picture")
    (folder / "notes.txt").write_text("text")
    done = command("inspect", folder)
    assert done.code == 1
    assert [line for line in done.out.splitlines() if not line.startswith(" ")] == [
        *(str(folder / name) for name in ("broken.jpg", *sheets, "made.png", "sub/plain.png")),
        "5 images: 1 unreadable, 2 sheets or maps without a mark, 1 trainedAlgorithmicMedia, 1 "
        "without record or mark",
    ]
    assert "fault    not a readable image" in done.out
    assert done.out.count("none: an uncertainty map or a sheet that Cascade wrote") == 2
    listed = command("inspect", folder, "--json")
    assert listed.code == 1
    broken, *others = json.loads(listed.out)["images"]
    assert "not a readable image" in broken["error"]
    assert [each["mark"] for each in others] == ["", "", "trainedAlgorithmicMedia", ""]
    (tmp_path / "empty").mkdir()
    assert "no images in" in command("inspect", tmp_path / "empty").err
