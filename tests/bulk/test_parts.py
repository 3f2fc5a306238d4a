"""Parts of the inputs: each input in exactly one, and nothing missing when they are joined."""

from __future__ import annotations

import json
import random
import re
import shutil
from collections.abc import Callable
from pathlib import Path, PurePosixPath

import pytest
import typer

from cascade.bulk import standing
from cascade.bulk.joining import join_parts
from cascade.bulk.parts import Part
from cascade.cli import parts as cli_parts
from cascade.cli.main import app
from cascade.data.shard_writing import write_tar
from cascade.errors import ContractError, DataError, OutputError

NAMES = [PurePosixPath(f"folder-{number % 7}/{number}.jpg") for number in range(300)]
HERE = "missing: part 2/3, which has no record here; run it, or name its folder"


def part(text: str) -> Part:
    return Part.parse(text)


# ---- which input belongs to which part ----------------------------------------------------------


@pytest.mark.parametrize("count", [1, 2, 7])
def test_every_input_belongs_to_exactly_one_part_and_the_parts_are_of_similar_size(count):
    parts = [Part(count, number + 1) for number in range(count)]
    owners = [[each.number for each in parts if each.holds(name)] for name in NAMES]
    assert all(len(each) == 1 for each in owners)
    assert min(owners.count([each.number]) for each in parts) > 0.6 * len(NAMES) / count


def test_inputs_that_compete_for_one_name_are_in_the_same_part():
    rivals = ["a/é.jpg", "a/é.TIF", "a/É.png.nii.gz", "a/e\u0301.webp", "a/é-doubt.png"]
    rivals += ["compare/a/é.png.jpg", "a/é.jpg-doubt.png", "a/é-variants.png", "a/é-seed3.png"]
    (owner,) = {
        number for number in range(1, 98) for name in rivals
        if Part(97, number).holds(PurePosixPath(name))
    }  # fmt: skip
    assert not Part(97, owner).holds(PurePosixPath("b/é.jpg"))


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("0/4", "there is no part 0/4; of 4 parts, the first is 1/4 and the last 4/4"),
        ("5/4", "there is no part 5/4; of 4 parts"),
        ("1/0", "there is no part 1/0; the number of parts must be at least 1"),
        ("x", "a part is a text such as 3/8, the third of eight; got 'x'"),
        ("-1/4", "a part is a text such as 3/8"),
        ("1/4/2", "a part is a text such as 3/8"),
        ("", "a part is a text such as 3/8"),
    ],
)
def test_a_part_that_is_none_is_one_clear_line(command, text, message):
    with pytest.raises(ContractError, match=f"^{message}"):
        part(text)
    done = command("upscale", "photos", "-o", "out", "--part", text)
    assert done.code == 2
    assert message in " ".join(done.err.split())


def array(**values: int) -> dict[str, str]:
    names = {"id": "ID", "count": "COUNT", "first": "MIN", "last": "MAX", "step": "STEP"}
    return {f"SLURM_ARRAY_TASK_{names[name]}": str(value) for name, value in values.items()}


@pytest.mark.parametrize(
    ("environment", "expected"),
    [
        ({}, None),
        ({"SLURM_ARRAY_TASK_ID": "3"}, None),
        (array(id=1, count=8), "1/8"),
        (array(id=0, count=8, first=0, last=7, step=1), "1/8"),
        (array(id=7, count=8, first=0, last=7, step=1), "8/8"),
        (array(id=4, count=3, first=2, last=6, step=2), "2/3"),
        (array(id=5, count=1, first=5, last=5, step=1), "1/1"),
    ],
)
def test_the_tasks_of_a_slurm_array_are_the_parts(environment, expected):
    assert cli_parts.part_of_array(environment) == (expected and part(expected))


