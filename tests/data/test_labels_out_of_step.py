"""Labels that do not fit the images are counted and named, and never given to another image."""

from __future__ import annotations

import io
import os
import re
import unicodedata
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from cascade.data import notes
from cascade.data.checking import check_images
from cascade.data.folder import FolderSource
from cascade.data.notes import FaultKind, SourceFault, SourceNotes, check_share, notes_for
from cascade.data.shards import ShardSource
from cascade.data.sources import open_source
from cascade.errors import DataError


def png(value: int = 0) -> bytes:
    file = io.BytesIO()
    Image.fromarray(np.full((4, 4, 3), value, np.uint8)).save(file, "PNG")
    return file.getvalue()


def make_folder(folder: Path, files: dict[str, bytes | str]) -> FolderSource:
    for name, data in files.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data.encode() if isinstance(data, str) else data)
    return FolderSource(folder)


def with_table(folder: Path, rows: str, *images: str) -> FolderSource:
    pictures: dict[str, bytes | str] = {name: png(place) for place, name in enumerate(images)}
    return make_folder(folder, {**pictures, "metadata.csv": f"file_name,class\n{rows}"})


def labels_of(source: FolderSource | ShardSource) -> dict[str, dict[str, str]]:
    return {source.key(index): source.readable_labels(index) for index in range(len(source))}


def faults_of(source: FolderSource | ShardSource, kind: FaultKind) -> list[str]:
    return [str(fault) for fault in source.notes.faults if fault.kind == kind]


# ---- tables -------------------------------------------------------------------------------------


def test_a_table_in_step_gives_no_fault(tmp_path):
    source = with_table(tmp_path, "1.png,cat\n./2.png,\n,\n\n", "1.png", "2.png")
    assert source.notes == SourceNotes(other_files={".csv": ()})
    assert source.notes.lines(verbose=True) == []
    assert labels_of(source) == {"1": {"class": "cat"}, "2": {}}


@pytest.mark.parametrize(
    ("rows", "kind", "text"),
    [
        ("1.png,a\n2.png,b\ngone.png,c\n", notes.ROW_WITHOUT_IMAGE, "line 4: there is no image"),
        ("1.png,a\n", notes.IMAGE_WITHOUT_ROW, "2.png: has no row in metadata.csv"),
        ("1.png,a\n2.PNG,b\n", notes.OTHER_CASE, "line 3: names '2.PNG', but the image is '2.png'"),
        ("1.png,a\n2.png,b\n2.png,b\n", notes.REPEATED_ROW, "line 4: repeats line 3, for '2.png'"),
        ("1.png,a\n2.png,b\n2.png,c\n", notes.CONTRADICTING_ROWS, "2.png: lines 3, 4 of"),
        ("1.png,a\n2.png,b, c\n", notes.UNREADABLE_ROW, "line 3 of .*has 3 values for 2 columns"),
        ("1.png,a\n2.png\n", notes.UNREADABLE_ROW, "line 3 of .*has 1 values for 2 columns"),
        ("1.png,a\n2.png,b\n,cat\n", notes.UNREADABLE_ROW, "line 4: names no file"),
    ],
)
def test_each_fault_of_a_table_is_one_and_is_named(tmp_path, rows, kind, text):
    source = with_table(tmp_path, rows, "1.png", "2.png")
    assert [fault.kind for fault in source.notes.faults] == [kind]
    (fault,) = source.notes.faults
    (line,) = source.notes.lines()
    assert line == f"1 {kind.one}: {fault}"
    assert re.search(text, line)
    assert fault.harmless == (kind == notes.REPEATED_ROW)


def test_an_image_whose_rows_contradict_or_cannot_be_read_is_broken_and_has_no_label(tmp_path):
    rows = "1.png,cat\n1.png,dog\n2.png,a, b\n3.png,cat\n3.png,cat\n"
    source = with_table(tmp_path, rows, "1.png", "2.png", "3.png")
    assert labels_of(source) == {"1": {}, "2": {}, "3": {"class": "cat"}}
    for index in range(2):
        with pytest.raises(DataError, match=r"give it different labels|has 3 values"):
            source.labels(index)
    report = check_images(source)
    harmful = [str(fault) for fault in source.notes.harmful]
    assert sorted(report.broken) == sorted(harmful)  # so that a command prints each once
    assert source.notes.without(report.broken).harmful == []


