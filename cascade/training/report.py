"""The `report.html` of a run: its stage, curves, samples, data, recipe and versions.

The report is made from the files in the run's folder alone, so it covers all parts of a run and
can be made again at any time.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from PIL import Image, UnidentifiedImageError

from cascade.data.remote import without_secrets
from cascade.reporting.page import (
    Html,
    code,
    counts,
    facts,
    joined,
    note,
    page,
    picture,
    side_by_side,
    table,
)
from cascade.saving.atomic import atomic_file
from cascade.training.parting import waited
from cascade.training.report_curves import meter_curves, training_curves, validation_curves
from cascade.training.run_record import RunRecord, read_run

MAX_GRIDS = 4
MAX_ROWS = 100
MAX_NAMES = 200
MAX_PARTS = 10


def write_report(folder: Path) -> Path:
    """Write `report.html` into the folder of a run.

    Returns:
        The file.

    Raises:
        DataError: if there is no run in the folder.
        OutputError: if the report cannot be written.
    """
    run = read_run(folder)
    file = folder / "report.html"
    with atomic_file(file) as temporary:
        temporary.write_text(render(run), encoding="utf-8")
    return file


def render(run: RunRecord) -> str:
    """The report as the text of an HTML file."""
    name = run.folder.resolve().name if run.recipe is None else run.recipe.name
    description = "" if run.recipe is None else run.recipe.description
    sections = [
        *progress_sections(run),
        ("Data", _data(run)),
        ("Recipe", _recipe(run.folder)),
        ("How it was run", _parts(run)),
    ]
    return page(name, description, sections)


def progress_sections(run: RunRecord) -> list[tuple[str, Html]]:
    """The heading and content of the sections that change while a run trains."""
    return [
        ("What was trained", _facts(run)),
        ("Samples", _samples(run)),
        ("Training", training_curves(run)),
        ("Validation loss", validation_curves(run)),
        ("Meters", meter_curves(run)),
    ]


def _facts(run: RunRecord) -> Html:
    stage, parts = run.about.get("stage", {}), run.about.get("parts", [])
    values = {"Stage": "unknown"}
    if stage:
        values["Stage"] = f"{stage['takes']} → {stage['gives']}"
        values["Network"] = f"{stage['network']}, {stage['parameters'] / 1e6:.2f} M parameters"
        values["Predicts"] = stage["prediction"]
    values["Images seen"] = f"{run.images_seen:,}{_remainder(run)}"
    values["Training time"] = _duration(run.seconds)
    if run.seconds:
        values["Speed"] = f"{run.images_seen / run.seconds:,.1f} images/s, everything included"
    if parts:
        values["Hardware"] = parts[-1]["hardware"]
    if run.steps and run.steps[-1].get("bad_steps"):
        values["Skipped steps"] = f"{run.steps[-1]['bad_steps']:,} were not finite"
    return facts(values)


def _remainder(run: RunRecord) -> str:
    total = None if run.recipe is None else run.recipe.train.images
    if total is None or run.images_seen >= total:
        return ""
    patience = run.recipe.train.patience if run.recipe is not None else 0
    if 0 < patience <= waited([line["loss"] for line in run.validation]):
        return f" of {total:,}; stopped early, after {patience} measurements without a lower loss"
    return f" of {total:,}; not finished, the same command resumes it"


def _samples(run: RunRecord) -> Html:
    grids = [grid for images in _spread(sorted(run.grids)) for grid in _grid(run, images)]
    if not grids:
        return Html("")
    text = "Sampled with averaged weights, always with the same seeds and labels."
    columns = run.about.get("grid", [])
    if len(columns) > 1:
        text += f" In groups of {len(columns)}: {', '.join(columns)}."
    return joined(side_by_side(grids), note(text))


def _grid(run: RunRecord, images: int) -> list[Html]:
    """The grid after a number of images, or none if the file is not a readable picture."""
    try:
        with Image.open(run.grids[images]) as grid:
            return [picture(grid.convert("RGB"), f"after {images:,} images")]
    except (OSError, UnidentifiedImageError, Image.DecompressionBombError):
        return []


def _spread(numbers: Sequence[int]) -> list[int]:
    """The first, the last, and a few evenly between."""
    if len(numbers) <= MAX_GRIDS:
        return list(numbers)
    last = len(numbers) - 1
    return [numbers[round(place * last / (MAX_GRIDS - 1))] for place in range(MAX_GRIDS)]


def _data(run: RunRecord) -> Html:
    data, broken = run.about.get("data", {}), run.about.get("broken", [])
    values = {}
    if run.recipe is not None:
        values["Source"] = without_secrets(run.recipe.data.path)
    if data:
        values["Images"] = f"{data['images']:,}"
    if broken:
        values["Broken"] = f"{len(broken):,}, skipped"
    if not values:
        return Html("")
    return joined(facts(values), *_classes(data.get("classes", {})), *_broken(broken))


def _classes(classes: Mapping[str, Mapping[str, int]]) -> list[Html]:
    parts = []
    for field, names in classes.items():
        listing = dict(list(names.items())[:MAX_NAMES])
        limit = "" if len(listing) == len(names) else f", of which the first {MAX_NAMES}"
        parts += [note(f"{field}: {len(names):,} names{limit}"), counts(listing)]
    return parts


def _broken(broken: Sequence[str]) -> list[Html]:
    if not broken:
        return []
    parts = [table(["broken images"], [[line] for line in broken[:MAX_ROWS]])]
    if len(broken) > MAX_ROWS:
        parts.append(note(f"and {len(broken) - MAX_ROWS:,} more"))
    return parts


def _recipe(folder: Path) -> Html:
    try:
        text = (folder / "recipe.yaml").read_text(encoding="utf-8")
    except OSError:
        return Html("")
    return code(without_secrets(text.strip()))


def _parts(run: RunRecord) -> Html:
    parts = run.about.get("parts", [])
    if not parts:
        return Html("")
    blocks = [
        joined(
            note(f"from image {part['from_images']:,}, {part['started']}, {part['hardware']}"),
            code(part["command"]),
            *(note(f"with {change}") for change in part["changes"]),
        )
        for part in parts[-MAX_PARTS:]
    ]
    if len(parts) > MAX_PARTS:
        blocks.insert(0, note(f"{len(parts)} parts, of which the last {MAX_PARTS}:"))
    versions = {name: str(version) for name, version in parts[-1]["versions"].items()}
    return joined(*blocks, note("Versions of the last part"), facts(versions))


def _duration(seconds: float) -> str:
    minutes, hours, days = seconds / 60, seconds / 3600, seconds / 86400
    if minutes < 2:
        return f"{seconds:.0f} s"
    if hours < 2:
        return f"{minutes:.0f} min"
    return f"{hours:.1f} h" if days < 2 else f"{days:.1f} days"
