from __future__ import annotations

import io
import os
import re
import tarfile
from pathlib import Path

import numpy as np
import pytest
import tifffile
from PIL import Image

from cascade.bulk.searching import find_pictures
from cascade.data.shard_writing import write_tar
from cascade.errors import DataError, OutputError


def png(size: tuple[int, int] = (4, 4)) -> bytes:
    file = io.BytesIO()
    Image.new("RGB", size, "red").save(file, "PNG")
    return file.getvalue()


@pytest.fixture
def photos(tmp_path, monkeypatch) -> Path:
    """Pictures, hidden files and others, in folders; the folder around them is the current one."""
    for name in ("b.png", "a.JPG", "notes.txt", ".hidden.png", "sub/c.webp", "sub/deep/d.tiff"):
        path = tmp_path / "photos" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(png())
    (tmp_path / "photos" / ".trash").mkdir()
    (tmp_path / "photos" / ".trash" / "e.png").write_bytes(png())
    monkeypatch.chdir(tmp_path)
    return tmp_path / "photos"


def places(*inputs: str, **options) -> list[str]:
    return [str(picture.place) for picture in find_pictures(inputs, **options).pictures]


def test_folders_keep_their_structure_and_hidden_and_other_files_are_left_out(photos):
    assert places("photos") == ["a.JPG", "b.png", "sub/c.webp", "sub/deep/d.tiff"]
    listing = find_pictures(["photos"])
    assert {path.name: kind for path, kind in listing.left_out.kinds.items()} == {
        "notes.txt": ".txt",
        ".hidden.png": "hidden",
        ".trash": "hidden folder",
    }
    assert listing.unreadable == []
    assert [picture.name for picture in listing.pictures][2] == "photos/sub/c.webp"


@pytest.mark.parametrize(
    ("pattern", "expected"),
    [
        ("photos/*.png", ["b.png"]),
        ("photos/**/*.tiff", ["sub/deep/d.tiff"]),
        ("photos/**", ["a.JPG", "b.png", "sub/c.webp", "sub/deep/d.tiff"]),
        ("photos/s*", ["sub/c.webp", "sub/deep/d.tiff"]),  # folders, as a shell would give them
        ("*/sub/*", ["photos/sub/c.webp", "photos/sub/deep/d.tiff"]),
        ("photos/[ab].*", ["a.JPG", "b.png"]),
    ],
)
def test_globs_keep_the_structure_from_their_first_wildcard_on(photos, pattern, expected):
    assert places(pattern) == expected


def test_a_file_that_is_named_is_always_tried_and_goes_by_its_name_alone(photos):
    assert places("photos/notes.txt", "photos/.hidden.png", "photos/sub/deep/d.tiff") == [
        "notes.txt",
        ".hidden.png",
        "d.tiff",
    ]
    (photos / "odd[1].png").write_bytes(png())
    assert places("photos/odd[1].png") == ["odd[1].png"]  # no glob, because it is there


def test_a_picture_that_is_named_twice_is_taken_once(photos):
    (photos / "link.png").symlink_to(photos / "b.png")
    assert places("photos/b.png", "photos", "./photos/../photos/b.png") == [
        "b.png",
        "a.JPG",
        "sub/c.webp",
        "sub/deep/d.tiff",
    ]


LINKS = {
    "a file before it in the same folder": ("photos/0.png", "b.png"),
    "a folder before it": ("photos/0", "sub"),
    "a folder that is named first": ("0", "photos/sub"),
    "a file that is named first": ("0.webp", "photos/sub/c.webp"),
    "a deep folder": ("photos/sub/deep/deeper", "../.."),
}


@pytest.mark.parametrize("link", LINKS)
@pytest.mark.parametrize("reverse", [False, True])
def test_a_picture_found_through_a_link_is_written_at_its_own_place(photos, link, reverse):
    name, target = LINKS[link]
    Path(name).symlink_to(target)
    inputs = ["photos"] if name.startswith("photos") else [name, "photos"]
    found = places(*(reversed(inputs) if reverse else inputs))
    assert sorted(found) == ["a.JPG", "b.png", "sub/c.webp", "sub/deep/d.tiff"]


@pytest.mark.parametrize("reverse", [False, True])
def test_links_to_elsewhere_keep_their_place_unless_the_target_is_an_input_too(photos, reverse):
    Path("elsewhere").mkdir()
    Path("elsewhere/f.png").write_bytes(png((3, 3)))
    Path("photos/album").symlink_to("../elsewhere")
    Path("photos/0.png").symlink_to("../elsewhere/f.png")
    own = ["a.JPG", "b.png", "sub/c.webp", "sub/deep/d.tiff"]
    assert sorted(places("photos")) == sorted([*own, "album/f.png"])
    both = ["photos", "elsewhere"]
    assert sorted(places(*(reversed(both) if reverse else both))) == sorted([*own, "f.png"])
    assert places("photos/0.png") == ["0.png"]


def test_a_shard_found_through_a_link_keeps_its_own_folder(photos):
    write_tar(Path("set.tar"), [("3.png", png())])
    Path("0.tar").symlink_to("set.tar")
    assert places("*.tar") == ["set/3.png"]
    assert places("0.tar") == ["0/3.png"]


@pytest.mark.parametrize("name", ["photos", "photos/**", "photos/sub/*"])
def test_results_are_not_taken_for_inputs(photos, name):
    before = places(name)
    out = photos / "sub" / "large"
    out.mkdir()
    (out / "b.png").write_bytes(png())
    assert places(name, results=Path("photos/sub/large")) == before
    (photos.parent / "link").symlink_to(out)
    assert places(name, results=Path("link")) == before
    assert places(name) != before


