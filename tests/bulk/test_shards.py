"""Shards of results: one per shard of inputs, complete or absent, and never made twice."""

from __future__ import annotations

import io
import json
import os
import tarfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from cascade.bulk import shards
from cascade.bulk.joining import join_parts
from cascade.bulk.parts import Part
from cascade.bulk.work import Bulk
from cascade.data.shard_writing import write_tar
from cascade.data.shards import ShardSource
from cascade.errors import ContractError, DataError, OutputError
from cascade.imaging.picture_reading import decode_picture

LEDGER = Path("out/.cascade-upscale.jsonl")


def picture(number: int, format: str = "PNG") -> bytes:
    pixels = np.random.default_rng(number).integers(30, 225, (6, 8, 3)).astype(np.uint8)
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, format)
    return file.getvalue()


MEMBERS = [
    ("./cat/1.json", b'{"caption": "one"}'),
    ("./cat/1.png", picture(1)),
    ("./cat/1.mask.png", picture(9)),
    ("./cat/2.bmp", picture(2, "BMP")),
    ("./cat/2.txt", b"two"),
    ("notes", b"read me"),
    ("3.JPG", picture(3, "JPEG")),
]
RESULTS = ["./cat/1.json", "./cat/1.png", "./cat/1.mask.png", "./cat/2.png", "./cat/2.txt", "notes"]
RESULTS += ["3.JPG"]


@pytest.fixture(autouse=True)
def shard(tmp_path, monkeypatch) -> Path:
    """A shard of three pictures with side files, in the current folder."""
    monkeypatch.chdir(tmp_path)
    write_tar(Path("set.tar"), MEMBERS)
    return Path("set.tar")


def members(path: str = "out/set.tar") -> dict[str, bytes]:
    with tarfile.open(path) as tar:
        files = {member.name: tar.extractfile(member) for member in tar}
        return {name: file.read() for name, file in files.items() if file is not None}


def counts(work: Bulk) -> tuple[int, int, int, int]:
    """New results, those done before, failures and unfinished ones of a run."""
    work.run()
    outcome = work.outcome()
    return outcome.new, outcome.done_before, len(outcome.failed), outcome.unfinished


def made() -> list[str]:
    lines = [json.loads(line) for line in LEDGER.read_text().splitlines()]
    return [line["output"] for line in lines if line["event"] == "made"]


def stopping_after(count: int) -> Callable:
    """A way to make copies that ends the process, as a kill would, before the next one."""
    calls = []

    def make(pictures, seeds, progress):
        calls.append(1)
        if len(calls) > count:
            raise KeyboardInterrupt
        return list(pictures)

    return make


def test_a_result_has_the_members_of_its_input_in_order_with_their_side_files(copying):
    assert counts(copying("set.tar")) == (3, 0, 0, 0)
    results = members()
    assert list(results) == RESULTS
    for name, data in MEMBERS:
        if name.endswith((".json", ".txt", ".mask.png", "notes")):
            assert results[name] == data
    for number, name in ((1, "./cat/1.png"), (2, "./cat/2.png")):
        source = decode_picture(picture(number), name)
        assert decode_picture(results[name], name).colour.equal(source.colour)
    assert sorted(os.listdir("out")) == [
        ".cascade-upscale.jsonl", ".cascade-upscale.lock", "set.tar"
    ]  # fmt: skip
    source = ShardSource("out/set.tar")
    assert [source.labels(index) for index in range(3)] == [
        {},
        {"caption": "one"},
        {"caption": "two"},
    ]
    assert sorted(made()) == ["set.tar/3.JPG", "set.tar/cat/1.png", "set.tar/cat/2.png"]


@pytest.mark.parametrize("metadata", [True, False])
@pytest.mark.parametrize("is_ledger_kept", [True, False])
def test_a_shard_that_is_done_is_not_made_again(copying, metadata, is_ledger_kept):
    counts(copying("set.tar", metadata=metadata))
    stamp, lines = os.stat("out/set.tar").st_mtime_ns, len(made())
    if not is_ledger_kept:
        LEDGER.unlink()
    for _ in range(2):
        assert counts(copying("set.tar", metadata=metadata)) == (0, 3, 0, 0)
    assert os.stat("out/set.tar").st_mtime_ns == stamp
    assert len(made()) == (lines if is_ledger_kept else 0)


