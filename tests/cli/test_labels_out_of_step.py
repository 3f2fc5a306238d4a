"""What the commands say about labels and files that do not fit the images."""

from __future__ import annotations

import io
import json
import shutil
import tarfile
from pathlib import Path

import pytest

from cascade.data.sources import open_source

RUN = ("train.images=4", "train.batch_size=4", "train.trackers=[]", "train.sample_every_images=0")


@pytest.fixture
def one_fault(pictures, tmp_path) -> Path:
    """The 18 pictures with a table that names all of them, and one more that is missing."""
    folder = tmp_path / "photos"
    shutil.copytree(pictures, folder)
    names = [path.relative_to(folder).as_posix() for path in sorted(folder.rglob("*.png"))]
    rows = [f"{name},{number % 2}" for number, name in enumerate(names)] + ["gone.png,1"]
    (folder / "metadata.csv").write_text("\n".join(["file_name,style", *rows]) + "\n")
    (folder / "list.pdf").write_bytes(b"")
    return folder


@pytest.fixture
def many_faults(one_fault) -> Path:
    with (one_fault / "metadata.csv").open("a") as table:
        table.writelines(f"gone-{number}.png,1\n" for number in range(4))
    return one_fault


FIELDS = "condition.labels.fields=[style]"
ROW = "metadata.csv: line 20: there is no image 'gone.png'."
TOO_MANY = "5 rows without an image among 18 images, but max_broken_share=0.01 allows 3: "


def test_one_row_without_an_image_is_named_by_every_command(command, one_fault, tmp_path, caplog):
    path = f"data.path={one_fault}"
    train = ["train", "tiny-16", path, FIELDS, *RUN, "--out", tmp_path / "run"]
    out = tmp_path / "shards"
    for words, code in {
        ("data", "check", one_fault): 1,
        ("data", "build", one_fault, "--out", out): 1,
        ("validate", "tiny-16", path, FIELDS, *RUN): 0,
        tuple(train): 0,
    }.items():
        caplog.clear()
        done = command(*words)
        assert done.code == code, done.err
        said = " ".join((done.out + done.err + caplog.text).split())
        assert f"1 row without an image: {one_fault / ROW}" in said
        assert "left out: 1 file that is not an image (1 .pdf); --verbose lists them" in said
        assert "list.pdf" not in said
    shutil.rmtree(out)
    shutil.rmtree(tmp_path / "run")
    for words in (
        ("data", "check", one_fault),
        ("data", "build", one_fault, "--out", out),
        ("validate", "tiny-16", path, FIELDS, *RUN),
        train,
    ):
        done = command(*words, "--verbose")
        assert f"  {one_fault / 'list.pdf'} (.pdf)" in done.out + done.err + caplog.text
        caplog.clear()
    manifest = json.loads((out / "manifest.json").read_text())
    assert manifest["faults"] == {"rows without an image": [str(one_fault / ROW)]}
    assert manifest["other_files"] == {".pdf": 1}


def test_too_many_stop_all_but_the_check_which_lists_them(command, many_faults, tmp_path):
    path = f"data.path={many_faults}"
    for words in (
        ("data", "build", many_faults, "--out", tmp_path / "shards"),
        ("validate", "tiny-16", path, FIELDS, *RUN),
        ("train", "tiny-16", path, FIELDS, *RUN, "--out", tmp_path / "run"),
    ):
        done = command(*words)
        assert done.code == 1
        line = done.err.splitlines()[-1]
        assert f"{TOO_MANY}{many_faults / ROW}" in line
        assert line.endswith(f"… and 2 more; cascade data check {many_faults} lists them all.")
        assert "Traceback" not in done.err
    assert not (tmp_path / "shards").exists()
    checked = command("data", "check", many_faults)
    assert checked.code == 1
    assert "5 rows without an image:" in checked.out
    assert all(f"there is no image 'gone-{number}.png'." in checked.out for number in range(4))


def test_labels_that_a_stage_does_not_read_do_not_stop_it(command, many_faults, tmp_path, caplog):
    path = f"data.path={many_faults}"
    values = [path, "condition.labels=null", "sampling.guidance=1"]
    assert "row" not in command("validate", "tiny-16", *values, *RUN).out
    done = command("train", "tiny-16", path, *values, *RUN, "--out", tmp_path / "run")
    assert done.code == 0
    assert "row" not in done.err + caplog.text
    allowed = command("validate", "tiny-16", path, FIELDS, *RUN, "data.max_broken_share=0.5")
    assert allowed.code == 0


def test_images_without_a_label_are_counted_and_named_but_are_trained_on(
    command, pictures, tmp_path, caplog
):
    folder = tmp_path / "photos"
    shutil.copytree(pictures, folder)
    for number in range(5):
        shutil.copy(folder / "red" / f"{number}.png", folder / f"{number}.png")
    names = [f"{folder / f'{number}.png'}: has no class." for number in range(5)]
    done = command("train", "tiny-16", f"data.path={folder}", *RUN, "--out", tmp_path / "run")
    assert done.code == 0
    assert f"5 images without a label: {' '.join(names[:3])} … and 2 more" in caplog.text
    checked = command("data", "check", folder)
    assert "\n  ".join(["5 images without a label:", *names]) in checked.out


def test_a_file_in_shards_that_is_not_an_image_is_counted(command, pictures, tmp_path):

    assert command("data", "build", pictures, "--out", tmp_path / "a").code == 0
    (shard,) = (tmp_path / "a").glob("*.tar")
    with tarfile.open(shard, "a") as tar:
        tar.addfile(tarfile.TarInfo("notes.md"), io.BytesIO())
    done = command("data", "check", shard, "-v")
    assert done.code == 0
    assert f"left out: 1 file that is not an image (1 .md):\n  {shard}:notes.md (.md)" in done.out
    assert len(open_source(str(shard))) == 18