def test_a_name_in_another_case_is_not_taken_for_the_image(tmp_path):
    source = with_table(tmp_path, "A.png,cat\na.png,dog\nB.png,cat\n", "a.png", "b.png")
    assert labels_of(source) == {"a": {"class": "dog"}, "b": {}}
    assert len(faults_of(source, notes.OTHER_CASE)) == 2
    assert not faults_of(source, notes.IMAGE_WITHOUT_ROW)


def test_a_folder_is_no_class_where_the_table_gives_classes(tmp_path):
    names = ["images/1.png", "images/2.png", "images/3.png"]
    source = with_table(tmp_path / "class", "images/1.png,cat\nimages/2.png,\n", *names)
    assert labels_of(source) == {"images/1": {"class": "cat"}, "images/2": {}, "images/3": {}}
    unlabelled = source.survey(["class"]).unlabelled
    assert sorted(unlabelled) == [source.name(1), source.name(2)]
    files = {names[0]: png(), names[1]: png(1), "metadata.csv": f"file_name,sex\n{names[0]},f\n"}
    other = make_folder(tmp_path / "sex", files)
    assert labels_of(other) == {
        "images/1": {"class": "images", "sex": "f"},
        "images/2": {"class": "images"},
    }


def test_spaces_around_labels_and_column_names_are_no_part_of_them(tmp_path):
    text = 'file_name, class , note\n1.png, cat, "a, b"\n2.png,cat ,\n'
    source = make_folder(tmp_path, {"1.png": png(), "2.png": png(1), "metadata.csv": text})
    assert labels_of(source) == {"1": {"class": "cat", "note": "a, b"}, "2": {"class": "cat"}}


def test_two_images_whose_names_differ_in_case_have_labels_of_their_own(tmp_path):
    source = with_table(tmp_path, "a.png,cat\nA.png,dog\n", "a.png", "A.png")
    assert labels_of(source) == {"A": {"class": "dog"}, "a": {"class": "cat"}}
    assert not source.notes.faults


@pytest.mark.parametrize("form", ["NFC", "NFD"])
def test_a_name_in_another_unicode_form_is_the_same_name_unless_both_exist(tmp_path, form):
    nfc, nfd = (unicodedata.normalize(each, "é.png") for each in ("NFC", "NFD"))
    image, row = (nfc, nfd) if form == "NFC" else (nfd, nfc)
    source = with_table(tmp_path / "one", f"{row},cat\n", image)
    assert source.labels(0) == {"class": "cat"}
    (fault,) = source.notes.faults
    assert (fault.kind, fault.harmless) == (notes.OTHER_UNICODE_FORM, True)
    both = with_table(tmp_path / "both", f"{nfc},cat\n{nfd},dog\n", nfc, nfd)
    assert labels_of(both) == {nfc[:-4]: {"class": "cat"}, nfd[:-4]: {"class": "dog"}}
    assert not both.notes.faults


def test_a_backslash_and_a_second_table_are_named(tmp_path):
    files = {"b/1.png": png(), "a.png": png(1), "b/metadata.csv": "x", "Metadata.JSONL": "x"}
    make_folder(tmp_path, {**files, "metadata.csv": "file_name,k\na.png,v\nb\\1.png,w\n"})
    source = FolderSource(tmp_path)
    (slash,) = faults_of(source, notes.OTHER_SLASH)
    assert r"names 'b\1.png', but the image is 'b/1.png'" in slash
    unread = faults_of(source, notes.UNREAD_TABLE)
    assert [line.split(":")[0] for line in unread] == [
        str(tmp_path / "Metadata.JSONL"),
        str(tmp_path / "b" / "metadata.csv"),
    ]