@pytest.mark.parametrize(
    "environment",
    [
        array(id=3, count=3, first=1, last=7, step=1),  # --array=1,3,7
        array(id=3, count=3, first=2, last=6, step=2),
        {"SLURM_ARRAY_TASK_ID": "x", "SLURM_ARRAY_TASK_COUNT": "3"},
    ],
)
def test_an_array_with_gaps_names_no_part(environment):
    with pytest.raises(ContractError, match="not numbered evenly"):
        cli_parts.part_of_array(environment)


# ---- parts that are run and joined --------------------------------------------------------------


def run(copying: Callable, number: str, *inputs: str, out: str = "out", **values):
    """Run a part, and return its outcome."""
    work = copying(*(inputs or ("photos",)), out=out, part=part(number), **values)
    work.run()
    return work.outcome()


def run_all(copying: Callable, count: int, *inputs: str, out: str = "out-{}", **values) -> int:
    """Run all parts, and return how many results were made."""
    numbers = list(range(1, count + 1))
    random.Random(0).shuffle(numbers)
    return sum(
        run(copying, f"{number}/{count}", *inputs, out=out.format(number), **values).new
        for number in numbers
    )


def folders(count: int) -> list[Path]:
    return [Path(f"out-{number}") for number in range(1, count + 1)]


def results(*paths: str | Path) -> list[str]:
    files = [(each, file) for each in map(Path, paths) for file in each.rglob("*")]
    names = [str(file.relative_to(each)) for each, file in files if file.is_file()]
    return sorted(name for name in names if not name.startswith(".cascade-"))


def test_parts_make_together_what_one_run_makes(photos, copying):
    write_tar(Path("set.tar"), [("x.png", (photos / "b.png").read_bytes())])
    copying("photos", "set.tar", out="whole").run()
    assert run_all(copying, 3, "photos", "set.tar") == 6
    assert results(*folders(3)) == results("whole")
    joined = join_parts(folders(3), "upscale")
    assert (joined.exit_code, list(joined.lines()), joined.done) == (0, [], 6)
    assert joined.last_line() == "3 of 3 parts, 6 done"
    for folder in folders(3):
        shutil.copytree(folder, "all", dirs_exist_ok=True)
    assert results("all") == results("whole")
    joined = join_parts([Path("all")], "upscale")
    assert joined.last_line() == "3 of 3 parts, 6 done; joined in all/.cascade-upscale.jsonl"


def test_parts_in_one_folder_are_one_job_when_they_are_joined(photos, copying, monkeypatch):
    assert run_all(copying, 2, out="out", metadata=False) == 5
    for _ in range(2):  # joining again changes nothing
        joined = join_parts([Path("out")], "upscale")
        joined.merge()
        assert joined.exit_code == 0
    monkeypatch.setattr(standing, "record_of", None)  # no result is opened
    work = copying("photos", metadata=False)
    work.run()
    assert work.outcome().last_line("copied") == "0 copied, 5 already done"
    lines = Path("out/.cascade-upscale.jsonl").read_text().splitlines()
    assert sum(json.loads(line)["event"] == "made" for line in lines) == 5


def test_a_part_says_which_it_is_and_a_part_without_inputs_is_done(photos, copying):
    for number in range(1, 41):
        outcome = run(copying, f"{number}/40")
        head, *planned = map(
            json.loads, Path(f"out/.cascade-upscale-{number}-of-40.jsonl").read_text().splitlines()
        )
        assert (head["part"], head["inputs"]) == (f"{number}/40", 5)
        assert sum(line["event"] == "planned" for line in planned) == outcome.new
        assert outcome.exit_code == 0
    assert join_parts([Path("out")], "upscale").last_line().startswith("40 of 40 parts, 5 done;")


def test_a_part_goes_on_where_it_stopped(photos, copying):
    assert run_all(copying, 2) == 5
    assert run_all(copying, 2) == 0
    removed = results("out-1")[0]
    Path("out-1", removed).unlink()
    joined = join_parts(folders(2), "upscale")
    assert joined.exit_code == 1
    (line,) = joined.lines()
    assert line.startswith("missing: photos/")
    assert line.endswith("(part 1/2; run it again)")
    assert run_all(copying, 2) == 1
    assert join_parts(folders(2), "upscale").exit_code == 0


