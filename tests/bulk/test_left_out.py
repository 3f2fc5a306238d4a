from __future__ import annotations

from pathlib import Path

from cascade.bulk.left_out import LeftOut


def left_out(*names: str) -> LeftOut:
    paths = LeftOut()
    for name in names:
        paths.add_file(Path("in", name))
    return paths


def test_each_kind_is_counted_in_one_line_and_each_file_is_listed_on_request():
    paths = left_out("a.txt", "b.TXT", "c.xmp", ".d.png", "e.CR2", "f.nef", "g.mov", "h.zip", "i")
    paths.add_hidden_folder(Path("in/.git"))
    note = paths.note()
    assert note.text == (
        "left out: 9 files that are not images (2 .txt, 1 .cr2 raw camera file, 1 .mov video, 1 "
        ".nef raw camera file, 1 .xmp, 1 .zip archive, 1 hidden, 1 without suffix) and 1 hidden "
        "folder; --verbose lists them"
    )
    assert len(note.details) == len(paths) == 10
    assert "left out: in/e.CR2 (raw camera file)" in note.details
    assert "left out: in/.d.png (hidden)" in note.details
    assert "left out: in/.git (hidden folder)" in note.details
    assert "left out: in/i (without suffix)" in note.details


def test_one_file_and_several_of_a_kind_are_named_grammatically():
    assert left_out("a.txt").note().text.startswith("left out: 1 file that is not an image (1 .t")
    assert left_out("a.mp4", "b.mp4").counts() == "2 .mp4 videos"
    folders = LeftOut()
    folders.add_hidden_folder(Path(".git"))
    assert folders.note().text == "left out: 1 hidden folder; --verbose lists them"


def test_ledger_and_locks_are_no_files_of_the_user():
    paths = left_out(".cascade-upscale.jsonl")
    paths.add_hidden_folder(Path(".cascade-upscale.lock.d"))
    assert len(paths) == 0