def test_a_table_of_another_name_is_named_where_labels_are_missing(tmp_path):
    files = {"a.png": png(), "captions.csv": "filename,text\na.png,cat\n", "b/x.csv": "x"}
    source = make_folder(tmp_path, files)
    (fault,) = (each for each in source.notes.faults if each.kind == notes.UNREAD_TABLE)
    table = tmp_path / "captions.csv"
    assert str(fault).startswith(f"{table}: is not read; a table of labels must be called metadata")
    assert fault.harmless  # it may be about something else
    with pytest.raises(DataError, match=rf"a label 'text'; .*{re.escape(str(table))}: is not read"):
        source.survey(["text"])
    with_table(tmp_path, "a.png,cat\n", "a.png")
    assert not faults_of(FolderSource(tmp_path), notes.UNREAD_TABLE)


def test_a_row_of_json_lines_is_named_by_its_line(tmp_path):
    rows = '{"file_name": "1.png", "k": "a"}\n\n{"file_name": "x.png"}\n{"k": "b"}\n'
    source = make_folder(tmp_path, {"1.png": png(), "metadata.jsonl": rows})
    table = tmp_path / "metadata.jsonl"
    assert faults_of(source, notes.ROW_WITHOUT_IMAGE) == [
        f"{table}: line 3: there is no image 'x.png'."
    ]
    assert faults_of(source, notes.UNREADABLE_ROW) == [f"{table}: line 4: has no text file_name."]


@pytest.mark.parametrize(
    ("columns", "words"),
    [
        ("file_name;class", r"names 'file_name;class'\. Separate the columns by commas"),
        ("file_name,class,class", "has several columns 'class'"),
    ],
)
def test_columns_that_would_lose_labels_are_refused(tmp_path, columns, words):
    files = {"1.png": png(), "metadata.csv": f"{columns}\n1.png,cat,dog\n"}
    with pytest.raises(DataError, match=words):
        make_folder(tmp_path, files)


def test_an_image_with_labels_of_its_own_needs_no_row(tmp_path):
    files = {"1.png": png(), "2.png": png(1), "2.json": '{"class": "dog"}'}
    source = make_folder(tmp_path, {**files, "metadata.csv": "file_name,class\n1.png,cat\n"})
    assert not source.notes.faults


# ---- files of labels ----------------------------------------------------------------------------

BESIDE: dict[str, bytes | str] = {
    **{f"{number}.png": png(number) for number in range(5)},
    "0.txt": "zero",
    "1.TXT": "one",
    "2.png.txt": "two",
    "A3.txt": "three",
    "a3.png": png(9),
    "gone.txt": "gone",
    "4.bmp": png(10),
    "4.txt": "four",
    "labels.json": "{}",
}


@pytest.mark.parametrize("sort", ["folder", "shard"])
def test_files_of_labels_without_an_image_of_their_own_are_named(tmp_path, write_shard, sort):
    if sort == "folder":
        source, place = make_folder(tmp_path, BESIDE), f"{tmp_path}/"
    else:
        members = {n: d.encode() if isinstance(d, str) else d for n, d in BESIDE.items()}
        members["A3.TXT"] = members.pop("A3.txt")
        shard = write_shard(tmp_path / "s.tar", members)
        source, place = ShardSource(str(shard)), f"{shard}:"
    captions = {"0": "zero", "1": "one", "4": "four"}
    own = {key: {"caption": text} for key, text in captions.items()}
    assert labels_of(source) == {**own, "2": {}, "3": {}, "a3": {}}
    (case,) = faults_of(source, notes.OTHER_CASE)
    assert "differs from the image 'a3.png' in upper and lower case; rename it." in case
    (shared,) = faults_of(source, notes.SHARED_LABELS)
    assert shared == f"{place}4.txt: gives its labels to 2 images: 4.bmp, 4.png."
    without = faults_of(source, notes.LABELS_WITHOUT_IMAGE)
    assert f"{place}gone.txt: has no image beside it." in without
    # webdataset ends the key of a member at its first dot, so this is another file of "2"
    if sort == "folder":
        assert f"{place}2.png.txt: for the labels of '2.png', name it 2.txt." in without
    assert source.notes.other_files[".json"] == (f"{place}labels.json",)  # no image has a .json


