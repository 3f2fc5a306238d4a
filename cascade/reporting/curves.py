"""Line charts as small SVGs that follow the page: its width, its font, light or dark.

Written by hand, since a chart by a plotting library is ten times as large, has fixed colours, and
takes seconds to import at the end of every run.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from html import escape
from statistics import fmean

from cascade.reporting.page import Html

WIDTH, HEIGHT = 420, 230
LEFT, RIGHT, TOP, BOTTOM = 52, 10, 8, 40
MOST_POINTS = 400
SMOOTHING_PARTS = 40


@dataclass(frozen=True)
class Series:
    """One line of a chart.

    Attributes:
        x: places, rising.
        y: values; those that are not finite are left out.
        name: for the legend; empty for none.
        colour: a CSS colour, such as `var(--line)`.
        faint: thin and pale, for values that scatter around another line.
    """

    x: Sequence[float]
    y: Sequence[float]
    name: str = ""
    colour: str = "var(--line)"
    faint: bool = False


def with_running_mean(x: Sequence[float], y: Sequence[float]) -> list[Series]:
    """Scattered values, pale, and the mean over a fortieth of them around each place."""
    points = [(a, b) for a, b in zip(x, y, strict=True) if math.isfinite(b)]
    x, y = [a for a, _ in points], [b for _, b in points]
    return [Series(x, y, faint=True), Series(x, running_mean(y, len(y) // SMOOTHING_PARTS))]


def running_mean(values: Sequence[float], window: int) -> list[float]:
    """Mean of the values up to half a window before and after each; fewer at the ends."""
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
) -> Html:
    """Draw lines over a common axis.

    Args:
        series: at least one value in all.
        title: above the chart, also for screen readers.
        x_label: below the axis, which begins at 0.
        x_end: how far it goes at least, so that charts beside each other have the same one.
        log: whether the values are laid out by their logarithm; those at or below 0 are left out.
        include: values that the axis must reach, such as 0.

    Returns:
        A figure with title, legend and SVG.
    """
    lines = [_visible(each, log) for each in series]
    all_x = [x for points in lines for x, _ in points]
    all_y = [y for points in lines for _, y in points] + [float(value) for value in include]
    if not all_x:
        return Html("")
    across = Axis(0.0, max(*all_x, x_end), LEFT, WIDTH - RIGHT)
    up = Axis(*_limits(all_y, log), HEIGHT - BOTTOM, TOP, log=log)
    drawn = [
        *(y_tick(value, up) for value in up.ticks()),
        *(x_tick(value, across) for value in across.ticks()),
        *(_path(each, points, across, up) for each, points in zip(series, lines, strict=True)),
        f'<text class="axis" x="{(LEFT + WIDTH - RIGHT) / 2}" y="{HEIGHT - 4}" '
        f'text-anchor="middle">{escape(x_label)}</text>',
    ]
    return Html(
        f'<figure class="chart"><figcaption>{escape(title)}{_legend(series)}</figcaption>'
        f'<svg viewBox="0 0 {WIDTH} {HEIGHT}" role="img" aria-label="{escape(title)}">'
        f"{''.join(drawn)}</svg></figure>"
    )


def short_number(value: float) -> str:
    """A number with three figures at most: 0, 0.025, 12, 250 k, 1.5 M."""
    for size, unit in ((1e9, " G"), (1e6, " M"), (1e3, " k")):
        if abs(value) >= size:
            return f"{value / size:.3g}{unit}"
    return f"{value:.0e}" if 0 < abs(value) < 1e-3 else f"{value:.3g}"


@dataclass(frozen=True)
class Axis:
    """Maps values to pixels.

    Attributes:
        low: value at the start.
        high: value at the end.
        start_px: where that is.
        end_px: the same.
        log: whether values are laid out by their logarithm.
    """

    low: float
    high: float
    start_px: float
    end_px: float
    log: bool = False

    def place(self, value: float) -> float:
        """Pixels of a value."""
        low, high, value = (self._scaled(v) for v in (self.low, self.high, value))
        share = (value - low) / (high - low) if high > low else 0.5
        return self.start_px + share * (self.end_px - self.start_px)

    def _scaled(self, value: float) -> float:
        return math.log10(value) if self.log else value

    def ticks(self) -> list[float]:
        """Round values between the ends, four to seven of them where possible."""
        if self.log:
            ticks = _log_ticks(self.low, self.high)
            if len(ticks) >= 3:
                return ticks
        span = self.high - self.low
        if span <= 0:
            return [self.low]
        rough = span / 5
        size = 10 ** math.floor(math.log10(rough))
        step = next(m * size for m in (1, 2, 2.5, 5, 10) if m * size >= rough)
        first = math.ceil(self.low / step - 1e-9)
        count = math.floor(self.high / step + 1e-9) - first + 1
        return [round((first + number) * step, 12) for number in range(count)]


def _log_ticks(low: float, high: float) -> list[float]:
    decades = range(math.floor(math.log10(low)), math.ceil(math.log10(high)) + 1)
    for factors in ((1,), (1, 3), (1, 2, 5)):
        ticks = [f * 10.0**d for d in decades for f in factors if low <= f * 10.0**d <= high]
        if len(ticks) >= 3:
            break
    return ticks[:: math.ceil(len(ticks) / 7) or 1]


def _limits(values: Sequence[float], log: bool) -> tuple[float, float]:
    low, high = min(values), max(values)
    if low < high:
        return low, high
    return (low / 2, high * 2) if log else (low - (abs(low) or 1) / 2, high + (abs(high) or 1) / 2)


def _visible(series: Series, log: bool) -> list[tuple[float, float]]:
    """Finite points; where there are more than pixels, the mean of each group of neighbours."""
    points = [
        (float(x), float(y))
        for x, y in zip(series.x, series.y, strict=True)
        if math.isfinite(y) and (y > 0 or not log)
    ]
    size = math.ceil(len(points) / MOST_POINTS)
    if size <= 1:
        return points
    groups = [points[first : first + size] for first in range(0, len(points), size)]
    return [(fmean(x for x, _ in group), fmean(y for _, y in group)) for group in groups]


def _path(series: Series, points: list[tuple[float, float]], across: Axis, up: Axis) -> str:
    places = [(across.place(x), up.place(y)) for x, y in points]
    style = f'style="stroke:{series.colour}"'
    if len(places) == 1:
        (x, y) = places[0]
        return f'<circle cx="{x:.1f}" cy="{y:.1f}" r="2.5" style="fill:{series.colour}"/>'
    kind = "faint" if series.faint else "line"
    drawn = " ".join(f"{x:.1f},{y:.1f}" for x, y in places)
    return f'<polyline class="{kind}" {style} points="{drawn}"/>' if places else ""


def y_tick(value: float, axis: Axis) -> str:
    """Number and rule of a value of the vertical axis, as SVG."""
    y = axis.place(value)
    return (
        f'<line class="rule" x1="{LEFT}" x2="{WIDTH - RIGHT}" y1="{y:.1f}" y2="{y:.1f}"/>'
        f'<text class="axis" x="{LEFT - 6}" y="{y + 4:.1f}" text-anchor="end">'
        f"{short_number(value)}</text>"
    )


def x_tick(value: float, axis: Axis) -> str:
    """Number below a value of the horizontal axis, as SVG."""
    return (
        f'<text class="axis" x="{axis.place(value):.1f}" y="{HEIGHT - BOTTOM + 17}" '
        f'text-anchor="middle">{short_number(value)}</text>'
    )


def _legend(series: Sequence[Series]) -> str:
    entries = [
        f'<span class="key"><i style="background:{each.colour}"></i>{escape(each.name)}</span>'
        for each in series
        if each.name
    ]
    return f'<span class="keys">{"".join(entries)}</span>' if entries else ""
