"""Scatter charts: where points stand, and how large they are."""

from __future__ import annotations

import math
import re

import pytest

from cascade.reporting.scatter import RADIUS_PX, Point, scatter_chart


def circles(html: str) -> list[tuple[float, float, float]]:
    matches = re.findall(r'<circle cx="([\d.]+)" cy="([\d.]+)" r="([\d.]+)"', html)
    return [(float(x), float(y), float(r)) for x, y, r in matches]


def chart(*points: Point) -> str:
    return scatter_chart(points, title="<t>", x_label="s")


def test_more_is_further_right_and_higher_up():
    (ax, ay, _), (bx, by, _) = circles(chart(Point(x=1, y=5, name="a"), Point(x=2, y=9, name="b")))
    assert ax < bx
    assert ay > by


def test_far_values_are_laid_out_by_their_logarithm():
    places = [x for x, _, _ in circles(chart(*(Point(x=x, y=1, name="") for x in (1, 10, 100))))]
    assert places[1] - places[0] == pytest.approx(places[2] - places[1], abs=0.2)


def test_the_area_of_a_dot_is_its_share_of_the_ring():
    ring, dot = circles(chart(Point(x=1, y=1, name="a", share=0.25)))
    assert ring[2] == RADIUS_PX
    assert dot[2] == pytest.approx(RADIUS_PX * math.sqrt(0.25))


def test_an_interval_reaches_from_its_low_to_its_high_end():
    html = chart(Point(x=1, y=5, low=4, high=8, name="a"))
    y_1, y_2 = map(float, re.search(r'<line style.*?y1="([\d.]+)" y2="([\d.]+)"', html).groups())
    (_, y, _) = circles(html)[0]
    assert y_1 > y > y_2
    assert (y_1 - y) * 3 == pytest.approx(y - y_2, abs=0.3)


def test_text_stays_text():
    assert "<a>" not in chart(Point(x=1, y=1, name="<a>"))
