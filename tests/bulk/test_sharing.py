"""Several processes that share a folder of results, and ends from outside."""

from __future__ import annotations

import json
import os
import signal
import tarfile
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from cascade.data.shard_writing import write_tar
from cascade.imaging.picture_reading import read_picture

COUNT = 12


@pytest.fixture
def start(server, upscaler, draw, tmp_path, monkeypatch) -> Callable[..., int]:
    """A function that starts a process which enlarges pictures, always the same ones."""
    monkeypatch.chdir(tmp_path)
    for number in range(COUNT):
        draw(tmp_path / "photos" / f"{number}.png", size=(24, 20), seed=number)

    def start_one(inputs: str = "photos", *further: str) -> int:
        arguments = [tmp_path / inputs, "-o", tmp_path / "out", "--model", upscaler]
        options = ["--device", "cpu", "--steps", 8, *(further or ["--compare"])]
        (process,) = server.start(["upscale", *arguments, *options], tmp_path / "log")
        return process

    return start_one


def made() -> list[tuple[int, str]]:
    """Process and result of each picture that was made."""
    try:
        lines = Path("out/.cascade-upscale.jsonl").read_text().splitlines()
    except FileNotFoundError:
        return []
    events = [json.loads(line) for line in lines]
    return [(line["process"], line["output"]) for line in events if line["event"] == "made"]


def wait_for(condition: Callable[[], object]) -> None:
    end = time.monotonic() + 100
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.005)


def assert_whole() -> None:
    """Every result is there, opens, and was made once; nothing half-written is left."""
    names = sorted(f"{number}.png" for number in range(COUNT))
    assert sorted(result for _, result in made()) == names
    for name in names:
        assert read_picture(Path("out", name)).size == (80, 96)
        assert read_picture(Path("out", "compare", f"{name}.jpg")).colour.shape[0] == 3
    hidden = [".cascade-upscale.jsonl", ".cascade-upscale.lock"]
    left = sorted(path.name for path in Path("out").rglob("*") if path.is_file())
    sheets = [f"{name}.jpg" for name in names]
    assert left == sorted([*names, *sheets, "index.html", *hidden])
    page = Path("out/compare/index.html").read_text()
    assert all(f'src="{sheet}"' in page for sheet in sheets)


def test_two_processes_share_the_work_and_the_file_of_a_killed_one_is_taken_up(server, start):
    first, second = start(), start()
    wait_for(lambda: {process for process, _ in made()} == {first, second})
    os.kill(first, signal.SIGKILL)
    assert len(made()) < COUNT
    assert server.wait(first) == -signal.SIGKILL
    assert server.wait(second) == 0
    assert_whole()
    assert f"{COUNT} upscaled\n" in Path("log").read_text()


@pytest.mark.parametrize(
    ("number", "code"), [(signal.SIGKILL, -9), (signal.SIGTERM, 143), (signal.SIGINT, 130)]
)
def test_a_process_that_was_ended_is_gone_on_from(server, start, number, code):
    process = start()
    wait_for(lambda: len(made()) >= 2)
    os.kill(process, number)
    assert server.wait(process) == code
    half = [path.name for path in Path("out").rglob(".*.tmp")]
    assert half == [] or number == signal.SIGKILL
    assert 2 <= len(made()) < COUNT
    assert server.wait(start()) == 0
    assert_whole()
    assert "Traceback" not in Path("log").read_text()


def test_two_processes_share_shards_and_the_half_finished_one_of_a_killed_one_is_gone_on_with(
    server, start
):
    pictures = {f"{number}.png": Path(f"photos/{number}.png") for number in range(COUNT)}
    sides = {f"{number}.txt": str(number).encode() for number in range(COUNT)}
    names = sorted([*pictures, *sides])
    for first in range(3):
        members = [name for name in names if int(name.partition(".")[0]) % 3 == first]
        contents = {**sides, **{name: path.read_bytes() for name, path in pictures.items()}}
        write_tar(Path(f"set-{first}.tar"), [(name, contents[name]) for name in members])
    first, second = (start("set-*.tar", "--no-metadata") for _ in range(2))
    wait_for(lambda: {process for process, _ in made()} == {first, second})
    os.kill(first, signal.SIGKILL)
    assert len(made()) < COUNT
    assert server.wait(first) == -signal.SIGKILL
    assert server.wait(second) == 0
    assert sorted(result.partition("/")[2] for _, result in made()) == sorted(pictures)
    shards = sorted(Path("out").glob("*"))
    assert [path.name for path in shards if path.name[0] != "."] == [
        "set-0.tar", "set-1.tar", "set-2.tar"
    ]  # fmt: skip
    assert not list(Path("out").glob(".set*"))
    results: list[str] = []
    for number in range(3):
        with tarfile.open(f"out/set-{number}.tar") as tar, tarfile.open(f"set-{number}.tar") as own:
            assert tar.getnames() == own.getnames()
            results += tar.getnames()
    assert sorted(results) == names
