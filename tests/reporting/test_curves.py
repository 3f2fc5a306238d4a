from __future__ import annotations

import math
import re
from xml.etree import ElementTree

import pytest

from cascade.reporting.chart import short_number
from cascade.reporting.curves import Series, line_chart, running_mean, with_running_mean


def svg(chart: str) -> ElementTree.Element:
    """The SVG of a chart, which must be well-formed."""
    return ElementTree.fromstring(re.search(r"<svg.*</svg>", chart).group())


def lines(chart: str) -> list[list[tuple[float, float]]]:
    return [
        [tuple(map(float, pair.split(","))) for pair in line.get("points").split()]
        for line in svg(chart).iter("polyline")
    ]


def labels(chart: str) -> list[str]:
    return [text.text for text in svg(chart).iter("text")]


def test_a_straight_line_is_straight_and_ends_in_the_corners():
    (points,) = lines(line_chart([Series([0, 50, 100], [0, 1, 2])], title="t", x_label="x"))
    (left, bottom), (middle, half), (right, top) = points
    assert middle == pytest.approx((left + right) / 2)
    assert half == pytest.approx((bottom + top) / 2)
    assert top < half < bottom
    assert left < middle < right


def test_equal_factors_are_equal_distances_on_a_log_axis():
    chart = line_chart([Series([0, 1, 2], [0.1, 1, 10])], title="t", x_label="x", log=True)
    ((_, low), (_, middle), (_, high)) = lines(chart)[0]
    assert middle == pytest.approx((low + high) / 2, abs=0.1)
    assert {"0.1", "1", "10"} <= set(labels(chart))


def test_values_that_cannot_be_drawn_are_left_out():
    series = Series([0, 1, 2, 3, 4], [1, math.nan, 0, math.inf, 4])
    assert len(lines(line_chart([series], title="t", x_label="x", log=True))[0]) == 2
    assert len(lines(line_chart([series], title="t", x_label="x"))[0]) == 3
    assert line_chart([Series([1], [math.nan])], title="t", x_label="x") == ""
    assert line_chart([], title="t", x_label="x") == ""


def test_a_single_value_is_a_dot_and_a_constant_is_in_the_middle():
    dot = svg(line_chart([Series([5], [3])], title="t", x_label="x"))
    assert [circle.get("r") for circle in dot.iter("circle")] == ["2.5"]
    for log in (False, True):
        ((_, first), (_, second)) = lines(
            line_chart([Series([0, 1], [7, 7])], title="t", x_label="x", log=log)
        )[0]
        assert first == second
    assert lines(line_chart([Series([0, 1], [0, 0])], title="t", x_label="x"))


@pytest.mark.parametrize("high", [1, 3, 7, 64, 999, 12345, 2_000_000])
def test_ticks_are_round_and_not_too_many(high):
    chart = line_chart([Series([0, high], [0, high])], title="t", x_label="x")
    texts = labels(chart)[:-1]
    assert 2 * 4 <= len(texts) <= 2 * 7
    assert all(len(text) <= 6 for text in texts)


def test_many_points_become_few_with_the_same_mean():
    series = Series(range(100_000), [i % 2 for i in range(100_000)])
    (points,) = lines(line_chart([series], title="t", x_label="x", include=(0, 1)))
    assert len(points) <= 400
    assert len({y for _, y in points}) == 1


def test_a_running_mean_is_the_mean_of_the_neighbours():
    assert running_mean([1, 2, 3, 4, 5], 2) == [1.5, 2, 3, 4, 4.5]
    assert running_mean([1, 2, 3], 0) == [1, 2, 3]
    assert running_mean([], 2) == []
    raw, smooth = with_running_mean([1, 2, 3], [1, math.nan, 3])
    assert raw.faint
    assert (raw.x, raw.y) == ([1, 3], [1, 3])
    assert smooth.y == [1, 3]


def test_titles_and_names_are_escaped():
    chart = line_chart([Series([0, 1], [0, 1], name="<b>")], title="a & <i>", x_label="<x>")
    assert "<b>" not in chart
    assert "<i>" not in chart
    assert "&lt;x&gt;" in chart


@pytest.mark.parametrize(
    ("value", "text"),
    [(0, "0"), (0.025, "0.025"), (12, "12"), (250_000, "250 k"), (1.5e6, "1.5 M"), (2e-5, "2e-05")],
)
def test_numbers_are_short(value, text):
    assert short_number(value) == text


def test_the_label_at_the_end_of_the_axis_lies_within_the_chart():
    chart = str(line_chart([Series([0, 20_000], [1, 2])], title="a", x_label="images"))
    assert '<text class="axis" x="420.0" y="207" text-anchor="end">20 k</text>' in chart
    assert 'text-anchor="middle">15 k</text>' in chart