@pytest.mark.parametrize("count", [0, 1, 2])
def test_a_killed_run_goes_on_and_makes_nothing_twice(copying, count):
    with pytest.raises(KeyboardInterrupt):
        copying("set.tar", make=stopping_after(count), metadata=False).run()
    assert not Path("out/set.tar").exists()
    assert len(made()) == count
    assert counts(copying("set.tar", metadata=False)) == (3 - count, count, 0, 0)
    assert list(members()) == RESULTS
    assert len(set(made())) == len(made()) == 3
    assert not list(Path("out").glob(".set.tar*"))


def test_a_run_that_was_killed_after_packing_leaves_a_folder_that_the_next_one_removes(copying):
    counts(copying("set.tar"))
    folder = Path("out/.set.tar.work")
    folder.mkdir()
    assert counts(copying("set.tar")) == (0, 3, 0, 0)
    assert not folder.exists()


def test_a_run_that_was_killed_goes_on_with_other_settings(copying):
    with pytest.raises(KeyboardInterrupt):
        copying("set.tar", make=stopping_after(2), settings={"scale": 2}).run()
    assert counts(copying("set.tar", settings={"scale": 4})) == (3, 0, 0, 0)
    assert list(members()) == RESULTS


def test_a_picture_that_fails_is_no_member_and_is_named_by_every_run(copying):
    write_tar(Path("set.tar"), [*MEMBERS, ("4.png", b"no picture"), ("4.txt", b"four")])
    assert counts(copying("set.tar")) == (3, 0, 1, 0)
    assert list(members()) == [*RESULTS, "4.txt"]
    for run in range(2):
        work = copying("set.tar")
        assert counts(work) == (0, 3, 1, 0)
        ((name, reason),) = work.outcome().failed
        assert name == "set.tar:4.png"
        assert "not a readable image" in reason
        if run == 0:
            LEDGER.unlink()


def test_a_picture_whose_name_webdataset_would_misread_is_named_and_left_out(copying):
    write_tar(Path("set.tar"), [*MEMBERS, ("scan.0001.png", picture(4))])
    work = copying("set.tar")
    assert counts(work) == (3, 0, 1, 0)
    assert work.outcome().failed[0][0] == "set.tar:scan.0001.png"
    assert list(members()) == RESULTS


CHANGES = {
    "settings": (lambda: None, {"settings": {"scale": 2}}, "was made with scale=None"),
    "format": (lambda: None, {"image_format": "webp"}, "was made with format=None"),
    "input": (lambda: write_tar(Path("set.tar"), MEMBERS[1:]), {}, "was made from another input"),
    "not ours": (lambda: write_tar(Path("out/set.tar"), MEMBERS), {}, "is not a whole result"),
    "cut off": (lambda: os.truncate("out/set.tar", 3000), {}, "is not a whole result"),
}


@pytest.mark.parametrize("change", CHANGES)
def test_a_result_of_another_kind_is_replaced_only_if_that_is_allowed(copying, change):
    counts(copying("set.tar"))
    alter, values, message = CHANGES[change]
    alter()
    before = Path("out/set.tar").read_bytes()
    work = copying("set.tar", **values)
    pictures = len(work.jobs)
    assert counts(work) == (0, 0, pictures, 0)
    for _, reason in work.outcome().failed:
        assert reason.startswith(f"out/set.tar already exists and {message}")
    assert Path("out/set.tar").read_bytes() == before
    assert counts(copying("set.tar", overwrite=True, **values)) == (3, 0, 0, 0)
    assert counts(copying("set.tar", **values)) == (0, 3, 0, 0)


