from __future__ import annotations

import io
import json
import os
import shutil
import tarfile
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from cascade.data import shard_index
from cascade.data.sources import FolderSource, ShardSource, open_source
from cascade.errors import DataError


def png(value: int = 0) -> bytes:
    file = io.BytesIO()
    Image.fromarray(np.full((4, 4, 3), value, np.uint8)).save(file, "PNG")
    return file.getvalue()


def one_line_naming(path: object, error: pytest.ExceptionInfo) -> None:
    message = str(error.value)
    assert str(path) in message
    assert "\n" not in message


# ---- what is read -------------------------------------------------------------------------------

TRICKY = ["a.png", "a-1.png", "cat/1.png", "cat-face/1.png", "cat face/2.png", "v1.2/3.png"]


@pytest.mark.parametrize("prefix", ["", "./"])
def test_a_folder_and_a_shard_hold_the_same_images_in_the_same_order(tmp_path, write_shard, prefix):
    contents = {name: png(number) for number, name in enumerate(TRICKY)}
    for name, data in contents.items():
        (tmp_path / "all" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "all" / name).write_bytes(data)
    shard = write_shard(tmp_path / "all.tar", {prefix + n: d for n, d in contents.items()})
    folder, tar = open_source(str(tmp_path / "all")), open_source(str(shard))
    assert isinstance(folder, FolderSource)
    assert isinstance(tar, ShardSource)
    assert len(folder) == len(tar) == len(TRICKY)
    for index in range(len(TRICKY)):
        assert folder.read(index) == tar.read(index)


def test_shards_are_joined_by_wildcards_and_brace_ranges(tmp_path, write_shard):
    for number in range(3):
        write_shard(tmp_path / f"part-{number:03d}.tar", {f"{number}.png": png(number)})
    for pattern, values in {"part-*.tar": [0, 1, 2], "part-{001..002}.tar": [1, 2]}.items():
        source = ShardSource(str(tmp_path / pattern))
        assert [source.read(index) for index in range(len(source))] == [png(v) for v in values]


def test_labels_are_the_first_folder_and_the_text_values_of_the_json(tmp_path, write_shard):
    for name in ("cat/deep/1.png", "2.png"):
        (tmp_path / "all" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "all" / name).write_bytes(png())
    folder = FolderSource(tmp_path / "all")
    assert [folder.labels(index) for index in range(2)] == [{}, {"class": "cat"}]
    values = {"class": "cat", "style": "noto", "width": 4, "tags": ["a", 1], "none": None}
    members = {"1.png": png(), "1.json": json.dumps(values).encode(), "2.png": png()}
    tar = ShardSource(str(write_shard(tmp_path / "a.tar", members)))
    assert [tar.labels(index) for index in range(2)] == [{"class": "cat", "style": "noto"}, {}]
    assert tar.vocabulary(["style", "class"]) == {"style": ["noto"], "class": ["cat"]}


def test_links_are_followed_once_and_those_that_lead_nowhere_are_broken_images(tmp_path):
    folder, elsewhere = tmp_path / "all", tmp_path / "elsewhere"
    for place, value in ((folder / "a", 1), (elsewhere, 2)):
        place.mkdir(parents=True)
        (place / "1.png").write_bytes(png(value))
    (folder / "b").symlink_to(elsewhere)
    (folder / "b" / "up").symlink_to(folder)  # a circle
    (folder / "c").symlink_to(folder / "a")
    (folder / "d.png").symlink_to(tmp_path / "missing.png")
    (folder / "e.png").symlink_to(elsewhere / "1.png")
    os.mkfifo(folder / "f.png")
    source = FolderSource(folder)
    assert [source.key(index) for index in range(len(source))] == ["a/1", "b/1", "d", "e"]
    assert [source.read(index) for index in (0, 1, 3)] == [png(1), png(2), png(2)]
    assert source.vocabulary(["class"]) == {"class": ["a", "b"]}
    with pytest.raises(DataError, match="cannot be read") as error:
        source.read(2)
    one_line_naming(folder / "d.png", error)


def test_a_label_field_that_no_image_has_is_named(pictures):
    source = FolderSource(pictures)
    assert source.vocabulary(["class"]) == {"class": ["blue", "red", "red-dot"]}
    with pytest.raises(DataError, match="no image has a label 'style'"):
        source.vocabulary(["class", "style"])


def test_hidden_files_and_other_files_are_left_out(tmp_path, write_shard):
    names = ["1.png", "._1.png", ".ipynb_checkpoints/1.png", "notes.txt", "2.JPG"]
    for name in names:
        (tmp_path / "all" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "all" / name).write_bytes(png())
    assert [path.name for path in FolderSource(tmp_path / "all").files] == ["1.png", "2.JPG"]
    tar = ShardSource(str(write_shard(tmp_path / "all.tar", dict.fromkeys(names[:2], png()))))
    assert [image.member for image in tar.images] == ["1.png"]


