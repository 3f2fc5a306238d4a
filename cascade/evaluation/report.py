"""The report of an evaluation: an HTML page with table, plot, pictures, settings and versions."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import groupby
from pathlib import Path
from typing import Any

from cascade.errors import OutputError
from cascade.evaluation.calibration import CalibrationCurve
from cascade.evaluation.figures import Measured, Score
from cascade.evaluation.results import Evaluation
from cascade.evaluation.tables import rounded
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
from cascade.reporting.scatter import Point, colour_of, scatter_chart
from cascade.saving.atomic import atomic_file, check_writable_folder
from cascade.tasks.table import task_named

PLOTTED = ("FD", "PD")  # the plot shows the first of them that was measured
INTERVALS = (
    "In brackets: 95 % intervals, the range of a figure in 95 of 100 cases with other images."
)
CALIBRATED = (
    "Each point is a tenth of the pixels. Above the diagonal, errors are larger than the "
    "standard deviation over the seeds; few seeds estimate it roughly, which makes the curve "
    "look flatter than it is."
)
HEADLINES = ("FD", "KID", "coverage", "R@1", "CLIP score", "PSNR, dB", "PD", "LPIPS")


def check_output(file: Path) -> None:
    """Check that a file can be written, before work that takes long.

    Raises:
        OutputError: if it cannot.
    """
    if file.is_dir():
        raise OutputError(f"{file} is a folder; name a file.")
    check_writable_folder(file.parent)


def write_report(evaluation: Evaluation, file: Path) -> None:
    """Write the report of an evaluation as one HTML file.

    Raises:
        OutputError: if the file cannot be written.
    """
    with atomic_file(file) as temporary:
        temporary.write_text(render(evaluation), encoding="utf-8")


def render(evaluation: Evaluation) -> str:
    """Lay out the report as one HTML page."""
    head, rows = evaluation.table()
    sections = [
        ("What was measured", _facts(evaluation)),
        ("Figures", joined(wide(table(head, rows)), _basis(evaluation))),
        ("Quality, coverage and speed", _trilemma(evaluation.measured)),
        ("Uncertainty over seeds", _calibration(evaluation.calibration)),
    ]
    for heading, sheets in groupby(evaluation.sheets, lambda sheet: sheet.heading):
        pictures = [picture(sheet.image, sheet.caption) for sheet in sheets]
        sections.append((heading, side_by_side(pictures)))
    sections += [
        ("Settings of the stages", _settings(evaluation.settings)),
        ("How it was run", _about(evaluation)),
    ]
    lead = f"{task_named(evaluation.task).description}; measured on held-out images"
    return page(f"Evaluation of {evaluation.pipeline}", lead, sections)


def _facts(evaluation: Evaluation) -> Html:
    whole = evaluation.whole
    values = {"Pipeline": evaluation.pipeline, "Held-out images": evaluation.data or "a source"}
    if evaluation.train:
        values["Training images"] = evaluation.train
    values |= reading_facts(evaluation.reading)
    values["Images measured"] = f"{whole.scores[0].n}, of {whole.size_px} px"
    values["Seeds"] = f"from {evaluation.seed} on"
    values |= {each.name: each.text() for each in _headlines(whole)}
    if whole.seconds_per_image is not None:
        values["Seconds per image"] = rounded(whole.seconds_per_image)
    if evaluation.peak_memory_mib is not None:
        values["Peak memory"] = f"{evaluation.peak_memory_mib:,.0f} MiB"
    return joined(facts(values), *(note(each) for each in evaluation.notes))


def reading_facts(reading: Mapping[str, Any]) -> dict[str, str]:
    """How the numbers in the files were read, for a list of facts; nothing if it was not stated."""
    words = {
        name: " to ".join(map(str, value)) if name == "range" else str(value)
        for name, value in reading.items()
    }
    text = ", ".join(f"{name} {value}" for name, value in words.items())
    return {"Files read with": text} if text else {}


def _headlines(subject: Measured) -> list[Score]:
    scores = (subject.score(name) for name in HEADLINES)
    return [score for score in scores if score is not None]


def _basis(evaluation: Evaluation) -> Html:
    parts = [note(line) for line in evaluation.bases()]
    return joined(note(INTERVALS), *parts)


def _trilemma(subjects: Sequence[Measured]) -> Html:
    """Plot quality against seconds per image, with coverage as the area of the dots."""
    timed = [each for each in subjects if each.seconds_per_image is not None]
    quality = next((name for name in PLOTTED if timed and timed[-1].score(name)), "")
    pairs = [(each, score) for each in timed if quality and (score := each.score(quality))]
    if not pairs:
        return Html("")
    points = [_point(each, score) for each, score in pairs]
    title = f"{pairs[0][1].name}, lower is better"
    text = "Bars: 95 % intervals."
    if any(point.share is not None for point in points):
        text += " Area of a dot: coverage, relative to the ring."
    chart = scatter_chart(points, x_label="seconds per image", title=title)
    return joined(side_by_side([chart]), note(text))


def _point(subject: Measured, quality: Score) -> Point:
    assert subject.seconds_per_image is not None
    coverage = subject.score("coverage")
    return Point(
        x=subject.seconds_per_image,
        y=quality.value,
        name=subject.subject,
        share=None if coverage is None else coverage.value,
        low=quality.low,
        high=quality.high,
    )


def _calibration(curves: Sequence[CalibrationCurve]) -> Html:
    """Plot errors over the deviations that predict them, with the diagonal of calibrated ones."""
    if not curves:
        return Html("")
    top = max(value for each in curves for value in (*each.deviations, *each.errors))
    lines = [Series([0.0, top], [0.0, top], "calibrated", "var(--soft)", faint=True)]
    for number, curve in enumerate(curves):
        colour = colour_of(number) if len(curves) > 1 else "var(--line)"
        lines.append(Series(curve.deviations, curve.errors, curve.name, colour))
    unit = curves[0].unit
    chart = line_chart(
        lines,
        title=f"Root mean square error, {unit}",
        x_label=f"standard deviation over seeds, {unit}",
        x_end=top,
        include=[0.0],
    )
    return joined(side_by_side([chart]), note(CALIBRATED))


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