def test_what_is_missing_is_listed(photos, copying, command):
    (photos / "bad.png").write_bytes(b"no picture")
    Path("bad.tar").write_bytes(b"x" * 5000)
    run_all(copying, 3, "photos", "bad.tar")
    shutil.rmtree("out-2")
    done = command("upscale", "--join", "out-1", "out-3")
    assert done.code == 1
    first, *others, last = done.out.splitlines()
    assert first == HERE
    assert sum(line.startswith("failed: bad.tar: not a readable tar") for line in others) == 1
    bad = [line for line in others if line.startswith("failed: photos/bad.png: ")]
    assert len(bad) == sum(Part(3, each).holds(PurePosixPath("bad.png")) for each in (1, 3))
    assert last.startswith("2 of 3 parts, ")


def test_a_part_that_was_killed_is_missing_what_it_did_not_make(photos, copying):
    write_tar(Path("set.tar"), [("x.png", (photos / "b.png").read_bytes())] * 2)

    def make(pictures, seeds, progress):
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        run(copying, "1/1", "photos", "set.tar", make=make)
    joined = join_parts([Path("out")], "upscale")
    assert joined.last_line().startswith("1 of 1 part, 0 done, 6 missing")
    assert "missing: set.tar (part 1/1; run it again)" in joined.lines()


def test_failures_in_a_shard_of_results_are_listed(photos, copying):
    write_tar(Path("set.tar"), [("x.png", (photos / "b.png").read_bytes()), ("y.bmp", b"no")])
    run(copying, "1/1", "set.tar")
    joined = join_parts([Path("out")], "upscale")
    assert joined.done == 1
    ((name, _),) = joined.failed
    assert name == "set.tar:y.bmp"


