from __future__ import annotations

import os
import re
from pathlib import Path, PurePosixPath, PureWindowsPath

import pytest

from cascade.bulk.inputs import InputPicture
from cascade.bulk.jobs import is_file_name, plan_jobs
from cascade.bulk.names import folding_of
from cascade.data.object_stores import StoredObject
from cascade.errors import DataError, OutputError


def pictures(*places: str, folder: Path = Path("in")) -> list[InputPicture]:
    return [InputPicture(folder / place, PurePosixPath(place)) for place in places]


def outputs(*places: str, **options) -> list[str]:
    jobs = plan_jobs(pictures(*places), Path("out"), **options).jobs
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
    (job,) = plan_jobs(pictures("a.jpg"), tmp_path / "b.webp", as_file=True).jobs
    assert job.output == tmp_path / "b.webp"
    with pytest.raises(OutputError, match=r"b.webp is not the name of a tiff file"):
        plan_jobs(pictures("a.jpg"), tmp_path / "b.webp", as_file=True, image_format="tiff")
    with pytest.raises(OutputError, match=r"results end in .png, .jpg, .jpeg, .webp, .tif, .tiff"):
        is_file_name(tmp_path / "b.bmp", inputs)
    with pytest.raises(OutputError, match="results end in"):
        is_file_name(tmp_path / "b.jp2", inputs)
    with pytest.raises(DataError, match=r"^nosuch\.jpg: no such file or folder\.$"):
        is_file_name(tmp_path / "b.webp", ["nosuch.jpg"])
    (tmp_path / "x.tar").touch()
    for many in (inputs * 2, [str(tmp_path)], [str(tmp_path / "x.tar")], ["*.jpg"], ["{0..1}.tar"]):
        with pytest.raises(OutputError, match="names one image, but there may be several inputs"):
            is_file_name(tmp_path / "b.webp", many)


def test_jpegs_and_animated_pngs_keep_their_suffix_and_new_formats_become_png():
    names = outputs("a.jfif", "b.jpe", "c.JIF", "d.apng", "e.heic", "f.avif", "g.jxl", "h.dib")
    kept = ["a.jfif", "b.jpe", "c.JIF", "d.apng", "e.png", "f.png", "g.png", "h.png"]
    assert names == kept


def test_seeds_stand_in_the_names_and_come_with_a_sheet():
    plan = plan_jobs(pictures("s/a.jpg"), Path("out"), seeds=[4, 5], compare=True)
    jobs, (sheet,) = plan.jobs, plan.sheets
    assert [(job.key, job.seed) for job in jobs] == [("s/a-seed4.jpg", 4), ("s/a-seed5.jpg", 5)]
    assert [str(job.sheet) for job in jobs] == [
        "out/compare/s/a-seed4.jpg.jpg",
        "out/compare/s/a-seed5.jpg.jpg",
    ]
    assert sheet.jobs == jobs
    assert str(sheet.path) == "out/s/a-variants.png"
    plan = plan_jobs(pictures("s/a.jpg"), Path("out"), seeds=[4])
    (job,) = plan.jobs
    assert (job.key, job.seed, job.sheet, plan.sheets) == ("s/a.jpg", 4, None, [])


@pytest.mark.parametrize("places", [["a.png", "a-seed1.png"], ["a.png", "a-variants.gif"]])
def test_two_inputs_never_share_a_result(places):
    assert len(set(outputs(*places, seeds=[1, 2]))) == 4


def test_a_result_and_the_sheet_of_another_never_share_a_name():
    with pytest.raises(OutputError, match=r"would both be written to out/compare/a\.png\.jpg"):
        outputs("a.png", "compare/a.png.jpg", compare=True)


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


def test_pictures_of_one_web_address_are_told_apart_by_their_queries():
    queries = [StoredObject(f"http://host/scan.png?id={number}") for number in (1, 2)]
    inputs = [InputPicture(Path("host/scan.png"), PurePosixPath("scan.png"), q) for q in queries]
    with pytest.raises(OutputError, match=r"would both be written to out/scan\.png") as error:
        plan_jobs(inputs, Path("out"))
    assert "?" not in str(error.value)


# ---- names that would be shared -----------------------------------------------------------------


