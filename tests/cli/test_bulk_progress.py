"""What the bulk commands print while they work."""

from __future__ import annotations

import io
import re
import time

import pytest
from rich.console import Console

from cascade.bulk.progress import ProgressUpdate
from cascade.cli.bulk_progress import BulkProgress, progress_line
from cascade.cli.verbosity import Verbosity

RESULT = "upscaled: photos/a[1].jpg -> out/a[1].jpg (2.0 s)"
FAILURE = "failed: photos/b.jpg: bad"
NOTE, DETAIL = "2 images, 3 megapixels to make", "left out: notes.txt (.txt)"


def updates() -> list[ProgressUpdate]:
    """Of two pictures, the second of which fails."""
    parts = [ProgressUpdate(0, 2, "photos/a[1].jpg", part / 4) for part in range(4)]
    return [
        ProgressUpdate(0, 2, "", 0.0, NOTE, "note"),
        ProgressUpdate(0, 2, "", 0.0, DETAIL, "detail"),
        *parts,
        ProgressUpdate(1, 2, "photos/a[1].jpg", 0.0, RESULT),
        ProgressUpdate(1, 2, "photos/b.jpg", 0.5, left_s=65.0),
        ProgressUpdate(0, 2, "", 0.0, FAILURE, "failure"),
        ProgressUpdate(2, 2, "photos/b.jpg", 0.0, failed=1),
    ]


def show(*, terminal: bool, verbosity: Verbosity | None = Verbosity.NORMAL) -> str:
    file = io.StringIO()
    console = Console(file=file, force_terminal=terminal, width=100, color_system=None)
    with BulkProgress(verbosity, console=console) as progress:
        for update in updates():
            progress.update(update)
    return file.getvalue()


def lines_of_terminal(text: str) -> list[str]:
    return re.sub(r"\x1b\[[?\d]*[A-Za-z]|\r", "\n", text).split("\n")


@pytest.mark.parametrize(
    ("verbosity", "expected"),
    [
        (Verbosity.NORMAL, [NOTE, RESULT, FAILURE]),
        (Verbosity.VERBOSE, [NOTE, DETAIL, RESULT, FAILURE]),
        (Verbosity.QUIET, [FAILURE]),
        (None, []),
    ],
)
def test_a_log_gets_a_line_for_each_message_of_its_kinds(verbosity, expected):
    assert show(terminal=False, verbosity=verbosity).splitlines() == expected


@pytest.mark.parametrize(
    ("verbosity", "expected"),
    [
        (Verbosity.NORMAL, {NOTE, FAILURE}),
        (Verbosity.VERBOSE, {NOTE, DETAIL, RESULT, FAILURE}),
        (Verbosity.QUIET, {FAILURE}),
        (None, set()),
    ],
)
def test_a_terminal_gets_messages_above_bars_and_bars_instead_of_results(verbosity, expected):
    text = show(terminal=True, verbosity=verbosity)
    lines = {line.rstrip() for line in lines_of_terminal(text)}
    assert lines & {NOTE, DETAIL, RESULT, FAILURE} == expected
    bars = [line for line in lines if line.startswith("all images")]
    assert bool(bars) == (NOTE in expected)
    if bars:
        assert any(line.endswith("2/2, 1 failed") for line in bars)
        assert "photos/b.jpg" in text


def test_a_line_of_progress_tells_all_that_is_known():
    update = ProgressUpdate(1200, 3000, "b.jpg", 0.456, left_s=125.0, failed=3)
    assert progress_line(update) == ("1,200 of 3,000 images, 3 failed, b.jpg 46%, about 2 min left")
    assert progress_line(ProgressUpdate(0, 1, "b.jpg", 0.0)) == "0 of 1 images"


@pytest.mark.parametrize("terminal", [True, False])
def test_a_log_gets_lines_of_progress_while_nothing_else_happens(terminal):
    file = io.StringIO()
    console = Console(file=file, force_terminal=terminal, width=100, color_system=None)
    with BulkProgress(console=console, line_s=0.01) as progress:
        progress.update(ProgressUpdate(3, 9, "b.jpg", 0.5))
        deadline = time.monotonic() + 10
        while file.getvalue().count("3 of 9") < 2 and time.monotonic() < deadline and not terminal:
            time.sleep(0.01)
    assert (file.getvalue().count("3 of 9 images, b.jpg 50%\n") >= 2) == (not terminal)
    length = len(file.getvalue())
    time.sleep(0.05)
    assert len(file.getvalue()) == length  # no line after the end