@pytest.mark.parametrize("name", ["photos/sub", "photos/sub/**"])
def test_inputs_inside_the_folder_of_the_results_are_taken_whole(photos, name):
    assert places(name, results=photos) == ["c.webp", "deep/d.tiff"]


def test_links_to_folders_are_followed_once_and_loops_end(photos):
    (photos.parent / "elsewhere").mkdir()
    (photos.parent / "elsewhere" / "f.png").write_bytes(png())
    for name, target in (("album", "../elsewhere"), ("copy", "sub"), ("sub/loop", "..")):
        (photos / name).symlink_to(target)
    assert places("photos") == ["a.JPG", "b.png", "sub/c.webp", "sub/deep/d.tiff", "album/f.png"]


def test_the_folder_of_the_results_cannot_be_an_input(photos):
    with pytest.raises(OutputError, match="photos is an input, so the results cannot go there"):
        find_pictures(["photos"], results=photos.parent / "photos" / "sub" / "..")


def test_shards_give_their_pictures_into_a_folder_of_their_name(photos):
    members = [("cat/1.png", png((3, 2))), ("cat/1.json", b"{}"), ("2.jpg", png((5, 5)))]
    write_tar(Path("set-0.tar"), members)
    write_tar(Path("set-1.tar"), [("3.png", png())])
    both = ["set-0/2.jpg", "set-0/cat/1.png", "set-1/3.png"]
    assert places("set-0.tar", "set-1.tar") == both
    assert places("*.tar") == both
    assert places("set-{0..1}.tar") == both
    (picture,) = (each for each in find_pictures(["set-0.tar"]).pictures if each.place.stem == "1")
    assert picture.name == "set-0.tar:cat/1.png"
    assert picture.read().size == (2, 3)
    assert picture.stamp() == (len(png((3, 2))), os.stat("set-0.tar").st_mtime_ns)
    Path("alone.png").write_bytes(png((3, 2)))
    assert picture.sha256() == find_pictures(["alone.png"]).pictures[0].sha256()


def test_a_damaged_shard_is_noted_and_the_others_are_taken(photos):
    write_tar(Path("good.tar"), [("3.png", png())])
    Path("bad.tar").write_bytes(b"x" * 5000)
    listing = find_pictures(["bad.tar", "good.tar"])
    assert [str(picture.place) for picture in listing.pictures] == ["good/3.png"]
    ((name, reason),) = listing.unreadable
    assert name == "bad.tar"
    assert reason.startswith("not a readable tar file")


@pytest.mark.parametrize("member", ["../../out.png", "/etc/out.png", "a/../../out.png"])
def test_no_member_of_a_shard_leads_out_of_the_results(photos, member):
    with tarfile.open("evil.tar", "w") as tar:
        info = tarfile.TarInfo(member)
        info.size = len(png())
        tar.addfile(info, io.BytesIO(png()))
    listing = find_pictures(["evil.tar"])
    assert listing.pictures == []
    assert listing.unreadable == [
        (f"evil.tar:{member}", "its name leads out of the folder of results.")
    ]


def test_a_folder_that_cannot_be_read_is_noted_and_the_others_are_taken(photos, monkeypatch):
    scandir = os.scandir

    def refuse(path):
        if Path(path).name == "sub":
            raise PermissionError(13, "Permission denied", path)
        return scandir(path)

    monkeypatch.setattr(os, "scandir", refuse)
    listing = find_pictures(["photos"])
    assert [str(picture.place) for picture in listing.pictures] == ["a.JPG", "b.png"]
    assert listing.unreadable == [("photos/sub", "cannot be read (Permission denied).")]


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("nowhere", "nowhere: no such file or folder"),
        ("photos/*.gif", r"photos/\*.gif: matches no file or folder"),
        ("photos/*.txt", r"no images in photos/\*.txt \(1 .txt\); expected \.\w+, "),
        (
            "empty",
            r"no images in empty \(1 .tar archive\).*Name shards one by one or as 'a/\*.tar'",
        ),
        ("nowhere-{0..3}.tar", "no such shard"),
    ],
)
def test_nothing_to_do_is_an_error(photos, name, message):
    (photos.parent / "empty").mkdir()
    (photos.parent / "empty" / "a.tar").write_bytes(b"")
    with pytest.raises(DataError, match=message):
        find_pictures([name])


def test_one_input_that_is_not_there_is_an_error_beside_others(photos):
    for missing in ("photos/x.png", "photos/*.gif"):
        with pytest.raises(DataError, match=re.escape(missing)):
            find_pictures(["photos", missing])


def test_what_is_gone_or_no_file_is_one_clear_line(photos):
    (picture,) = find_pictures(["photos/b.png"]).pictures
    (photos / "b.png").unlink()
    for look in (picture.stamp, picture.sha256, picture.read):
        with pytest.raises(DataError, match=r"^photos/b.png: cannot be read \(No such file"):
            look()
    os.mkfifo("pipe.png")
    with pytest.raises(DataError, match=r"^pipe.png: not a file"):
        find_pictures(["pipe.png"]).pictures[0].stamp()


def test_the_sizes_of_pages_are_read_without_decoding_them(photos):
    (photos / "wide.png").write_bytes(png((70, 50))[:60])  # its head alone
    (photos / "text.png").write_text("hello")
    os.mkfifo("pipe.png")
    write_tar(Path("set.tar"), [("3.png", png((30, 20)))])
    tifffile.imwrite("pages.tif", np.zeros((3, 8, 9), np.uint8), photometric="minisblack")
    inputs = ["photos/wide.png", "photos/text.png", "pipe.png", "set.tar", "pages.tif"]
    heads = [picture.heads() for picture in find_pictures(inputs).pictures]
    sizes = [None if each is None else each.sizes for each in heads]
    assert sizes == [[(50, 70)], None, None, [(20, 30)], [(8, 9)] * 3]
