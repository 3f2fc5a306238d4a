from __future__ import annotations

import pytest

from cascade.bulk.outcome import Outcome, failure_line


def outcome(**changes) -> Outcome:
    counts = {"new": 2, "done_before": 0, "failed": [], "unfinished": 0, "left_out": 0}
    return Outcome(**{**counts, **changes})


def test_the_exit_code_is_1_only_if_an_input_has_no_result():
    assert outcome(done_before=3, left_out=4).exit_code == 0
    assert outcome(failed=[("a.png", "not a file.")]).exit_code == 1


@pytest.mark.parametrize(
    ("changes", "line"),
    [
        ({}, "2 upscaled"),
        ({"new": 0, "done_before": 5}, "0 upscaled, 5 already done"),
        (
            {"failed": [("a", "b")], "left_out": 3, "unfinished": 4},
            "2 upscaled, 1 failed, 3 left out, 4 left; run the same command again to continue",
        ),
    ],
)
def test_the_last_line_has_every_count_that_is_not_zero(changes, line):
    assert outcome(**changes).last_line("upscaled") == line


def test_one_line_counts_what_is_not_kept():
    assert outcome().loss_lines() == []
    iptc, notes = ("IPTC", "WebP cannot hold it"), ("maker notes", "they break")
    assert outcome(lost=[iptc, notes, iptc]).loss_lines() == [
        "not kept: IPTC of 2 images (WebP cannot hold it); maker notes of 1 image (they break)"
    ]


def test_each_failure_has_a_line():
    assert failure_line("a.png", "not a file.") == "failed: a.png: not a file."