# ---- what is refused ----------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["../../out.png", "/out.png", "a/../../b.png", "./../b.png"])
def test_a_name_that_leads_out_of_the_shard_is_refused(tmp_path, write_shard, name):
    good = write_shard(tmp_path / "0.tar", {"./a/1..png": png(), "a../b../2.png": png()})
    evil = write_shard(tmp_path / "1.tar", {"1.png": png(), name: png()})
    with pytest.raises(DataError, match="leads out of the shard; rename") as error:
        open_source(str(tmp_path / "*.tar"))
    one_line_naming(f"{evil}:{name}", error)
    messages = []
    assert len(open_source(str(tmp_path / "*.tar"), damaged_shards=messages)) == len(
        ShardSource(str(good))
    )
    assert len(messages) == 1


def test_a_name_that_is_not_text_is_refused(tmp_path, write_shard):
    name = os.fsdecode(b"caf\xe9")
    shard = write_shard(tmp_path / "a.tar", {f"{name}.png": png()})
    (tmp_path / "all" / name).mkdir(parents=True)
    (tmp_path / "all" / name / "1.png").write_bytes(png())
    for path in (shard, tmp_path / "all"):
        with pytest.raises(DataError, match=r"caf\?.*: its name is not UTF-8") as error:
            open_source(str(path))
        one_line_naming(path, error)


def test_a_sparse_member_and_huge_labels_are_refused(tmp_path, write_shard):
    shard = tmp_path / "a.tar"
    with tarfile.open(shard, "w", format=tarfile.PAX_FORMAT) as tar:
        member = tarfile.TarInfo("1.png")
        member.size = len(png())
        member.pax_headers = {"GNU.sparse.size": "9000", "GNU.sparse.map": f"8000,{len(png())}"}
        tar.addfile(member, io.BytesIO(png()))
    with pytest.raises(DataError, match="is a sparse file, which is not supported") as error:
        ShardSource(str(shard))
    one_line_naming(f"{shard}:1.png", error)
    shard = write_shard(tmp_path / "b.tar", {"1.png": png(), "1.txt": bytes(2**20 + 1)})
    with pytest.raises(DataError, match="has 1048577 bytes; at most 1048576 are allowed") as error:
        ShardSource(str(shard))
    one_line_naming(f"{shard}:1.txt", error)


@pytest.mark.parametrize("kind", [tarfile.XHDTYPE, tarfile.GNUTYPE_LONGNAME])
def test_headers_that_tarfile_stumbles_over_are_refused(tmp_path, write_shard, kind):
    """A sparse map that is none, and a name that never ends."""
    shard = tmp_path / "a.tar"
    record = b"22 GNU.sparse.major=1\n" + b"22 GNU.sparse.minor=0\n"
    with tarfile.open(shard, "w", format=tarfile.GNU_FORMAT) as tar:
        for _ in range(1 if kind == tarfile.XHDTYPE else 2000):
            header = tarfile.TarInfo("x")
            header.type, header.size = kind, len(record)
            tar.addfile(header, io.BytesIO(record))
        member = tarfile.TarInfo("1.png")
        member.size = 512
        tar.addfile(member, io.BytesIO(b"x" * 512))
    with pytest.raises(DataError, match="not a readable tar file") as error:
        ShardSource(str(shard))
    one_line_naming(shard, error)


@pytest.mark.parametrize("path", ["nowhere", "nowhere-{0..3}.tar", "nowhere-*.tar", "a{b.tar"])
def test_nothing_at_the_path(tmp_path, path):
    with pytest.raises(DataError, match=r"no data at|not a pattern") as error:
        open_source(str(tmp_path / path))
    one_line_naming(tmp_path / path, error)


def test_a_file_instead_of_a_folder(tmp_path):
    (tmp_path / "a.txt").write_text("x")
    with pytest.raises(DataError) as error:
        open_source(str(tmp_path / "a.txt"))
    one_line_naming(tmp_path / "a.txt", error)


def test_no_images(tmp_path, write_shard):
    (tmp_path / "empty").mkdir()
    (tmp_path / "empty" / "a.txt").write_text("x")
    shard = write_shard(tmp_path / "empty.tar", {"a.json": b"{}"})
    for path in (tmp_path / "empty", shard):
        with pytest.raises(DataError, match="no images in") as error:
            open_source(str(path))
        one_line_naming(path, error)


def test_a_folder_of_shards_says_how_to_name_them(tmp_path, write_shard):
    write_shard(tmp_path / "train-000000.tar", {"1.png": png()})
    with pytest.raises(DataError) as error:
        open_source(str(tmp_path))
    pattern = tmp_path / "train-*.tar"
    assert str(error.value).endswith(f"but shards; give a pattern such as {pattern}.")


@pytest.mark.parametrize("data", [b"", b"not a tar file" * 100, png()])
def test_not_a_tar_file(tmp_path, data):
    (tmp_path / "a.tar").write_bytes(data)
    with pytest.raises(DataError, match="not a readable tar file") as error:
        open_source(str(tmp_path / "a.tar"))
    one_line_naming(tmp_path / "a.tar", error)