def test_shards_and_pictures_are_made_by_one_command(copying):
    for folder in ("a", "b"):
        Path("all", folder).mkdir(parents=True)
        write_tar(Path("all", folder, "0.tar"), MEMBERS)
    Path("x.png").write_bytes(picture(5))
    assert counts(copying("all/**/*.tar", "x.png")) == (7, 0, 0, 0)
    assert list(members("out/a/0.tar")) == list(members("out/b/0.tar")) == RESULTS
    assert Path("out/x.png").is_file()
    with pytest.raises(OutputError, match=r"all/a/0.tar and all/b/0.tar would both be written"):
        copying("all/a/0.tar", "all/b/0.tar", out="other")


def test_results_are_reported_by_their_shard(copying):
    job = copying("set.tar").jobs[0]
    assert f"{job.shard}{job.place_in_shard}" == "out/set.tar:cat/1.png"


def test_what_a_shard_cannot_hold_is_refused(copying):
    for values in ({"compare": True}, {"seeds": 2}, {"seeds": 2, "map": True}):
        with pytest.raises(ContractError, match="one result per image, without"):
            copying("set.tar", **values)
    with pytest.raises(OutputError, match=r"set\.tar is an input itself"):
        copying("set.tar", out=".")


def test_a_member_that_was_replaced_in_its_shard_counts_once(copying):
    with tarfile.open("set.tar", "a") as tar:
        info = tarfile.TarInfo("./cat/1.png")
        info.size = len(picture(7))
        tar.addfile(info, io.BytesIO(picture(7)))
    assert counts(copying("set.tar")) == (3, 0, 0, 0)
    source = decode_picture(picture(7), "7")
    assert decode_picture(members()["./cat/1.png"], "1").colour.equal(source.colour)


def test_a_shard_without_pictures_is_left_out_and_counted(copying):
    write_tar(Path("texts.tar"), [("1.txt", b"one")])
    work = copying("set.tar", "texts.tar")
    assert counts(work) == (3, 0, 0, 0)
    assert work.outcome().left_out == 1
    with pytest.raises(DataError, match=r"no images in texts\.tar"):
        copying("texts.tar")


def test_a_shard_that_changes_during_the_work_gives_no_result_until_the_next_run(copying):
    def make(pictures, seeds, progress):
        if not changes:  # the other pictures are then read at positions that are no longer right
            changes.append(write_tar(Path("set.tar"), [("0.txt", b"zero"), *reversed(MEMBERS)]))
        return list(pictures)

    changes: list[None] = []
    work = copying("set.tar", make=make)
    assert counts(work) == (0, 0, 3, 0)
    reasons = {reason for _, reason in work.outcome().failed}
    assert "changed during the work; run the command again." in reasons
    assert not Path("out/set.tar").exists()
    copying("set.tar").run()
    for number, name in ((1, "./cat/1.png"), (2, "./cat/2.png")):
        source = decode_picture(picture(number), name)
        assert decode_picture(members()[name], name).colour.equal(source.colour)


def test_a_shard_that_changes_while_it_is_packed_gives_no_result(copying, monkeypatch):
    def read(path: Path) -> bytes:
        os.utime("set.tar", ns=(1, 1))
        return path.read_bytes()

    monkeypatch.setattr(shards, "read_bytes", read)
    work = copying("set.tar")
    assert counts(work) == (0, 0, 3, 0)
    assert work.outcome().failed[0][1].startswith("changed during the work")
    assert not Path("out/set.tar").exists()


def test_bytes_of_a_changed_shard_at_a_listed_position_count_as_another_picture(copying):
    """Only the position differs, not name, size or time of the picture that is read later."""
    pictures = [(f"{number}.bmp", picture(number, "BMP")) for number in (1, 2)]
    write_tar(Path("set.tar"), pictures)
    work = copying("set.tar", make=stopping_after(1))
    write_tar(Path("set.tar"), pictures[::-1])
    with pytest.raises(KeyboardInterrupt):
        work.run()
    copying("set.tar").run()
    for number in (1, 2):
        result = decode_picture(members()[f"{number}.png"], str(number))
        assert result.colour.equal(decode_picture(picture(number, "BMP"), "").colour)


