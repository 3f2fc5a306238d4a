"""A chart of named points, each with an interval and a share, as a small SVG."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from html import escape

from cascade.reporting.curves import BOTTOM, HEIGHT, LEFT, RIGHT, TOP, WIDTH, Axis, x_tick, y_tick
from cascade.reporting.page import Html

RADIUS_PX = 11
COLOURS = 6


@dataclass(frozen=True, kw_only=True)
class Point:
    """One point.

    Attributes:
        x: place, above 0.
        y: value.
        name: for the legend.
        share: from 0 to 1, shown as area of the dot inside a ring; None for a plain dot.
        low: lower end of the interval of `y`; None for none.
        high: upper end.
    """

    x: float
    y: float
    name: str
    share: float | None = None
    low: float | None = None
    high: float | None = None


def scatter_chart(points: Sequence[Point], *, title: str, x_label: str) -> Html:
    """Draw points; the horizontal axis goes by the logarithm if they lie far apart.

    Args:
        points: at least one.
        title: above the chart, also for screen readers.
        x_label: below the axis.

    Returns:
        A figure with title, legend and SVG.
    """
    xs = [point.x for point in points]
    ys = [v for p in points for v in (p.y, p.low, p.high) if v is not None]
    far = min(xs) > 0 and max(xs) > 20 * min(xs)
    across = Axis(
        min(xs) / 1.5 if far else 0.0,
        max(xs) * (1.5 if far else 1.15),
        LEFT,
        WIDTH - RIGHT,
        log=far,
    )
    room = (max(ys) - min(ys)) * 0.12 or abs(ys[0]) / 2 or 1.0
    up = Axis(min(0.0, min(ys) - room), max(ys) + room, HEIGHT - BOTTOM, TOP)
    drawn = [
        *(y_tick(value, up) for value in up.ticks()),
        *(x_tick(value, across) for value in across.ticks()),
        *(_dot(point, number, across, up) for number, point in enumerate(points)),
        f'<text class="axis" x="{(LEFT + WIDTH - RIGHT) / 2}" y="{HEIGHT - 4}" '
        f'text-anchor="middle">{escape(x_label)}</text>',
    ]
    keys = "".join(
        f'<span class="key"><i style="background:{_colour(number)}"></i>{escape(point.name)}</span>'
        for number, point in enumerate(points)
    )
    return Html(
        f'<figure class="chart"><figcaption>{escape(title)}<span class="keys">{keys}</span>'
        f'</figcaption><svg viewBox="0 0 {WIDTH} {HEIGHT}" role="img" '
        f'aria-label="{escape(title)}">{"".join(drawn)}</svg></figure>'
    )


def _dot(point: Point, number: int, across: Axis, up: Axis) -> str:
    x, y, colour = across.place(point.x), up.place(point.y), _colour(number)
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


def _colour(number: int) -> str:
    return f"hsl({(210 + 360 * number / COLOURS) % 360:.0f} 60% 50%)"
