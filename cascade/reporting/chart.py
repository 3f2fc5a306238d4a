"""Parts that all charts share: size, axes with round ticks, title and legend.

Charts are small SVGs that follow the page: its width, its font, light or dark. They are written by
hand, because a plotting library would produce ten times the size with fixed colours, and would
take seconds to import at the end of every run.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from html import escape

from cascade.reporting.page import Html

WIDTH, HEIGHT = 420, 230
LEFT, RIGHT, TOP, BOTTOM = 52, 10, 8, 40  # margins


@dataclass(frozen=True)
class Axis:
    """Maps values to pixels.

    Attributes:
        low: value at the start.
        high: value at the end; equal to `low` if there is only one value.
        start_px: position of `low`.
        end_px: position of `high`; smaller than `start_px` on an axis that points up.
        log: whether the axis is logarithmic; all values must then be above 0.
    """

    low: float
    high: float
    start_px: float
    end_px: float
    log: bool = False

    def place(self, value: float) -> float:
        """The position of a value in pixels."""
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
        return _linear_ticks(self.low, self.high)


def _linear_ticks(low: float, high: float) -> list[float]:
    if high <= low:
        return [low]
    rough = (high - low) / 5
    size = 10 ** math.floor(math.log10(rough))
    step = next(m * size for m in (1, 2, 2.5, 5, 10) if m * size >= rough)
    first = math.ceil(low / step - 1e-9)
    count = math.floor(high / step + 1e-9) - first + 1
    return [round((first + number) * step, 12) for number in range(count)]


def _log_ticks(low: float, high: float) -> list[float]:
    decades = range(math.floor(math.log10(low)), math.ceil(math.log10(high)) + 1)
    for factors in ((1,), (1, 3), (1, 2, 5)):
        ticks = [f * 10.0**d for d in decades for f in factors if low <= f * 10.0**d <= high]
        if len(ticks) >= 3:
            break
    return ticks[:: math.ceil(len(ticks) / 7) or 1]


def horizontal_axis(low: float, high: float, *, log: bool = False) -> Axis:
    """An axis over the width of the chart."""
    return Axis(low, high, LEFT, WIDTH - RIGHT, log=log)


def vertical_axis(low: float, high: float, *, log: bool = False) -> Axis:
    """An axis over the height of the chart; large values are at the top."""
    return Axis(low, high, HEIGHT - BOTTOM, TOP, log=log)


def short_number(value: float) -> str:
    """Format a number with at most three digits: 0, 0.025, 12, 250 k, 1.5 M."""
    for size, unit in ((1e9, " G"), (1e6, " M"), (1e3, " k")):
        if abs(value) >= size:
            return f"{value / size:.3g}{unit}"
    return f"{value:.0e}" if 0 < abs(value) < 1e-3 else f"{value:.3g}"


def figure(
    marks: Iterable[str],
    *,
    title: str,
    legend: Sequence[tuple[str, str]],
    x_label: str,
    across: Axis,
    up: Axis,
) -> Html:
    """Put a chart together.

    Args:
        marks: SVG of the lines or points.
        title: text above the chart, also for screen readers.
        legend: name and CSS colour of each entry.
        x_label: text below the horizontal axis.
        across: the horizontal axis.
        up: the vertical axis.
    """
    parts = [
        *(_y_tick(value, up) for value in up.ticks()),
        *(_x_tick(value, across) for value in across.ticks()),
        *marks,
        f'<text class="axis" x="{(LEFT + WIDTH - RIGHT) / 2}" y="{HEIGHT - 4}" '
        f'text-anchor="middle">{escape(x_label)}</text>',
    ]
    return Html(
        f'<figure class="chart"><figcaption>{escape(title)}{_legend(legend)}</figcaption>'
        f'<svg viewBox="0 0 {WIDTH} {HEIGHT}" role="img" aria-label="{escape(title)}">'
        f"{''.join(parts)}</svg></figure>"
    )


def _y_tick(value: float, axis: Axis) -> str:
    y = axis.place(value)
    return (
        f'<line class="rule" x1="{LEFT}" x2="{WIDTH - RIGHT}" y1="{y:.1f}" y2="{y:.1f}"/>'
        f'<text class="axis" x="{LEFT - 6}" y="{y + 4:.1f}" text-anchor="end">'
        f"{short_number(value)}</text>"
    )


def _x_tick(value: float, axis: Axis) -> str:
    x, anchor = axis.place(value), "middle"
    if x > WIDTH - 2 * RIGHT:  # half of its text would lie outside of the chart
        x, anchor = WIDTH, "end"
    return (
        f'<text class="axis" x="{x:.1f}" y="{HEIGHT - BOTTOM + 17}" '
        f'text-anchor="{anchor}">{short_number(value)}</text>'
    )


def _legend(entries: Sequence[tuple[str, str]]) -> str:
    keys = [
        f'<span class="key"><i style="background:{colour}"></i>{escape(name)}</span>'
        for name, colour in entries
    ]
    return f'<span class="keys">{"".join(keys)}</span>' if keys else ""