def test_a_shard_cut_anywhere_before_its_end_mark_is_refused(tmp_path, write_shard):
    whole = write_shard(tmp_path / "a.tar", {f"{i}.png": png(i) for i in range(3)}).read_bytes()
    end = 3 * (512 + 512)  # a header and one block of data each
    assert whole[end:].count(0) == len(whole) - end
    for size in [*range(100, end, 97), 512, 1024, 2048, end - 1, end]:
        (tmp_path / "cut.tar").write_bytes(whole[:size])
        with pytest.raises(DataError) as error:
            ShardSource(str(tmp_path / "cut.tar"))
        one_line_naming(tmp_path / "cut.tar", error)


def test_garbage_after_the_first_image_is_not_taken_for_the_end(tmp_path, write_shard):
    shard = write_shard(tmp_path / "a.tar", {f"{i}.png": png(i) for i in range(3)})
    data = bytearray(shard.read_bytes())
    data[1024:1536] = b"\x07" * 512
    shard.write_bytes(data)
    with pytest.raises(DataError, match="after byte 1024") as error:
        ShardSource(str(shard))
    one_line_naming(shard, error)


def test_a_shard_cut_after_it_was_opened(tmp_path, write_shard):
    shard = write_shard(tmp_path / "a.tar", {"1.png": png()})
    source = ShardSource(str(shard))
    shard.write_bytes(shard.read_bytes()[:540])
    with pytest.raises(DataError, match="truncated") as error:
        source.read(0)
    one_line_naming(shard, error)
    shard.unlink()
    with pytest.raises(DataError, match="cannot be read"):
        source.read(0)


def test_an_image_removed_after_the_folder_was_opened(tmp_path, pictures):
    shutil.copytree(pictures / "red", tmp_path / "red")
    source = FolderSource(tmp_path)
    source.files[2].unlink()
    with pytest.raises(DataError, match="cannot be read") as error:
        source.read(2)
    one_line_naming(source.files[2], error)


@pytest.mark.parametrize(
    "text", [b"[1, 2]", b'"cat"', b"null", b"{", b"\xff\xfe", b"", b"[" * 200_000]
)
def test_json_that_is_not_an_object(tmp_path, write_shard, text):
    shard = write_shard(tmp_path / "a.tar", {"1.png": png(), "1.json": text})
    with pytest.raises(DataError, match="JSON") as error:
        ShardSource(str(shard)).labels(0)
    one_line_naming(f"{shard}:1.json", error)


def test_a_member_that_is_too_large_is_refused_before_it_is_read(
    tmp_path, write_shard, monkeypatch
):
    monkeypatch.setattr(shard_index, "MAX_MEMBER_BYTES", 1000)
    shard = write_shard(tmp_path / "a.tar", {"1.png": bytes(1001)})
    with pytest.raises(DataError, match="1001 bytes") as error:
        ShardSource(str(shard))
    one_line_naming(Path(f"{shard}:1.png"), error)


# ---- a selection --------------------------------------------------------------------------------


def test_only_images_with_the_wanted_labels_are_shown(pictures, tmp_path, write_shard):
    selected = open_source(str(pictures), only={"class": ["red-dot", "blue"]})
    whole = FolderSource(pictures)
    indices = [i for i in range(18) if whole.labels(i)["class"] in ("blue", "red-dot")]
    assert len(selected) == len(indices) == 12
    for index, original in enumerate(indices):
        assert selected.name(index) == whole.name(original)
        assert selected.read(index) == whole.read(original)
        assert selected.labels(index) == whole.labels(original)
    assert selected.vocabulary(["class"]) == {"class": ["blue", "red-dot"]}


def test_a_selection_by_two_fields_needs_both(tmp_path, write_shard):
    labels = [("cat", "noto"), ("cat", "sketch"), ("dog", "noto")]
    members = {}
    for number, (animal, style) in enumerate(labels):
        members[f"{number}.png"] = png(number)
        members[f"{number}.json"] = json.dumps({"animal": animal, "style": style}).encode()
    path = str(write_shard(tmp_path / "a.tar", members))
    selected = open_source(path, only={"animal": ["cat"], "style": ["noto"]})
    assert [selected.read(index) for index in range(len(selected))] == [png(0)]
    with pytest.raises(DataError, match=r"no image has all of .*'dog'.*'sketch'"):
        open_source(path, only={"animal": ["dog"], "style": ["sketch"]})


@pytest.mark.parametrize(
    ("only", "words"),
    [
        ({"class": ["blue", "redd"]}, "no image has class 'redd': did you mean 'red'"),
        ({"style": ["noto"]}, "no image has a label 'style'"),
    ],
)
def test_a_selection_of_what_no_image_has_is_refused(pictures, only, words):
    with pytest.raises(DataError, match=words) as error:
        open_source(str(pictures), only=only)
    assert "\n" not in str(error.value)
