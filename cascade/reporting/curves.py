"""Line charts as small SVGs."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from html import escape
from statistics import fmean

from cascade.reporting.chart import Axis, figure, horizontal_axis, vertical_axis
from cascade.reporting.page import Html

MAX_POINTS = 400
SMOOTHING_PARTS = 40


@dataclass(frozen=True)
class Series:
    """One line of a chart.

    Attributes:
        x: positions, ascending.
        y: one value per position; values that are not finite are left out.
        name: text in the legend; empty for no entry.
        colour: a CSS colour, such as `var(--line)`.
        faint: whether the line is thin and pale, for values that scatter around another line.
    """

    x: Sequence[float]
    y: Sequence[float]
    name: str = ""
    colour: str = "var(--line)"
    faint: bool = False


def with_running_mean(x: Sequence[float], y: Sequence[float]) -> list[Series]:
    """Draw scattered values in pale, with their running mean over a fortieth of them on top."""
    points = [(a, b) for a, b in zip(x, y, strict=True) if math.isfinite(b)]
    x, y = [a for a, _ in points], [b for _, b in points]
    return [Series(x, y, faint=True), Series(x, running_mean(y, len(y) // SMOOTHING_PARTS))]


def running_mean(values: Sequence[float], window: int) -> list[float]:
    """Average each value with its neighbours.

    Args:
        values: any number of values.
        window: how many values to average; half of them lie before and half after each value,
            fewer at the ends.

    Returns:
        As many means as there are values.
    """
    half = window // 2
    sums = [0.0]
    for value in values:
        sums.append(sums[-1] + value)
    means = []
    for index in range(len(values)):
        first, last = max(0, index - half), min(len(values), index + half + 1)
        means.append((sums[last] - sums[first]) / (last - first))
    return means


def line_chart(
    series: Sequence[Series],
    *,
    title: str,
    x_label: str,
    x_end: float = 0.0,
    log: bool = False,
    include: Sequence[float] = (),
    marks: Mapping[str, float] | None = None,
) -> Html:
    """Draw lines over a common axis that begins at 0.

    Args:
        series: the lines.
        title: text above the chart, also for screen readers.
        x_label: text below the horizontal axis.
        x_end: smallest end of the horizontal axis, so that charts side by side can share it.
        log: whether the vertical axis is logarithmic; values at or below 0 are then left out.
        include: values that the vertical axis must reach, such as 0.
        marks: positions of vertical dashed lines, by the text beside each.

    Returns:
        A figure with title, legend and SVG; empty if there is nothing to draw.
    """
    lines = [_points(line, log) for line in series]
    all_x = [x for points in lines for x, _ in points]
    all_y = [y for points in lines for _, y in points] + [float(value) for value in include]
    if not all_x:
        return Html("")
    across = horizontal_axis(0.0, max(*all_x, x_end))
    up = vertical_axis(*_limits(all_y, log), log=log)
    return figure(
        [
            *(_svg_mark(text, x, across, up) for text, x in (marks or {}).items()),
            *(_svg_line(line, own, across, up) for line, own in zip(series, lines, strict=True)),
        ],
        title=title,
        legend=[(line.name, line.colour) for line in series if line.name],
        x_label=x_label,
        across=across,
        up=up,
    )


def _limits(values: Sequence[float], log: bool) -> tuple[float, float]:
    low, high = min(values), max(values)
    if low < high:
        return low, high
    return (low / 2, high * 2) if log else (low - (abs(low) or 1) / 2, high + (abs(high) or 1) / 2)


def _points(series: Series, log: bool) -> list[tuple[float, float]]:
    """The points to draw; where there are more than pixels, means of neighbouring points."""
    points = [
        (float(x), float(y))
        for x, y in zip(series.x, series.y, strict=True)
        if math.isfinite(y) and (y > 0 or not log)
    ]
    size = math.ceil(len(points) / MAX_POINTS)
    if size <= 1:
        return points
    groups = [points[first : first + size] for first in range(0, len(points), size)]
    return [(fmean(x for x, _ in group), fmean(y for _, y in group)) for group in groups]


def _svg_line(series: Series, points: list[tuple[float, float]], across: Axis, up: Axis) -> str:
    places = [(across.place(x), up.place(y)) for x, y in points]
    if len(places) == 1:
        (x, y) = places[0]
        return f'<circle cx="{x:.1f}" cy="{y:.1f}" r="2.5" style="fill:{series.colour}"/>'
    kind = "faint" if series.faint else "line"
    pairs = " ".join(f"{x:.1f},{y:.1f}" for x, y in places)
    style = f'style="stroke:{series.colour}"'
    return f'<polyline class="{kind}" {style} points="{pairs}"/>' if places else ""


def _svg_mark(text: str, value: float, across: Axis, up: Axis) -> str:
    """A dashed line over the height of the chart, with its text on the side that has room."""
    x, is_left = across.place(value), across.place(value) < (across.start_px + across.end_px) / 2
    return (
        f'<line class="mark" x1="{x:.1f}" x2="{x:.1f}" y1="{up.start_px}" y2="{up.end_px}"/>'
        f'<text x="{x + (4 if is_left else -4):.1f}" y="{up.end_px + 12}" '
        f'text-anchor="{"start" if is_left else "end"}">{escape(text)}</text>'
    )
