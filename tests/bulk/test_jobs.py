from __future__ import annotations

import os
from pathlib import Path, PurePosixPath

import pytest

from cascade.bulk.inputs import InputPicture
from cascade.bulk.jobs import is_file_name, plan_jobs
from cascade.errors import OutputError


def pictures(*places: str, folder: Path = Path("in")) -> list[InputPicture]:
    return [InputPicture(folder / place, PurePosixPath(place)) for place in places]


def outputs(*places: str, **options) -> list[str]:
    jobs, _ = plan_jobs(pictures(*places), Path("out"), **options)
    assert [str(job.output) for job in jobs] == [f"out/{job.key}" for job in jobs]
    return [job.key for job in jobs]


def test_names_and_formats_are_those_of_the_inputs():
    names = ["a.JPG", "sub/b.jpeg", "c.png", "d.webp", "e.tif", "f.TIFF"]
    assert outputs(*names) == names
    renamed = outputs("a.gif", "sub/b.BMP", "scan.dat", "noending", "x.tar.png")
    assert renamed == ["a.png", "sub/b.png", "scan.dat.png", "noending.png", "x.tar.png"]


@pytest.mark.parametrize(
    ("image_format", "expected"),
    [
        ("jpeg", ["a.jpeg", "b.JPG", "c.jpg", "d.jpg"]),
        ("tiff", ["a.tif", "b.tif", "c.tif", "d.tif"]),
        ("png", ["a.png", "b.png", "c.png", "d.png"]),
        ("webp", ["a.webp", "b.webp", "c.webp", "d.webp"]),
    ],
)
def test_a_format_changes_the_endings_that_are_of_another(image_format, expected):
    assert outputs("a.jpeg", "b.JPG", "c.webp" if image_format == "webp" else "c.png", "d.gif",
                   image_format=image_format) == expected  # fmt: skip


def test_one_file_may_be_given_its_name(tmp_path):
    (tmp_path / "a.jpg").touch()
    (tmp_path / "folder.png").mkdir()
    inputs = [str(tmp_path / "a.jpg")]
    assert is_file_name(tmp_path / "b.webp", inputs)
    assert not is_file_name(tmp_path / "b", inputs)
    assert not is_file_name(tmp_path / "folder.png", inputs)
    (job,), _ = plan_jobs(pictures("a.jpg"), tmp_path / "b.webp", as_file=True)
    assert job.output == tmp_path / "b.webp"
    with pytest.raises(OutputError, match=r"b.webp is not the name of a tiff file"):
        plan_jobs(pictures("a.jpg"), tmp_path / "b.webp", as_file=True, image_format="tiff")
    with pytest.raises(OutputError, match=r"results end in .png, .jpg, .jpeg, .webp, .tif, .tiff"):
        is_file_name(tmp_path / "b.gif", inputs)
    for many in (inputs * 2, [str(tmp_path)], ["x.tar"]):
        with pytest.raises(OutputError, match="names one picture, but there may be several inputs"):
            is_file_name(tmp_path / "b.webp", many)


def test_jpegs_and_animated_pngs_keep_their_suffix_and_new_formats_become_png():
    names = outputs("a.jfif", "b.jpe", "c.JIF", "d.apng", "e.heic", "f.avif", "g.jxl", "h.dib")
    kept = ["a.jfif", "b.jpe", "c.JIF", "d.apng", "e.png", "f.png", "g.png", "h.png"]
    assert names == kept


def test_seeds_stand_in_the_names_and_come_with_a_sheet():
    jobs, (sheet,) = plan_jobs(pictures("s/a.jpg"), Path("out"), seeds=[4, 5], compare=True)
    assert [(job.key, job.seed) for job in jobs] == [("s/a-seed4.jpg", 4), ("s/a-seed5.jpg", 5)]
    assert [str(job.sheet) for job in jobs] == [
        "out/compare/s/a-seed4.jpg.jpg",
        "out/compare/s/a-seed5.jpg.jpg",
    ]
    assert sheet.jobs == jobs
    assert str(sheet.path) == "out/s/a-variants.png"
    (job,), none = plan_jobs(pictures("s/a.jpg"), Path("out"), seeds=[4])
    assert (job.key, job.seed, job.sheet, none) == ("s/a.jpg", 4, None, [])


@pytest.mark.parametrize(
    ("places", "options", "shared"),
    [
        (["a.png", "a.gif"], {}, "out/a.png"),
        (["a.png", "a.jpg"], {"image_format": "webp"}, "out/a.webp"),
        (["a.png", "compare/a.png.jpg"], {"compare": True}, "out/compare/a.png.jpg"),
        (["a.png", "a-seed1.png"], {"seeds": [1, 2]}, None),
        (["a.png", "a-variants.gif"], {"seeds": [1, 2]}, None),
    ],
)
def test_two_inputs_never_share_a_result(places, options, shared):
    if shared is None:
        assert len(set(outputs(*places, **options))) == 4
        return
    with pytest.raises(OutputError, match=f"in/.* and in/.* would both be written to {shared};"):
        outputs(*places, **options)


@pytest.mark.parametrize("link", [None, os.symlink, os.link])
def test_no_result_takes_the_place_of_an_input(tmp_path, link):
    source, out = tmp_path / "a.png", tmp_path if link is None else tmp_path / "out"
    source.write_bytes(b"x")
    out.mkdir(exist_ok=True)
    if link is not None:
        link(source, out / "a.png")
    with pytest.raises(
        OutputError, match=r"a.png is the input .*a.png itself; choose another place"
    ):
        plan_jobs(pictures("a.png", folder=tmp_path), out)
    other = pictures("b.png", folder=tmp_path) + pictures("a.png", folder=tmp_path)
    with pytest.raises(OutputError, match="is the input"):
        plan_jobs(other, out)
    assert source.read_bytes() == b"x"
