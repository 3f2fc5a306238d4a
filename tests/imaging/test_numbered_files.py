import json
from pathlib import Path

import pytest
from PIL import Image

from cascade.errors import OutputError
from cascade.imaging.numbered_files import NumberedFiles, free_number, number_of, picture_name
from cascade.imaging.writing import save_png


@pytest.mark.parametrize(
    ("prompt", "name"),
    [
        ("", "00012.png"),
        ("A cat, with heart-eyes!", "00012-a-cat-with-heart-eyes.png"),
        ("../a/b\\c:d.png\0", "00012-a-b-c-d-png.png"),
        ("🐱 ❤", "00012.png"),
        ("кот и 猫", "00012-кот-и-猫.png"),
        ("word " * 30, f"00012-{'-'.join(['word'] * 8)}.png"),
    ],
)
def test_a_name_has_the_first_words_of_the_prompt(prompt, name):
    assert picture_name(12, prompt) == name
    assert number_of(Path(name)) == 12
    assert number_of(Path(name).with_suffix(".base.png")) == 12


def test_no_name_is_too_long_for_a_file_system():
    assert len(picture_name(1_234_567, "猫" * 500).encode()) <= 200


def test_other_names_have_no_number(tmp_path):
    for name in ("cat.png", "photo-99.png", "2024-holiday.png", "20240131-1.png"):
        assert number_of(Path(name)) is None
        (tmp_path / name).touch()
    assert free_number(tmp_path) == 0
    (tmp_path / "grid-00004.png").touch()
    (tmp_path / "00003-a-cat.base.png").touch()
    assert free_number(tmp_path) == 5


def test_only_pictures_of_ours_are_replaced_and_forgotten(tmp_path):
    picture = Image.new("RGB", (2, 2))
    ours = [tmp_path / name for name in ("00000-a-cat.png", "00000-a-cat.base.png", "00001.png")]
    for file in ours:
        save_png(picture, file, {"seed": 1})
    theirs = tmp_path / "00000-holiday.png"
    picture.save(theirs)
    entries = [{"file": name} for name in ("00000-a-cat.png", "00001.png")]
    NumberedFiles(tmp_path, range(5, 6), is_listed=True).replace([5], [], entries)
    series = NumberedFiles(tmp_path, range(1), is_listed=True)
    new = tmp_path / "00000-a-dog.png"
    save_png(picture, new, {"seed": 1})
    series.replace([0], [new], [{"file": new.name, "prompt": "a 🐶"}])
    left = {path.name for path in tmp_path.glob("*.png")}
    assert left == {"00000-a-dog.png", "00000-holiday.png", "00001.png"}
    lines = series.index.read_text(encoding="utf-8").splitlines()
    assert [json.loads(line) for line in lines] == [
        {"file": "00001.png"},
        {"file": "00000-a-dog.png", "prompt": "a 🐶"},
    ]


def test_an_index_loses_nothing_when_lines_are_replaced(tmp_path):
    index = tmp_path / "index.jsonl"
    lines = ['{"file": "00001.png"}', "", '{"page": 3}', '{"file": "00000-a-cat.png"}', "[7]"]
    index.write_text("\n".join(lines))  # the last line has no line feed
    save_png(Image.new("RGB", (2, 2)), tmp_path / "00000-a-cat.png", {"seed": 1})
    NumberedFiles(tmp_path, range(2, 3), is_listed=True).replace([2], [], [{"file": "00002.png"}])
    assert index.read_text() == "\n".join([*lines, '{"file": "00002.png"}', ""])
    new = tmp_path / "00000.png"
    NumberedFiles(tmp_path, range(1), is_listed=True).replace([0], [new], [{"file": new.name}])
    assert index.read_text().splitlines() == [
        '{"file": "00001.png"}',
        '{"page": 3}',
        "[7]",
        '{"file": "00002.png"}',
        '{"file": "00000.png"}',
    ]
    assert list(tmp_path.glob("*.png")) == []


def test_the_line_of_a_deleted_picture_gives_way_to_that_of_the_new_one(tmp_path):
    index = tmp_path / "index.jsonl"
    index.write_text('{"file": "00000-a.png", "seed": 1}\n{"file": "00001-b.png", "seed": 2}\n')
    files = NumberedFiles(tmp_path, range(1), is_listed=True)
    files.replace([0], [], [{"file": "00000-a.png", "seed": 3}])
    assert index.read_text().splitlines() == [
        '{"file": "00001-b.png", "seed": 2}',
        '{"file": "00000-a.png", "seed": 3}',
    ]


@pytest.mark.parametrize("line", [b"not json", b"\xff", b"[" * 100_000])
def test_a_broken_index_is_named_with_its_line_before_anything_is_lost(tmp_path, line):
    content = b'{"file": "00000.png"}\n\n' + line + b"\n"
    (tmp_path / "index.jsonl").write_bytes(content)
    with pytest.raises(OutputError, match=r"index\.jsonl, line 3, is not JSON; correct or delete"):
        NumberedFiles(tmp_path, range(1), is_listed=True)
    (tmp_path / "00000.png").touch()
    with pytest.raises(OutputError, match="line 3"):
        NumberedFiles(tmp_path, range(1), is_listed=False)
    NumberedFiles(tmp_path, range(1, 2), is_listed=False)  # which leaves the index alone
    assert (tmp_path / "index.jsonl").read_bytes() == content
