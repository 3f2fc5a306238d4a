"""Labels and captions: where they come from, and which of two wins."""

from __future__ import annotations

import io
import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from cascade.conditioning.labels import Labels
from cascade.contract import Contract
from cascade.data.checking import check_images
from cascade.data.folder import FolderSource
from cascade.data.shards import ShardSource
from cascade.data.training_images import TrainingImages
from cascade.errors import DataError
from cascade.space import Space


def png(value: int = 0) -> bytes:
    file = io.BytesIO()
    Image.fromarray(np.full((4, 4, 3), value, np.uint8)).save(file, "PNG")
    return file.getvalue()


def make_folder(folder: Path, files: dict[str, bytes | str]) -> Path:
    for name, data in files.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data.encode() if isinstance(data, str) else data)
    return folder


def labels_of(folder: Path, **options) -> dict[str, dict[str, str]]:
    source = FolderSource(folder, **options)
    return {source.key(index): source.labels(index) for index in range(len(source))}


BESIDE = {
    "1.png": png(1),
    "1.json": json.dumps({"class": "cat", "caption": "of JSON", "width": 4}),
    "1.txt": "of text",
    "2.PNG": png(2),
    "2.txt": "\ufeff a cat,\nasleep \n",
    "red_3.png": png(3),
}
PATTERN = r"(?P<class>[a-z]+)_\d"


def test_a_folder_and_a_shard_give_the_same_labels_from_files_beside_the_images(
    tmp_path, write_shard
):
    labels = {
        "1": {"class": "cat", "caption": "of JSON"},
        "2": {"caption": "a cat,\nasleep"},
        "red_3": {"class": "red"},
    }
    assert labels_of(make_folder(tmp_path / "f", BESIDE), name_pattern=PATTERN) == labels
    members = {n: d.encode() if isinstance(d, str) else d for n, d in BESIDE.items()}
    shard = ShardSource(str(write_shard(tmp_path / "a.tar", members)), name_pattern=PATTERN)
    assert {shard.key(i): shard.labels(i) for i in range(3)} == labels


def test_of_two_images_with_one_key_both_are_read_and_share_their_labels(tmp_path, write_shard):
    members = {"1.png": png(1), "1.bmp": png(2), "1.txt": b"two"}
    folder = FolderSource(make_folder(tmp_path / "f", dict(members)))
    shard = ShardSource(str(write_shard(tmp_path / "a.tar", members)))
    for source in (folder, shard):
        assert [source.read(index) for index in range(2)] == [png(2), png(1)]
        assert [source.labels(index) for index in range(2)] == [{"caption": "two"}] * 2


def test_what_is_nearest_to_the_image_wins(tmp_path):
    sources = {  # the lower one is nearer
        "metadata": {"metadata.csv": "file_name,class\nfolder/name_1.png,metadata\n"},
        "json": {"folder/name_1.json": '{"class": "json"}'},
    }
    files: dict[str, bytes | str] = {"name_1.png": png(), "folder/name_1.png": png()}
    folder = make_folder(tmp_path, files)
    assert labels_of(folder, name_pattern=PATTERN) == {
        "name_1": {"class": "name"},
        "folder/name_1": {"class": "folder"},
    }
    for winner, more in sources.items():
        make_folder(tmp_path, dict(more))
        assert labels_of(folder, name_pattern=PATTERN)["folder/name_1"] == {"class": winner}


@pytest.mark.parametrize(
    ("name", "text"),
    [
        (
            "metadata.csv",
            '\ufefffile_name,style,text,empty\na/1.png,"ink, wash",x,\nno.png,oil,,\n',
        ),
        (
            "metadata.jsonl",
            '{"file_name": "a/1.png", "style": "ink, wash", "text": "x", "n": 1}\n\n'
            '{"file_name": "no.png", "style": "oil"}\n',
        ),
    ],
)
def test_a_table_at_the_root_gives_fields_by_file_name(tmp_path, name, text):
    folder = make_folder(tmp_path, {"a/1.png": png(), "a/2.png": png(), name: text})
    fields = {"class": "a", "style": "ink, wash", "text": "x"}
    assert labels_of(folder) == {"a/1": fields, "a/2": {"class": "a"}}


