"""The report of a sweep: one HTML page with table, curves, strips of samples and how it was run."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import groupby
from pathlib import Path

import torch
from PIL import Image

from cascade.evaluation.scores import short
from cascade.imaging.writing import contact_sheet, from_uint8, save_png
from cascade.reporting.curves import Series, line_chart
from cascade.reporting.page import (
    Html,
    code,
    facts,
    joined,
    note,
    page,
    picture,
    side_by_side,
    table,
    wide,
)
from cascade.reporting.scatter import Point, scatter_chart
from cascade.saving.atomic import atomic_file
from cascade.sweeping.axes import WORDS
from cascade.sweeping.results import Outcome, Sweep, find_score

MOST_STRIPS = 8
MOST_POINTS = 6  # as many as have colours of their own


def write_report(sweep: Sweep, file: Path) -> None:
    """Write the report.

    Raises:
        OutputError: if the file cannot be written.
    """
    with atomic_file(file) as temporary:
        temporary.write_text(render(sweep), encoding="utf-8")


def write_strips(sweep: Sweep, file: Path) -> None:
    """Write a picture with a row of samples for each combination that is shown, best first.

    Raises:
        OutputError: if the file cannot be written.
    """
    shown = [sweep.outcomes[place].shown for place in _shown_places(sweep)]
    count = min(len(each) for each in shown)
    rows = torch.cat([from_uint8(each[:count]) for each in shown])
    save_png(contact_sheet(rows, columns=count), file)


def render(sweep: Sweep) -> str:
    """The text of the report."""
    head, rows = sweep.table()
    sections = [
        ("What was found", _facts(sweep)),
        ("All settings, best first", joined(wide(table(head, rows)), _basis(sweep))),
        ("One setting at a time", _curves(sweep)),
        ("Quality and speed", _trade(sweep)),
        ("The same seeds", _strips(sweep)),
        ("How it was run", _about(sweep)),
    ]
    return page(f"Sweep of {sweep.pipeline}", "settings tried on held-out pictures", sections)


def _facts(sweep: Sweep) -> Html:
    best, today = sweep.outcomes[sweep.best], sweep.outcomes[sweep.today]
    values = {
        "Pipeline": sweep.pipeline,
        "Held-out pictures": sweep.data or "a source",
        "Best settings": best.candidate.text(),
        "Settings as they are": today.candidate.text(),
        f"{sweep.by} of the best": find_score(best.scores, sweep.by).text(),
        f"{sweep.by} as it is": find_score(today.scores, sweep.by).text(),
        "Chosen for": sweep.prefer,
        "Rounds": ", then ".join(f"{r.candidates} on {r.images} images" for r in sweep.rounds),
        "Seeds": f"from {sweep.seed} on",
    }
    return joined(facts(values), *(note(each) for each in sweep.notes))


def _basis(sweep: Sweep) -> Html:
    first = sweep.outcomes[0].scores
    lines = {
        score.basis(): [s.name for s in first if s.basis() == score.basis()] for score in first
    }
    text = [f"{basis}: {'; '.join(names)}" for basis, names in lines.items()]
    intervals = (
        "In brackets: between these a figure would lie in 95 of 100 cases with other images. All "
        "settings have the same seeds and pictures, so that differences are firmer than that."
    )
    return joined(note(intervals), *(note(each) for each in text))


def _curves(sweep: Sweep) -> Html:
    """For each axis of numbers, the best that each of its values reached in the first round."""
    axes = list(sweep.outcomes[0].candidate.values)
    words = next((axis for axis in axes if axis.rpartition(".")[2] in WORDS), None)
    alone = all(len(_changed(sweep, each)) <= 1 for each in sweep.outcomes)
    charts = []
    for axis in axes:
        if axis.rpartition(".")[2] in WORDS:
            continue
        lines, groups = [], _grouped(sweep.outcomes, words)
        if alone:
            groups = [("", [each for each in sweep.outcomes if _changed(sweep, each) <= {axis}])]
        for number, (name, outcomes) in enumerate(groups):
            best: dict[float, float] = {}
            for each in outcomes:
                value = find_score(each.first_scores, sweep.by).value
                place = each.candidate.values[axis]
                if not isinstance(place, str):  # stages that differ today have no common place
                    best[place] = _better(sweep, best.get(place), value)
            x = sorted(best)
            colour = f"hsl({(210 + 60 * number) % 360} 60% 50%)"
            lines.append(Series(x, [best[place] for place in x], name=name, colour=colour))
        if max(len(line.x) for line in lines) > 1:
            title = find_score(sweep.outcomes[0].scores, sweep.by).name
            charts.append(line_chart(lines, title=title, x_label=axis))
    if not charts:
        return Html("")
    text = "Each point: the best of all settings that have this value, on the images of round 1."
    if alone:
        text = "Each point: this value, and nothing else changed, on the images of round 1."
    return joined(side_by_side(charts), note(text))


def _changed(sweep: Sweep, outcome: Outcome) -> set[str]:
    """The axes in which it differs from the settings as they are."""
    own = sweep.outcomes[sweep.today].candidate.values
    return {axis for axis, value in outcome.candidate.values.items() if value != own[axis]}


def _better(sweep: Sweep, before: float | None, value: float) -> float:
    better = find_score(sweep.outcomes[0].scores, sweep.by).better
    if before is None:
        return value
    target = {"nearer to 1": 1.0, "nearer to 0": 0.0}.get(better)
    if target is not None:
        return min(before, value, key=lambda each: abs(each - target))
    return max(before, value) if better == "higher" else min(before, value)


def _grouped(outcomes: Sequence[Outcome], axis: str | None) -> list[tuple[str, list[Outcome]]]:
    if axis is None:
        return [("", list(outcomes))]
    ordered = sorted(outcomes, key=lambda each: str(each.candidate.values[axis]))
    parts = groupby(ordered, key=lambda each: str(each.candidate.values[axis]))
    return [(name, list(part)) for name, part in parts]


def _trade(sweep: Sweep) -> Html:
    places = dict.fromkeys([sweep.best, sweep.today, *range(len(sweep.outcomes))])
    points = []
    for place in list(places)[:MOST_POINTS]:
        each = sweep.outcomes[place]
        score = find_score(each.scores, sweep.by)
        points.append(
            Point(
                x=each.seconds_per_image,
                y=score.value,
                name=_title(sweep, place),
                low=score.low,
                high=score.high,
            )
        )
    title = find_score(sweep.outcomes[0].scores, sweep.by).name
    return side_by_side([scatter_chart(points, x_label="seconds per image", title=title)])


def _title(sweep: Sweep, place: int) -> str:
    marks = [word for word, at in (("best", sweep.best), ("as it is", sweep.today)) if at == place]
    text = sweep.outcomes[place].candidate.text()
    return f"{', '.join(marks)}: {text}" if marks else text


def _shown_places(sweep: Sweep) -> list[int]:
    chosen = dict.fromkeys([sweep.best, sweep.today, *range(len(sweep.outcomes))])
    return sorted(list(chosen)[:MOST_STRIPS])


def _strips(sweep: Sweep) -> Html:
    parts = []
    for place in _shown_places(sweep):
        each = sweep.outcomes[place]
        score = find_score(each.scores, sweep.by)
        caption = f"{_title(sweep, place)}; {sweep.by} {short(score.value)}"
        parts.append(picture(_strip(each), caption))
    return joined(*parts)


def _strip(outcome: Outcome) -> Image.Image:
    return contact_sheet(from_uint8(outcome.shown), columns=len(outcome.shown))


def _about(sweep: Sweep) -> Html:
    about = sweep.about
    found = {name: str(version) for name, version in about["versions"].items()}
    return joined(note(about["hardware"]), code(about["command"]), note("Versions"), facts(found))
