"""The report of a sweep: one HTML page with table, charts, samples and how the sweep was run."""

from __future__ import annotations

from pathlib import Path

import torch
from PIL import Image

from cascade.evaluation.report import reading_facts
from cascade.evaluation.tables import rounded
from cascade.imaging.writing import contact_sheet, from_uint8, save_png
from cascade.reporting.page import Html, code, facts, joined, note, page, picture, table, wide
from cascade.saving.atomic import atomic_file
from cascade.sweeping.charts import axis_charts, speed_chart
from cascade.sweeping.outcomes import Outcome, find_score
from cascade.sweeping.results import Sweep

MOST_STRIPS = 8
INTERVALS = (
    "In brackets: 95 % intervals, the range of a figure in 95 of 100 cases with other images. "
    "All settings have the same seeds and images, so differences between them are more certain "
    "than that."
)
TIMES = "Seconds per image are the median: total CPU time on a CPU, wall time elsewhere."


def write_report(sweep: Sweep, file: Path) -> None:
    """Write the report.

    Raises:
        OutputError: if the file cannot be written.
    """
    with atomic_file(file) as temporary:
        temporary.write_text(render(sweep), encoding="utf-8")


def write_strips(sweep: Sweep, file: Path) -> None:
    """Write a picture with a row of samples for each of the best candidates and the current one.

    Raises:
        OutputError: if the file cannot be written.
    """
    strips = [sweep.outcomes[place].samples for place in _shown_places(sweep)]
    count = min(len(each) for each in strips)
    rows = torch.cat([from_uint8(each[:count]) for each in strips])
    save_png(contact_sheet(rows, columns=count), file)


def render(sweep: Sweep) -> str:
    """The text of the report."""
    head, rows = sweep.table()
    sections = [
        ("Results", _facts(sweep)),
        ("All settings, best first", joined(wide(table(head, rows)), _bases(sweep))),
        ("One setting at a time", axis_charts(sweep)),
        ("Quality and speed", speed_chart(sweep)),
        ("The same seeds", _strips(sweep)),
        ("How it was run", _about(sweep)),
    ]
    return page(f"Sweep of {sweep.pipeline}", "settings tried on held-out images", sections)


def _facts(sweep: Sweep) -> Html:
    best, current = sweep.outcomes[sweep.best], sweep.outcomes[sweep.current]
    values = {
        "Pipeline": sweep.pipeline,
        "Held-out images": sweep.data or "a source",
        **reading_facts(sweep.reading),
        "Best settings": best.candidate.text(),
        "Current settings": current.candidate.text(),
        f"{sweep.by} of the best settings": find_score(best.scores, sweep.by).text(),
        f"{sweep.by} of the current settings": find_score(current.scores, sweep.by).text(),
        "Chosen for": sweep.chosen_for(),
        "Tried": sweep.tried(),
        "Seeds": f"from {sweep.seed} on",
    }
    return joined(facts(values), *(note(each) for each in sweep.notes))


def _bases(sweep: Sweep) -> Html:
    """What the figures were measured on: a line for each basis."""
    names: dict[str, list[str]] = {}
    for score in sweep.outcomes[0].scores:
        names.setdefault(score.basis(), []).append(score.name)
    lines = [f"{basis}: {'; '.join(each)}" for basis, each in names.items()]
    return joined(note(INTERVALS), note(TIMES), *(note(line) for line in lines))


def _shown_places(sweep: Sweep) -> list[int]:
    places = dict.fromkeys([sweep.best, sweep.current, *range(len(sweep.outcomes))])
    return sorted(list(places)[:MOST_STRIPS])


def _strips(sweep: Sweep) -> Html:
    parts = []
    for place in _shown_places(sweep):
        outcome = sweep.outcomes[place]
        figure = rounded(find_score(outcome.scores, sweep.by).value)
        parts.append(picture(_strip(outcome), f"{sweep.title(place)}; {sweep.by} {figure}"))
    return joined(*parts)


def _strip(outcome: Outcome) -> Image.Image:
    return contact_sheet(from_uint8(outcome.samples), columns=len(outcome.samples))


def _about(sweep: Sweep) -> Html:
    about = sweep.about
    names = {name: str(version) for name, version in about["versions"].items()}
    return joined(note(about["hardware"]), code(about["command"]), note("Versions"), facts(names))