@pytest.mark.parametrize("text", ["a\u2028b", "a\x85b", "a\x0bb\x0cc"])
def test_only_line_ends_end_a_row_of_a_table(tmp_path, text):
    rows = {
        "metadata.csv": f"file_name,text\r\n1.png,{text}\r\n2.png,x\r\n",
        "metadata.jsonl": "".join(
            json.dumps({"file_name": name, "text": words}, ensure_ascii=False) + "\r\n"
            for name, words in (("1.png", text), ("2.png", "x"))
        ),
    }
    for name, table in rows.items():
        folder = make_folder(
            tmp_path / name, {"1.png": png(), "2.png": png(), name: table.encode()}
        )
        assert labels_of(folder) == {"1": {"text": text}, "2": {"text": "x"}}


@pytest.mark.parametrize(
    ("name", "text", "words"),
    [
        ("metadata.csv", "file,class\n1.png,cat\n", "no column file_name.*names 'file', 'class'"),
        ("metadata.csv", "file_name,class\nother.png,cat\n", "names none of the images"),
        ("metadata.csv", "file_name,class\n", "names none of the images"),
        ("metadata.csv", b"file_name\n\xff\n", "is not UTF-8 text; save it as UTF-8"),
        ("metadata.csv", "file_name\n".encode("utf-16"), "is not UTF-8 text but UTF-16"),
        ("metadata.csv", 'file_name\n"1.png\n', "cannot be read"),
        ("metadata.jsonl", "{\n", "not valid JSON"),
        ("metadata.jsonl", "[1]\n", "expected a JSON object"),
    ],
)
def test_a_table_that_is_not_one_is_named_in_one_line(tmp_path, name, text, words):
    folder = make_folder(tmp_path, {"1.png": png(), name: text})
    with pytest.raises(DataError, match=words) as error:
        FolderSource(folder)
    assert str(folder / name) in str(error.value)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("name", "data", "words"),
    [("1.json", b"{", "not valid JSON"), ("1.txt", b"\xff\xfe", "not UTF-8 text")],
)
def test_a_damaged_file_beside_an_image_is_named(tmp_path, write_shard, name, data, words):
    folder = FolderSource(make_folder(tmp_path / "f", {"1.png": png(), name: data}))
    with pytest.raises(DataError, match=words) as error:
        folder.labels(0)
    assert str(tmp_path / "f" / name) in str(error.value)
    shard = write_shard(tmp_path / "a.tar", {"1.png": png(), name: data})
    with pytest.raises(DataError, match=words) as error:
        ShardSource(str(shard)).labels(0)
    assert f"{shard}:{name}" in str(error.value)


def test_a_damaged_file_of_labels_makes_its_image_a_broken_one_and_no_other(tmp_path, write_shard):
    members: dict[str, bytes | str] = {f"{n}.png": png(n) for n in range(3)}
    members |= {f"{n}.json": b'{"class": "cat"}' for n in range(2)} | {"2.json": b"{"}
    shard = write_shard(tmp_path / "a.tar", members)
    for source in (FolderSource(make_folder(tmp_path / "f", members)), ShardSource(str(shard))):
        report = check_images(source)
        assert (report.images, len(report.broken)) == (3, 1)
        assert "2.json: not valid JSON" in report.broken[0]
        labels = Labels(fields=source.vocabulary(["class"]))
        assert labels.fields == {"class": ["cat"]}
        samples = TrainingImages(source, Contract(Space(size_px=4), (labels,)))
        drawn = [samples[place] for place in range(3)]
        assert [sample.conditions["labels"].tolist() for sample in drawn] == [[0]] * 3
        assert sum("2.json" in "".join(sample.broken) for sample in drawn) == 1


@pytest.mark.parametrize(
    ("pattern", "words"), [("(", "not valid"), (r"[a-z]+_\d", "no named group")]
)
def test_a_wrong_name_pattern_is_refused(tmp_path, pattern, words):
    with pytest.raises(DataError, match=rf"name_pattern .*{words}"):
        FolderSource(make_folder(tmp_path, {"1.png": png()}), name_pattern=pattern)