@pytest.mark.parametrize(
    ("places", "options", "expected"),
    [
        (["a.gif", "a.png"], {}, ["a.gif.png", "a.png"]),
        (["s/a.jpg", "s/a.png"], {"image_format": "png"}, ["s/a.jpg.png", "s/a.png"]),
        (["a.tif", "a.tiff"], {"image_format": "png"}, ["a.png", "a.tiff.png"]),
        (["a.tif", "a.tiff"], {"image_format": "tiff"}, ["a.tif", "a.tiff"]),
        (["a.bmp", "a.gif", "a.jpg"], {"image_format": "webp"}, ["a.webp", "a.gif.webp",
                                                                 "a.jpg.webp"]),
        (["a.jpg", "a.png"], {"seeds": [1, 2], "image_format": "png"},
         ["a.jpg-seed1.png", "a.jpg-seed2.png", "a-seed1.png", "a-seed2.png"]),
        (["e\u0301.jpg", "\u00e9.jpg"], {}, ["e\u0301.jpg", "\u00e9.jpg.jpg"]),
        (["a.jpeg", "a.jpg", "a.jpg.png", "a.png"], {"image_format": "png"},
         ["a.jpeg.png", "a.jpg~509b0d46.png", "a.jpg.png", "a.png"]),
    ],
)  # fmt: skip
@pytest.mark.parametrize("reverse", [False, True])
def test_the_second_of_two_inputs_with_one_name_keeps_its_suffix(
    places, options, expected, reverse
):
    order = list(reversed(places)) if reverse else places
    plan = plan_jobs(pictures(*order), Path("out"), **options)
    assert {job.key for job in plan.jobs} == set(expected)
    by_input = {job.source.name: job.key for job in plan.jobs if job.seed in (0, 1)}
    assert [by_input[f"in/{place}"] for place in places] == expected[
        :: len(expected) // len(places)
    ]
    assert len(plan.notes) == (0 if len(places) == 2 and "a.tiff" in expected else 1)


def test_names_that_differ_by_case_count_as_one_where_the_folder_ignores_case(monkeypatch):
    names = ["A.png", "a.png", "b.png", "B.jpg"]
    assert outputs(*names, image_format="png") == ["A.png", "a.png", "b.png", "B.png"]
    monkeypatch.setattr("cascade.bulk.names._ignores_case", lambda folder: True)
    renamed = outputs(*names, image_format="png")
    assert renamed == ["A.png", "a.png.png", "b.png", "B.jpg.png"]


def test_a_result_keeps_its_name_when_inputs_are_added_or_removed():
    def plan(*places: str, made: dict[str, str]) -> list[str]:
        return outputs(
            *places,
            image_format="png",
            is_result_of=lambda place, picture: made.get(str(place)) == str(picture.place),
        )

    assert plan("a.jpg", made={}) == ["a.png"]
    assert plan("a.gif", "a.jpg", "a.png", made={"a.png": "a.jpg"}) == [
        "a.gif.png",
        "a.png",
        "a.png.png",
    ]
    assert plan("a.gif", made={"a.png": "a.jpg", "a.gif.png": "a.gif"}) == ["a.gif.png"]


def test_an_input_gives_way_to_an_earlier_result_that_has_its_name():
    made = {"a.png": "a.png", "a.jpg.png": "a.jpg"}
    places = outputs(
        *("a.jpg", "a.jpg.png", "a.png"),
        image_format="png",
        is_result_of=lambda place, picture: made.get(str(place)) == str(picture.place),
    )
    assert places == ["a.jpg.png", "a.jpg.png.png", "a.png"]


def test_one_note_tells_of_all_names_that_are_unusual():
    places = [f"{letter}.{suffix}" for letter in "abc" for suffix in ("jpg", "png")]
    (note,) = plan_jobs(pictures(*places), Path("out"), image_format="png").notes
    assert note.text == (
        "3 results keep the suffix of the input, to differ from another result: in/a.jpg -> "
        "a.jpg.png, in/b.jpg -> b.jpg.png and 1 more; --verbose lists them"
    )
    assert list(note.details) == [f"in/{letter}.jpg -> {letter}.jpg.png" for letter in "abc"]


def test_sheets_of_variants_differ_where_results_differ_in_suffix_alone():
    plan = plan_jobs(pictures("a.jpg", "a.png", "b.png"), Path("out"), seeds=[1, 2])
    assert [str(sheet.path) for sheet in plan.sheets] == [
        "out/a.jpg-variants.png",
        "out/a.png-variants.png",
        "out/b-variants.png",
    ]


