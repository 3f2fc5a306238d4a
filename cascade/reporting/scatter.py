"""Scatter charts as small SVGs: each point has a name, an interval and a share."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from cascade.reporting.chart import Axis, figure, horizontal_axis, vertical_axis
from cascade.reporting.page import Html

RADIUS_PX = 11
COLOURS = 6


@dataclass(frozen=True, kw_only=True)
class Point:
    """One point of a chart.

    Attributes:
        x: horizontal value, above 0.
        y: vertical value.
        name: text in the legend.
        share: area of the dot as a share of the ring around it, in [0, 1]; None draws a plain dot.
        low: lower end of the interval of `y`; None draws no interval.
        high: upper end of the interval of `y`.
    """

    x: float
    y: float
    name: str
    share: float | None = None
    low: float | None = None
    high: float | None = None


def scatter_chart(points: Sequence[Point], *, title: str, x_label: str) -> Html:
    """Draw points; the horizontal axis is logarithmic if they lie far apart.

    Args:
        points: at least one.
        title: text above the chart, also for screen readers.
        x_label: text below the horizontal axis.

    Returns:
        A figure with title, legend and SVG.
    """
    across = _across([point.x for point in points])
    up = _up([v for p in points for v in (p.y, p.low, p.high) if v is not None])
    return figure(
        [_dot(point, number, across, up) for number, point in enumerate(points)],
        title=title,
        legend=[(point.name, colour_of(number)) for number, point in enumerate(points)],
        x_label=x_label,
        across=across,
        up=up,
    )


def _across(values: Sequence[float]) -> Axis:
    low, high = min(values), max(values)
    if low > 0 and high > 20 * low:
        return horizontal_axis(low / 1.5, high * 1.5, log=True)
    return horizontal_axis(0.0, high * 1.15)


def _up(values: Sequence[float]) -> Axis:
    margin = (max(values) - min(values)) * 0.12 or abs(values[0]) / 2 or 1.0
    return vertical_axis(min(0.0, min(values) - margin), max(values) + margin)


def _dot(point: Point, number: int, across: Axis, up: Axis) -> str:
    x, y, colour = across.place(point.x), up.place(point.y), colour_of(number)
    parts = []
    if point.low is not None and point.high is not None:
        parts.append(
            f'<line style="stroke:{colour}" x1="{x:.1f}" x2="{x:.1f}" '
            f'y1="{up.place(point.low):.1f}" y2="{up.place(point.high):.1f}"/>'
        )
    radius = 4.0
    if point.share is not None:
        radius = RADIUS_PX * math.sqrt(min(max(point.share, 0.0), 1.0))
        parts.append(
            f'<circle cx="{x:.1f}" cy="{y:.1f}" r="{RADIUS_PX}" '
            f'style="fill:none;stroke:{colour};opacity:.5"/>'
        )
    parts.append(
        f'<circle cx="{x:.1f}" cy="{y:.1f}" r="{radius:.1f}" style="fill:{colour};opacity:.8"/>'
    )
    return "".join(parts)


def colour_of(number: int) -> str:
    """The CSS colour of a point or line by its number."""
    return f"hsl({(210 + 360 * number / COLOURS) % 360:.0f} 60% 50%)"