FAULTS = {
    "settings": (
        {"settings": {"scale": 2}},
        ["out-1", "out-2"],
        r"parts 1/2 and 2/2 do not belong together: part 1/2 was made with no scale, part 2/2 with "
        r"scale 2; run one of them again",
    ),
    "format": (
        {"image_format": "png"},
        ["out-1", "out-2"],
        r".*: part 1/2 was made with the input's format, part 2/2 with format png; run one of",
    ),
    "inputs": (
        {"inputs": "photos/*.*"},
        ["out-1", "out-2"],
        r"parts 1/2 and 2/2 saw different inputs \(5 and 2\), so some may be in no part",
    ),
    "number": ({"number": "2/3"}, ["out-1", "out-2"], "out-1 holds parts of 2 and out-2 parts of"),
    "twice": ({}, ["out-1", "copy"], "part 1/2 is in out-1 and in copy; name one of the two"),
    "none": ({}, ["out-1", "photos"], "photos holds no part of upscale; expected a file such as"),
    "no folder": ({}, ["nowhere"], "nowhere is not a folder with parts of upscale"),
    "no head": ({}, ["torn"], r"torn/.cascade-upscale-1-of-1.jsonl does not say what its part had"),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_parts_that_do_not_belong_together_are_one_clear_line(photos, copying, fault):
    values, names, message = FAULTS[fault]
    run(copying, "1/2", out="out-1")
    inputs, number = values.pop("inputs", "photos"), values.pop("number", "2/2")
    run(copying, number, inputs, out="out-2", **values)
    shutil.copytree("out-1", "copy")
    Path("torn").mkdir()
    Path("torn/.cascade-upscale-1-of-1.jsonl").write_text('{"event": "star')
    with pytest.raises(DataError, match=f"^{message}") as error:
        join_parts(list(map(Path, names)), "upscale")
    assert "\n" not in str(error.value)


def test_a_folder_holds_the_parts_of_one_number(photos, copying):
    run(copying, "1/2")
    with pytest.raises(OutputError, match=r"^out holds results of parts of 2, so part 1/3 does"):
        run(copying, "1/3")
    with pytest.raises(OutputError, match=r"a\.png is the file of a single result, but part 1/2"):
        run(copying, "1/2", "photos/a.jpg", out="a.png")
    assert run(copying, "1/1", "photos/a.jpg", out="a.png").new == 1


def test_parts_of_pictures_that_compete_for_a_name_keep_both(photos, copying, draw):
    draw(photos / "a.bmp")
    draw(photos / "a.gif")
    assert run_all(copying, 5) == 7
    copying("photos", out="whole").run()
    assert results(*folders(5)) == results("whole")


def test_the_commands_on_the_page_take_these_options():
    page = Path(__file__).parents[2] / "docs" / "scaling-out.md"
    lines = re.findall(r"^.*cascade(?:.cli)? upscale (.*)$", page.read_text(), flags=re.MULTILINE)
    options = {each for line in lines for each in re.findall(r"--[\w-]+", line)}
    assert {"--part", "--join", "--workers"} <= options
    assert options <= set(typer.main.get_command(app).commands["upscale"].options())  # pyright: ignore


# ---- the command --------------------------------------------------------------------------------


def test_the_part_of_a_slurm_task_is_taken_and_reported_even_if_quiet(
    photos, command, upscaler, monkeypatch
):
    for name, value in array(id=0, count=2, first=0, last=1, step=1).items():
        monkeypatch.setenv(name, value)
    options = ["--model", upscaler, "--device", "cpu", "--steps", 1]
    first = command("upscale", "photos", "-o", "out", *options, "-q")
    assert first.err == (
        "part 1/2 of the inputs, by task 0 of the SLURM array; --part 1/1 takes all\n"
    )
    second = command("upscale", "photos", "-o", "out", "--part", "2/2", *options)
    assert "SLURM" not in second.err
    done = command("upscale", "--join", "out")
    assert (done.code, done.err) == (0, "")
    assert done.out == "2 of 2 parts, 5 done; joined in out/.cascade-upscale.jsonl\n"
    assert len(results("out")) == 5


@pytest.mark.parametrize("name", ["upscale", "colourise", "colorize", "restore", "edit"])
def test_every_bulk_command_joins_and_takes_nothing_else_with_it(command, photos, name):
    done = command(name, "--join", "photos")
    own = name.replace("colorize", "colourise")
    assert done.code == 1
    assert done.err.startswith(f"cascade: photos holds no part of {own}; expected a file such as")
    done = command(name, "--join", "photos", "--seed", 3)
    assert done.code == 2
    assert "it takes only the folders of the parts; leave out --seed" in done.err


def test_options_that_only_joining_does_without_are_still_needed(command, photos):
    for arguments in (["upscale", "photos"], ["restore", "photos", "--model", "photo-x4"]):
        done = command(*arguments)
        assert (done.code, "Missing option '--out' / '-o'." in done.err) == (2, True)
    done = command("edit", "photos", "-o", "out")
    assert (done.code, "Missing option '--model'. Name one: photo-x4" in done.err) == (2, True)


def test_settings_are_hashed_once_for_all_pictures(photos, copying, monkeypatch):
    hashed = []
    monkeypatch.setattr(standing, "settings_id", lambda settings: hashed.append(settings) or "id")
    copying("photos")
    assert len(hashed) == 1


def test_what_is_missing_is_listed_even_if_the_ledgers_cannot_be_merged(photos, copying, command):
    (photos / "bad.png").write_bytes(b"no picture")
    run(copying, "1/1")
    Path("out/.cascade-upscale.jsonl").mkdir()
    done = command("upscale", "--join", "out")
    assert done.code == 1
    assert done.out.startswith("failed: photos/bad.png: ")
    assert done.err.startswith("cascade: ")
