"""The charts of a sweep's report: the deciding figure over each axis, and over the time."""

from __future__ import annotations

from collections.abc import Sequence

from cascade.evaluation.figures import Score
from cascade.reporting.curves import Series, line_chart
from cascade.reporting.page import Html, joined, note, side_by_side
from cascade.reporting.scatter import Point, scatter_chart
from cascade.sampling.settings import SETTINGS
from cascade.sweeping.outcomes import Outcome, badness, find_score
from cascade.sweeping.results import Sweep

MOST_POINTS = 6  # as many as have colours of their own
ALL_TOGETHER = (
    "Each point: the best of all settings that have this value, on the images of round 1."
)
ONE_AT_A_TIME = "Each point: this value, and nothing else changed, on the images of round 1."


def axis_charts(sweep: Sweep) -> Html:
    """Draw a chart for each numeric axis: the best figure of each of its values in round 1.

    If several settings change at once, there is a line for each value of the first axis that is not
    numeric, such as samplers.
    """
    changes_one = all(len(_changed_axes(sweep, each)) <= 1 for each in sweep.outcomes)
    charts = []
    for axis in _numeric_axes(sweep.outcomes):
        if changes_one:
            part = [each for each in sweep.outcomes if _changed_axes(sweep, each) <= {axis}]
            groups = {"": part}
        else:
            groups = _groups(sweep.outcomes)
        lines = [
            _line(sweep, axis, name, outcomes, f"hsl({(210 + 60 * number) % 360} 60% 50%)")
            for number, (name, outcomes) in enumerate(groups.items())
        ]
        if max(len(line.x) for line in lines) > 1:
            charts.append(line_chart(lines, title=_figure_name(sweep), x_label=axis))
    if not charts:
        return Html("")
    return joined(side_by_side(charts), note(ONE_AT_A_TIME if changes_one else ALL_TOGETHER))


def speed_chart(sweep: Sweep) -> Html:
    """Draw the deciding figure of the best candidates over their seconds per image."""
    places = dict.fromkeys([sweep.best, sweep.current, *range(len(sweep.outcomes))])
    points = []
    for place in list(places)[:MOST_POINTS]:
        outcome = sweep.outcomes[place]
        score = find_score(outcome.scores, sweep.by)
        points.append(
            Point(
                x=outcome.seconds_per_image,
                y=score.value,
                name=sweep.title(place),
                low=score.low,
                high=score.high,
            )
        )
    chart = scatter_chart(points, x_label="seconds per image", title=_figure_name(sweep))
    return side_by_side([chart])


def _figure_name(sweep: Sweep) -> str:
    return find_score(sweep.outcomes[0].scores, sweep.by).name


def _changed_axes(sweep: Sweep, outcome: Outcome) -> set[str]:
    """The axes in which a candidate differs from the current settings.

    An option that another sampler lacks, whose value is None, is not a change of its own.
    """
    current = sweep.outcomes[sweep.current].candidate.values
    return {
        axis
        for axis, value in outcome.candidate.values.items()
        if value != current[axis] and not (value is None and _is_option(axis))
    }


def _is_option(axis: str) -> bool:
    """Whether an axis is an option of samplers, such as `base.eta`."""
    return axis.rpartition(".")[2] not in SETTINGS


def _numeric_axes(outcomes: Sequence[Outcome]) -> list[str]:
    return [
        axis
        for axis in outcomes[0].candidate.values
        if any(_is_number(each.candidate.values[axis]) for each in outcomes)
    ]


def _is_number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _groups(outcomes: Sequence[Outcome]) -> dict[str, list[Outcome]]:
    """Group the outcomes by their value on the first axis that is not numeric."""
    numeric = _numeric_axes(outcomes)
    axis = next((each for each in outcomes[0].candidate.values if each not in numeric), None)
    groups: dict[str, list[Outcome]] = {}
    for outcome in outcomes:
        name = "" if axis is None else str(outcome.candidate.values[axis])
        groups.setdefault(name, []).append(outcome)
    return dict(sorted(groups.items()))


def _line(sweep: Sweep, axis: str, name: str, outcomes: Sequence[Outcome], colour: str) -> Series:
    """The line of the best figure for each value.

    A text stands for stages whose values differ, and has no place on the axis.
    """
    best: dict[float, Score] = {}
    for outcome in outcomes:
        value = outcome.candidate.values[axis]
        if _is_number(value):
            score = find_score(outcome.first_scores, sweep.by)
            best[value] = min(best.get(value, score), score, key=badness)
    x = sorted(best)
    return Series(x, [best[value].value for value in x], name=name, colour=colour)