def with_link(name: str, target: str, kind: bytes) -> None:
    info = tarfile.TarInfo(name)
    info.type, info.linkname = kind, target
    with tarfile.open("set.tar", "a") as tar:
        tar.addfile(info)


def test_hard_links_in_a_shard_are_files_of_their_own(copying):
    with_link("same.png", "./cat/1.png", tarfile.LNKTYPE)
    with_link("same.txt", "cat/2.txt", tarfile.LNKTYPE)
    assert counts(copying("set.tar")) == (4, 0, 0, 0)
    assert list(members()) == [*RESULTS, "same.png", "same.txt"]
    assert members()["same.txt"] == b"two"
    source = decode_picture(picture(1), "1")
    assert decode_picture(members()["same.png"], "same").colour.equal(source.colour)


def test_links_to_what_is_not_in_a_shard_are_named(copying):
    with_link("lost.png", "nowhere.png", tarfile.LNKTYPE)
    with_link("soft.png", "cat/1.png", tarfile.SYMTYPE)
    with_link("soft.txt", "cat/2.txt", tarfile.SYMTYPE)
    work = copying("set.tar")
    assert counts(work) == (3, 0, 2, 0)
    assert [name for name, _ in work.outcome().failed] == ["set.tar:lost.png", "set.tar:soft.png"]
    assert list(members()) == RESULTS


def test_a_killed_run_that_overwrites_a_shard_keeps_its_finished_pictures(copying):
    counts(copying("set.tar"))
    values = {"settings": {"scale": 2}, "overwrite": True}
    with pytest.raises(KeyboardInterrupt):
        copying("set.tar", make=stopping_after(2), **values).run()
    assert counts(copying("set.tar", **values)) == (1, 2, 0, 0)


def test_a_run_that_was_killed_before_it_noted_a_packed_shard_leaves_nothing(copying, monkeypatch):
    def stop(*values):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(shards.Packing, "_note", stop)
        with pytest.raises(KeyboardInterrupt):
            copying("set.tar").run()
    assert Path("out/set.tar").is_file()
    assert Path("out/.set.tar.work").is_dir()
    assert counts(copying("set.tar")) == (0, 3, 0, 0)
    assert not Path("out/.set.tar.work").exists()


def test_a_shard_that_fails_as_a_whole_is_reported_once_and_ends_nothing_else(copying):
    counts(copying("set.tar"))
    write_tar(Path("other.tar"), MEMBERS)
    work = copying("set.tar", "other.tar", settings={"scale": 2})
    assert counts(work) == (3, 0, 3, 0)
    assert work.reports.failed == 1
    assert list(members("out/other.tar")) == RESULTS


def test_a_shard_that_cannot_be_packed_is_tried_again_by_the_next_run(copying, monkeypatch):
    def fail(shard):
        raise DataError("set.tar: cannot be read (gone).")

    with monkeypatch.context() as patch:
        patch.setattr(shards.ShardPlan, "members", fail)
        work = copying("set.tar", part=Part(1, 1))
        assert counts(work) == (0, 0, 3, 0)
    assert join_parts([Path("out")], "upscale").failed == [("set.tar", "cannot be read (gone).")]
    assert counts(copying("set.tar", part=Part(1, 1))) == (0, 3, 0, 0)
    assert join_parts([Path("out")], "upscale").exit_code == 0


def test_a_remote_shard_that_cannot_be_reached_is_one_failure_among_others(copying, monkeypatch):
    def fetch(*values, **options):
        raise DataError("http://nowhere/a.tar: cannot be fetched (gone).")

    monkeypatch.setattr("cascade.data.shards.fetch", fetch)
    work = copying("set.tar", "http://nowhere/a.tar")
    assert counts(work) == (3, 0, 1, 0)
    assert work.outcome().failed == [("http://nowhere/a.tar", "cannot be fetched (gone).")]
