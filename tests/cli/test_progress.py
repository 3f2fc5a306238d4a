from __future__ import annotations

import io
import re

import pytest
from rich.console import Console

from cascade.cli.progress import LINE_S, TaskProgress, TrainingProgress, short_duration


class Clock:
    """Seconds, as a test sets them."""

    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


def line(images: int, rate: float = 100.0) -> dict[str, float]:
    return {"images": images, "loss": 0.12345, "gradient_norm": 0.5678, "images_per_s": rate}


def show(clock: Clock, updates, *, terminal: bool, start: int = 0, total: int = 10_000) -> str:
    """What is written for lines of the log, given with the seconds since the one before."""
    file = io.StringIO()
    console = Console(file=file, force_terminal=terminal, width=80, color_system=None)
    name = "photo-256-to-1024"
    with TrainingProgress(name, total, console=console, clock=clock) as progress:
        progress.start_at(start)
        for seconds, values in updates:
            clock.now += seconds
            progress.update(values)
    return file.getvalue()


def test_without_a_terminal_there_is_a_plain_line_every_so_often(clock):
    updates = [(1.0, line(images)) for images in range(100, 10_001, 100)]
    lines = show(clock, updates, terminal=False).splitlines()
    assert "\x1b" not in "".join(lines)
    assert len(lines) == 1 + 99 // LINE_S + 1
    first = "photo-256-to-1024: 100/10,000  loss 0.123  grad 0.57  100/s  1:39"
    assert lines[0] == first
    assert lines[-1].startswith("photo-256-to-1024: 10,000/10,000")
    assert lines[-1].endswith("0:00")


def test_a_terminal_of_80_columns_shows_all_of_it(clock):
    total = 20_000_000
    text = show(clock, [(1.0, line(12_345_678))], terminal=True, total=total)
    lines = re.sub(r"\x1b\[[?\d]*[A-Za-z]|\r", "\n", text).split("\n")
    (row,) = {each for each in lines if "12,345,678" in each}
    assert row.startswith("photo-2")
    assert row.endswith(" 12,345,678/20,000,000  loss 0.123  grad 0.57  100/s  21:15:43")
    assert len(row) == 80


@pytest.mark.parametrize("start", [0, 9_000])
def test_time_left_is_by_the_rate_of_this_part_of_the_run(clock, start):
    updates = [(5.0, line(start + 100, rate=20.0))]
    updates += [(2.0, line(start + 100 + 20 * n, rate=99.0)) for n in range(1, 21)]  # 10 a second
    text = show(clock, updates, terminal=False, start=start, total=start + 1000)
    assert text.splitlines()[0].endswith("  0:45")  # 900 left at 20 a second
    at_30_s = text.splitlines()[1]
    assert f": {start + 400:,}/{start + 1000:,} " in at_30_s
    assert at_30_s.endswith("  1:00")  # 600 left at 10 a second, whatever the last steps say


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (0, "0:00"),
        (65.4, "1:05"),
        (3 * 3600 + 62, "3:01:02"),
        (100 * 3600, "4 d 04 h"),
        (float("inf"), "-:--"),
    ],
)
def test_durations_are_short(seconds, text):
    assert short_duration(seconds) == text


def test_a_long_task_gets_lines_in_a_log_and_a_short_one_none(clock):
    file = io.StringIO()
    with TaskProgress(console=Console(file=file), clock=clock) as progress:
        for done in range(1, 5):
            clock.now += 1
            progress.update("short", done, 4)
        for done in range(1, 41):
            clock.now += 2
            progress.update("long", done, 40)
    assert file.getvalue() == "long: 13/40\nlong: 28/40\nlong: 40/40\n"