def test_all_names_that_are_shared_are_listed():
    inputs = [*pictures("a.jpg", "b.jpg", "c.jpg"), *pictures("a.jpg", "b.jpg", folder=Path("x"))]
    with pytest.raises(OutputError) as error:
        plan_jobs(inputs, Path("out"))
    assert str(error.value) == (
        "in/a.jpg and x/a.jpg would both be written to out/a.jpg; in/b.jpg and x/b.jpg would both "
        "be written to out/b.jpg; rename inputs, name a folder above them, or run the command once "
        "for each."
    )


@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("n" * 251 + ".png", {}),
        ("n" * 250 + ".jpeg", {"image_format": "png"}),
        ("n" * 251 + ".png", {"image_format": "webp"}),
        ("ä" * 125 + ".png", {"seeds": [3, 4]}),
        ("n" * 255, {}),
        ("n" * 200 + "." + "x" * 54, {}),
    ],
)
def test_names_are_shortened_to_what_file_systems_hold(name, options):
    plan = plan_jobs(pictures(name, "b.png"), Path("out"), compare=True, **options)
    paths = [job.output for job in plan.jobs] + [sheet.path for sheet in plan.sheets]
    paths += [job.sheet for job in plan.jobs if job.sheet is not None]
    assert max(len(os.fsencode(path.name)) for path in paths) <= 255
    assert len(set(paths)) == len(paths)
    assert {path.suffix for path in paths} <= {".png", ".webp", ".jpg"}
    is_shortened = plan.jobs[0].key == name or "seeds" in options or "image_format" in options
    assert is_shortened or plan.notes[0].text.startswith("1 name too long for a file, shortened: ")
    again = plan_jobs(pictures(name, "b.png"), Path("out"), compare=True, **options)
    assert again.jobs == plan.jobs


def test_asking_a_folder_whether_it_ignores_case_leaves_nothing_there(tmp_path):
    upper = tmp_path / "A"
    upper.touch()
    ignores_case = (tmp_path / "a").exists()
    folded = folding_of(tmp_path / "not" / "there", ["A.png", "a.png"])
    assert (folded("A.png") == folded("a.png")) == ignores_case
    assert os.listdir(tmp_path) == ["A"]


# ---- Windows ------------------------------------------------------------------------------------


@pytest.fixture
def windows(monkeypatch) -> None:
    """The names of results are those that Windows gets."""
    monkeypatch.setattr("cascade.bulk.names.IS_WINDOWS", True)


FINE = ["a.png", "sub/console.png", "com10.png", "ä ö.png", ".hidden.png", "a.b.c.png", "nul-.png"]
WRONG = [
    "CON.png", "nul.tar.png", "aux .png", "com1.png", "LPT³.png", "sub/conin$.png", "prn/a.png",
    "a:b.png", "C:a.png", "..\\a.png", "a\\b.png", "what?.png", "a*.png", "<a>|b.png", 'a".png',
    "a\x07.png", "dir./a.png", "dir /a.png",
]  # fmt: skip


def test_names_that_windows_takes_are_kept(windows):
    assert outputs(*FINE) == FINE


@pytest.mark.parametrize("name", WRONG)
def test_names_that_windows_does_not_take_are_changed_and_reported(windows, name):
    plan = plan_jobs(pictures(name, "z.png"), Path("out"), seeds=[1, 2], compare=True)
    places = [PureWindowsPath(job.key) for job in plan.jobs]
    places += [PureWindowsPath(sheet.path.relative_to("out")) for sheet in plan.sheets]
    for place in places:
        assert not place.is_absolute()
        assert not place.drive
        assert ".." not in place.parts
        assert len(place.parts) == len(PurePosixPath(name).parts) or place.stem.startswith("z")
        assert not any(re.search(r'[<>:"|?*\x00-\x1f]|[. ]$', part) for part in place.parts)
        stems = {part.split(".")[0].rstrip().lower() for part in place.parts}
        assert not stems & {"con", "prn", "aux", "nul", "com1", "lpt³", "conin$"}
    assert len({str(place).casefold() for place in places}) == len(places) == 6
    assert plan.notes[0].text.startswith("1 name too long or not allowed for a file, changed: ")
    assert outputs(name) == outputs(name)


def test_names_that_become_alike_stay_apart(windows):
    assert len(set(outputs("a:b.png", "a?b.png", "a_b.png"))) == 3


def test_elsewhere_such_names_are_kept():
    assert outputs("CON.png", "a:b.png") == ["CON.png", "a:b.png"]