# ---- images without a label, and how many faults are too many -----------------------------------


def test_only_what_matters_to_the_labels_that_a_stage_reads_is_reported(tmp_path):
    files = {"1.png": png(), "2.png": png(1), "cat/3.png": png(2), "dead": b""}
    make_folder(tmp_path, {**files, "metadata.csv": "file_name,style\n1.png,ink\nx.png,ink\n"})
    (tmp_path / "dead").unlink()
    (tmp_path / "dead").symlink_to("nowhere")
    source = FolderSource(tmp_path)
    survey = source.survey(["class"])
    two = [str(tmp_path / name) for name in ("1.png", "2.png")]
    assert survey == ({"class": ["cat"]}, {name: ["class"] for name in two})
    faults = notes_for(source.notes, survey.unlabelled).faults
    assert [(fault.kind, fault.name) for fault in faults] == [
        (notes.DEAD_LINK, str(tmp_path / "dead")),
        (notes.ROW_WITHOUT_IMAGE, f"{tmp_path / 'metadata.csv'}: line 3"),
        (notes.IMAGE_WITHOUT_ROW, two[1]),  # not the one in the folder cat, which has its class
        (notes.IMAGE_WITHOUT_LABEL, two[0]),
    ]
    assert faults[-1].harmless
    assert str(faults[-1]) == f"{two[0]}: has no class."
    without_labels = notes_for(source.notes, None).faults
    assert [fault.kind for fault in without_labels] == [notes.DEAD_LINK]


def test_as_many_faults_are_allowed_as_broken_images(tmp_path):
    faults = [SourceFault(notes.ROW_WITHOUT_IMAGE, f"line {n}", "no.") for n in range(5)]
    faults += [SourceFault(notes.REPEATED_ROW, "line 9", "repeats.", harmless=True)] * 9
    check_share(SourceNotes(tuple(faults)), 500, 0.01, command="check")
    with pytest.raises(DataError) as error:
        check_share(SourceNotes(tuple(faults)), 499, 0.01, command="cascade data check x")
    assert str(error.value) == (
        "5 rows without an image among 499 images, but max_broken_share=0.01 allows 4: line 0: no. "
        "line 1: no. line 2: no. … and 2 more; cascade data check x lists them all."
    )
    with pytest.raises(DataError, match="allows 0: line 0"):
        check_share(SourceNotes(tuple(faults[:1])), 499, 0, command="check")


def test_an_image_that_cannot_be_selected_for_lack_of_a_label_is_named(tmp_path):
    rows = "1.png,cat\n2.png,cat\n2.png,dog\n"
    make = with_table(tmp_path, rows, "1.png", "2.png")
    selected = open_source(str(tmp_path), only={"class": ["cat"]})
    assert [selected.key(index) for index in range(len(selected))] == ["1"]
    (fault,) = selected.notes.harmful
    assert fault.kind == notes.NOT_SELECTED
    assert fault.name == make.name(1)


# ---- files that are not images ------------------------------------------------------------------


def test_what_is_not_an_image_in_a_folder_is_counted_by_kind(tmp_path):
    names = ["1.png", "a.PDF", "b.pdf", "c/notes.txt", "README", ".DS_Store", ".git/2.png"]
    make_folder(tmp_path, {name: png() for name in names})
    os.mkfifo(tmp_path / "f.png")
    source = FolderSource(tmp_path)
    place = f"{tmp_path}/"
    assert source.notes.other_files == {
        ".pdf": (f"{place}a.PDF", f"{place}b.pdf"),
        "hidden folder": (f"{place}.git",),
        "hidden": (f"{place}.DS_Store",),
        "without suffix": (f"{place}README",),
        "not a regular file": (f"{place}f.png",),
        ".txt": (f"{place}c/notes.txt",),
    }
    counts = "2 .pdf, 1 .txt, 1 hidden, 1 not a regular file, 1 without suffix"
    head = f"left out: 6 files that are not images ({counts}) and 1 hidden folder"
    assert source.notes.lines(hint="; more") == [f"{head}; more"]
    assert source.notes.lines(verbose=True)[:2] == [f"{head}:", f"  {place}a.PDF (.pdf)"]
    assert len(source.notes.lines(verbose=True)) == 8


