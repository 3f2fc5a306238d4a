"""The report of an evaluation: one HTML page with table, plot, pictures, settings and versions."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import groupby
from pathlib import Path
from typing import Any

from cascade.errors import OutputError
from cascade.evaluation.figures import Measured, Score
from cascade.evaluation.results import Evaluation
from cascade.evaluation.tables import rounded
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
from cascade.saving.atomic import atomic_file, check_writable_folder
from cascade.tasks.table import task_named

PLOTTED = ("FD", "PD")  # the first of them that was measured stands for quality


def check_outputs(*files: Path | None) -> None:
    """Check that files can be written, before work that takes long; None is left out.

    Raises:
        OutputError: if one cannot, or is named twice.
    """
    given = [file for file in files if file is not None]
    for file in given:
        if file.is_dir():
            raise OutputError(f"{file} is a folder; name a file.")
        check_writable_folder(file.parent)
    if len({file.resolve() for file in given}) < len(given):
        raise OutputError(f"{given[0]} cannot hold two kinds of results; name a file for each.")


def write_report(evaluation: Evaluation, file: Path) -> None:
    """Write the report.

    Raises:
        OutputError: if the file cannot be written.
    """
    with atomic_file(file) as temporary:
        temporary.write_text(render(evaluation), encoding="utf-8")


def render(evaluation: Evaluation) -> str:
    """The text of the report."""
    head, rows = evaluation.table()
    sections = [
        ("What was measured", _facts(evaluation)),
        ("Figures", joined(wide(table(head, rows)), _basis(evaluation))),
        ("Quality, coverage and speed", _trilemma(evaluation.measured)),
    ]
    for heading, sheets in groupby(evaluation.sheets, lambda sheet: sheet.heading):
        shown = [picture(sheet.image, sheet.caption) for sheet in sheets]
        sections.append((heading, side_by_side(shown)))
    sections += [
        ("Settings of the stages", _settings(evaluation.settings)),
        ("How it was run", _about(evaluation)),
    ]
    lead = f"{task_named(evaluation.task).description}; measured on held-out pictures"
    return page(f"Evaluation of {evaluation.pipeline}", lead, sections)


def _facts(evaluation: Evaluation) -> Html:
    whole = evaluation.whole
    values = {"Pipeline": evaluation.pipeline, "Held-out pictures": evaluation.data or "a source"}
    if evaluation.train:
        values["Training pictures"] = evaluation.train
    values["Images measured"] = f"{whole.scores[0].n}, of {whole.size_px} px"
    values["Seeds"] = f"from {evaluation.seed} on"
    values |= {each.name: each.text() for each in _headlines(whole)}
    if whole.seconds_per_image is not None:
        values["Seconds per image"] = rounded(whole.seconds_per_image)
    if evaluation.peak_memory_mib is not None:
        values["Peak memory"] = f"{evaluation.peak_memory_mib:,.0f} MiB"
    return joined(facts(values), *(note(each) for each in evaluation.notes))


def _headlines(measured: Measured) -> list[Score]:
    found = [measured.score(name) for name in ("FD", "KID", "coverage", "PSNR, dB", "PD", "LPIPS")]
    return [score for score in found if score is not None]


def _basis(evaluation: Evaluation) -> Html:
    parts = [note(line) for line in evaluation.bases()]
    intervals = (
        "In brackets: between these a figure would lie in 95 of 100 cases with other images."
    )
    return joined(note(intervals), *parts)


def _trilemma(measured: Sequence[Measured]) -> Html:
    """Quality against seconds per image, and how much of the real pictures is covered."""
    named = [each for each in measured if each.seconds_per_image is not None]
    quality = next((name for name in PLOTTED if named and named[-1].score(name)), None)
    points = []
    for each in named:
        score = None if quality is None else each.score(quality)
        if score is not None and each.seconds_per_image is not None:
            coverage = each.score("coverage")
            points.append(
                Point(
                    x=each.seconds_per_image,
                    y=score.value,
                    name=each.subject,
                    share=None if coverage is None else coverage.value,
                    low=score.low,
                    high=score.high,
                )
            )
    if not points or quality is None:
        return Html("")
    name = next(s.name for each in named if (s := each.score(quality)) is not None)
    chart = scatter_chart(points, x_label="seconds per image", title=f"{name}, lower is better")
    text = "Bars: intervals of 95 %."
    if any(point.share is not None for point in points):
        text += " Area of a dot: coverage, of which the ring is all."
    return joined(side_by_side([chart]), note(text))


def _settings(settings: Any) -> Html:
    names = list(settings)
    keys = dict.fromkeys(key for each in settings.values() for key in each)
    rows = [[key, *(str(settings[name].get(key, "")) for name in names)] for key in keys]
    return wide(table(["", *names], rows))


def _about(evaluation: Evaluation) -> Html:
    about = evaluation.about
    versions = {name: str(version) for name, version in about["versions"].items()}
    return joined(
        note(about["hardware"]), code(about["command"]), note("Versions"), facts(versions)
    )