def test_a_folder_without_an_image_says_what_it_holds(tmp_path):
    with pytest.raises(DataError, match=r"no images in .*; looked for .*2 files .* \(2 \.pdf\)"):
        make_folder(tmp_path, {"a.pdf": b"", "b.pdf": b""})


def test_what_is_not_an_image_in_a_shard_is_counted_by_kind(tmp_path, write_shard):
    members = [
        "x/1.JPG",
        "x/1.JSON",
        "x/1.mask.png",
        "x/1.npy",
        "README",
        ".git/2.png",
        "a/._1.png",
    ]
    members += ["v1.2.png", "b.c/2.png"]
    data = {name: b"{}" if name.endswith("JSON") else png() for name in members}
    shard = write_shard(tmp_path / "s.tar", {**data, "x/1.JSON": b'{"class": "cat"}'})
    source = ShardSource(str(shard))
    assert labels_of(source) == {"x/1": {"class": "cat"}, "b.c/2": {}}
    assert source.notes.other_files == {
        ".mask.png": (f"{shard}:x/1.mask.png",),
        ".npy": (f"{shard}:x/1.npy",),
        "without suffix": (f"{shard}:README",),
        "hidden": (f"{shard}:.git/2.png", f"{shard}:a/._1.png"),
    }
    (dotted,) = faults_of(source, notes.DOTTED_NAME)
    assert dotted.startswith(f"{shard}:v1.2.png: webdataset takes '2.png' for its suffix")


# ---- links --------------------------------------------------------------------------------------


def test_an_image_found_through_links_is_read_once_at_its_own_place(tmp_path):
    files = {"m/1.png": png(1), "z/2.png": png(2), "z/2.txt": "two"}
    make_folder(tmp_path, dict(files))
    (tmp_path / "a").symlink_to("z")  # before the place it leads to
    (tmp_path / "m" / "loop").symlink_to(tmp_path)
    (tmp_path / "m" / "0.png").symlink_to("../z/2.png")
    (tmp_path / "self").symlink_to("self")
    (tmp_path / "gone").symlink_to("nowhere")
    source = FolderSource(tmp_path)
    assert labels_of(source) == {
        "m/1": {"class": "m"},
        "z/2": {"class": "z", "caption": "two"},
    }
    assert faults_of(source, notes.SECOND_LINK) == [
        f"{tmp_path / 'm' / '0.png'}: is not read, because {tmp_path / 'z' / '2.png'} is."
    ]
    dead = faults_of(source, notes.DEAD_LINK)
    assert dead == [
        f"{tmp_path / name}: there is nothing at {target}; repair or remove the link."
        for name, target in (("gone", "nowhere"), ("self", "self"))
    ]


def test_a_dangling_link_to_an_image_is_a_broken_image_that_names_the_target(tmp_path):
    make_folder(tmp_path, {"1.png": png()})
    (tmp_path / "2.png").symlink_to("nowhere.png")
    report = check_images(FolderSource(tmp_path))
    reason = "cannot be read (a link to nowhere.png, where nothing is)."
    assert report.broken == [f"{tmp_path / '2.png'}: {reason}"]


def test_a_folder_that_cannot_be_read_is_named(tmp_path, monkeypatch):
    make_folder(tmp_path, {"1.png": png(), "shut/2.png": png()})
    scan = os.scandir

    def refuse(path: str) -> object:
        if str(path).endswith("shut"):
            raise PermissionError(13, "Permission denied", str(path))
        return scan(path)

    monkeypatch.setattr(os, "scandir", refuse)
    (fault,) = FolderSource(tmp_path).notes.harmful
    assert fault.kind == notes.UNREADABLE_FOLDER
    assert str(fault).startswith(f"{tmp_path / 'shut'}: cannot be read (Permission denied)")
